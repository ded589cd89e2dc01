"""A composed YAML document as frozen dataclasses, or all its mistakes, each at its place."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from types import MappingProxyType, NoneType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from yaml import MappingNode, Node, ScalarNode, SequenceNode

from exporter.schema import (
    Checked,
    Key,
    Place,
    boolean,
    count,
    json_value,
    listed,
    nearest,
    number,
    shown,
)

T = TypeVar("T")

_YAML = "tag:yaml.org,2002:"
# What YAML 1.1 takes untagged text for. All else was tagged by hand.
_UNTAGGED = ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge", "value")
_KINDS: Mapping[type[Node], str] = MappingProxyType(
    {MappingNode: "keys and values", SequenceNode: "a list", ScalarNode: "a single value"}
)
# YAML has types of its own for what these read, so that quotes turn it into mere text.
_TYPED_BY_YAML = (boolean, count, number)
_ANY = Key("")


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Mistake:
    """What is wrong at a line and column, both from 1, and what would be right."""

    line: int
    column: int
    message: str


class MistakesError(Exception):
    """All mistakes of a document, before they are given the name of its file."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        super().__init__()
        self.mistakes = tuple(sorted(mistakes))


def decode(into: type[T], root: Node, names: Mapping[str, Collection[str]]) -> T:
    """Return the dataclass `into` as a composed document says it.

    `names` holds the sets of names that are known at run time only, for `key(among=...)`.

    Raises:
        MistakesError: all that is wrong with it.
    """
    decoder = _Decoder(names)
    made = decoder.value(into, _ANY, root, "")
    if decoder.mistakes:
        raise MistakesError(decoder.mistakes)
    return cast("T", made)


