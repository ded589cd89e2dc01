"""What happens on the simulated node: a quarter of an hour of a busy inference server, for ever.

Each GPU has its own trace, recorded once, a point a second: requests come in waves, and every five
minutes there is a surge that most GPUs of the node take part in. Everything after that is cause and
effect: load draws power up to the limit, power heats with a lag, the surge's requests fill the
KV cache. A trace depends on the board and the GPU's index alone, and its sums are kept beside it,
so that a counter is right at any time, no matter when it was last asked for.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from itertools import accumulate, pairwise
from zlib import crc32

from exporter.frozen import dataclass
from exporter.simulate.board import Board

LOOP_SECONDS = 900
WARM_UP_SECONDS = 240  # many time constants: the loop's end meets its beginning
SURGE_EVERY_SECONDS = 300
FIRST_SURGE_SECONDS = 60
SURGE_SECONDS = 50  # at most

# nvmlClocksEventReason* bits.
GPU_IDLE = 0x1
SW_POWER_CAP = 0x4
SW_THERMAL_SLOWDOWN = 0x20
DISPLAY_CLOCK = 0x100

AMBIENT_CELSIUS = 27.0
HEATING_SECONDS = 16.0  # time constant of core and heat sink
CACHE_FILL_SECONDS, CACHE_DRAIN_SECONDS = 9.0, 28.0
HOT_GPU, HOT_CELSIUS = 3, 18.0  # behind the others in the stream of air
THERMAL_POWER_SHARE = 0.9
LIGHT_LOAD = 0.4


@dataclass(frozen=True, slots=True)
class Moment:
    """One GPU at one time: levels, and sums since the start.

    Shares are parts of what the board has: `memory_share` of its memory, `pcie_share` and
    `nvlink_share` of the links' bandwidth in the busier direction.
    """

    seconds: float
    load_ratio: float
    memory_share: float
    core_celsius: float
    clock_ratio: float  # of the clock under load
    power_watts: float
    pcie_share: float
    nvlink_share: float
    reasons: int
    energy_joules: float
    pcie_share_seconds: float
    nvlink_share_seconds: float
    idle_seconds: float
    power_cap_seconds: float
    thermal_seconds: float


class Level:
    """A quantity that changes evenly between one second and the next."""

    __slots__ = ("_points",)

    def __init__(self, points: Iterable[float]) -> None:
        # Multiples of 2**-10 add up without error: no counter steps back where the loop closes.
        exact = [round(point * 1024) / 1024 for point in points]
        self._points = array("f", [*exact, exact[0]])

    def at(self, second: int, part: float) -> float:
        """Return the value `part` of a second after a second of the loop."""
        before, after = self._points[second], self._points[second + 1]
        return before + (after - before) * part


class Rate(Level):
    """A level with its integral."""

    __slots__ = ("_sums",)

    def __init__(self, points: Iterable[float]) -> None:
        super().__init__(points)
        areas = ((a + b) / 2 for a, b in pairwise(self._points))
        self._sums = array("d", accumulate(areas, initial=0.0))

    def total(self, loops: float, second: int, part: float) -> float:
        """Return the integral since the start of the first loop."""
        rest = (self._points[second] + self.at(second, part)) / 2 * part
        return loops * self._sums[-1] + (self._sums[second] + rest)


class Reasons:
    """Clock event reasons, each second's bits, and how long those that the scenario has held."""

    __slots__ = ("_bits", "_held")

    def __init__(self, bits: Iterable[int]) -> None:
        self._bits = array("H", bits)
        self._held = {
            bit: array("H", accumulate((bits & bit != 0 for bits in self._bits), initial=0))
            for bit in (GPU_IDLE, SW_POWER_CAP, SW_THERMAL_SLOWDOWN)
        }

    def at(self, second: int) -> int:
        """Return the bits of a second of the loop."""
        return self._bits[second]

    def held_seconds(self, bit: int, loops: float, second: int, part: float) -> float:
        """Return how long `bit` has been set since the start of the first loop."""
        held = self._held[bit]
        return loops * held[-1] + held[second] + (part if self._bits[second] & bit else 0.0)


