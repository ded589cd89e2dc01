"""Numbers as people read them, each with its unit. A no-break space stands between the two."""

from __future__ import annotations

NONE = "–"
GAP = "\u00a0"
KIB, KILO = 1024.0, 1000.0
BYTES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
RATES = ("B/s", "kB/s", "MB/s", "GB/s", "TB/s")
MINUTE, HOUR, DAY = 60, 3600, 86_400
HUNDRED = 100
TEN = 10
SEVERAL = 4.0  # units that a total has at least, so that a part of it has some digits


def percent(ratio: float | None) -> str:
    """Return a share of 1 as percent."""
    return NONE if ratio is None else f"{ratio * 100:.0f}{GAP}%"


def celsius(degrees: float | None) -> str:
    """Return degrees Celsius."""
    return NONE if degrees is None else f"{degrees:.0f}{GAP}°C"


def watts(value: float | None) -> str:
    """Return watts."""
    return NONE if value is None else f"{value:.0f}{GAP}W"


def hertz(value: float | None) -> str:
    """Return megahertz."""
    return NONE if value is None else f"{value / 1e6:.0f}{GAP}MHz"


def size(value: float | None) -> str:
    """Return bytes, with the binary prefix that keeps it short."""
    return NONE if value is None else _scaled(value, KIB, BYTES, tenths_below=HUNDRED)


def of_total(used: float | None, total: float | None) -> str:
    """Return `61.2 of 80.0 GiB`, both in the unit of the total; "" where there is no total."""
    if used is None or not total:
        return ""
    number = _prefix(total / SEVERAL, KIB, len(BYTES))
    parts = (value / KIB**number for value in (used, total))
    digits = 1 if number and total / KIB**number < HUNDRED else 0
    return f"{' of '.join(f'{part:.{digits}f}' for part in parts)}{GAP}{BYTES[number]}"


def rate(value: float | None) -> str:
    """Return bytes per second, with a decimal prefix as links are rated."""
    return NONE if value is None else _scaled(value, KILO, RATES, tenths_below=TEN)


def duration(seconds: float) -> str:
    """Return a length of time by its two greatest parts: 4 min 12 s."""
    whole = max(int(seconds), 0)
    if whole < MINUTE:
        return f"{whole}{GAP}s"
    if whole < HOUR:
        return _parts(whole, MINUTE, "min", 1, "s")
    if whole < DAY:
        return _parts(whole, HOUR, "h", MINUTE, "min")
    return _parts(whole, DAY, "d", HOUR, "h")


def seconds(value: float | None) -> str:
    """Return a short time with three digits."""
    return NONE if value is None else f"{value:.3g}{GAP}s"


def count(value: float | None) -> str:
    """Return how many there are."""
    return NONE if value is None else f"{value:.6g}"


def of_metric(metric: str, value: float | None) -> str:
    """Return a value in the unit that its metric's name ends with."""
    for ending, form in (
        ("_ratio", percent),
        ("_celsius", celsius),
        ("_watts", watts),
        ("_bytes_per_second", rate),
        ("_bytes", size),
        ("_hertz", hertz),
        ("_seconds", seconds),
    ):
        if metric.endswith(ending):
            return form(value)
    return count(value)


def _scaled(value: float, base: float, units: tuple[str, ...], tenths_below: float) -> str:
    number = _prefix(value, base, len(units))
    value /= base**number
    digits = 1 if number and value < tenths_below else 0
    return f"{value:.{digits}f}{GAP}{units[number]}"


def _prefix(value: float, base: float, count: int) -> int:
    """Return by which power of the base a value is divided to be short."""
    number = 0
    while value >= base ** (number + 1) and number < count - 1:
        number += 1
    return number


def _parts(whole: int, great: int, great_unit: str, small: int, small_unit: str) -> str:
    number, rest = divmod(whole, great)
    rest //= small
    text = f"{number}{GAP}{great_unit}"
    return f"{text} {rest}{GAP}{small_unit}" if rest else text
