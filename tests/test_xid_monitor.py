"""Both sources together, NVML's with the real structures of the fake library."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from kernel_log_feed import Fifo, eventually, kmsg, xid_line
from nvml_loaded import Node
from scripted import ScriptedDriver

from exporter.nvml_events import NvmlXidWatch
from exporter.sampling import Fault, FoundGpu, ReadFailedError
from exporter.simulate import PlantedXid, SimulatedDriver
from exporter.xid import Kmsg, Monitor, SeenGpu, Store, XidView, kernel_log, monitor, watcher
from exporter.xid.ledger import Result, Source

ADDRESS = "0000:3b:00.0"
OTHER = "0000:5e:00.0"


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test wait for long."""
    monkeypatch.setattr(kernel_log, "WAIT_SECONDS", 0.05)
    monkeypatch.setattr(watcher, "WAIT_SECONDS", 0.05)
    monkeypatch.setattr(watcher, "FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(watcher, "LONGEST_PAUSE_SECONDS", 0.2)


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    """Give a FIFO in the place of /dev/kmsg."""
    fifo = Fifo(tmp_path / "kmsg")
    yield fifo
    fifo.close()


class Watched:
    """A monitor that observes GPUs whenever it is looked at."""

    def __init__(self, driver: Any, gpus: list[SeenGpu], *paths: Path, store: Any = None) -> None:
        self.gpus = gpus
        self.monitor = Monitor(driver, tuple(partial(Kmsg, path) for path in paths), store)
        self.monitor.switch(on=True)

    def view(self) -> XidView | None:
        """Observe once."""
        return self.monitor.observe(self.gpus)

    def seen(self) -> XidView:
        """Observe until there is something to be seen."""
        eventually(lambda: self.view() is not None)
        view = self.view()
        assert view is not None
        return view

    def is_up(self, source: Source) -> bool:
        """Whether a source works."""
        view = self.view()
        return view is not None and view.sources.get(source, False)

    def total(self, gpu: int, xid: int) -> int | None:
        """Return what is counted of a GPU."""
        view = self.view()
        uuid = self.gpus[gpu].uuid
        return None if view is None or uuid not in view.gpus else view.gpus[uuid].totals.get(xid)

    def events(self, source: Source, result: Result) -> int:
        """Return how often a source had a result."""
        view = self.view()
        return 0 if view is None else view.events[source, result]

    def end(self) -> None:
        """Stop, and see the threads go: the library is about to be unloaded."""
        self.monitor.stop()
        eventually(lambda: not [t for t in threading.enumerate() if t.name.startswith("xid-")])


Watch = Callable[..., Watched]


@pytest.fixture
def watch(request: pytest.FixtureRequest) -> Watch:
    """Give what makes monitors; they end before the driver's library goes."""

    def make(*args: Any, **more: Any) -> Watched:
        watched = Watched(*args, **more)
        request.addfinalizer(watched.end)
        return watched

    return make


def gpu(index: int, uuid: str, address: str = ADDRESS, fault: Fault | None = None) -> SeenGpu:
    """Return a GPU as the poller sees it."""
    return SeenGpu(index, uuid, address, fault)


def real_gpus(node: Node) -> list[SeenGpu]:
    """Return the first two GPUs of a connected node of the fake library."""
    uuids = [node.device(index).ask("nvmlDeviceGetUUID") for index in (0, 1)]
    return [gpu(0, uuids[0]), gpu(1, uuids[1], OTHER)]


def test_an_xid_arrives_once_from_two_sources(node: Node, fifo: Fifo, watch: Watch) -> None:
    """NVML's event and the kernel's line are one error; what one alone tells counts as well."""
    node.connect("profile=h100x8")
    watched = watch(node.driver, real_gpus(node), fifo.path)
    eventually(lambda: watched.is_up(Source.NVML) and watched.is_up(Source.KERNEL_LOG))
    assert watched.total(0, 31) == watched.total(1, 79) == 0
    assert watched.total(0, 32) is None  # not announced
    node.put("gpu0.xid=31:1,32:2")
    fifo.write(kmsg(xid_line(31)), kmsg(xid_line(79, "0000:5e:00")))
    eventually(lambda: watched.total(1, 79) == 1 and watched.total(0, 32) == 1)
    eventually(lambda: sum(watched.events(s, Result.DUPLICATE) for s in Source) == 1)
    assert (watched.total(0, 31), watched.total(1, 31)) == (1, 0)
    view = watched.seen()
    assert sorted(view.gpus[watched.gpus[0].uuid].last_seconds) == [31, 32]
    assert view.critical_since(time.time() - 900) == {watched.gpus[1].uuid}
    assert not view.critical_since(time.time() + 900)
    assert watched.view() is view  # the page takes over what has not changed
    node.put("gpu0.xid=31:1,32:2,32:3")
    eventually(lambda: watched.total(0, 32) == 2)
    assert watched.seen().gpus[watched.gpus[1].uuid] is view.gpus[watched.gpus[1].uuid]
    watched.end()
    assert node.calls().event_sets == 0


def test_an_unknown_event_is_left_to_the_kernel_log(node: Node, fifo: Fifo, watch: Watch) -> None:
    """NVML's 999 says: look into the log. Without a log it counts as 999."""
    node.connect("profile=h100x8")
    watched = watch(node.driver, real_gpus(node), fifo.path)
    eventually(lambda: watched.is_up(Source.NVML) and watched.is_up(Source.KERNEL_LOG))
    node.put("gpu0.xid=999:1")
    eventually(lambda: watched.events(Source.NVML, Result.DUPLICATE) == 1)
    assert watched.total(0, 999) is None
    watched.end()
    alone = watch(node.driver, watched.gpus)
    eventually(lambda: alone.is_up(Source.NVML))
    node.put("gpu0.xid=999:1,999:2")
    eventually(lambda: alone.total(0, 999) == 1)
    alone.end()


def test_boards_without_events_are_left_out(node: Node, watch: Watch) -> None:
    """One that does not support them costs the others nothing; none at all: the source is down."""
    node.connect("profile=h100x8", "gpu0.call.nvmlDeviceGetSupportedEventTypes.ret=3")
    watched = watch(node.driver, real_gpus(node))
    eventually(lambda: watched.is_up(Source.NVML))
    node.put("gpu0.xid=31:1", "gpu1.xid=31:1")
    eventually(lambda: watched.total(1, 31) == 1)
    assert watched.total(0, 31) == 0
    watched.end()
    node.put("gpu*.call.nvmlDeviceGetSupportedEventTypes.ret=3")
    without = watch(node.driver, watched.gpus)
    without.seen()
    assert not without.is_up(Source.NVML)
    assert without.total(0, 31) is None  # nobody would tell: absent, not 0
    without.end()


def test_a_gpu_that_comes_back_is_registered_again(node: Node, watch: Watch) -> None:
    """After a loss its handle is another one; its errors are told again, its counts are kept."""
    node.connect("profile=h100x8")
    watched = watch(node.driver, real_gpus(node))
    eventually(lambda: watched.is_up(Source.NVML))
    node.put("gpu0.xid=31:1")
    eventually(lambda: watched.total(0, 31) == 1)
    registered = node.calls().count("nvmlDeviceRegisterEvents", 0)
    healthy = watched.gpus[0]
    watched.gpus[0] = gpu(0, healthy.uuid, "", Fault.LOST)
    watched.view()
    waits = node.calls().count("nvmlEventSetWait_v2")
    eventually(lambda: node.calls().count("nvmlEventSetWait_v2") > waits + 2)
    assert watched.total(0, 31) == 1
    node.put("gpu0.reset=1")
    watched.gpus[0] = healthy
    eventually(
        lambda: (
            bool(watched.view()) and node.calls().count("nvmlDeviceRegisterEvents", 0) > registered
        )
    )
    node.put("gpu0.xid=31:1,31:2")
    eventually(lambda: watched.total(0, 31) == 2)
    watched.end()


def test_an_error_of_the_wait_begins_anew(node: Node, watch: Watch) -> None:
    """The set is freed, and another one made; meanwhile the source is down."""
    node.connect("profile=h100x8")
    watched = watch(node.driver, real_gpus(node))
    eventually(lambda: watched.is_up(Source.NVML))
    node.put("call.nvmlEventSetWait_v2.ret=999")
    eventually(lambda: not watched.is_up(Source.NVML))
    node.put("call.nvmlEventSetWait_v2.ret=0")
    eventually(lambda: watched.is_up(Source.NVML))
    node.put("gpu1.xid=94:1")
    eventually(lambda: watched.total(1, 94) == 1)
    assert node.calls().count("nvmlEventSetCreate") >= 2
    watched.end()
    assert node.calls().event_sets == 0


class HangingWatch:
    """A watch that hangs: in `add` of GPU 0, or in `wait`, until it is released."""

    def __init__(self, driver: HangingDriver) -> None:
        self._driver = driver

    def add(self, gpu: FoundGpu) -> bool:
        """Register."""
        if self._driver.hangs_at == "add" and gpu.index == 0:
            self._driver.gate.wait(60)
        return True

    def wait(self, seconds: float) -> tuple[str, int] | None:
        """Wait; one error is there at once after a hang."""
        if self._driver.hangs_at == "wait":
            self._driver.gate.wait(60)
            return "GPU-1", 31
        time.sleep(seconds)
        return None

    def close(self) -> None:
        """Close."""


class HangingDriver(ScriptedDriver):
    """A driver whose watches hang."""

    def __init__(self, hangs_at: str) -> None:
        super().__init__(2, time.monotonic)
        self.hangs_at = hangs_at
        self.gate = threading.Event()
        self.watches = 0

    def watch_xids(self) -> HangingWatch:
        """Return a watch."""
        self.watches += 1
        return HangingWatch(self)


@pytest.mark.parametrize("hangs_at", ["wait", "add"])
def test_a_hang_costs_nobody_else(
    hangs_at: str,
    fifo: Fifo,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    watch: Watch,
) -> None:
    """Another thread takes over, without the GPU that hung; no more than two are left behind."""
    monkeypatch.setattr(monitor, "HUNG_SECONDS", 0.2)
    driver = HangingDriver(hangs_at)
    watched = watch(driver, [gpu(0, "GPU-0"), gpu(1, "GPU-1", OTHER)], fifo.path)
    eventually(lambda: bool(watched.view()) and "NVML does not return" in caplog.text)
    fifo.write(kmsg(xid_line(79)))
    eventually(lambda: watched.total(0, 79) == 1)
    if hangs_at == "add":
        eventually(lambda: watched.is_up(Source.NVML))
        assert driver.watches == 2
    else:
        eventually(lambda: bool(watched.view()) and driver.watches == 3)
        last = watched.monitor._watcher
        assert last is not None
        eventually(lambda: time.monotonic() - last.beat > 2 * monitor.HUNG_SECONDS)
        assert not watched.is_up(Source.NVML)
        assert driver.watches == 3
    driver.hangs_at = ""
    driver.gate.set()
    eventually(lambda: watched.is_up(Source.NVML))
    # What came out of a hang that was given up is not told; the kernel log has it.
    assert watched.events(Source.NVML, Result.COUNTED) <= 1
    watched.end()


def test_counters_wait_for_the_past(fifo: Fifo, tmp_path: Path, watch: Watch) -> None:
    """No page shows 0 before the kernel log is counted, or errors where a GPU is not known yet."""
    fifo.write(kmsg(xid_line(79), 5_000_000), kmsg(xid_line(48, "0000:99:00"), 6_000_000))
    watched = watch(ScriptedDriver(1, time.monotonic), [gpu(0, "GPU-0", "")], fifo.path)
    log = watched.monitor._log
    assert log is not None
    eventually(lambda: log.is_settled)
    assert watched.view() is None
    watched.gpus = [gpu(0, "GPU-0")]
    view = watched.view()
    assert view is not None
    assert view.gpus["GPU-0"].totals[79] == 1
    assert {pair: count.total for pair, count in view.unlisted.items()} == {("0000:99:00.0", 48): 1}
    watched.end()
    unreadable = watch(ScriptedDriver(1, time.monotonic), watched.gpus, tmp_path / "nothing")
    assert unreadable.seen().gpus == {}  # no source, no zeros
    unreadable.end()


def test_a_machine_without_driver_shows_what_its_log_tells(
    fifo: Fifo,
    monkeypatch: pytest.MonkeyPatch,
    watch: Watch,
) -> None:
    """After a while nobody waits for GPUs any more: their errors have an address, and no GPU."""
    monkeypatch.setattr(monitor, "SETTLE_SECONDS", 0.0)
    fifo.write(kmsg("NVRM: GPU 0000:29:00.0: GPU has fallen off the bus.", 5_000_000))
    watched = watch(ScriptedDriver(0, time.monotonic), [], fifo.path)
    eventually(lambda: bool(watched.seen().unlisted))
    assert list(watched.seen().unlisted) == [("0000:29:00.0", 79)]
    watched.end()


def test_switched_off_and_on_again(fifo: Fifo, tmp_path: Path, watch: Watch) -> None:
    """Off, nothing is shown and no thread is left; on again, counting goes on where it was."""
    store = Store(tmp_path / "storage", "boot")
    driver = ScriptedDriver(1, time.monotonic)
    watched = watch(driver, [gpu(0, "GPU-0")], fifo.path, store=store)
    fifo.write(kmsg(xid_line(79)))
    eventually(lambda: watched.total(0, 79) == 1)
    watched.monitor.switch(on=False)
    assert watched.view() is None
    watched.end()
    watched.monitor.switch(on=True)
    eventually(lambda: watched.total(0, 79) == 1)
    eventually(lambda: store.load() is not None)
    watched.end()
    again = watch(driver, watched.gpus, fifo.path, store=store)
    eventually(lambda: again.total(0, 79) == 1)
    again.end()


def test_nvml_says_why_a_set_cannot_be_made(node: Node) -> None:
    """The driver's word for it reaches the log."""
    node.connect("profile=h100x8", "call.nvmlEventSetCreate.ret=23")
    with pytest.raises(ReadFailedError, match="insufficient_resources"):
        NvmlXidWatch()


def test_planted_errors_of_a_simulated_node() -> None:
    """They come at their time of the scenario, each once, and only of GPUs that are watched."""
    seconds = [0.0]
    planted = [PlantedXid(30, 1, 79), PlantedXid(10, 1, 31), PlantedXid(5, 7, 48)]
    driver = SimulatedDriver("h100x8", lambda: seconds[0], xids=planted)
    watch = driver.watch_xids()
    assert watch.add(FoundGpu(1, "GPU-1"))
    assert watch.wait(0.0) is None
    seconds[0] = 10.0
    assert [watch.wait(0.0), watch.wait(0.0)] == [("GPU-1", 31), None]
    seconds[0] = 1000.0
    assert [watch.wait(0.0), watch.wait(0.0)] == [("GPU-1", 79), None]