class Trace:
    """What one GPU goes through, for ever."""

    def __init__(self, board: Board, gpu: int) -> None:
        steps = _record(board, gpu)
        self._load = Level(step.load for step in steps)
        self._memory = Level(step.memory for step in steps)
        self._celsius = Level(step.celsius for step in steps)
        self._clock = Level(step.clock for step in steps)
        self._watts = Rate(step.watts for step in steps)
        self._pcie = Rate(step.pcie for step in steps)
        self._nvlink = Rate(step.nvlink for step in steps)
        self._reasons = Reasons(step.reasons for step in steps)

    def load_ratio(self, seconds: float) -> float:
        """Return the load `seconds` after the start; before it, that of the start."""
        second, part = divmod(max(seconds, 0.0) % LOOP_SECONDS, 1.0)
        return self._load.at(int(second), part)

    def at(self, seconds: float) -> Moment:
        """Return the moment `seconds` after the start; before it, the start."""
        seconds = max(seconds, 0.0)
        loops, rest = divmod(seconds, LOOP_SECONDS)
        second = int(rest)
        part = rest - second
        return Moment(
            seconds=seconds,
            load_ratio=self._load.at(second, part),
            memory_share=self._memory.at(second, part),
            core_celsius=self._celsius.at(second, part),
            clock_ratio=self._clock.at(second, part),
            power_watts=self._watts.at(second, part),
            pcie_share=self._pcie.at(second, part),
            nvlink_share=self._nvlink.at(second, part),
            reasons=self._reasons.at(second),
            energy_joules=self._watts.total(loops, second, part),
            pcie_share_seconds=self._pcie.total(loops, second, part),
            nvlink_share_seconds=self._nvlink.total(loops, second, part),
            idle_seconds=self._reasons.held_seconds(GPU_IDLE, loops, second, part),
            power_cap_seconds=self._reasons.held_seconds(SW_POWER_CAP, loops, second, part),
            thermal_seconds=self._reasons.held_seconds(SW_THERMAL_SLOWDOWN, loops, second, part),
        )


@dataclass(frozen=True, slots=True)
class _Step:
    load: float
    memory: float
    celsius: float
    clock: float
    watts: float
    pcie: float
    nvlink: float
    reasons: int


def _record(board: Board, gpu: int) -> list[_Step]:
    full_celsius = board.cooling.full_load_celsius + 6 * (_noise(gpu, 0, "cooling") - 0.5)
    full_celsius += HOT_CELSIUS if gpu % 8 == HOT_GPU else 0.0
    step = _Step(0.5, 0.65, 55.0, 1.0, 0.5 * board.power.default_watts, 0.0, 0.0, 0)
    steps = []
    for second in range(-WARM_UP_SECONDS, LOOP_SECONDS):
        step = _next(board, gpu, second % LOOP_SECONDS, full_celsius, step)
        steps.append(step)
    return steps[WARM_UP_SECONDS:]


def _next(board: Board, gpu: int, second: int, full_celsius: float, last: _Step) -> _Step:
    surge = _surge(gpu, second)
    load = _load(gpu, second, surge)
    jitter = _noise(gpu, second, "jitter")

    limit = board.power.default_watts
    wanted = board.power.idle_watts + (1.13 * limit - board.power.idle_watts) * load**1.15
    wanted *= 0.97 + 0.06 * jitter
    too_hot = _is_too_hot(board, last)
    allowed = limit * (THERMAL_POWER_SHARE if too_hot else 0.975 + 0.025 * jitter)
    watts = min(wanted, allowed)

    warmth = AMBIENT_CELSIUS + (full_celsius - AMBIENT_CELSIUS) * watts / limit
    cache = 0.56 + 0.13 * load + 0.18 * surge + 0.03 * (_noise(gpu, 0, "cache") - 0.5)
    pace = CACHE_FILL_SECONDS if cache > last.memory else CACHE_DRAIN_SECONDS
    offloads = 0.3 if board.nvlinks is None else 0.12  # without NVLink, GPUs talk over PCIe
    return _Step(
        load=load,
        memory=last.memory + (cache - last.memory) / pace,
        celsius=last.celsius + (warmth - last.celsius) / HEATING_SECONDS,
        clock=(watts / wanted) ** 2.2,
        watts=watts,
        pcie=0.002 + offloads * load * (0.5 + 0.5 * _noise(gpu, second, "pcie")) + 0.14 * surge,
        nvlink=load * (0.22 + 0.1 * _noise(gpu, second, "nvlink")) + 0.12 * surge,
        reasons=(
            (GPU_IDLE if load == 0.0 else 0)
            | (SW_THERMAL_SLOWDOWN if too_hot else 0)
            | (SW_POWER_CAP if wanted > allowed and not too_hot else 0)
            | (DISPLAY_CLOCK if board.drives_display and load < LIGHT_LOAD else 0)
        ),
    )


