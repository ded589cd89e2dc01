"""What the daemon tells systemd and takes from it, with systemd's part played by the tests."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from daemon import COMMAND, PATIENCE_SECONDS, running
from fake_nvml import FakeNvml
from http_client import connect, get
from scripted import Clock

from exporter import systemd
from exporter.hold import UNANSWERED
from exporter.httpd import ListenError, adopt
from exporter.rules_view import FIRING, PENDING, RuleStatus, RulesView
from exporter.sampling import DriverInfo, Fault
from exporter.scaleout_view import ScaleoutView
from exporter.snapshot import Build, Gpu, Reload, Snapshot
from exporter.supervision import DRIVER_PATIENCE_SECONDS, Supervision, status_line

UNIT = Path(__file__).parents[1] / "systemd" / "gpu-node-exporter.service"
BRISK = "poll: {fast: 250ms, deadline: 100ms}\n"
HIGHEST_EXPOSURE = 16  # tenths
NODE = Snapshot(
    taken_at=100.0,
    now=100.0,
    stale_after_seconds=4.0,
    build=Build("1.0.0", "3.11.2", simulated=False),
    reload=Reload(successful=True, success_timestamp_seconds=0.0),
    driver=DriverInfo("580.95.05", "13.580.95.05", "13.0"),
    gpus=(Gpu(0, "GPU-0"), Gpu(1, "GPU-1")),
)
LATE_DRIVER = replace(NODE, driver=None, driver_problem=UNANSWERED, gpus=())


class Manager:
    """Listens where systemd would."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{path[1:]}" if path.startswith("@") else path)
        self._socket.settimeout(PATIENCE_SECONDS)

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()

    def next(self) -> dict[str, str]:
        """Return the next notification, waiting for it."""
        lines = self._socket.recv(4096).decode().split("\n")
        return dict(line.split("=", 1) for line in lines)

    def waiting(self) -> list[dict[str, str]]:
        """Return the notifications that are there by now."""
        told = []
        self._socket.setblocking(False)
        try:
            while True:
                told.append(self.next())
        except BlockingIOError:
            return told
        finally:
            self._socket.settimeout(PATIENCE_SECONDS)

    def until(self, name: str) -> dict[str, str]:
        """Return the first notification with this name."""
        while name not in (told := self.next()):
            pass
        return told


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """Give a manager to whom this process, and those it starts, belong."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with closing(Manager(str(tmp_path / "notify"))) as it:
        yield it


# The protocol


def test_an_abstract_socket_is_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """NOTIFY_SOCKET=@name is in Linux's abstract namespace; text of any language gets through."""
    path = f"@gpu-node-exporter-test-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with closing(Manager(path)) as manager:
        assert systemd.notify("READY=1", "STATUS=80 °C μ gut")
        assert manager.next() == {"READY": "1", "STATUS": "80 °C μ gut"}


@pytest.mark.parametrize("path", ["", "relative", "/nowhere/at/all", "vsock:2:1"])
def test_nobody_to_tell_is_no_error(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """Without a manager, or with one that is gone, nothing is told and nothing fails."""
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    assert not systemd.notify("READY=1")


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [
        ("30000000", "own", 30.0),
        ("500000", "", 0.5),
        ("30000000", "1", None),
        ("0", "own", None),
        ("", "own", None),
        ("soon", "own", None),
    ],
)
def test_a_watchdog_is_ours_or_not(
    monkeypatch: pytest.MonkeyPatch, usec: str, pid: str, seconds: float | None
) -> None:
    """The watchdog's time counts only if it is meant for this process, and is a time."""
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "own" else pid)
    assert systemd.watchdog_seconds() == seconds


def test_another_process_s_sockets_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """LISTEN_FDS counts only with our own LISTEN_PID: a child may inherit both variables."""
    monkeypatch.setenv("LISTEN_FDS", "2")
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    assert systemd.listen_descriptors() == (3, 4)
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() + 1))
    assert systemd.listen_descriptors() == ()


# What is told when


def supervision(manager: Manager, clock: Clock, seen: Sequence[Snapshot | None]) -> Supervision:
    """Return one that sees the last of `seen`, and has a watchdog."""
    assert manager.waiting() == []
    os.environ["WATCHDOG_USEC"] = "30000000"
    try:
        return Supervision(lambda: seen[-1], clock)
    finally:
        del os.environ["WATCHDOG_USEC"]


def names(manager: Manager) -> set[str]:
    """Return the names of all that was told since the last look."""
    return {name for told in manager.waiting() for name in told}


