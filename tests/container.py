"""A real systemd, in a container made from the running root: what is changed in it is forgotten.

Its root is an overlay of ours, in a mount namespace of its own; systemd-nspawn boots it. It needs
root, and the right to mount: `missing_right` says what is missing. Nothing of it outlives the
process that started it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

PATIENCE_SECONDS = 60.0
PAUSE_SECONDS = 0.05
CGROUPS = Path("/sys/fs/cgroup")
# $1: a folder. What is mounted here is seen by no one else, and gone with the last process.
BOOT = r"""
set -e
mount -t tmpfs -o mode=755 tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
rm -rf etc/systemd/system/* etc/init.d/* etc/rc?.d/* etc/fstab usr/sbin/policy-rc.d
rm -rf var/log/journal etc/machine-id
tr -d - < /proc/sys/kernel/random/uuid > etc/machine-id
shift
exec systemd-nspawn --quiet --directory=. --boot --register=no --private-network --console=pipe \
    --capability=CAP_BPF --system-call-filter=bpf "$@"
"""
INSIDE = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup")


def missing_right() -> str | None:
    """Return what this process may not do and must, or None."""
    if os.geteuid() != 0:
        return "a container needs root"
    done = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"a container needs the right to mount: {done.stderr}" if done.returncode else None


class Container:
    """A machine whose systemd runs."""

    def __init__(self, leader: int, log: Path) -> None:
        self._leader = leader
        self._log = log

    @property
    def root(self) -> Path:
        """Its file system, as seen from here; links in it may lead out of it."""
        return Path(f"/proc/{self._leader}/root")

    def run(
        self, *command: str, check: bool = True, text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in it as root, with a text as its input."""
        done = subprocess.run(
            ["nsenter", f"--target={self._leader}", *INSIDE, "--", *command],
            input=text or "",
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
            check=False,
        )
        assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
        return done

    def sh(self, script: str, *, check: bool = True) -> str:
        """Run a script of the shell in it; return what it prints."""
        return self.run("sh", "-c", script, check=check).stdout

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file in it."""
        self.run("sh", "-c", 'mkdir -p "$(dirname "$1")" && cat > "$1"', "sh", path, text=text)
        self.run("chmod", f"{mode:o}", path)

    def show(self, unit: str, *names: str) -> dict[str, str]:
        """Return properties of a unit."""
        wanted = [f"--property={name}" for name in names]
        lines = self.run("systemctl", "show", unit, *wanted).stdout.splitlines()
        return dict(line.split("=", 1) for line in lines)

    def journal(self, *matches: str) -> str:
        """Return the messages that match, a line each."""
        return self.run("journalctl", "--output=cat", "--no-pager", *matches, check=False).stdout

    def until(self, script: str) -> str:
        """Run a script of the shell until it succeeds; return what it prints."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            done = self.run("sh", "-c", script, check=False)
            if done.returncode == 0:
                return done.stdout
            journal = self.run("journalctl", "--no-pager", "--lines=60", check=False).stdout
            assert time.monotonic() < deadline, f"{script}: {done.stdout}{done.stderr}\n{journal}"
            time.sleep(PAUSE_SECONDS)


@contextlib.contextmanager
def booted(folder: Path, shared: Mapping[Path, str]) -> Iterator[Container]:
    """Boot a container; it is powered off in the end.

    Args:
        folder: an empty one for it.
        shared: folders from here that it sees, read-only: here, and there.
    """
    assert shutil.which("systemd-nspawn"), "`make setup` installs systemd-container"
    (folder / "root").mkdir()
    log = folder / "log"
    binds = [f"--bind-ro={here}:{there}" for here, there in shared.items()]
    if not Path("/run/systemd/system").exists():
        binds.append("--keep-unit")  # no systemd here that would make a scope
    with _own_cgroups() as enter, log.open("wb") as output:
        nspawn = subprocess.Popen(
            [
                *("sh", "-c", f'{enter} exec "$@"', "sh"),
                *("unshare", "--mount", "--propagation=private"),
                *("setpriv", "--pdeathsig=TERM"),
                *("sh", "-c", BOOT, "sh", str(folder / "root"), f"--machine=test-{os.getpid()}"),
                *binds,
            ],
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            container = Container(_leader(nspawn, log), log)
            container.until("systemctl is-system-running | grep -qE 'running|degraded'")
            yield container
        finally:
            _power_off(nspawn)


def _leader(nspawn: subprocess.Popen[bytes], log: Path) -> int:
    """Return the process that is PID 1 inside."""
    children = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        assert nspawn.poll() is None, f"systemd-nspawn has ended: {log.read_text()}"
        for child in children.read_text().split():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    return int(child)
        time.sleep(PAUSE_SECONDS)
    raise AssertionError(f"no systemd came up: {log.read_text()}")


def _power_off(nspawn: subprocess.Popen[bytes]) -> None:
    children = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children")
    with contextlib.suppress(OSError):
        for child in children.read_text().split():
            os.kill(int(child), signal.SIGRTMIN + 4)  # systemd(1): power off
    try:
        nspawn.wait(10)
    except subprocess.TimeoutExpired:
        nspawn.kill()
        nspawn.wait()


@contextlib.contextmanager
def _own_cgroups() -> Iterator[str]:
    """Give the shell's words with which a process enters cgroups of its own.

    systemd-nspawn makes its cgroups below the one that it is in, always by the same names.
    """
    name = f"gpu-node-exporter-test-{os.getpid()}"
    trees = [CGROUPS / "unified", CGROUPS / "systemd"]
    folders: Sequence[Path] = [t / name for t in trees if (t / "cgroup.procs").exists()]
    if not folders:
        folders = [CGROUPS / name]
    for folder in folders:
        folder.mkdir(exist_ok=True)
    try:
        yield " ".join(f"echo $$ > {folder}/cgroup.procs;" for folder in folders)
    finally:
        for folder in folders:
            for path in sorted(folder.rglob("*"), reverse=True):
                if path.is_dir():
                    _remove(path)
            _remove(folder)


def _remove(cgroup: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while cgroup.exists() and time.monotonic() < deadline:
        with contextlib.suppress(OSError):  # its last process is about to go
            cgroup.rmdir()
            return
        time.sleep(PAUSE_SECONDS)
