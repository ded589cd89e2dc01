# noqa: INP001  of a script, in no package
"""Figures as the unit, the words and the thresholds of a field show them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

THOUSANDS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
BINARY = ((2.0**40, "Ti"), (2.0**30, "Gi"), (2.0**20, "Mi"), (2.0**10, "Ki"))
TIMES = ((86400, "d"), (3600, "h"), (60, "min"))
PLAIN = {"percentunit": (100, "%"), "celsius": (1, "°C"), "kwatth": (1, "kWh")}
SCALED = {
    "bytes": (BINARY, "B"),
    "Bps": (THOUSANDS, "B/s"),
    "watt": (THOUSANDS, "W"),
    "hertz": (THOUSANDS, "Hz"),
    "reqps": (THOUSANDS, "req/s"),
    "cps": (THOUSANDS, "/s"),
    "none": (THOUSANDS, ""),
}


def shown(value: float, look: Mapping[str, Any], now: float = 0) -> str:
    """Returns a figure in words, or with its unit; a time as it is seen from now."""
    unit = look.get("unit", "none")
    if (word := word_of(value, look)) or math.isnan(value):
        return word or "NaN"
    if unit in PLAIN:
        factor, name = PLAIN[unit]
        return f"{value * factor:.3g} {name}"
    if unit in {"s", "dateTimeFromNow"}:
        return _duration(value) if unit == "s" else f"{_duration(now - value / 1000)} ago"
    steps, name = SCALED[unit]
    scale, prefix = next(((s, p) for s, p in steps if abs(value) >= s), (1.0, ""))
    return f"{value / scale:.3g} {prefix}{name}".strip()


def _duration(seconds: float) -> str:
    for size, name in TIMES:
        if seconds >= size:
            return f"{seconds / size:.2g} {name}"
    return f"{seconds:.3g} s" if seconds >= 1 or seconds <= 0 else f"{seconds * 1000:.3g} ms"


def word_of(value: float, look: Mapping[str, Any]) -> str:
    """Returns the word for a value, or nothing."""
    return str(_mapped(value, look).get("text", ""))


def color_of(value: float, look: Mapping[str, Any]) -> str:
    """Returns the color of a value: that of its word, or of the threshold that it has reached."""
    if color := _mapped(value, look).get("color"):
        return str(color)
    steps = look.get("thresholds", {}).get("steps", [])
    passed = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    return passed[-1] if passed else "text"


def _mapped(value: float, look: Mapping[str, Any]) -> Mapping[str, Any]:
    for mapping in look.get("mappings", ()):
        if found := mapping["options"].get(f"{value:g}"):
            return dict(found)
    return {}
