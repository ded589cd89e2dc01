"""A pause of NVML: the driver is let go of, and taken up again; another driver needs a process."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from daemon import COMMAND, Daemon, running
from fake_nvml import FakeNvml
from nvml_loaded import Node as LoadedNode
from scripted import Clock, Hang, ScriptedDriver

from exporter import nvml_pause
from exporter.board import Plan
from exporter.catalogue import GPU_READERS
from exporter.hold import STUCK_SECONDS
from exporter.nvml import NvmlDriver
from exporter.nvml_pause import NvmlPauseError
from exporter.poll import Poller, Sources
from exporter.sampling import DriverGoneError
from exporter.scaleout.clock import Clock as Clocks
from exporter.snapshot import Build, NvmlPause, Reload, Snapshot

PLAN = Plan(GPU_READERS, 1.0, 30.0, 5.0, 0.1)
ORDER = NvmlPause("upgrade", 600.0)


class Node:
    """A poller over a scripted driver, and whether a pause is ordered."""

    def __init__(self, order: NvmlPause | None = None) -> None:
        self.clock = Clock()
        self.driver = ScriptedDriver(2, self.clock)
        self.order = order
        build = Build("1", "3", simulated=False)
        sources = Sources(self.driver, build, lambda: None, self.clock, pause=lambda: self.order)
        self.poller = Poller(sources, PLAN, (), Reload(True, 0.0))

    def tick(self, seconds: float = 1.0, *, watched: bool = False) -> Snapshot:
        """Let time pass and poll."""
        self.clock.seconds += seconds
        return self.poller.tick(watched=watched)

    def until(self, wanted: Callable[[Snapshot], object], **how: bool) -> Snapshot:
        """Poll on until threads of the poller have done what they were at."""
        for _ in range(500):
            snapshot = self.tick(**how)
            if wanted(snapshot):
                return snapshot
            time.sleep(0.005)
        raise AssertionError(snapshot)


def is_free(snapshot: Snapshot) -> bool:
    """Return whether the driver is let go of."""
    return snapshot.nvml_pause is not None and snapshot.nvml_pause.is_free


@pytest.fixture
def hang() -> Iterator[Hang]:
    """Give an answer that hangs, and let it go at the end."""
    answer = Hang()
    yield answer
    answer.release()


def test_driver_is_let_go_of_and_taken_up() -> None:
    """Under a pause there is no GPU, no call, and the reason is told; then all is as before."""
    node = Node()
    assert len(node.tick().gpus) == 2
    node.order = ORDER
    snapshot = node.tick()
    assert (snapshot.driver, snapshot.gpus) == (None, ())
    snapshot = node.until(is_free)
    assert (snapshot.driver, snapshot.gpus, node.driver.closed) == (None, (), 1)
    assert snapshot.driver_problem == "paused: upgrade"
    assert snapshot.nvml_pause == NvmlPause("upgrade", 600.0, is_free=True)
    asked = len(node.driver.log)
    for _ in range(60):
        assert node.tick().gpus == ()
    assert (len(node.driver.log), node.driver.closed) == (asked, 1)
    node.order = None
    snapshot = node.tick()
    assert [gpu.fault for gpu in snapshot.gpus] == [None, None]
    assert snapshot.nvml_pause is None


def test_paused_from_the_start() -> None:
    """A daemon that starts under a pause does not touch the driver before its end."""
    node = Node(ORDER)
    snapshot = node.tick()
    assert snapshot.nvml_pause == NvmlPause("upgrade", 600.0, is_free=True)
    assert (node.driver.opened, node.driver.closed) == ([], 0)
    node.order = None
    assert len(node.tick().gpus) == 2


def test_who_waits_in_the_driver_is_waited_for() -> None:
    """While others are in a call of the driver it is not shut down, and the pause does not hold."""
    node = Node()
    node.tick()
    node.order = ORDER
    for _ in range(50):
        snapshot = node.tick(0.1, watched=True)
        assert (snapshot.gpus, snapshot.nvml_pause, node.driver.closed) == ((), ORDER, 0)
        time.sleep(0.002)
    node.until(is_free)
    assert node.driver.closed == 1


def test_hung_call_costs_the_process(hang: Hang) -> None:
    """A call that does not return holds the driver for good: only a new process is free of it."""
    node = Node()
    node.tick()
    node.driver.answers[1]["nvmlDeviceGetPowerUsage"] = hang
    node.tick()
    node.order = ORDER
    assert node.tick().nvml_pause == ORDER
    assert node.driver.closed == 0
    with pytest.raises(DriverGoneError, match="does not return"):
        node.tick(STUCK_SECONDS + 1)


def test_gpu_that_is_added_is_found() -> None:
    """NVML lists GPUs once: one more on the bus has them listed anew. One less does not."""
    node = Node()
    node.tick()
    node.driver.answers.append(dict(node.driver.answers[0]))
    assert len(node.until(lambda snapshot: len(snapshot.gpus) > 2).gpus) == 3
    assert node.driver.closed == 1
    node.driver.answers.pop()
    for _ in range(100):
        node.tick()
        time.sleep(0.001)
    assert node.driver.closed == 1


def test_another_driver_needs_another_process(node: LoadedNode, tmp_path: Path) -> None:
    """The library fits the kernel module it was loaded for; with another, a new process must."""
    version = tmp_path / "module" / "nvidia" / "version"
    version.parent.mkdir(parents=True)
    version.write_text("580.95.05\n")
    node.put("time=100")
    driver = NvmlDriver(tmp_path)
    driver.connect()
    driver.close()
    driver.connect()  # the same: it can be taken up again
    driver.close()
    version.write_text("590.10\n")
    with pytest.raises(DriverGoneError, match=r"driver 580\.95\.05 was replaced by 590\.10"):
        driver.connect()


def paused(daemon: Daemon) -> float | None:
    """Return what the page says of the pause."""
    return daemon.page().value("gpu_exporter_nvml_paused")


def nvml(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command beside a daemon."""
    storage = daemon.config_file.parent / "storage"
    storage.mkdir(exist_ok=True)
    return subprocess.run(
        [COMMAND, "nvml", *arguments, f"--storage.path={storage}"],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_pause_and_resume_beside_the_daemon(fake: FakeNvml) -> None:
    """By command: NVML is shut down clean, with nobody in it, and initialised again after it."""
    with running(env=fake.env(), config="poll: {fast: 250ms, slow: 1s}\n") as daemon:
        assert daemon.after_polls(2).up() == [1.0] * 8
        done = nvml(daemon, "pause", "--for", "10m", "--reason", "driver upgrade")
        assert (done.returncode, done.stderr) == (0, "")
        page = daemon.until(lambda page: page.value("gpu_exporter_nvml_paused") == 1)
        assert page.up() == []
        assert page.value("gpu_exporter_nvml_up") == 0
        assert 500 < (page.value("gpu_exporter_nvml_pause_remaining_seconds") or 0) <= 600
        assert daemon.ready() == (503, "not ready: paused: driver upgrade\n")
        calls = fake.calls()
        assert calls.count("nvmlShutdown") == 1
        assert (calls.shutdowns_during_wait, calls.gpm_samples, calls.event_sets) == (0, 0, 0)
        daemon.after_polls(4)
        assert fake.calls().by_symbol == calls.by_symbol  # not one call under the pause
        assert nvml(daemon, "status").stdout.endswith("more: driver upgrade\n")
        assert nvml(daemon, "resume").stdout == "resumed\n"
        daemon.until(lambda page: page.up() == [1.0] * 8)
        assert fake.calls().inits == 2
        assert daemon.messages("error") == []


def test_commands(tmp_path: Path) -> None:
    """The file is written whole, told of, and removed; what cannot be done is told in one line."""
    moment = {"now": 1000.0}
    clock = Clocks(lambda: moment["now"], lambda: moment["now"], "boot")
    look = nvml_pause.orders(tmp_path, clock)
    assert look() is None
    assert nvml_pause.resume(tmp_path) == "not paused\n"
    told = nvml_pause.pause(tmp_path, clock, seconds=90.0, reason="two\nlines")
    assert told.startswith("paused until 1970-01-01T00:18:10.000Z")
    assert [path.name for path in tmp_path.iterdir()] == [nvml_pause.FILE]
    found = look()
    assert found is not None
    assert found.reason == "two lines"
    assert nvml_pause.resume(tmp_path) == "resumed\n"
    assert look() is None
    with pytest.raises(NvmlPauseError, match="lasts from"):
        nvml_pause.pause(tmp_path, clock, seconds=0.0, reason="x")
    with pytest.raises(NvmlPauseError, match=r"No such file .* give the daemon's --storage\.path"):
        nvml_pause.pause(tmp_path / "nowhere", clock, seconds=1.0, reason="x")


def test_pause_ends_by_itself(tmp_path: Path) -> None:
    """After its time a pause is over, though the file is still there."""
    (tmp_path / nvml_pause.FILE).write_text("1m maintenance")
    written = (tmp_path / nvml_pause.FILE).stat().st_mtime
    moment = {"since_boot": 0.0}
    clock = Clocks(lambda: written, lambda: moment["since_boot"], "boot")
    look = nvml_pause.orders(tmp_path, clock)
    assert look() == NvmlPause("maintenance", 60.0)
    moment["since_boot"] = 59.0
    assert look() == NvmlPause("maintenance", 1.0)
    moment["since_boot"] = 60.0
    assert look() is None
