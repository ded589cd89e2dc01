"""The daemons that are compared, and how one is started, timed and ended."""

from __future__ import annotations

import compileall
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from client import BenchError, clients
from fake import GPUS, PROCESSES, ROOT, FakeNvml

OURS, FULL, NVITOP, NODE = "gpu-node-exporter", "everything on", "nvitop-exporter", "node_exporter"
FULL_CONFIG = Path(__file__).with_name("full.yml")
NODE_EXPORTER_BINARY = ROOT / ".cache/debian/usr/bin/prometheus-node-exporter"
FIRST_PAGE_SECONDS = 30.0
RETRY_SECONDS = 0.002  # while nobody listens yet
INCOMPLETE_SECONDS = 0.01  # while pages lack something
GRACE_SECONDS = 5.0  # from SIGTERM to SIGKILL


@dataclass(frozen=True, slots=True)
class Program:
    """A daemon that can be started.

    `{port}` and `{folder}`, an empty folder of its own, are filled in in its command.
    """

    name: str
    version: str
    command: tuple[str, ...]
    is_complete: Callable[[bytes], bool]  # whether a page shows all there is


@dataclass(frozen=True, slots=True)
class Programs:
    """The one that is measured, as it comes and with everything on, and its peers."""

    ours: Program
    full: Program
    nvitop: Program
    node: Program

    def all(self) -> tuple[Program, ...]:
        """Return ours first."""
        return self.ours, self.full, self.nvitop, self.node

    def peers(self) -> tuple[Program, ...]:
        """Return those of others."""
        return self.nvitop, self.node


def find_programs() -> Programs:
    """Return the programs, ours compiled as pip and the packages install it, and its peers.

    Raises:
        BenchError: one is not installed.
    """
    scripts = Path(sys.executable).parent
    ours, nvitop = scripts / "gpu-node-exporter", scripts / "nvitop-exporter"
    missing = [str(p) for p in (ours, nvitop, NODE_EXPORTER_BINARY) if not p.exists()]
    if missing:
        raise BenchError(f"not installed: {', '.join(missing)}; `make bench` installs them")
    compileall.compile_dir(ROOT / "exporter", quiet=2)
    as_it_comes = Program(
        OURS,
        _version(ours),
        (str(ours), "--web.listen-address=127.0.0.1:{port}", "--storage.path={folder}"),
        _shows(b"gpu_power_watts{", b"gpu_process_info{"),
    )
    everything = ("--compat.dcgm", f"--config.file={FULL_CONFIG}")
    return Programs(
        as_it_comes,
        replace(as_it_comes, name=FULL, command=(*as_it_comes.command, *everything)),
        Program(
            NVITOP,
            _version(nvitop),
            (str(nvitop), "--bind-address=127.0.0.1", "--port={port}"),
            _shows(b"gpu_power_usage_W{", b"process_info_info{"),
        ),
        Program(
            NODE,
            _version(NODE_EXPORTER_BINARY),
            (
                str(NODE_EXPORTER_BINARY),
                "--web.listen-address=127.0.0.1:{port}",
                # What would only write an error at each scrape where there is no systemd.
                "--no-collector.systemd",
                "--collector.textfile.directory={folder}",
            ),
            lambda page: b"\nnode_load1 " in page,
        ),
    )


def _shows(gpu: bytes, process: bytes) -> Callable[[bytes], bool]:
    """Return what finds whether a page has these series of every GPU and process of the node."""
    return lambda page: page.count(b"\n" + gpu) == GPUS and page.count(b"\n" + process) == PROCESSES


def _version(program: Path) -> str:
    done = subprocess.run(
        [program, "--version"], capture_output=True, text=True, check=False, timeout=30
    )
    words = (done.stdout + done.stderr).replace(",", " ").split()
    return next((word for word in words if word[0].isdigit() and "." in word), "")


def free_port() -> int:
    """Return a port of the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Child(AbstractContextManager["Child"]):
    """A process that ends with the block that it was started for, and its children with it."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        with log.open("wb") as output:
            self.started = time.perf_counter()
            # A session of its own: Ctrl-C is for this program, which then ends its children.
            self.process = subprocess.Popen(
                command,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._log = log

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name in (signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is None:
                os.killpg(self.process.pid, name)
            try:
                self.process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            return

    def output(self) -> str:
        """Return what it has written."""
        return self._log.read_text(encoding="utf-8", errors="replace").strip()

    def finish(self, seconds: float) -> str:
        """Wait until it has ended by itself; return what it has written.

        Raises:
            BenchError: it fails, or takes longer than `seconds`.
        """
        name = Path(str(self.process.args[0])).name  # type: ignore[index]
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{name} did not end within {seconds:.0f} s") from None
        if code:
            raise BenchError(f"{name} ended with {code}: {self.output()[-300:]}")
        return self.output()


@dataclass(frozen=True, slots=True)
class Running:
    """A daemon that has given its first complete page, `start_seconds` after it was executed."""

    program: Program
    pid: int
    port: int
    start_seconds: float


class Workplace:
    """A folder for logs, and the environment in which all programs find the fake library."""

    def __init__(self, folder: Path, fake: FakeNvml) -> None:
        self.folder = folder
        # No call log: each call would pay for it.
        self.env = {key: v for key, v in fake.env().items() if key != "FAKE_NVML_LOG"}

    def child(self, command: Sequence[str]) -> Child:
        """Start a program."""
        name = Path(command[0]).name
        return Child(command, self.env, self.folder / f"{name}-{time.monotonic_ns()}.log")

    def run(self, program: Program) -> tuple[Child, int]:
        """Start a daemon; return it with its port."""
        port, folder = free_port(), tempfile.mkdtemp(dir=self.folder)
        command = [word.format(port=port, folder=folder) for word in program.command]
        return self.child(command), port


def await_page(program: Program, child: Child, port: int) -> Running:
    """Wait for a daemon's first complete page.

    Raises:
        BenchError: it ends, or no such page comes.
    """
    with clients(port) as scrapers:
        while time.perf_counter() - child.started < FIRST_PAGE_SECONDS:
            if child.process.poll() is not None:
                raise BenchError(f"{program.name} has ended: {child.output()[-300:]}")
            pause = INCOMPLETE_SECONDS
            try:
                answer = scrapers.scrape()
                arrived = time.perf_counter() - child.started
                if answer.status == 200 and program.is_complete(answer.page):
                    return Running(program, child.process.pid, port, arrived)
            except OSError:
                pause = RETRY_SECONDS
            time.sleep(pause)
    raise BenchError(f"{program.name} gave no complete page in {FIRST_PAGE_SECONDS:g} s")
