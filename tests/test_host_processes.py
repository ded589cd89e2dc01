"""Processes of this host: real children, and a /proc that hides, lies or has changed."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from exporter.cgroup import attribution
from exporter.host.processes import Processes
from exporter.users import Users

MIB = 1 << 20
HOLD = "import sys; data = bytearray({mib} << 20); print('ready', flush=True); sys.stdin.read()"
STATUS = "Name:\tx\nUmask:\t0022\nUid:\t{uid}\t0\t0\t0\n"


@contextmanager
def child(code: str = HOLD.format(mib=1)) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Python process until the end of the block; it has said that it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def source(proc: Path = Path("/proc")) -> Processes:
    """Return a reader that names users by their numbers."""
    return Processes(lambda uid: f"uid-{uid}", proc)


def test_memory_time_start_and_owner_of_a_real_child() -> None:
    """A child with 64 MiB shows them, when it started, its user, and its cgroup."""
    before = time.time()
    with child(HOLD.format(mib=64)) as process:
        found = source().read(process.pid)
        cgroup = Path(f"/proc/{process.pid}/cgroup").read_text()
        comm = Path(f"/proc/{process.pid}/comm").read_text().removesuffix("\n")
    assert found is not None
    assert 64 * MIB < found.resident_bytes < 164 * MIB
    # The boot time that the kernel tells is in whole seconds, and moves with the clock.
    assert before - 3 < found.started_at_seconds < time.time() + 3
    assert (found.pid, found.name, found.user) == (process.pid, comm, f"uid-{os.getuid()}")
    assert found.attribution == attribution(cgroup)


def test_cpu_seconds_grow_with_what_a_child_does() -> None:
    """A child that has computed for 0.2 s shows it."""
    busy = "import time\nwhile time.process_time() < .2: pass\nprint('ready', flush=True); input()"
    with child(busy) as process:
        found = source().read(process.pid)
    assert found is not None
    assert 0.15 <= found.cpu_seconds < 10


def test_vanished_process_is_absent() -> None:
    """A child that ended and was waited for is nobody, and nothing of it is remembered."""
    reader = source()
    with child() as process:
        assert reader.read(process.pid) is not None
    assert reader.read(process.pid) is None
    assert not reader._known


def write(proc: Path, pid: int, *, name: str = "x", start: int = 500, uid: int = 7) -> Path:
    """Write what a kernel shows of a process that has 10 pages and 3.5 s of CPU time."""
    hertz = os.sysconf("SC_CLK_TCK")
    (proc / "self/ns").mkdir(parents=True, exist_ok=True)
    (proc / "stat").write_text("cpu 1 2\nbtime 1000\nprocesses 5\n")
    folder = proc / str(pid)
    folder.mkdir(parents=True, exist_ok=True)
    fields = ["S", *["0"] * 10, str(3 * hertz), str(hertz // 2), *["0"] * 6, str(start * hertz)]
    (folder / "stat").write_bytes(
        f"{pid} ({name}) ".encode() + " ".join([*fields, "0", "10", "0"]).encode() + b"\n"
    )
    (folder / "cgroup").write_text("0::/system.slice/a.service\n")
    (folder / "status").write_text(STATUS.format(uid=uid))
    return folder


def test_figures_are_those_of_their_fields(tmp_path: Path) -> None:
    """Each figure is read from its own place, also behind a name that looks like fields."""
    write(tmp_path, 42, name=") R 1 (x) ")
    found = source(tmp_path).read(42)
    assert found is not None
    assert found.name == ") R 1 (x) "
    assert found.started_at_seconds == 1500.0
    assert found.cpu_seconds == 3.5
    assert found.resident_bytes == 10 * os.sysconf("SC_PAGE_SIZE")
    assert (found.user, found.attribution.systemd_unit) == ("uid-7", "a.service")


def test_pid_that_is_reused_is_another_process(tmp_path: Path) -> None:
    """With another start, nothing that was remembered of the PID's last owner is left."""
    reader = source(tmp_path)
    write(tmp_path, 42, start=500, uid=7)
    assert (first := reader.read(42))
    write(tmp_path, 42, start=900, uid=8)
    assert (second := reader.read(42))
    assert (first.user, second.user) == ("uid-7", "uid-8")
    assert second.started_at_seconds - first.started_at_seconds == 400


