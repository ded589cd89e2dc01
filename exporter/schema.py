"""What the dataclasses of a configuration file are written with: keys, checks and notations.

The structure comes from a dataclass's type hints, the notation of a value from its field's `key`:

    hint                 in the file
    another dataclass    a section: known keys, each once
    Mapping[str, V]      a section whose keys are free, or those of the set that `among` names
    tuple[V, ...]        a list
    V | None             V, or the key left out
    anything else        one value, in the notation of `read`

A field without a default is a key that must be there. What several fields must hold together is
the dataclass's own `check`, asked once each of them is right.

A notation is a function from the text of a value to the value. Its ValueError goes on after the
quoted text, and says what would be right: `has no unit; write 10s`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

Place = tuple[str | int, ...]
"""The way down from a section: keys as the file spells them, positions in lists from 0."""

_DURATION = re.compile(
    r"(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?(?:([0-9]{1,9})ms)?"
)
_MILLISECONDS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))
_TRUE = ("true", "True", "TRUE", "on", "On", "ON", "yes", "Yes", "YES")
_FALSE = ("false", "False", "FALSE", "off", "Off", "OFF", "no", "No", "NO")


class ConfigError(Exception):
    """A file that cannot be used. `mistakes` holds a line each, in the order of the file."""

    def __init__(self, mistakes: tuple[str, ...]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


@dataclass(frozen=True, slots=True)
class Key:
    """How a field stands in the file; made by `key`."""

    name: str
    read: Callable[[str], Any] | None = None
    at_least: str = ""
    at_most: str = ""
    unique: str = ""
    among: str = ""

    def allowed(self) -> str:
        """Return the range in words, or "" where there is none."""
        if self.at_least and self.at_most:
            return f"{self.at_least} to {self.at_most}"
        if self.at_least:
            return f"{self.at_least} or more"
        return f"{self.at_most} or less" if self.at_most else ""


def key(
    name: str,
    read: Callable[[str], Any] | None = None,
    *,
    at_least: str = "",
    at_most: str = "",
    unique: str = "",
    among: str = "",
) -> Mapping[str, Key]:
    """Return a dataclass field's metadata. A field without any is a section of its own name.

    Args:
        name: The key in the file.
        read: The notation (`exporter.notation`) of the value, or of each of several.
        at_least: The smallest value allowed, written as in the file.
        at_most: The largest value allowed, written as in the file.
        unique: Of a list of sections: the key whose value no two of them may share.
        among: Of free keys: which of the sets given to `decode` they must come from.
    """
    return {"key": Key(name, read, at_least, at_most, unique, among)}


@runtime_checkable
class Checked(Protocol):
    """A dataclass whose fields must agree with each other."""

    def check(self) -> Iterator[tuple[Place, str]]:
        """Yield each disagreement: where, and what is wrong and would be right.

        The message goes on after the value at that place: `is shorter than fast (2s); write ...`.
        """


def duration(text: str) -> float:
    """Read `10s`, `500ms` or `1h30m`, the notation of Prometheus up to days, as seconds."""
    match = _DURATION.fullmatch(text)
    if match and text:
        counts = zip(match.groups("0"), _MILLISECONDS, strict=True)
        return sum(int(count) * size for count, (_, size) in counts) / 1000
    if re.fullmatch("[0-9]{1,9}", text):
        raise ValueError(f"has no unit; write {text}s")
    raise ValueError(
        "is not a duration; write whole numbers with d, h, m, s or ms, such as 10s, 500ms or 1h30m"
    )


def as_duration(seconds: float) -> str:
    """Write seconds, rounded to milliseconds, as `duration` reads them."""
    rest = round(seconds * 1000)
    parts = []
    for unit, size in _MILLISECONDS:
        count, rest = divmod(rest, size)
        parts.append(f"{count}{unit}" if count else "")
    return "".join(parts) or "0s"


def boolean(text: str) -> bool:
    """Read the words that YAML 1.1 takes for true and false."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError("is neither true nor false; write true or false")