class _Decoder:
    """The decoding of one document. What is wrong becomes None, and the whole an error."""

    def __init__(self, names: Mapping[str, Collection[str]]) -> None:
        self.names = names
        self.mistakes: list[Mistake] = []

    def say(self, node: Node, path: str, message: str) -> None:
        mark = node.start_mark
        whole = f"{path}: {message}" if path else message
        self.mistakes.append(Mistake(mark.line + 1, mark.column + 1, whole))

    def value(self, hint: object, spec: Key, node: Node, path: str) -> object:
        if node.tag.removeprefix(_YAML) not in _UNTAGGED:
            tag = shown(node.tag.replace(_YAML, "!!"))
            self.say(node, path, f"the tag {tag} is not supported; remove it")
            return None
        return self.untagged(_without_none(hint), spec, node, path)

    def untagged(self, hint: object, spec: Key, node: Node, path: str) -> object:
        if isinstance(hint, type) and is_dataclass(hint):
            if spec.read is None or isinstance(node, MappingNode):
                return self.section(hint, node, path)
        elif get_origin(hint) is Mapping:
            return self.mapping(get_args(hint)[1], spec, node, path)
        if hint is object:
            return self.tree(node, path)
        if _is_null(node):
            self.say(node, path, f"no value; {_write_value(spec)}, or leave the key out")
            return None
        if get_origin(hint) is tuple:
            return self.sequence(get_args(hint)[0], spec, node, path)
        return self.scalar(spec, node, path)

    def section(self, cls: type, node: Node, path: str) -> object:
        before = len(self.mistakes)
        known = {spec.name: field for field in fields(cls) if (spec := _key_of(field)).name}
        hints = get_type_hints(cls)
        entries = self.entries(node, path, known)
        values = {}
        for name, field in known.items():
            if name in entries:
                inner = _below(path, name)
                hint = hints[field.name]
                values[field.name] = self.value(hint, _key_of(field), entries[name], inner)
            elif field.default is MISSING and field.default_factory is MISSING:
                self.say(node, path, f'the key "{name}" is missing; add it')
        if len(self.mistakes) > before:
            return None
        made: object = cls(**values)
        if isinstance(made, Checked):
            for place, message in made.check():
                at = _find(node, place)
                subject = "" if at else "the default "
                if at and isinstance(at, ScalarNode) and not _is_null(at):
                    subject = f'"{shown(at.value)}" '
                self.say(at or _nearest_above(node, place), _below(path, *place), subject + message)
        return made

    def mapping(self, hint: object, spec: Key, node: Node, path: str) -> object:
        known = sorted(self.names[spec.among]) if spec.among else None
        entries = self.entries(node, path, known, spec.keys)
        each = replace(spec, among="")
        return MappingProxyType(
            {
                name: self.value(hint, each, item, _below(path, name))
                for name, item in entries.items()
            }
        )

    def entries(
        self,
        node: Node,
        path: str,
        known: Collection[str] | None,
        notation: Callable[[str], str] | None = None,
    ) -> dict[str, Node]:
        """Return a section's usable entries: each key once, and a known one unless all are."""
        if _is_null(node) and node.value == "":  # nothing below the key, or only comments
            return {}
        if not isinstance(node, MappingNode):
            right = "write a key and a value" if known is None else listed(known)
            self.say(node, path, f"{_KINDS[type(node)]} instead of keys and values; {right}")
            return {}
        entries: dict[str, Node] = {}
        lines: dict[str, int] = {}
        for name, item in node.value:
            if not isinstance(name, ScalarNode):
                self.say(name, path, f"{_KINDS[type(name)]} as a key; write one word")
                continue
            inner = _below(path, name.value)
            if name.tag == _YAML + "merge":
                self.say(name, inner, "merge keys are not supported; write the keys out here")
            elif name.value in lines:
                first = f"first on line {lines[name.value]}"
                self.say(name, inner, f"given again, {first}; keep one of them")
            elif known is not None and name.value not in known:
                self.say(name, inner, f"unknown key; {nearest(name.value, known)}")
            elif notation is None or self.read(Key("", notation), name, inner) is not None:
                entries[name.value] = item
            lines.setdefault(name.value, name.start_mark.line + 1)
        return entries

    def sequence(self, hint: object, spec: Key, node: Node, path: str) -> object:
        if not isinstance(node, SequenceNode):
            kind = _KINDS[type(node)]
            self.say(node, path, f'{kind} instead of a list; put "- " before each item')
            return None
        lines: dict[str, int] = {}
        for position, item in enumerate(node.value):
            name = _find(item, (spec.unique,)) if spec.unique else item
            if name is None or not isinstance(name, ScalarNode):
                continue
            if name.value in lines:
                taken = f'"{shown(name.value)}" is taken on line {lines[name.value]}'
                right = f"give each its own {spec.unique}" if spec.unique else "remove one"
                inner = _below(path, position, *filter(None, [spec.unique]))
                self.say(name, inner, f"{taken}; {right}")
            lines.setdefault(name.value, name.start_mark.line + 1)
        return tuple(
            self.value(hint, spec, item, _below(path, position))
            for position, item in enumerate(node.value)
        )

    def scalar(self, spec: Key, node: Node, path: str) -> object:
        if spec.read is None:
            raise TypeError(f"the field at {path} has neither a structure nor a notation")
        if not isinstance(node, ScalarNode):
            kind = _KINDS[type(node)]
            self.say(node, path, f"{kind} instead of a single value; {_write_value(spec)}")
            return None
        value = self.read(spec, node, path)
        if value is None:
            return None
        text = _quoted(spec, node)
        if spec.read in _TYPED_BY_YAML and node.style:
            self.say(node, path, f"{text} in quotes is text; write {node.value} without them")
        elif spec.at_least and value < spec.read(spec.at_least):
            self.say(node, path, f"{text} is below {spec.at_least}; {_write_value(spec)}")
        elif spec.at_most and value > spec.read(spec.at_most):
            self.say(node, path, f"{text} is above {spec.at_most}; {_write_value(spec)}")
        elif spec.among and value not in self.names[spec.among]:
            right = nearest(node.value, sorted(self.names[spec.among]))
            self.say(node, path, f"{text} is none of the {spec.among} that go here; {right}")
        return cast("object", value)

    def read(self, spec: Key, node: ScalarNode, path: str) -> Any:  # noqa: ANN401  what a notation gives
        try:
            return spec.read(node.value) if spec.read else None
        except ValueError as error:
            self.say(node, path, f"{_quoted(spec, node)} {error}")
            return None

    def tree(self, node: Node, path: str) -> object:
        """Return any structure. A plain value must be the same in YAML and in JSON."""
        if isinstance(node, MappingNode):
            entries = self.entries(node, path, None)
            return {
                name: self.value(object, _ANY, item, _below(path, name))
                for name, item in entries.items()
            }
        if isinstance(node, SequenceNode):
            return [
                self.value(object, _ANY, item, _below(path, position))
                for position, item in enumerate(node.value)
            ]
        if cast("ScalarNode", node).style:
            return node.value
        try:
            value, is_text = json_value(node.value), False
        except ValueError:
            value, is_text = node.value, True
        if is_text != (node.tag == _YAML + "str"):
            right = "quote it if it is text, else write it as in JSON"
            self.say(node, path, f'"{shown(node.value)}" is read in two ways; {right}')
        return value


def _key_of(field: Field[Any]) -> Key:
    spec = field.metadata.get("key")
    return spec if isinstance(spec, Key) else Key(field.name)


def _without_none(hint: object) -> object:
    if get_origin(hint) in (Union, UnionType):
        return next(part for part in get_args(hint) if part is not NoneType)
    return hint


def _is_null(node: Node) -> bool:
    return node.tag == _YAML + "null"


def _find(node: Node | None, place: Place) -> Node | None:
    """Return what the file says at a place below a node, or None where it says nothing."""
    for step in place:
        if node is not None and isinstance(node, MappingNode):
            node = next((item for name, item in node.value if name.value == step), None)
        elif node is not None and isinstance(node, SequenceNode) and isinstance(step, int):
            node = node.value[step]
        else:
            return None
    return node


def _nearest_above(node: Node, place: Place) -> Node:
    """Return what the file says around a place at which it says nothing."""
    for length in reversed(range(len(place))):
        if at := _find(node, place[:length]):
            return at
    return node


def _below(path: str, *steps: str | int) -> str:
    for step in steps:
        if isinstance(step, int):
            path += f"[{step}]"
        else:
            path += ("." if path else "") + shown(step)
    return path


def _quoted(spec: Key, node: ScalarNode) -> str:
    return "the value" if spec.hidden else f'"{shown(node.value)}"'


def _write_value(spec: Key) -> str:
    return f"write a value of {spec.allowed()}" if spec.allowed() else "write a value"
