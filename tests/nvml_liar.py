"""A driver library whose answers a test bends, call by call, where pynvml keeps its own.

It asks the fake library, and then says something else: another code, absurd numbers, text that is
none, members of a batch that failed. What it has answered as good is kept, for a test to compare.
"""

from __future__ import annotations

import ctypes
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import pynvml

ANY = "*"  # every call on a GPU
NODE = -1  # in the place of a GPU: calls that name none
Who = tuple[int, str]  # a GPU's index, and the function

_U64 = 0xFFFFFFFFFFFFFFFF
_UINT, _UNSIGNED, _DOUBLE = struct.Struct("<I"), struct.Struct("<Q"), struct.Struct("<d")
_LAYOUTS = {
    ctypes.c_byte: struct.Struct("<b"),
    ctypes.c_ubyte: struct.Struct("<B"),
    ctypes.c_short: struct.Struct("<h"),
    ctypes.c_ushort: struct.Struct("<H"),
    ctypes.c_int: struct.Struct("<i"),
    ctypes.c_uint: _UINT,
    ctypes.c_long: struct.Struct("<q"),
    ctypes.c_ulong: _UNSIGNED,
    ctypes.c_double: _DOUBLE,
}
_NOTHING = {_UINT: 0xFFFFFFFF, _UNSIGNED: _U64}  # "no value"
# What 64 bits of nvmlValue_t are worth, by nvmlValueType_t; all others are unsigned.
_VALUES = {
    0: _DOUBLE,
    1: _UINT,
    4: struct.Struct("<q"),
    5: struct.Struct("<i"),
    6: struct.Struct("<H"),
}
_LISTS = ("RunningProcesses", "nvmlDeviceGetProcessUtilization", "nvmlDeviceGetSamples")
_LIST_WORDS = 16  # of a list that are bent and noted
_MOST_ITEMS = 64  # of an array in a structure


@dataclass(frozen=True, slots=True)
class Lie:
    """What is answered instead of the truth.

    Attributes:
        code: The return code. Unless it is 0, the rest is the garbage that a driver leaves behind.
        numbers: 64 bits for each number of the answer, again from the start when they are used up;
            None leaves a number as it is.
        text: In the place of every text, with no NUL at the end if it fills its place.
        codes: Return codes of a batch's members, likewise in turn.
        types: nvmlValueType_t of a batch's members, likewise; None: the true one.
    """

    code: int = 0
    numbers: tuple[int | None, ...] = ()
    text: bytes | None = None
    codes: tuple[int, ...] = ()
    types: tuple[int | None, ...] = ()


class _Leaf(NamedTuple):
    offset: int
    layout: struct.Struct | None  # None: text
    size: int


class _Member(NamedTuple):
    """One of a batch: nvmlReturn, nvmlValueType_t (None: a double), and the value's 64 bits."""

    code: _Leaf
    kind: _Leaf | None
    value: _Leaf


