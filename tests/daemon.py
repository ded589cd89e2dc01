"""The real gpu-node-exporter as a process: started, asked, and gone when the test is over."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from http_client import Answer, connect, get
from prometheus_client.parser import text_string_to_metric_families

from exporter.statuspage.problems import STARTING

COMMAND = Path(sys.executable).with_name("gpu-node-exporter")
PATIENCE_SECONDS = 30.0  # far beyond anything that is waited for: who waits so long has failed
PAUSE_SECONDS = 0.02  # between two looks
LISTENING = re.compile(r"listening on https?://([^ ]+):(\d+)/")

T = TypeVar("T")

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Page:
    """One scrape."""

    text: str

    @cached_property
    def series(self) -> Mapping[tuple[str, Labels], float]:
        """Return every series by its name and labels."""
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.text)
            for sample in family.samples
        }

    def all(self, name: str, **labels: str) -> list[tuple[dict[str, str], float]]:
        """Return labels and value of all series of a name that have these labels."""
        wanted = labels.items()
        return [
            (dict(own), value)
            for (series, own), value in self.series.items()
            if series == name and wanted <= own
        ]

    def value(self, name: str, **labels: str) -> float | None:
        """Return the value of the one series with these labels, or None: there is none."""
        found = self.all(name, **labels)
        assert len(found) <= 1, found
        return found[0][1] if found else None

    def names(self, **labels: str) -> set[str]:
        """Return the names of all series that have these labels."""
        wanted = labels.items()
        return {name for name, own in self.series if wanted <= own}

    @property
    def polls(self) -> float:
        """Return how many polls this page has behind it."""
        return sum(
            self.value("gpu_exporter_polls_total", result=result) or 0.0
            for result in ("complete", "partial")
        )

    def up(self) -> list[float]:
        """Return gpu_up of each GPU, by index."""
        ups = {int(labels["gpu"]): value for labels, value in self.all("gpu_up")}
        return [ups[gpu] for gpu in sorted(ups)]

    def fault(self, gpu: int) -> set[str]:
        """Return the reasons that gpu_fault gives for a GPU."""
        return {
            labels["reason"] for labels, value in self.all("gpu_fault", gpu=str(gpu)) if value == 1
        }


class Daemon:
    """A daemon that runs."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        folder: Path,
        tls: ssl.SSLContext | None,
        headers: Sequence[str],
    ) -> None:
        self.process = process
        self._tls = tls
        self._headers = headers
        self.config_file = folder / "config.yml"
        self._log_file = folder / "log"
        self.addresses: list[tuple[str, int]] = []

    @property
    def port(self) -> int:
        """The port of its first address."""
        return self.addresses[0][1]

    @property
    def proc(self) -> Path:
        """Its folder in /proc."""
        return Path(f"/proc/{self.process.pid}")

    @property
    def descriptors(self) -> int:
        """How many file descriptors it has."""
        return len(list((self.proc / "fd").iterdir()))

    @property
    def threads(self) -> int:
        """How many threads it has."""
        return len(list((self.proc / "task").iterdir()))

    @property
    def held(self) -> tuple[int, int]:
        """Both."""
        return self.descriptors, self.threads

    @property
    def resident_bytes(self) -> int:
        """How much of it is in memory."""
        pages = int((self.proc / "statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE")

    @property
    def log(self) -> str:
        """What it has logged."""
        return self._log_file.read_text()

    def messages(self, level: str) -> list[str]:
        """Return the texts that it has logged at a level, in logfmt."""
        lines = re.findall(
            rf'^ts=\S+ level={level} source=\S+ msg=("(?:[^"\\]|\\.)*"|\S+)(?: \w+=.*)?$',
            self.log,
            re.MULTILINE,
        )
        return [json.loads(line) if line.startswith('"') else line for line in lines]

    def get(self, path: str = "/metrics", method: str = "GET") -> Answer:
        """Ask its first address for a path."""
        host, port = self.addresses[0]
        with connect(port, host, tls=self._tls) as client:
            client.send(get(path, "Content-Length: 0", *self._headers, method=method))
            return client.answer(bodiless=method == "HEAD")

    def page(self) -> Page:
        """Scrape it once."""
        answer = self.get()
        assert answer.status == 200, answer.body
        return Page(answer.body.decode())

    def until(self, wanted: Callable[[Page], object]) -> Page:
        """Scrape it until a page is as wanted."""

        def look() -> Page | None:
            page = self.page()
            return page if wanted(page) else None

        return self.eventually(look)

    def after_polls(self, count: int) -> Page:
        """Return the page after so many polls; two are one that began after now."""
        polls = self.page().polls
        return self.until(lambda page: page.polls >= polls + count)

    def ready(self) -> tuple[int, str]:
        """Return status and text of /-/ready."""
        answer = self.get("/-/ready")
        return answer.status, answer.body.decode()

    def wait_for_log(self, text: str) -> None:
        """Wait until a text is logged."""
        self.eventually(lambda: True if text in self.log else None)

    def eventually(self, look: Callable[[], T | None]) -> T:
        """Return the first thing that is seen; the process must live as long."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            seen = look()
            if seen is not None:
                return seen
            assert self.process.poll() is None, f"it has ended; its log:\n{self.log}"
            time.sleep(PAUSE_SECONDS)
        raise AssertionError(f"it did not come to that; its log:\n{self.log}")

    def stop(self) -> tuple[int, float]:
        """End it as systemd does; return the exit code and how many seconds it took."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_SECONDS), time.monotonic() - started


@contextlib.contextmanager
def running(
    *flags: str,
    env: Mapping[str, str] | None = None,
    config: str = "{}",
    listen: Sequence[str] = ("127.0.0.1:0",),
    tls: ssl.SSLContext | None = None,
    headers: Sequence[str] = (),
) -> Iterator[Daemon]:
    """Run the daemon on ports that the kernel chooses, and wait for its first page.

    It is killed in the end, whatever happens.

    Args:
        *flags: beside those for the addresses and the config file.
        env: the environment, as FakeNvml.env() makes it; else this process's.
        config: text of the config file.
        listen: the addresses.
        tls: how to connect to it.
        headers: what to send with each request, such as a password.
    """
    with tempfile.TemporaryDirectory(prefix="daemon-") as name:
        folder = Path(name)
        with (folder / "log").open("wb") as log:
            (folder / "config.yml").write_text(config)
            flags = (
                *(f"--web.listen-address={address}" for address in listen),
                f"--config.file={folder / 'config.yml'}",
                f"--storage.path={folder / 'storage'}",
                *flags,
            )
            process = subprocess.Popen(
                [COMMAND, *flags],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        daemon = Daemon(process, folder, tls, headers)
        try:
            daemon.addresses = daemon.eventually(lambda: _addresses(daemon.log, len(listen)))
            daemon.eventually(lambda: None if STARTING in daemon.ready()[1] else True)
            yield daemon
        finally:
            process.kill()
            process.wait()


def _addresses(log: str, count: int) -> list[tuple[str, int]] | None:
    found = [(host.strip("[]"), int(port)) for host, port in LISTENING.findall(log)]
    return found if len(found) == count else None
