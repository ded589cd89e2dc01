"""What the poller keeps of one GPU between two ticks, and how it is read."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from dataclasses import field, replace
from typing import Any

from exporter.crew import Job
from exporter.frozen import dataclass
from exporter.processes_view import Limits
from exporter.sampling import (
    DeviceGoneError,
    Driver,
    DriverGoneError,
    Fault,
    FoundGpu,
    OpenDevice,
    Reader,
    ReadFailedError,
    Tier,
)
from exporter.snapshot import Gpu

log = logging.getLogger(__name__)

# With one of these, a GPU is opened and read anew at the pace of the slow tier.
GIVEN_UP = {Fault.LOST, Fault.RESET_REQUIRED, Fault.NO_PERMISSION}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is read of a GPU, and how often, in seconds.

    A GPU that has not answered after `deadline_seconds` counts as hung. `limits` bounds what is
    shown of processes.
    """

    readers: tuple[Reader[Any], ...]
    fast_seconds: float
    slow_seconds: float
    blocking_seconds: float
    deadline_seconds: float
    mig_seconds: float = 5.0
    limits: Limits = field(default_factory=Limits)

    @property
    def max_gap_seconds(self) -> float:
        """Longest hole between two readings that a rate or an integral bridges."""
        return 3 * self.fast_seconds

    def period_seconds(self, tier: Tier) -> float:
        """Return the time between two readings of a tier."""
        if tier is Tier.SLOW:
            return self.slow_seconds
        if tier is Tier.MIG:
            return self.mig_seconds
        if tier is Tier.BLOCKING:
            return self.blocking_seconds
        return math.inf if tier is Tier.STATIC else 0.0  # fast: at every tick


@dataclasses.dataclass(slots=True)
class Outcome:
    """What reading a GPU gave: by group a reading (None where it failed), seconds, and errors."""

    device: OpenDevice | None
    uuid: str = ""  # where it was not known before
    sampled_at: float | None = None
    readings: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    fault: Fault | None = None
    driver_gone: str = ""


class Board:
    """One GPU. Changed by the poller's thread alone; jobs only return outcomes."""

    def __init__(self, found: FoundGpu, phase: float) -> None:
        """Take the GPU, and a phase (0 to 1) that spreads the slow readings of all GPUs."""
        self.found = found
        self.fault = found.fault
        self.sampled_at: float | None = None
        self.job: Job[Outcome] | None = None
        self.blocking_job: Job[Outcome] | None = None
        self._phase = phase
        self._device: OpenDevice | None = None
        self._blocking_device: OpenDevice | None = None
        self._readings: dict[str, Any] = {}  # of this moment, as the snapshot shows them
        self._last: dict[str, Any] = {}  # the last good ones, for rates and integrals
        self._due_at: dict[Tier, float] = {}  # at once, where there is none

    def gpu(self) -> Gpu:
        """Return this GPU as the snapshot shows it: bare while it has a fault."""
        readings = {} if self.fault else self._readings
        return Gpu(self.found.index, self.found.uuid, self.fault, self.sampled_at, **readings)

    def forget(self) -> None:
        """Open and read everything anew: the handle is dead, or other readings are wanted."""
        self._device = self._blocking_device = None
        self._readings.clear()
        self._due_at.clear()

    def next_job(self, driver: Driver, plan: Plan, now: float) -> Job[Outcome] | None:
        """Return what is to be read of this GPU now, or None: not while it hangs or is given up."""
        if self.job is not None:
            if not self.job.done:
                return None
            self.forget()  # a late answer is an old one
        others = (Tier.STATIC, Tier.SLOW, Tier.MIG)
        tiers = [tier for tier in others if self._is_due(tier, now)]
        if self.found.fault or (self.fault in GIVEN_UP and Tier.SLOW not in tiers):
            return None
        self._mark(tiers, plan, now)
        self.job = self._make_job(driver, plan, (*tiers, Tier.FAST), self._device)
        return self.job

    def next_blocking_job(self, driver: Driver, plan: Plan, now: float) -> Job[Outcome] | None:
        """Return what is to be read by calls that wait on purpose, or None."""
        if self.fault or self.blocking_job is not None or not self._is_due(Tier.BLOCKING, now):
            return None
        if all(reader.tier is not Tier.BLOCKING for reader in plan.readers):
            return None
        self._mark([Tier.BLOCKING], plan, now)
        self.blocking_job = self._make_job(driver, plan, (Tier.BLOCKING,), self._blocking_device)
        return self.blocking_job

    def settle(self, plan: Plan, now: float) -> Outcome | None:
        """Take over what this tick's job gave; None if there was none, or it is not back."""
        if self.job is None:
            return None
        if self.job.overdue or self.job.result is None:
            self.fault = Fault.HUNG
            return None
        outcome, self.job = self.job.result, None
        self.fault = outcome.fault
        if outcome.uuid:
            self.found = replace(self.found, uuid=outcome.uuid)
        if self.fault in GIVEN_UP:
            self.forget()
            self._mark([Tier.SLOW], plan, now)
        else:
            self._device = outcome.device
            self._take_over(outcome)
        if self.fault is None:
            self.sampled_at = outcome.sampled_at
        return outcome

    def settle_blocking(self, plan: Plan) -> Outcome | None:
        """Take over what the blocking calls gave, if they are back."""
        job = self.blocking_job
        if job is None:
            return None
        if job.overdue:
            late = (reader.group for reader in plan.readers if reader.tier is Tier.BLOCKING)
            self._readings.update(dict.fromkeys(late))
        if not job.done:
            return None
        self.blocking_job, outcome = None, job.result
        if outcome is not None and not job.overdue:
            self._take_over(outcome)
            is_needless = not (outcome.fault or outcome.errors or any(outcome.readings.values()))
            if is_needless:
                self._due_at[Tier.BLOCKING] = math.inf
            self._blocking_device = None if outcome.fault or is_needless else outcome.device
        return outcome

    def _take_over(self, outcome: Outcome) -> None:
        self._readings.update(outcome.readings)
        self._last.update({g: r for g, r in outcome.readings.items() if r is not None})

    def _is_due(self, tier: Tier, now: float) -> bool:
        return now >= self._due_at.get(tier, -math.inf)

    def _mark(self, tiers: list[Tier], plan: Plan, now: float) -> None:
        for tier in tiers:
            period = plan.period_seconds(tier)
            turn = math.inf if math.isinf(period) else math.floor(now / period + self._phase) + 1
            self._due_at[tier] = (turn - self._phase) * period

    def _make_job(
        self, driver: Driver, plan: Plan, tiers: tuple[Tier, ...], device: OpenDevice | None
    ) -> Job[Outcome]:
        return Job(lambda: take(driver, self.found, device, plan, tiers, self._last))


