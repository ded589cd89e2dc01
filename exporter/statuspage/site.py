"""The page and its JSON as bytes, built when asked for, and at most once a snapshot."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import fields, is_dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from exporter.gzips import gzipped
from exporter.snapshot import Snapshot
from exporter.statuspage.past import Past

if TYPE_CHECKING:
    from exporter.statuspage.document import Document  # loaded late, see _built
    from exporter.statuspage.view import Status

GZIP_LEVEL = 6
DIGITS = 4


class Built:
    """What one snapshot gave, each form of it once it is asked for."""

    def __init__(self, status: Status, document: Document) -> None:
        self._status = status
        self._document = document

    @property
    def policy(self) -> str:
        """The Content-Security-Policy that the page runs under."""
        return self._document.policy

    @cached_property
    def page(self) -> bytes:
        """The HTML document."""
        return self._document.render(self._status).encode()

    @cached_property
    def zipped_page(self) -> bytes:
        """The same in gzip."""
        return gzipped([self.page], GZIP_LEVEL)

    @cached_property
    def json(self) -> bytes:
        """What the page says, for programs."""
        text = json.dumps(_bare(self._status), allow_nan=False, separators=(",", ":"))
        return f"{text}\n".encode()


class StatusPage:
    """Builds the page. Runs in the event loop's thread alone."""

    def __init__(
        self, node: str, telemetry_path: str, past: Past, more_paths: Collection[str] = ()
    ) -> None:
        """Take the node's name, the path of the metrics, and what is kept of the past.

        `more_paths` are those of further pages with metrics.
        """
        self._node = node
        self._metrics_paths = (telemetry_path, *more_paths)
        self._past = past
        self._document: Document | None = None
        self._key: tuple[float, int] | None = None
        self._latest: Built | None = None

    def of(self, snapshot: Snapshot | None) -> Built:
        """Return what there is to say of a snapshot as it is seen now; None: there is none yet.

        A stale one says how old it is, so it is built anew each second.
        """
        key = None if snapshot is None else (snapshot.taken_at, int(snapshot.now))
        if self._latest is None or key is None or key != self._key:
            self._key, self._latest = key, self._build(snapshot)
        return self._latest

    def _build(self, snapshot: Snapshot | None) -> Built:
        # 0.5 MiB that a daemon whose page nobody opens saves.
        from exporter.statuspage.document import Document  # noqa: PLC0415
        from exporter.statuspage.look import look  # noqa: PLC0415

        if self._document is None:
            self._document = Document(self._metrics_paths)
        return Built(look(snapshot, self._past.seen(), self._node), self._document)


def _bare(value: object) -> object:
    """Return what JSON can express: dataclasses as objects, floats without the digits of noise."""
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, tuple):
        return [_bare(one) for one in value]
    if isinstance(value, dict):
        return {key: _bare(one) for key, one in value.items()}
    if is_dataclass(value):
        return {field.name: _bare(getattr(value, field.name)) for field in fields(value)}
    return value
