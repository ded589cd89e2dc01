"""What the dataclasses of a configuration file are written with: keys, checks and notations.

The structure comes from a dataclass's type hints, the notation of a value from its field's `key`:

    hint                 in the file
    another dataclass    a section: known keys, each once; or, with `read`, one value instead
    Mapping[str, V]      a section whose keys are free, or those of the set that `among` names
    tuple[V, ...]        a list; the same single value never twice
    V | None             V, or the key left out
    object               any structure, its values as JSON spells them, as dict, list and scalars
    anything else        one value, in the notation of `read`

A field without a default is a key that must be there. What several fields must hold together is
the dataclass's own `check`, asked once each of them is right.

A notation is a function from the text of a value to the value. Its ValueError goes on after the
quoted text, and says what would be right: `has no unit; write 10s`.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from exporter.frozen import dataclass

Place = tuple[str | int, ...]
"""The way down from a section: keys as the file spells them, positions in lists from 0."""

_DURATION = re.compile(
    r"(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?(?:([0-9]{1,9})ms)?"
)
_MILLISECONDS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))
_SIZES: Mapping[str, int] = MappingProxyType(
    {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
)
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_LONGEST_TEXT = 256
_LONGEST_SHOWN = 60
_MOST_LISTED = 20
_JSON_WORDS: Mapping[str, bool | None] = MappingProxyType(
    {"": None, "null": None, "true": True, "false": False}
)
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
    keys: Callable[[str], str] | None = None
    hidden: bool = False

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
    keys: Callable[[str], str] | None = None,
    hidden: bool = False,
) -> Mapping[str, Key]:
    """Return a dataclass field's metadata. A field without any is a section of its own name.

    Args:
        name: The key in the file; "" for a field that the file never says.
        read: The notation of the value, or of each of several.
        at_least: The smallest value allowed, written as in the file.
        at_most: The largest value allowed, written as in the file.
        unique: Of a list of sections: the key whose value no two of them may share.
        among: Of free keys, or of a value: which of the sets given to `decode` it must come from.
        keys: Of free keys: their notation.
        hidden: Whether the value is a secret that no message may repeat.
    """
    return {"key": Key(name, read, at_least, at_most, unique, among, keys, hidden)}


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


def number(text: str) -> float:
    """Read a number as JSON spells it."""
    if re.fullmatch(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,24})?([eE][+-]?[0-9]{1,3})?", text):
        value = float(text)
        if math.isfinite(value):
            return value
    if match := re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,6})?) ?%", text):
        raise ValueError(f"is a percentage; write {float(match[1]) / 100:g}")
    raise ValueError("is not a number; write digits with a point, such as 0.95 or 85")


def json_value(text: str) -> float | bool | None:
    """Read what JSON has besides text: numbers, true, false and null; nothing is null too."""
    if re.fullmatch("-?(0|[1-9][0-9]{0,17})", text):
        return int(text)
    if text in _JSON_WORDS:
        return _JSON_WORDS[text]
    try:
        return number(text)
    except ValueError:
        raise ValueError("is not a value of JSON; write a number, true, false or null") from None


def count(text: str) -> int:
    """Read a whole number."""
    if re.fullmatch("-?(0|[1-9][0-9]{0,8})", text):
        return int(text)
    raise ValueError("is not a whole number; write up to nine digits, such as 5")


def size(text: str) -> int:
    """Read `256MiB` as bytes. Units that some take for 1000 and others for 1024 are refused."""
    if match := re.fullmatch(r"([0-9]{1,9})([KMGT]iB|B)", text):
        return int(match[1]) * _SIZES[match[2]]
    if match := re.fullmatch(r"([0-9]{1,9}) ?([KMGT])(i|B|b)?", text):
        raise ValueError(f"is not in units of 1024; write {match[1]}{match[2]}iB")
    if re.fullmatch("[0-9]{1,9}", text):
        raise ValueError(f"has no unit; write {text}B, or a number of KiB, MiB or GiB")
    raise ValueError("is not a size; write a whole number with B, KiB, MiB or GiB, such as 256MiB")


def plain(text: str) -> str:
    """Read text of one line."""
    if not text.strip():
        raise ValueError("is empty; write some text, or leave the key out")
    if len(text) > _LONGEST_TEXT:
        raise ValueError(f"is longer than {_LONGEST_TEXT} characters; shorten it")
    if not text.isprintable():
        raise ValueError("holds a control character; remove it")
    return text


def identifier(text: str) -> str:
    """Read what other places call something by: fit for labels, file names and logs."""
    if re.fullmatch("[A-Za-z0-9_][A-Za-z0-9_.:-]{0,99}", text):
        return text
    raise ValueError('is not a name; write up to 100 letters, digits and "_", "-", "." or ":"')


def label_name(text: str) -> str:
    """Read the name of a Prometheus label."""
    if re.fullmatch("[a-zA-Z_][a-zA-Z0-9_]{0,99}", text) and not text.startswith("__"):
        return text
    raise ValueError('is not a label name; write letters, digits and "_", such as scale_group')


def choice(*known: str) -> Callable[[str], str]:
    """Return the notation that takes one of these words."""

    def read(text: str) -> str:
        if text in known:
            return text
        raise ValueError(f"is not known here; write {', '.join(known[:-1])} or {known[-1]}")

    return read


def file_path(text: str) -> Path:
    """Read an absolute path in which `${NAME}` stands for the environment's NAME."""
    path = near_path(text)
    if not path.is_absolute():
        raise ValueError("is not an absolute path; write it from / on")
    return path


def near_path(text: str) -> Path:
    """Read a path as `file_path` does, but one that may begin at the file which names it."""
    plain(text)
    if "$" in _VARIABLE.sub("", text):
        raise ValueError('has a "$" that begins no ${NAME}; write variables as ${NAME}')
    for variable in _VARIABLE.findall(text):
        if not os.environ.get(variable):
            raise ValueError(f"needs {variable}, which is not set here; set it as the service does")
    return Path(_VARIABLE.sub(lambda match: os.environ[match[1]], text))


def listed(known: Collection[str]) -> str:
    """Return what there is, as the end of a message; of very many, the first ones."""
    first = ", ".join(list(known)[:_MOST_LISTED]) or "none"
    rest = len(known) - _MOST_LISTED
    return f"known here: {first} and {rest} more" if rest > 0 else f"known here: {first}"


def nearest(name: str, known: Collection[str]) -> str:
    """Return what somebody who wrote `name` may have meant, as the end of a message."""
    import difflib  # noqa: PLC0415  only a mistake needs it

    near = difflib.get_close_matches(name[:_LONGEST_TEXT], known, n=1)
    return f'did you mean "{near[0]}"?' if near else listed(known)


def shown(text: str) -> str:
    """Return text that fits into one line of a message, without the password of a URL."""
    text = re.sub("//[^/]*@", "//...@", text)
    short = text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in short)
