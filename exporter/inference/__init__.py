"""Inference servers of the node, read for the rules: vLLM, TGI and Triton."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from exporter.config import InferenceServer
from exporter.config.groups import indexes
from exporter.inference_view import InferenceView, Server
from exporter.threads import start

if TYPE_CHECKING:
    from exporter.inference.reader import Reader  # only a config with servers needs it

WAITING = "it has not answered yet"
LATE = "its last answer is too old"


class Inference:
    """Has a thread for each server. `configure`, `view` and `stop` never wait for one."""

    def __init__(self) -> None:
        self._readers: tuple[Reader, ...] = ()
        self._lock = threading.Lock()
        self._errors: Counter[str] = Counter()

    def configure(self, servers: Sequence[InferenceServer]) -> None:
        """Read these from now on. One that is configured as before goes on."""
        kept = {reader.server: reader for reader in self._readers if reader.server in servers}
        for reader in self._readers:
            if reader.server not in kept:
                reader.stop()
        self._readers = tuple(kept.get(server) or self._start(server) for server in servers)

    def stop(self) -> None:
        """Let all threads end."""
        self.configure(())

    def view(self, now: float) -> InferenceView | None:
        """Return what is known at monotonic seconds; None without any server.

        A reading holds until the next one must have come: what is older is not shown.
        """
        if not self._readers:
            return None
        with self._lock:
            errors = dict(self._errors)
        seconds = [reader.state.seconds for reader in self._readers if reader.state is not None]
        servers = tuple(_server(reader, now) for reader in self._readers)
        return InferenceView(servers, errors, max(seconds, default=None))

    def _start(self, server: InferenceServer) -> Reader:
        from exporter.inference.reader import Reader  # noqa: PLC0415  see above

        reader = Reader(server, self._count)
        start(reader)
        return reader

    def _count(self, error: str) -> None:
        with self._lock:
            self._errors[error] += 1


def _server(reader: Reader, now: float) -> Server:
    config, state = reader.server, reader.state
    gpus = frozenset(name for entry in config.gpus for name in (entry, *map(str, indexes(entry))))
    if state is None:
        return Server(config.name, config.kind, gpus, None, WAITING)
    if state.load is not None and now - state.at > config.valid_seconds:
        return Server(config.name, state.kind, gpus, None, LATE)
    return Server(config.name, state.kind, gpus, state.load, state.problem)
