"""A thread that reads one server again and again. Nobody ever waits for it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from exporter.config import InferenceServer
from exporter.frozen import dataclass
from exporter.inference.engines import Engine, engines, look
from exporter.inference.fetch import Source, fetch
from exporter.inference.latency import Latency
from exporter.inference.page import Page, PageError, Type
from exporter.inference_view import Load
from exporter.scaleout.resolver import Resolver

log = logging.getLogger(__name__)

LONGEST_PAUSE_SECONDS = 5.0  # between two attempts at a server that cannot be read


@dataclass(frozen=True, slots=True)
class State:
    """How the last reading went: begun at monotonic seconds, and what it took."""

    at: float
    seconds: float
    kind: str
    load: Load | None
    problem: str


class Reader(threading.Thread):
    """Reads from `start` to `stop`.

    Attributes:
        server: What it reads.
        state: Replaced whole; None before the first reading is over.
    """

    def __init__(self, server: InferenceServer, on_error: Callable[[str], None]) -> None:
        """Take the server, and who is told the word for each error."""
        super().__init__(name=f"inference-{server.name}", daemon=True)
        self.server = server
        self.state: State | None = None
        self._on_error = on_error
        self._stopped = threading.Event()
        self._engines: tuple[Engine, ...] = engines(server.kind)
        self._wanted: dict[str, Type] = {}
        for engine in self._engines:
            self._wanted.update(engine.wanted())
        self._source = Source(server.url, server.http_config, server.timeout_seconds, Resolver())
        self._latency = Latency()
        self._problem = ""

    def stop(self) -> None:
        """Let the thread end after the reading that is under way."""
        self._stopped.set()

    def run(self) -> None:
        """Read until stopped; less often while that fails."""
        pause = self.server.interval_seconds
        while not self._stopped.is_set():
            began = time.monotonic()
            self.state = self.read(began)
            if self.state.load is not None:
                pause = self.server.interval_seconds
            else:
                pause = max(min(2 * pause, LONGEST_PAUSE_SECONDS), self.server.interval_seconds)
            self._stopped.wait(max(began + pause - time.monotonic(), 0.0))

    def read(self, now: float) -> State:
        """Read once, at monotonic seconds; whatever happens becomes a state."""
        began = time.monotonic()
        try:
            kind, load = self._read(now)
            problem = ""
        except PageError as error:
            kind, load, problem = self.server.kind, None, str(error)
            self._on_error(error.error)
        except Exception:  # a fault of ours must not end the thread
            log.exception("inference server %s: reading it failed", self.server.name)
            kind, load, problem = self.server.kind, None, "reading it failed; see the log"
            self._on_error("internal")
        self._say(problem)
        return State(now, time.monotonic() - began, kind, load, problem)

    def _read(self, now: float) -> tuple[str, Load]:
        page = Page(self._wanted)
        fetch(self._source, page.feed)
        page.end()
        found = look(page, self._engines)
        if page.spoiled:
            self._on_error("invalid")
        if not found.kind:
            names = (
                "is not what it should be" if page.spoiled else "has no metric that is known here"
            )
            raise PageError("unknown", f"its page {names}")
        load = found.load
        if found.buckets is not None:
            load = replace(load, latency_p99_seconds=self._latency.add(now, found.buckets))
        return found.kind, load

    def _say(self, problem: str) -> None:
        """Log where a problem begins, changes or ends."""
        if problem and problem != self._problem:
            log.warning("inference server %s cannot be read: %s", self.server.name, problem)
        elif self._problem and not problem:
            log.info("inference server %s is read again", self.server.name)
        self._problem = problem