def _is_too_hot(board: Board, last: _Step) -> bool:
    """Tell whether the driver slows down: from the highest temperature on, until 2 degrees less."""
    highest = board.cooling.gpu_max_celsius
    if highest is None:
        return False
    return last.celsius >= highest - (2.0 if last.reasons & SW_THERMAL_SLOWDOWN else 0.0)


def _surge(gpu: int, second: int) -> float:
    """Return how much of a surge this GPU takes at a time: 0 to 1. Two in three take it all."""
    number, since = divmod(second - FIRST_SURGE_SECONDS, SURGE_EVERY_SECONDS)
    if since > SURGE_SECONDS:
        return 0.0
    begins = 3.0 * _noise(gpu, number, "begin")
    ends = 43.0 + 5.0 * _noise(gpu, number, "end")
    shape = min(1.0, (since - begins) / 4.0, (ends - since) / 5.0)
    return max(0.0, shape) * (1.0 if (number - gpu) % 3 != 1 else 0.45)


def _load(gpu: int, second: int, surge: float) -> float:
    """Return the share of time with kernels running: waves of requests, lulls, and surges."""
    tide = math.sin(math.tau * ((second - 5) / SURGE_EVERY_SECONDS + 0.045 * gpu))
    swell = math.sin(math.tau * (second / 75 + 0.31 * gpu))
    usual = 0.54 + 0.12 * tide + 0.06 * swell
    usual += 0.2 * (_drift(gpu, second, 10) - 0.5) + 0.16 * (_noise(gpu, second, "load") - 0.5)
    usual = 0.0 if _is_lull(gpu, second) else min(usual, 0.9)
    if surge == 0.0:
        return usual
    full = 0.97 + 0.03 * _noise(gpu, second, "full")
    return usual + (full - usual) * surge


def _is_lull(gpu: int, second: int) -> bool:
    """Tell whether no request is there: for some seconds in one minute of six."""
    minute, since = divmod(second, 60)
    if _noise(gpu, minute, "lull") > 1 / 6:
        return False
    begins = 8.0 + 40.0 * _noise(gpu, minute, "lull begin")
    return 0.0 <= since - begins < 2.0 + 4.0 * _noise(gpu, minute, "lull end")


def _drift(gpu: int, second: int, every: int) -> float:
    """Return noise that takes `every` seconds to change: 0 to 1."""
    number, since = divmod(second, every)
    before = _noise(gpu, number, "drift")
    after = _noise(gpu, (number + 1) % (LOOP_SECONDS // every), "drift")
    return before + (after - before) * since / every


def _noise(gpu: int, number: int, what: str) -> float:
    """Return a number from 0 to 1 that looks like chance and is always the same."""
    return scatter(f"{what}/{gpu}/{number}") / 0xFFFFFFFF


def scatter(text: str) -> int:
    """Return 32 bits that look like chance: a checksum alone is too alike for like texts."""
    bits = crc32(text.encode())
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        bits = ((bits ^ bits >> shift) * factor) & 0xFFFFFFFF
    return bits ^ bits >> 16
