"""Frozen dataclasses that are made and filled in a fourth of the time.

For each of its frozen classes the standard library compiles six methods, which took the daemon a
quarter of its start, and an `__init__` that goes around its own lock. Here each class has a plain
`__init__`, and all share the rest. That no field is set later is mypy's to hold: for it these are
the standard library's (docs/decisions/0013-frozen-dataclasses.md).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass
else:

    def dataclass(*, frozen: bool, slots: bool) -> Callable[[type], type]:
        """Return what makes a class a dataclass; both must be True, and are said for mypy."""
        if not (frozen and slots):
            raise TypeError("not frozen, or without slots: take dataclasses.dataclass")
        return _made


def _made(body: type) -> type:
    made: type = dataclasses.dataclass(slots=True, eq=False, repr=False)(body)
    for name, method in (("__eq__", _eq), ("__hash__", _hash), ("__repr__", _repr)):
        setattr(made, name, method)
    return made


def _values(one: Any) -> tuple[object, ...]:  # noqa: ANN401  any of these classes
    return tuple([getattr(one, name) for name in one.__match_args__])


def _eq(one: object, other: object) -> bool:
    return _values(one) == _values(other) if one.__class__ is other.__class__ else NotImplemented


def _hash(one: object) -> int:
    return hash(_values(one))


def _repr(one: Any) -> str:  # noqa: ANN401  see _values
    fields = zip(one.__match_args__, _values(one), strict=True)
    return f"{one.__class__.__qualname__}({', '.join(f'{k}={v!r}' for k, v in fields)})"


__all__ = ["dataclass"]
