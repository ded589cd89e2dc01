"""Metrics pages in the shapes of vLLM, TGI and Triton, and readings of what serves them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from exporter.config import InferenceServer
from exporter.inference.reader import Reader, State

PAGES = Path(__file__).parent / "fixtures" / "inference"


def page(name: str, **values: float | str) -> str:
    """Return a page; `waiting` and such stand for the value of a name that ends so."""
    text = (PAGES / f"{name}.prom").read_text()
    for ending, value in values.items():
        line = re.compile(rf"^([a-z_:]*{ending}(?:\{{.*\}})?) \S+$", re.MULTILINE)
        text, count = line.subn(rf"\1 {value}", text)
        assert count, ending
    return text


class Asker:
    """Reads one server, when the test says so.

    Attributes:
        errors: What was counted.
    """

    def __init__(self, url: str, kind: str = "auto", timeout_seconds: float = 5.0) -> None:
        self.errors: Counter[str] = Counter()
        server = InferenceServer("llm", url, kind, (), 10.0, timeout_seconds)
        self._reader = Reader(server, self._count)

    def read(self, at: float = 0.0) -> State:
        """Read it once, at monotonic seconds."""
        return self._reader.read(at)

    def _count(self, error: str) -> None:
        self.errors[error] += 1
