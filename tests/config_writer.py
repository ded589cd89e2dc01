"""The way back from a configuration to what a file says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from exporter.config import Aggregate
from exporter.schema import Key, as_duration, duration, size


def key_of(cls: Any, name: str) -> Key:
    """Return how a dataclass's field stands in the file."""
    metadata = {field.name: field.metadata for field in fields(cls)}[name]
    return metadata["key"] if "key" in metadata else Key(name)


def written(value: Any, spec: Key) -> Any:
    """Return a value as a tree that is JSON, and therefore YAML."""
    if isinstance(value, Aggregate):
        return value.kind if value.quorum is None else {"quorum": value.quorum}
    if is_dataclass(value):
        specs = {field.name: key_of(value, field.name) for field in fields(value)}
        given = {name: getattr(value, name) for name in specs}
        return {
            specs[name].name: written(item, specs[name])
            for name, item in given.items()
            if item is not None
        }
    if isinstance(value, Mapping):
        return {name: written(item, spec) for name, item in value.items()}
    if isinstance(value, tuple):
        return [written(item, spec) for item in value]
    return _scalar(value, spec)


def _scalar(value: Any, spec: Key) -> Any:
    if spec.read is duration:
        return as_duration(value)
    if spec.read is size:
        exact = next(unit for unit in (30, 20, 10, 0) if value % (1 << unit) == 0)
        return f"{value >> exact}{({30: 'GiB', 20: 'MiB', 10: 'KiB', 0: 'B'})[exact]}"
    return str(value) if isinstance(value, Path) else value