def test_clock_that_is_set_moves_no_start(tmp_path: Path) -> None:
    """The start of a process that is known stays, though the kernel's boot time moves."""
    reader = source(tmp_path)
    write(tmp_path, 42)
    first = reader.read(42)
    (tmp_path / "stat").write_text("btime 5000\n")
    assert reader.read(42) == first


def test_process_that_is_moved_has_a_new_unit(tmp_path: Path) -> None:
    """Slurm adopts processes, systemd-run starts them elsewhere: the group is read each time."""
    reader = source(tmp_path)
    folder = write(tmp_path, 42)
    reader.read(42)
    (folder / "cgroup").write_text("0::/system.slice/slurmstepd.scope/job_9/step_0\n")
    assert (found := reader.read(42))
    assert (found.attribution.slurm_job_id, found.workload) == ("9", "slurm:9")


@pytest.mark.parametrize("hidden", ["stat", "cgroup", "status"])
def test_what_may_not_be_read_is_absent_and_not_0(tmp_path: Path, hidden: str) -> None:
    """One file out of reach, as with hidepid or a security module, and the process is absent."""
    folder = write(tmp_path, 42)
    (folder / hidden).unlink()
    (folder / hidden).mkdir()  # nobody can read that, root neither
    assert source(tmp_path).read(42) is None
    shutil.rmtree(folder)  # hidepid=2 shows not even the folder
    assert source(tmp_path).read(42) is None


@pytest.mark.parametrize("stat", [b"", b"42", b"42 (x) S", b"42 (x) " + b"a " * 30, b"\xff" * 99])
def test_stat_that_is_no_stat_is_absent(tmp_path: Path, stat: bytes) -> None:
    """What does not read like the kernel's gives nothing."""
    (write(tmp_path, 42) / "stat").write_bytes(stat)
    assert source(tmp_path).read(42) is None


def test_name_that_is_no_text_is_shown_as_far_as_it_is(tmp_path: Path) -> None:
    """A process may call itself anything."""
    folder = write(tmp_path, 42, name="NAME")
    (folder / "stat").write_bytes((folder / "stat").read_bytes().replace(b"NAME", b'a\xff"\n'))
    assert (found := source(tmp_path).read(42))
    assert found.name == 'a\N{REPLACEMENT CHARACTER}"\n'


def test_only_what_is_wanted_is_remembered(tmp_path: Path) -> None:
    """Of 10,000 processes, those that are not kept are forgotten."""
    reader = source(tmp_path)
    write(tmp_path, 1)
    content = (tmp_path / "1/stat").read_bytes()
    for pid in range(2, 60):
        shutil.copytree(tmp_path / "1", tmp_path / str(pid))
        (tmp_path / str(pid) / "stat").write_bytes(content)
    assert all(reader.read(pid) for pid in range(1, 60))
    reader.keep({3, 4})
    assert set(reader._known) == {3, 4}


def test_pids_of_another_namespace_are_not_looked_up(tmp_path: Path) -> None:
    """Inside a PID namespace, only PIDs that the driver has translated are ours."""
    write(tmp_path, 42)
    (tmp_path / "self/ns/pid").touch()  # its inode is not that of the first namespace
    inside = source(tmp_path)
    assert not inside.samples_match
    assert not inside.pids_match("535.261.03")
    assert not inside.pids_match("")
    assert inside.pids_match("580.95.05")
    here = Path("/proc/self/ns/pid").stat().st_ino == 0xEFFFFFFC
    assert source().samples_match == here
    assert source().pids_match("535.1") == here


def test_users_have_names_or_numbers() -> None:
    """Root has a name; a user that no directory knows is its number."""
    users = Users()
    assert users.name(0) == pwd.getpwuid(0).pw_name
    assert users.name(4_000_111_222) == "4000111222"


def test_directory_that_hangs_holds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a look-up hangs, users are numbers, with one thread; names come once it answers."""
    gate = threading.Event()
    real = pwd.getpwuid

    def stuck(uid: int) -> pwd.struct_passwd:
        gate.wait(60)
        return real(uid)

    monkeypatch.setattr("exporter.users.pwd.getpwuid", stuck)
    users = Users()
    before = threading.active_count()
    assert [users.name(uid) for uid in (0, 1, 0, 2)] == ["0", "1", "0", "2"]
    assert threading.active_count() == before + 1
    gate.set()
    assert users._job is not None
    while not users._job.done:
        time.sleep(0.001)
    assert users.name(0) == real(0).pw_name