class Liar:
    """Stands in for pynvml's library. `lies` says what to bend from now on."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.lies: Mapping[Who, Lie] = {}
        self.told: set[Who] = set()  # lies that somebody has heard
        self.codes: set[int] = set()  # that were answered
        self.answered: dict[int, set[float]] = {}  # by GPU: every number of a good answer
        self.asked: Counter[str] = Counter()
        self._library = library
        self._owners: dict[int, int] = {}  # by a handle's address: the GPU's index

    def begin(self) -> None:
        """End the machine that was there before."""
        while self._library.nvmlShutdown() == 0:
            pass
        self.lies = {}
        self._owners.clear()
        self.forget()

    def forget(self) -> None:
        """Begin a new turn."""
        self.told, self.codes, self.answered = set(), set(), {}

    def __getattr__(self, name: str) -> Callable[..., int]:
        """Return a function of the library, to be asked through us."""
        real = getattr(self._library, name)
        if not name.startswith(("nvmlDevice", "nvmlSystem", "nvmlGpm", "nvmlInit")):
            return real  # type: ignore[no-any-return]  # ctypes' own

        def call(*args: Any) -> int:
            self.asked[name] += 1
            gpu = self._owner(args)
            who = next((w for w in ((gpu, name), (gpu, ANY)) if w in self.lies), None)
            if who is None:
                code: int = real(*args)
            else:
                self.told.add(who)
                code = _bend(self.lies[who], name, real, args)
            self.codes.add(code)
            if code == 0:
                self.answered.setdefault(gpu, set()).update(_numbers(name, args))
            return code

        return call

    def _owner(self, args: tuple[Any, ...]) -> int:
        """Return the index of the GPU that is asked."""
        if not args or not isinstance(args[0], pynvml.c_nvmlDevice_t):
            return NODE
        address = ctypes.cast(args[0], ctypes.c_void_p).value or 0
        if address not in self._owners:
            index, parent = ctypes.c_uint(), pynvml.c_nvmlDevice_t()
            of_mig = self._library.nvmlDeviceGetDeviceHandleFromMigDeviceHandle
            handle = args[0] if of_mig(args[0], ctypes.byref(parent)) else parent
            known = self._library.nvmlDeviceGetIndex(handle, ctypes.byref(index)) == 0
            self._owners[address] = index.value if known else NODE
        return self._owners[address]


def _bend(lie: Lie, name: str, real: Callable[..., int], args: tuple[Any, ...]) -> int:
    if lie.code == 0:
        real(*args)
    for place, members in _batches(args):
        for at, member in enumerate(members):
            _write(place, member.code, _turn(lie.codes, at))
            _write(place, member.kind, _turn(lie.types, at))
            _write(place, member.value, _turn(lie.numbers, at))
    for place, leaves in _answers(name, args):
        for at, leaf in enumerate(leaves):
            if leaf.layout is not None:
                _write(place, leaf, _turn(lie.numbers, at))
            elif lie.text is not None:
                text = lie.text[: leaf.size].ljust(leaf.size, b"\0")
                ctypes.memmove(ctypes.addressof(place) + leaf.offset, text, leaf.size)
    return lie.code


def _turn(said: tuple[int | None, ...], at: int) -> int | None:
    return said[at % len(said)] if said else None


def _write(place: Any, leaf: _Leaf | None, bits: int | None) -> None:
    if leaf is not None and bits is not None:
        raw = (bits & _U64).to_bytes(8, "little")[: leaf.size]
        ctypes.memmove(ctypes.addressof(place) + leaf.offset, raw, leaf.size)


def _read(place: Any, leaf: _Leaf) -> Any:
    assert leaf.layout is not None
    return leaf.layout.unpack_from(place, leaf.offset)[0]


def _numbers(name: str, args: tuple[Any, ...]) -> Iterator[float]:
    """Yield every number of a good answer, without those that say that there is none."""
    for place, members in _batches(args):
        for code, kind, value in members:
            if _read(place, code) == 0:
                layout = _VALUES.get(0 if kind is None else _read(place, kind), _UNSIGNED)
                number = layout.unpack_from(place, value.offset)[0]
                if number != _NOTHING.get(layout):
                    yield number
    for place, leaves in _answers(name, args):
        for leaf in leaves:
            if leaf.layout and (number := _read(place, leaf)) != _NOTHING.get(leaf.layout):
                yield number


def _batches(args: tuple[Any, ...]) -> Iterator[tuple[Any, tuple[_Member, ...]]]:
    """Yield memory of an answer that is a batch, and its members."""
    for arg in args:
        place = getattr(arg, "_obj", arg)
        if type(place) is pynvml.c_nvmlGpmMetricsGet_t:
            yield place, _gpm(place.numMetrics)
        elif isinstance(place, ctypes.Array) and place._type_ is pynvml.c_nvmlFieldValue_t:
            yield place, _fields(len(place))


def _answers(name: str, args: tuple[Any, ...]) -> Iterator[tuple[Any, tuple[_Leaf, ...]]]:
    """Yield memory of an answer that is no batch, and what is in it."""
    for arg in args:
        place = getattr(arg, "_obj", arg)
        kind: Any = type(place)
        is_array = isinstance(place, ctypes.Array)
        if (place is arg and not is_array) or kind is pynvml.c_nvmlGpmMetricsGet_t:
            continue  # what is asked, or a batch
        if is_array and any(part in name for part in _LISTS):
            yield place, _words(min(_LIST_WORDS, ctypes.sizeof(place) // 8))
        elif kind is pynvml.c_nvmlProcessesUtilizationInfo_v1_t:
            yield place, _leaves(kind)
            listed = ctypes.POINTER(ctypes.c_ulonglong * _LIST_WORDS)
            yield ctypes.cast(place.procUtilArray, listed).contents, _words(_LIST_WORDS)
        elif not (is_array and place._type_ is pynvml.c_nvmlFieldValue_t):
            yield place, _leaves(kind)


@cache
def _leaves(kind: Any) -> tuple[_Leaf, ...]:
    return tuple(_found(kind, 0))


def _found(kind: Any, offset: int) -> Iterator[_Leaf]:
    if kind in _LAYOUTS:
        yield _Leaf(offset, _LAYOUTS[kind], _LAYOUTS[kind].size)
    elif hasattr(kind, "_length_") and kind._type_ is ctypes.c_char:
        yield _Leaf(offset, None, kind._length_)
    elif hasattr(kind, "_length_"):
        for item in range(min(kind._length_, _MOST_ITEMS)):
            yield from _found(kind._type_, offset + item * ctypes.sizeof(kind._type_))
    else:
        for name, of, *bits in getattr(kind, "_fields_", ()):  # none: a pointer, which stays
            if not bits:
                yield from _found(of, offset + getattr(kind, name).offset)


@cache
def _words(count: int) -> tuple[_Leaf, ...]:
    return tuple(_Leaf(8 * at, _UNSIGNED, 8) for at in range(count))


@cache
def _fields(count: int) -> tuple[_Member, ...]:
    """Return where the members of an array of nvmlFieldValue_t are."""
    places = range(0, 40 * count, 40)
    return tuple(
        _Member(_Leaf(at + 28, _UINT, 4), _Leaf(at + 24, _UINT, 4), _Leaf(at + 32, _UNSIGNED, 8))
        for at in places
    )


@cache
def _gpm(count: int) -> tuple[_Member, ...]:
    """Return where the members of nvmlGpmMetricsGet_t are, each an nvmlGpmMetric_t."""
    places = range(24, 24 + 40 * count, 40)
    return tuple(_Member(_Leaf(at + 4, _UINT, 4), None, _Leaf(at + 8, _DOUBLE, 8)) for at in places)