def test_ready_waits_for_the_driver_s_answer(manager: Manager) -> None:
    """A first snapshot without GPUs is not it while nvmlInit runs; "no driver" is an answer."""
    clock = Clock()
    seen: list[Snapshot | None] = [None]
    sees = supervision(manager, clock, seen)
    sees.look()
    assert names(manager) == {"STATUS"}
    seen.append(replace(LATE_DRIVER, taken_at=clock.seconds))
    sees.look()
    assert "READY" not in names(manager)
    seen.append(replace(LATE_DRIVER, taken_at=clock.seconds, driver_problem="no module"))
    sees.look()
    assert "READY" in names(manager)
    sees.look()
    assert names(manager) == {"WATCHDOG"}  # ready is said once, a status when it changes


def test_a_driver_that_never_answers_does_not_hold_the_start_for_ever(manager: Manager) -> None:
    """While nvmlInit hangs, the host's metrics are ready before systemd loses its patience."""
    clock, seen = Clock(), [LATE_DRIVER]
    sees = supervision(manager, clock, seen)
    told = set[str]()
    for _ in range(int(DRIVER_PATIENCE_SECONDS) + 2):
        assert "READY" not in told
        seen.append(replace(LATE_DRIVER, taken_at=clock.seconds))
        sees.look()
        told |= names(manager)
        clock.seconds += 1
    assert "READY" in told
    limit = re.search(r"^TimeoutStartSec=(\d+)s$", UNIT.read_text(), re.MULTILINE)
    assert limit is not None
    assert int(limit[1]) >= 2 * DRIVER_PATIENCE_SECONDS


def test_only_late_polls_starve_the_watchdog(manager: Manager) -> None:
    """Lost and hung GPUs, or none, are alive; a poll that is late is not, until it comes."""
    clock = Clock()
    fresh = replace(NODE, taken_at=clock.seconds)
    seen: list[Snapshot | None] = [None]
    sees = supervision(manager, clock, seen)
    sick = tuple(Gpu(i, f"GPU-{i}", fault) for i, fault in enumerate(Fault))
    for alive in (fresh, replace(fresh, gpus=sick), replace(fresh, driver=None, gpus=())):
        seen.append(alive)
        sees.look()
        assert "WATCHDOG" in names(manager)
    clock.seconds += fresh.stale_after_seconds + 1
    sees.look()
    assert "WATCHDOG" not in names(manager)
    seen.append(replace(fresh, taken_at=clock.seconds))
    sees.look()
    assert "WATCHDOG" in names(manager)


