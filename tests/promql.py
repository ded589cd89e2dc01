"""As much of PromQL as linting and mutating our own rules needs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""(?P<string>"[^"]*"|'[^']*')
    |(?P<duration>\d+(?:ms|[smhdwy])(?:\d+(?:ms|[smhdwy]))*)
    |(?P<number>\d+(?:\.\d+)?(?:e[+-]?\d+)?)
    |(?P<word>[a-zA-Z_:][a-zA-Z0-9_:]*)
    |(?P<operator>=~|!~|==|!=|>=|<=|[-+*/%^<>=])
    |(?P<mark>[()\[\]{},])
    |(?P<space>\s+)""",
    re.VERBOSE,
)
COMPARISONS = frozenset({"==", "!=", ">", "<", ">=", "<="})
SETS = frozenset({"and", "or", "unless"})
GROUPINGS = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})
_KEYWORDS = SETS | GROUPINGS | {"offset", "bool"}


@dataclass(frozen=True, slots=True)
class Token:
    """A word of an expression, and where it is.

    Attributes:
        kind: string, duration, number, word, operator or mark.
        place: expr; matchers, between {}; or labels, between the () of a grouping.
    """

    kind: str
    text: str
    start: int
    end: int
    place: str


@dataclass(frozen=True, slots=True)
class Matcher:
    """A label matcher, and where it is with the comma that goes with it."""

    metric: str
    label: str
    operator: str
    value: str
    start: int
    end: int


def tokens(expr: str) -> list[Token]:
    """Return an expression's tokens.

    Raises:
        ValueError: a character that no token has.
    """
    found: list[Token] = []
    place, at = "expr", 0
    while at < len(expr):
        match = _TOKEN.match(expr, at)
        if match is None:
            raise ValueError(f"no PromQL that we know: {expr[at:]!r}")
        at = match.end()
        kind, text = str(match.lastgroup), match.group()
        if kind == "space":
            continue
        if text == "{":
            place = "matchers"
        elif text == "(" and found and found[-1].text in GROUPINGS:
            place = "labels"
        found.append(Token(kind, text, match.start(), at, place))
        if text == "}" or (text == ")" and place == "labels"):
            place = "expr"
    return found


def metrics(expr: str) -> set[str]:
    """Return the names of metrics: words that are neither keyword, label nor function."""
    all_ = tokens(expr)
    after = [*[token.text for token in all_[1:]], ""]
    return {
        token.text
        for token, next_ in zip(all_, after, strict=True)
        if token.kind == "word"
        and token.place == "expr"
        and token.text not in _KEYWORDS
        and next_ != "("
        and not (next_ in GROUPINGS and token.text.islower() and _is_aggregation(token.text))
    }


def _is_aggregation(word: str) -> bool:
    return word in {"sum", "min", "max", "avg", "count", "quantile", "group", "topk", "bottomk"}


def grouped(expr: str) -> Iterator[Token]:
    """Yield the label names between the () of groupings."""
    for token in tokens(expr):
        if token.place == "labels" and token.kind == "word":
            yield token


def matchers(expr: str) -> Iterator[Matcher]:
    """Yield all label matchers."""
    all_ = tokens(expr)
    metric = ""
    for index, token in enumerate(all_):
        if token.text == "{":
            metric = all_[index - 1].text
        if token.place != "matchers" or token.kind != "word":
            continue
        operator, value, next_ = all_[index + 1 : index + 4]
        before = all_[index - 1]
        start = before.start if before.text == "," and next_.text == "}" else token.start
        end = next_.end if next_.text == "," else value.end
        yield Matcher(metric, token.text, operator.text, value.text[1:-1], start, end)