def take(
    driver: Driver,
    found: FoundGpu,
    device: OpenDevice | None,
    plan: Plan,
    tiers: tuple[Tier, ...],
    last: dict[str, Any],
) -> Outcome:
    """Read the groups of these tiers; open the GPU first if it is not. Runs on a crew's thread."""
    outcome = Outcome(device)
    try:
        if device is None:
            device = outcome.device = driver.open(found, plan.readers, plan.max_gap_seconds)
        if not found.uuid:
            outcome.uuid = device.ask("nvmlDeviceGetUUID") or ""
        for tier in tiers:
            device.begin(tier)
            answers = device.answers
            for reader in plan.readers:
                if reader.tier is tier:
                    _read_group(reader, device, last.get(reader.group), outcome)
            if tier is Tier.FAST:
                outcome.sampled_at = device.now()
                outcome.fault = _silence(device, answers, outcome)
    except DriverGoneError as gone:
        outcome.driver_gone, outcome.fault = gone.error, Fault.ERROR
    except DeviceGoneError as gone:
        outcome.fault = gone.fault
    except ReadFailedError as failed:  # while opening
        outcome.fault, outcome.errors["device"] = Fault.ERROR, failed.error
    return outcome


def _read_group(reader: Reader[Any], device: OpenDevice, last: object, outcome: Outcome) -> None:
    started = time.perf_counter()
    try:
        outcome.readings[reader.group] = reader.read(device, last)
    except (DriverGoneError, DeviceGoneError):
        raise
    except ReadFailedError as failed:
        outcome.readings[reader.group], outcome.errors[reader.group] = None, failed.error
    except UnicodeDecodeError:  # of a text in a structure, which is decoded when it is looked at
        outcome.readings[reader.group], outcome.errors[reader.group] = None, "invalid_text"
    except Exception as unexpected:
        log.debug("GPU group %s", reader.group, exc_info=True)
        name = f"unexpected_{type(unexpected).__name__.lower()}"
        outcome.readings[reader.group], outcome.errors[reader.group] = None, name
    outcome.seconds[reader.group] = time.perf_counter() - started


def _silence(device: OpenDevice, answers_before: int, outcome: Outcome) -> Fault | None:
    """Return the fault of a GPU that gave not one fast reading, if it is a fault."""
    if device.answers > answers_before:
        return None
    if device.denied:
        return Fault.NO_PERMISSION
    return Fault.ERROR if outcome.errors else None