def test_what_was_not_heard_is_told_again(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manager that takes nothing for a while hears READY and the status later."""
    clock = Clock()
    sees = supervision(manager, clock, [replace(NODE, taken_at=clock.seconds)])
    path = os.environ["NOTIFY_SOCKET"]
    monkeypatch.setenv("NOTIFY_SOCKET", f"{path}-elsewhere")
    sees.look()
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    sees.look()
    assert names(manager) == {"READY", "STATUS", "WATCHDOG"}


def test_a_reload_before_the_first_page_does_not_make_us_ready(manager: Manager) -> None:
    """READY=1 ends a reload, so a reload is told of only by one who was ready."""
    clock = Clock()
    seen: list[Snapshot | None] = [None]
    sees = supervision(manager, clock, seen)
    with sees.reloading():
        pass
    assert names(manager) == set()


# The status line


RULES = RulesView(
    (
        RuleStatus("GpuMemoryHigh", "", "", FIRING, 1, 5.0, 0.8),
        RuleStatus("Other", "", "", PENDING, 0, 1.0, 0.9),
    )
)
WORST = (
    "1 of 3 GPUs answer: GPU 1 lost, GPU 2 hung; firing: GpuMemoryHigh; scale-out paused; "
    "scale-out requests in memory alone; the last config was bad, the one before goes on"
)


@pytest.mark.parametrize(
    ("snapshot", "line"),
    [
        (None, "the first readings are under way"),
        (replace(NODE, now=110.0), "the readings are old: the poller is late or stuck"),
        (NODE, "2 of 2 GPUs answer"),
        (replace(NODE, build=Build("1", "3", simulated=True)), "2 of 2 simulated GPUs answer"),
        (
            replace(
                NODE,
                gpus=(Gpu(0, "GPU-0"), Gpu(1, "", Fault.LOST), Gpu(2, "", Fault.HUNG)),
                rules=RULES,
                scaleout=ScaleoutView(paused=True, durable=False),
                reload=Reload(successful=False, success_timestamp_seconds=0.0),
            ),
            WORST,
        ),
        (
            replace(LATE_DRIVER, driver_problem="nvmlInit: unknown;\nREADY=0"),
            "no GPU readings: nvmlInit: unknown; READY=0",
        ),
    ],
)
def test_status_line(snapshot: Snapshot | None, line: str) -> None:
    """One line says how many GPUs answer, what is wrong with the others, and what is going on."""
    assert status_line(snapshot) == line


# The daemon


def test_a_life_as_a_service(manager: Manager, fake: FakeNvml) -> None:
    """A daemon is ready with a full page, tells of a reload with its time, and of its end."""
    fake.set({"init.delay_ms": 1500, "gpu3.lost": 1})
    env = {**fake.env(), "NOTIFY_SOCKET": os.environ["NOTIFY_SOCKET"]}
    with running(env={**env, "WATCHDOG_USEC": "2000000"}, config=BRISK) as daemon:
        told = manager.until("READY")
        page = daemon.page()
        assert page.up() == [1, 1, 1, 0, 1, 1, 1, 1]
        assert page.value("gpu_memory_total_bytes", gpu="0")
        assert "READY" in told
        manager.until("WATCHDOG")
        before = time.monotonic()
        daemon.config_file.write_text("poll: {fast: 10}")
        daemon.process.send_signal(signal.SIGHUP)
        told = manager.until("RELOADING")
        assert before <= int(told["MONOTONIC_USEC"]) / 1e6 <= time.monotonic()
        manager.until("READY")
        assert manager.until("STATUS")["STATUS"] == (
            "7 of 8 GPUs answer: GPU 3 lost; the last config was bad, the one before goes on"
        )
        assert daemon.stop()[0] == 0
        assert manager.until("STOPPING")["STATUS"] == "stopping"


def test_a_hung_gpu_keeps_the_watchdog_fed(manager: Manager, fake: FakeNvml) -> None:
    """With every GPU hung in the driver, signs of life go on: a restart would help none of them."""
    env = {**fake.env(), "NOTIFY_SOCKET": os.environ["NOTIFY_SOCKET"], "WATCHDOG_USEC": "400000"}
    with running(env=env, config=BRISK) as daemon:
        manager.until("READY")
        for gpu in range(8):
            fake.hang(gpu)
        while "GPU 7 hung" not in manager.until("STATUS")["STATUS"]:
            pass
        for _ in range(20):  # two seconds of them: the first poll without answers is long past
            manager.until("WATCHDOG")
        assert daemon.page().up() == [0] * 8


# Sockets


HAND_OVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_sockets_of_systemd_take_the_place_of_the_default_address(tmp_path: Path) -> None:
    """A daemon serves on the socket that it was given, and opens no other."""
    with socket.create_server(("127.0.0.1", 0)) as given, (tmp_path / "log").open("wb") as log:
        handed = given.fileno()
        process = subprocess.Popen(
            [sys.executable, "-c", HAND_OVER, str(handed), COMMAND, "--simulate=t4"],
            env={**os.environ, "STATE_DIRECTORY": str(tmp_path)},
            pass_fds=[handed],
            stderr=log,
        )
        try:
            port = given.getsockname()[1]
            with connect(port) as client:  # the kernel takes it before the daemon lives
                client.send(get("/-/healthy"))
                assert client.answer().status == 200
            said = (tmp_path / "log").read_text()
            assert re.findall(r"listening on (\S+)", said) == [f'http://127.0.0.1:{port}/metrics"']
        finally:
            process.kill()
            process.wait()


def test_a_socket_of_no_use_is_refused_in_one_line() -> None:
    """What is not a listening TCP socket is named, with what the unit should say."""
    pair = socket.socketpair()
    unbound = socket.socket()
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    reader, writer = os.pipe()
    closed = os.dup(reader)
    os.close(closed)
    local = socket.socket(socket.AF_UNIX)
    local.bind(f"\0gpu-node-exporter-test-{os.getpid()}")
    local.listen()
    numbers = [pair[0].detach(), local.detach(), unbound.detach(), datagrams.detach()]
    numbers += [reader, closed]
    for number in numbers:
        with pytest.raises(ListenError, match=rf"descriptor {number}\b.*ListenStream=") as bad:
            adopt(number)
        assert "\n" not in str(bad.value)
    for number in (pair[1].detach(), writer):
        os.close(number)


# The unit file


def test_the_unit_files_are_good(tmp_path: Path) -> None:
    """Systemd's own checker says nothing: no unknown setting, no typing mistake."""
    for unit in (UNIT, UNIT.with_suffix(".socket")):
        text = unit.read_text().replace("/usr/bin/gpu-node-exporter", "/bin/true")
        (tmp_path / unit.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", *sorted(tmp_path.iterdir())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_unit_s_exposure_stays_low() -> None:
    """Systemd rates the service's exposure at 1.6 or lower."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", f"--threshold={HIGHEST_EXPOSURE}", UNIT],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-200:] + done.stderr
