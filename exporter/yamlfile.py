"""A YAML file read into a dataclass: bounded, and never anything but the value or its mistakes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TypeVar

import yaml
from yaml.reader import Reader

from exporter.decode import Mistake, MistakesError, decode
from exporter.schema import ConfigError, shown

T = TypeVar("T")

MAX_BYTES = 1 << 20
MAX_NODES = 10_000
MAX_DEPTH = 32
LOADER: type[yaml.CSafeLoader | yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_START = yaml.Mark("", 0, 0, 0, "", 0)

# A part of what either parser says, and what it means. {char} is at the place, {line} where the
# thing that went wrong began.
_MEANINGS = (
    ("cannot start any token", '"{char}" cannot start a value; put the value in quotes'),
    (
        "mapping values are not allowed",
        'unexpected ":"; write one key a line, indented like its neighbours, or quote the text',
    ),
    ("found unexpected ':'", 'no space after ":"; write "key: value", or quote the text'),
    ("could not find expected ':'", 'no ":" after the key on line {line}; write "key: value"'),
    ("quoted scalar found unexpected", "the quote opened on line {line} is not closed; close it"),
    ("unknown escape character", 'no such escape; write "\\\\" for "\\", or use single quotes'),
    ("a flow sequence", 'the list opened on line {line} lacks a "," or its "]"; add it'),
    ("a flow mapping", 'the section opened on line {line} lacks a "," or its "}}"; add it'),
    (
        "parsing a block",
        "does not fit what began on line {line}; check indentation, quotes and brackets",
    ),
    ("document start", "does not belong to the lines above; indent it as the first of them is"),
    ("a flow node", "a value is missing here; write one, or close the bracket"),
    ("single document", 'a second document; keep one, and remove the "---" before the other'),
    ("duplicate anchor", "the anchor stands on line {line} already; give each its own name"),
    ("tag", 'tags are not supported; remove it, or quote the text with the "!"'),
    ("scanning an anchor", 'no name after "&"; quote the text if it is no anchor'),
    ("scanning an alias", 'no name after "*"; quote the text if it is no alias'),
)


def load(path: Path, into: type[T], names: Mapping[str, Collection[str]]) -> T:
    """Return the dataclass `into` as the file says it; one of comments gives all its defaults.

    `names` holds the sets of names that are known at run time only, for `key(among=...)`.

    Raises:
        ConfigError: all that is wrong with the file.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError((f"{path}: cannot be read: {error.strerror}",)) from error
    if not data and path.is_file():  # /dev/null is meant
        line = (
            f"{path}: is empty, maybe cut off; write {{}} if every setting shall have its default"
        )
        raise ConfigError((line,))
    if len(data) > MAX_BYTES:
        raise ConfigError((f"{path}: is larger than 1 MiB; a configuration must be smaller",))
    try:
        return decode(into, compose(data), names)
    except MistakesError as error:
        lines = tuple(f"{path}:{m.line}:{m.column}: {m.message}" for m in error.mistakes)
        raise ConfigError(lines) from error


def compose(data: bytes) -> yaml.Node:
    """Return the one document of a file; of an empty file, an empty one.

    Raises:
        MistakesError: it is no text, no YAML, or more than a configuration can be.
    """
    text = _text(data)
    try:
        _bound(text)
        root = yaml.compose(text, Loader=LOADER)
    except yaml.MarkedYAMLError as error:
        raise MistakesError([_syntax(error, text)]) from error
    except (ValueError, OverflowError) as error:  # yaml's own scanner, without C: "\U00110000"
        raise MistakesError([Mistake(1, 1, "an escape that is no character; remove it")]) from error
    if root is None:
        return yaml.MappingNode("tag:yaml.org,2002:map", [], _START, _START)
    return root


def _text(data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode()
        message = f"byte 0x{error.object[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise MistakesError([_at(before, message)]) from error
    if match := Reader.NON_PRINTABLE.search(text):
        code = f"U+{ord(match.group()):04X}"
        message = f"control character {code}; remove it, or check that this is a text file"
        raise MistakesError([_at(text[: match.start()], message)])
    return text


def _at(before: str, message: str) -> Mistake:
    return Mistake(before.count("\n") + 1, len(before) - before.rfind("\n"), message)


def _syntax(error: yaml.MarkedYAMLError, text: str) -> Mistake:
    said = " ".join(filter(None, (error.context, error.problem)))
    mark = error.problem_mark or error.context_mark or _START
    began = error.context_mark or mark
    char = text[mark.index : mark.index + 1]
    meaning = f"not YAML, {said}; check indentation, quotes and brackets"
    if char == "\t" and "cannot start" in said:
        meaning = "a tab cannot indent; use spaces"
    elif text[: mark.index + 1].endswith("${"):
        meaning = 'a "${" between brackets; put the value in quotes'
    else:
        for part, words in _MEANINGS:
            if part in said:
                meaning = words.format(char=shown(char), line=began.line + 1)
                break
    if not char or "expected ':'" in said:  # seen only later, at the worst where the file ends
        mark = began
    return Mistake(mark.line + 1, mark.column + 1, meaning)


def _bound(text: str) -> None:
    """Refuse what would cost too much, before any of it is built.

    The C composer recurses without a limit: some ten thousand levels overflow its stack. And an
    alias of three bytes stands for all that it names.
    """
    nodes = 0
    opened: list[tuple[str | None, int]] = []
    sizes: dict[str | None, int] = {}
    for event in yaml.parse(text, Loader=LOADER):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                name = shown(event.anchor or "")
                message = (
                    f'"*{name}" refers to no finished "&{name}" above it; quote it if it is text'
                )
                raise _refusal(event, message)
            nodes += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            nodes += 1
            sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, nodes))
            nodes += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()  # known from here on, so that nothing holds itself
            sizes[anchor] = nodes - before
        if nodes > MAX_NODES:
            raise _refusal(
                event, f"more than {MAX_NODES} keys and values, with aliases; write fewer"
            )
        if len(opened) > MAX_DEPTH:
            raise _refusal(event, f"nested more than {MAX_DEPTH} levels deep; write fewer levels")


def _refusal(event: yaml.Event, message: str) -> MistakesError:
    mark = event.start_mark or _START
    return MistakesError([Mistake(mark.line + 1, mark.column + 1, message)])
