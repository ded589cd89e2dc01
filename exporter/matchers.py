"""Matchers of alerts' labels, in Alertmanager's syntax: = != =~ !~, quotes, anchored patterns."""

from __future__ import annotations

import re
from collections.abc import Mapping

from exporter.frozen import dataclass

LONGEST_VALUE = 256  # characters that a pattern is tried on; a longer value matches no pattern
MOST_REPEATS = 2  # in one pattern, or one of its choices: 0.1 ms on the longest value

_MATCHER = re.compile(
    r"""\s* (?P<label>[a-zA-Z_:][a-zA-Z0-9_:]*)
        \s* (?P<operator>=~|!~|!=|=)
        \s* (?: "(?P<quoted>(?:[^"\\]|\\.)*)" | (?P<bare>(?:[^",{}\\]|\\.)*?) )
        \s* (?:,|\Z)""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_UNESCAPED = {"n": "\n", '"': '"', "\\": "\\"}
_REPEAT = r"[*+?]\??|\{[\d,]*\}\??"
_TOKEN = re.compile(
    rf"""(?P<escape>\\.) | (?P<set>\[\^?\]?(?:\\.|[^\]\\])*\]) | (?P<open>\((?:\?:)?)
       | (?P<close>\)(?P<repeated>{_REPEAT})?) | (?P<repeat>{_REPEAT}) | (?P<choice>\|) | .""",
    re.VERBOSE | re.DOTALL,
)
_NOT_RE2 = re.compile(r"\\[1-9]|\(\?(?!:)|\[\^?\[|\[[^\]]*(?:--|&&|~~|\|\|)")


@dataclass(frozen=True, slots=True)
class Matcher:
    """What one label has to be. A label that an alert lacks is the empty string."""

    label: str
    negative: bool
    value: str | re.Pattern[str]

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether an alert's labels are as wanted."""
        value = labels.get(self.label, "")
        if isinstance(self.value, str):
            return (value == self.value) is not self.negative
        if len(value) > LONGEST_VALUE:
            return False
        return (self.value.fullmatch(value) is not None) is not self.negative


def parse_matchers(text: str) -> tuple[Matcher, ...]:
    r"""Read one or more matchers, such as `severity=~"page|critical"` or `{a="1",b!="2"}`.

    A pattern is RE2's in Alertmanager and Python's here: what means something else there is
    refused, and so is what may take long, because alerts' labels come from elsewhere.

    Raises:
        ValueError: One line: what is wrong, and what would be right.
    """
    inner = text.strip()
    if inner.startswith("{") and inner.endswith("}"):
        inner = inner[1:-1].strip()
    matchers = []
    position = 0
    while position < len(inner):
        found = _MATCHER.match(inner, position)
        if found is None:
            raise ValueError(f'is no matcher at {inner[position:]!r}; write label="value"')
        matchers.append(_matcher(found))
        position = found.end()
    if not matchers:
        raise ValueError('is empty; write label="value"')
    return tuple(matchers)


def _matcher(found: re.Match[str]) -> Matcher:
    raw = found["bare"] if found["quoted"] is None else found["quoted"]
    value = _ESCAPE.sub(lambda escape: _UNESCAPED.get(escape[1], escape[0]), raw)
    operator = found["operator"]
    if not operator.endswith("~"):
        return Matcher(found["label"], operator == "!=", value)
    return Matcher(found["label"], operator == "!~", _pattern(value))


def _pattern(text: str) -> re.Pattern[str]:
    flags = re.ASCII | (re.IGNORECASE if text.startswith("(?i)") else re.RegexFlag(0))
    plain = text.removeprefix("(?i)")
    if other := _NOT_RE2.search(plain):
        raise ValueError(f"has {other[0]!r} in its pattern, which is not both RE2's and Python's")
    _refuse_slow(plain)
    try:
        return re.compile(plain, flags)
    except (re.error, OverflowError) as error:
        raise ValueError(f"has a bad pattern: {error}") from None


def _refuse_slow(pattern: str) -> None:
    """Refuse what could take exponential time, or more than the square of the value's length."""
    depth = repeats = 0
    for token in _TOKEN.finditer(pattern):
        if token["repeated"]:
            raise ValueError(f"repeats a group with {token[0]!r}; repeat single characters only")
        depth += (token["open"] is not None) - (token["close"] is not None)
        repeats += token["repeat"] is not None
        if token["choice"] and depth == 0:
            repeats = 0
        if repeats > MOST_REPEATS:
            raise ValueError(
                f"repeats more than {MOST_REPEATS} times in one pattern; write several matchers"
            )
