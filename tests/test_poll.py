"""The poller: what fails costs only itself, nothing stale is shown, nothing is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
from scripted import Clock, Hang, ScriptedDriver

from exporter.board import Plan
from exporter.catalogue import GPU_READERS
from exporter.poll import Poller, Sources
from exporter.sampling import (
    DeviceGoneError,
    DriverGoneError,
    Fault,
    ReadFailedError,
    Tier,
)
from exporter.snapshot import Build, Gpu, Reload, Snapshot

PLAN = Plan(
    readers=GPU_READERS,
    fast_seconds=1.0,
    slow_seconds=30.0,
    blocking_seconds=5.0,
    deadline_seconds=0.1,
)
UTILIZATION = "nvmlDeviceGetUtilizationRates"
POWER = "nvmlDeviceGetPowerUsage"


class Node:
    """A poller over a scripted driver, ticked by hand."""

    def __init__(self, count: int) -> None:
        self.clock = Clock()
        self.driver = ScriptedDriver(count, self.clock)
        sources = Sources(self.driver, Build("1", "3", simulated=False), lambda: None, self.clock)
        self.poller = Poller(
            sources, PLAN, (), Reload(successful=True, success_timestamp_seconds=0)
        )

    def tick(self, seconds: float = 1.0) -> Snapshot:
        """Let time pass and poll."""
        self.clock.seconds += seconds
        return self.poller.tick()


@pytest.fixture
def hang() -> Iterator[Hang]:
    """Give an answer that hangs, and let it go at the end."""
    answer = Hang()
    yield answer
    answer.release()


def settle(node: Node, wanted: Callable[[Snapshot], bool]) -> Snapshot:
    """Tick until a thread that came back late has been noticed."""
    for _ in range(200):
        snapshot = node.tick()
        if wanted(snapshot):
            return snapshot
        time.sleep(0.005)
    raise AssertionError(snapshot)


def is_bare(gpu: Gpu) -> bool:
    """Return whether nothing but who it is and why it is down is known of a GPU."""
    return gpu == Gpu(gpu.index, gpu.uuid, gpu.fault, gpu.sampled_at)


def test_lost_gpu_costs_only_itself_and_is_tried_again_at_the_slow_pace() -> None:
    """One of eight lost: no series of it, the others complete; once back, all is read anew."""
    node = Node(8)
    sampled_at = node.tick().gpus[3].sampled_at
    node.driver.answers[3][POWER] = DeviceGoneError("gpu_is_lost", Fault.LOST)
    node.driver.opened.clear()
    for _ in range(20):
        snapshot = node.tick()
        assert [gpu.fault for gpu in snapshot.gpus] == [None] * 3 + [Fault.LOST] + [None] * 4
        assert is_bare(snapshot.gpus[3])
        assert snapshot.gpus[3].sampled_at == sampled_at
        assert all(g.power and g.bar1 is not None for g in snapshot.gpus if g.index != 3)
    assert node.driver.opened.count(3) <= 2  # the second by the blocking thread
    node.driver.answers[3][POWER] = 300_000
    back = [node.tick() for _ in range(31)][-1].gpus[3]
    assert back.fault is None
    assert back.identity is not None
    assert back.engines is not None


def test_hung_gpu_is_dropped_within_the_tick_and_taken_back(hang: Hang) -> None:
    """One of eight that hangs: the others are read in the same tick; it comes back by itself."""
    node = Node(8)
    node.tick()
    node.driver.answers[3][UTILIZATION] = hang
    for _ in range(3):
        snapshot = node.tick()
        assert snapshot.gpus[3].fault is Fault.HUNG
        assert is_bare(snapshot.gpus[3])
        others = [gpu for gpu in snapshot.gpus if gpu.index != 3]
        assert all(gpu.sampled_at == node.clock.seconds and gpu.utilization for gpu in others)
    assert snapshot.read_errors["device", "hung"] == 1
    node.driver.answers[3][UTILIZATION] = SimpleNamespace(gpu=1, memory=1)
    hang.release()
    snapshot = settle(node, lambda s: s.gpus[3].fault is None)
    assert snapshot.gpus[3].utilization is not None
    assert snapshot.gpus[3].utilization.gpu_ratio == 0.01


def test_all_gpus_hung_leave_the_poller_running(hang: Hang) -> None:
    """Eight hung GPUs: one tick finds them all, the next ticks wait for none of them."""
    node = Node(8)
    node.tick()
    for answers in node.driver.answers:
        answers[UTILIZATION] = hang
    assert {gpu.fault for gpu in node.tick().gpus} == {Fault.HUNG}
    node.driver.log.clear()
    assert {gpu.fault for gpu in node.tick().gpus} == {Fault.HUNG}
    assert node.driver.log == []


def test_failed_group_is_absent_at_that_tick_only() -> None:
    """A failed reading takes its group away, is counted, and the GPU stays up."""
    node = Node(1)
    node.tick()
    node.driver.answers[0][POWER] = ReadFailedError("unknown")
    snapshot = node.tick()
    assert snapshot.gpus[0].power is None
    assert snapshot.gpus[0].memory is not None
    assert snapshot.gpus[0].fault is None
    assert snapshot.read_errors == {("power", "unknown"): 1}
    assert snapshot.polls["partial"] == 1
    node.driver.answers[0][POWER] = 200_000
    snapshot = node.tick()
    assert snapshot.gpus[0].power is not None
    assert snapshot.gpus[0].power.draw_watts == 200


def test_answer_of_an_unknown_shape_costs_only_its_group() -> None:
    """Text where a number belongs is an error of that group, not a stop."""
    node = Node(1)
    node.driver.answers[0][POWER] = "many"
    snapshot = node.tick()
    assert snapshot.gpus[0].power is None
    assert snapshot.gpus[0].temperature is not None
    assert snapshot.read_errors == {("power", "unexpected_typeerror"): 1}


def test_gpu_that_answers_nothing_is_down() -> None:
    """Errors on every fast call: fault error; refusals for want of permission: no_permission."""
    node = Node(2)
    node.tick()
    for call in node.driver.answers[0]:
        node.driver.answers[0][call] = ReadFailedError("unknown")
    node.driver.answers[1].clear()

    def deny(device: object) -> None:
        device.denied = True  # type: ignore[attr-defined]

    node.driver.answers[1][UTILIZATION] = deny
    first, second = node.tick().gpus
    assert first.fault is Fault.ERROR
    assert second.fault is Fault.NO_PERMISSION
    assert is_bare(first)
    assert is_bare(second)


def test_busy_seconds_are_the_integral_and_holes_add_nothing() -> None:
    """50 % over 10 s is 5 s; a failed tick is bridged, a long hole is not; it never restarts."""

    def busy(snapshot: Snapshot) -> float | None:
        utilization = snapshot.gpus[0].utilization
        return utilization.busy_seconds if utilization else None

    node = Node(1)
    assert busy(node.tick()) == 0
    for _ in range(10):
        snapshot = node.tick()
    assert busy(snapshot) == pytest.approx(5.0)
    good = node.driver.answers[0][UTILIZATION]
    node.driver.answers[0][UTILIZATION] = ReadFailedError("timeout")
    assert busy(node.tick()) is None
    node.driver.answers[0][UTILIZATION] = good
    assert busy(node.tick()) == pytest.approx(6.0)
    assert busy(node.tick(60.0)) == pytest.approx(6.0)
    node.driver.answers[0][POWER] = DeviceGoneError("gpu_is_lost", Fault.LOST)
    node.tick()
    node.driver.answers[0][POWER] = 1
    snapshots = [node.tick() for _ in range(62)]
    assert busy(snapshots[-1]) > 6.0  # type: ignore[operator]  # a None would fail as well


def test_driver_that_comes_late_is_picked_up() -> None:
    """Without a driver the reason is told and the host goes on; the driver is found when there."""
    node = Node(2)
    node.driver.absent = "no library here"
    snapshot = node.tick()
    assert snapshot.driver is None
    assert snapshot.driver_problem == "no library here"
    assert snapshot.gpus == ()
    assert snapshot.pci_gpus == 2
    node.driver.absent = None
    assert node.tick(1.0).driver is None  # not at every tick
    snapshot = node.tick(5.0)
    assert snapshot.driver is not None
    assert [gpu.fault for gpu in snapshot.gpus] == [None, None]


def test_driver_gone_under_us_is_told_after_the_page_is_bare() -> None:
    """A driver that was unloaded ends the tick with DriverGoneError."""
    node = Node(1)
    node.tick()
    node.driver.answers[0][POWER] = DriverGoneError("uninitialized")
    with pytest.raises(DriverGoneError):
        node.tick()
    assert node.poller.latest is not None
    assert is_bare(node.poller.latest.gpus[0])


def test_late_ticks_are_counted_as_skipped() -> None:
    """A tick that comes 4 s after the last one has skipped three."""
    node = Node(1)
    node.tick()
    node.tick(1.02)
    assert node.tick(0.98).polls["skipped"] == 0
    assert node.tick(4.0).polls["skipped"] == 3


def test_slow_groups_are_read_once_a_period_and_never_all_at_one_tick() -> None:
    """Over two periods each GPU has two slow readings, at ticks of its own."""
    node = Node(8)
    node.tick()
    node.driver.log.clear()
    ticks = []
    for _ in range(60):
        node.tick()
        ticks.append([index for index, tier in node.driver.log if tier is Tier.SLOW])
        node.driver.log.clear()
    assert sorted(index for tick in ticks for index in tick) == sorted([*range(8)] * 2)
    assert max(map(len, ticks)) <= 2


def test_other_collectors_and_periods_take_over_without_losing_counters() -> None:
    """A collector that is switched off is gone at the next tick; integrals go on."""
    node = Node(1)
    node.tick()
    node.tick()
    without_power = tuple(r for r in GPU_READERS if r.collector != "power")
    node.poller.replan(replace(PLAN, readers=without_power), ())
    gpu = node.tick().gpus[0]
    assert gpu.power is None
    assert gpu.power_limits is None
    assert gpu.utilization is not None
    assert gpu.utilization.busy_seconds == pytest.approx(1.0)


def test_calls_that_block_delay_no_tick_and_cost_only_their_group(
    hang: Hang, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PCIe sampling runs beside the polls; one that hangs leaves the GPU up, without the rate."""
    monkeypatch.setattr("exporter.poll.BLOCKING_DEADLINE_SECONDS", 0.05)
    node = Node(2)
    snapshot = settle(node, lambda s: all(g.pcie for g in s.gpus))
    pcie = snapshot.gpus[0].pcie
    assert pcie is not None
    assert pcie.transmit_bytes_per_second == 1000 * 1024
    node.driver.answers[0]["nvmlDeviceGetPcieThroughput"] = hang
    snapshot = settle(node, lambda s: s.gpus[0].pcie is None)
    assert [gpu.fault for gpu in snapshot.gpus] == [None, None]
    assert snapshot.gpus[0].power is not None
    assert settle(node, lambda s: s.gpus[1].pcie is not None)


