"""A metrics page in Prometheus's text format, of which only a few names are looked at.

The page is filtered as it arrives and never held as a whole; prometheus_client's parser would
build every series of it. https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Literal

MAX_PAGE_BYTES = 8 << 20
MAX_LINES = 200_000
MAX_LINE_BYTES = 16 << 10
MAX_SERIES = 5000  # that are looked at; vLLM has about 25 an engine

Type = Literal["gauge", "histogram", "summary"]
Labels = frozenset[tuple[str, str]]

_NAME = "[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\]|\\.)*"'
_SAMPLE = re.compile(
    rf"({_NAME})(?:\{{((?:{_LABEL}(?:, ?{_LABEL})*,?)?)\}})?"
    r"[ \t]+(\S+)(?:[ \t]+-?[0-9.]+)?(?:[ \t]+#.*)?[ \t]*"
)
_PAIR = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_TYPE = b"# TYPE "
_BUCKET = "_bucket"


class PageError(Exception):
    """A page that is not read to its end. `error` is one word; the text is for people."""

    def __init__(self, error: str, text: str) -> None:
        super().__init__(text)
        self.error = error


class Page:
    """Takes a page piece by piece, and keeps the series of the wanted names.

    Attributes:
        series: By name, then by labels; `le` is written as Python writes a float.
        spoiled: Names of which a line is not what it should be; `series` has none of these.
    """

    def __init__(self, wanted: Mapping[str, Type]) -> None:
        """Take the names of samples and the type of the metric that each is of."""
        self.series: dict[str, dict[Labels, float]] = {}
        self.spoiled: set[str] = set()
        self._wanted = wanted
        self._starts = (_TYPE, *(name.encode() for name in wanted))
        self._rest = b""
        self._bytes = self._lines = self._kept = 0

    def feed(self, data: bytes) -> None:
        """Take what comes next.

        Raises:
            PageError: The page goes beyond a bound.
        """
        self._bytes += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._lines += len(lines)
        if self._bytes > MAX_PAGE_BYTES:
            raise PageError("too_large", f"its page is over {MAX_PAGE_BYTES >> 20} MiB")
        if self._lines > MAX_LINES:
            raise PageError("too_large", f"its page has over {MAX_LINES} lines")
        if len(self._rest) > MAX_LINE_BYTES:
            raise PageError("too_large", f"its page has a line over {MAX_LINE_BYTES >> 10} KiB")
        for line in lines:
            if line.startswith(self._starts):
                self._take(line)

    def end(self) -> None:
        """Take the last line, if it has no end."""
        self.feed(b"\n")

    def _take(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip("\r")
        if line.startswith(_TYPE):
            self._check_type(text.split())
            return
        match = re.match(_NAME, text)
        name = match[0] if match else ""
        if name not in self._wanted:  # a longer one, of which a wanted one is the beginning
            return
        sample = _SAMPLE.fullmatch(text)
        if sample is None:
            self._spoil(name)
        else:
            self._add(name, sample[2] or "", sample[3])

    def _check_type(self, words: list[str]) -> None:
        if len(words) != len(("#", "TYPE", "name", "type")):
            return
        _, _, name, kind = words
        for sample in (name, name + _BUCKET):
            wanted = self._wanted.get(sample)
            if wanted is not None and kind not in (wanted, "untyped", "unknown"):
                self._spoil(sample)

    def _add(self, name: str, labels: str, text: str) -> None:
        if text.lower() == "nan" and self._wanted[name] == "summary":  # prometheus-cpp writes Nan
            return  # there were no requests
        value = float(text) if _NUMBER.fullmatch(text) else math.nan
        pairs = dict(_PAIR.findall(labels))
        bound = _bound(pairs.get("le"))
        if name.endswith(_BUCKET):
            pairs["le"] = repr(bound)
        series = self.series.setdefault(name, {})
        own = frozenset(pairs.items())
        is_good = math.isfinite(value) and value >= 0 and not math.isnan(bound)
        if not is_good or own in series or name in self.spoiled:
            self._spoil(name)
            return
        self._kept += 1
        if self._kept > MAX_SERIES:
            raise PageError("too_large", f"its page has over {MAX_SERIES} series of interest")
        series[own] = value

    def _spoil(self, name: str) -> None:
        self.spoiled.add(name)
        self.series.pop(name, None)


def _bound(le: str | None) -> float:
    """Return the upper bound of a bucket; infinite where there is none, NaN for nonsense."""
    if le is None or le == "+Inf":
        return math.inf
    return float(le) if _NUMBER.fullmatch(le) else math.nan
