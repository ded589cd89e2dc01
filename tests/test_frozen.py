"""Our frozen dataclasses behave as the standard library's, but for the lock."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest

from exporter.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Point:
    """One of ours."""

    x: int
    y: float | None = None
    names: tuple[str, ...] = dataclasses.field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class Twin:
    """The same fields, another class."""

    x: int
    y: float | None = None
    names: tuple[str, ...] = dataclasses.field(default_factory=tuple)


@dataclasses.dataclass(frozen=True, slots=True)
class Standard:
    """The standard library's."""

    x: int
    y: float | None = None
    names: tuple[str, ...] = dataclasses.field(default_factory=tuple)


def test_they_are_values() -> None:
    """Equal fields of the same class make equal objects with one hash; another class never does."""
    assert Point(1, 2.0, ("a",)) == Point(1, 2.0, ("a",))
    assert hash(Point(1, 2.0, ("a",))) == hash(Point(1, 2.0, ("a",)))
    others = [Point(2, 2.0, ("a",)), Point(1, None, ("a",)), Point(1, 2.0), Twin(1, 2.0, ("a",))]
    assert all(Point(1, 2.0, ("a",)) != other for other in others)
    assert Point(1) != (1, None, ())  # type: ignore[comparison-overlap]
    assert len({Point(1), Point(1), Point(2)}) == 2


def test_they_are_dataclasses() -> None:
    """What the standard library does with dataclasses, it does with ours, and says the same."""
    ours, standard = Point(1, names=("a",)), Standard(1, names=("a",))
    assert repr(ours) == repr(standard).replace("Standard", "Point")
    assert [f.name for f in dataclasses.fields(ours)] == ["x", "y", "names"]
    assert dataclasses.asdict(ours) == dataclasses.asdict(standard)
    assert dataclasses.replace(ours, y=3.0) == Point(1, 3.0, ("a",))
    assert copy.deepcopy(ours) == pickle.loads(pickle.dumps(ours)) == ours  # noqa: S301  our own
    match ours:
        case Point(1, None, names):
            assert names == ("a",)
        case _:
            pytest.fail("no match")


def test_nothing_can_be_added_to_them() -> None:
    """A mistyped field is an error: they have slots."""
    with pytest.raises(AttributeError):
        Point(1).z = 2  # type: ignore[attr-defined]


def test_mypy_holds_them_frozen() -> None:
    """To set a field is reported: mypy calls the ignore below unused otherwise."""
    point = Point(1)
    point.x = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    "given", [{"frozen": True, "slots": False}, {"frozen": False, "slots": True}]
)
def test_what_they_are_not_is_refused(given: dict[str, bool]) -> None:
    """Who wants a dataclass that is not frozen, or has no slots, is told where to find it."""
    with pytest.raises(TypeError, match=r"dataclasses\.dataclass"):
        dataclass(**given)