def test_gpu_without_need_of_calls_that_block_is_asked_once() -> None:
    """One with profiling counters is not asked again, until it was lost and is opened anew."""
    node = Node(2)
    asked: list[float] = []

    def support(_device: object) -> SimpleNamespace:
        asked.append(node.clock.seconds)
        return SimpleNamespace(isSupportedDevice=1)

    node.driver.answers[0]["nvmlGpmQueryDeviceSupport"] = support

    def sampled(seconds: int) -> list[bool]:
        for _ in range(seconds):
            node.tick()
            node.poller._blocking_crew.wait(60)
        return [gpu.pcie is not None for gpu in node.tick().gpus]

    assert sampled(20) == [False, True]
    assert len(asked) == 1
    power = node.driver.answers[0][POWER]
    node.driver.answers[0][POWER] = DeviceGoneError("gpu_is_lost", Fault.LOST)
    node.tick()
    node.driver.answers[0][POWER] = power
    assert sampled(60) == [False, True]
    assert len(asked) == 2


def test_slow_driver_gets_a_thread_per_gpu_and_one_thread_again() -> None:
    """While reading all takes over a fifth of the interval the GPUs are read side by side."""
    node = Node(4)
    node.tick()
    threads: list[int] = []

    def slow(_device: object) -> int:
        threads.append(threading.get_ident())
        time.sleep(0.06)
        return 1

    for answers in node.driver.answers:
        answers[POWER] = slow
    node.tick()
    assert len(set(threads)) == 1
    threads.clear()
    node.tick()
    assert len(set(threads)) == 4
    for answers in node.driver.answers:
        answers[POWER] = 1
    node.tick()
    for answers in node.driver.answers:
        answers[POWER] = lambda _device: threads.append(threading.get_ident())
    threads.clear()
    node.tick()
    assert len(set(threads)) == 1
