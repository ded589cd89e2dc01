"""Variables in the template of a webhook's body."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from exporter.schema import Place

# What `$name` in a template may be: the fields of the event, and what surrounds them.
NAMES = frozenset(
    {
        *("type", "timestamp", "event_id", "dedupe_key", "dry_run", "reason", "scale_group"),
        *("cluster", "node", "action", "step", "rule", "repeat", "started_at", "fired_at"),
        *("series", "cooldown_s", "resolves"),
    }
)
# `$$` is a dollar; a `$` before anything that is no name is a mistake.
VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<braced>\w+)\}|(?P<named>\w+)|)", re.ASCII)


def name_of(variable: re.Match[str]) -> str:
    """Return the name in a match of VARIABLE; "" for a lone `$`."""
    return variable["braced"] or variable["named"] or ""


def mistakes(tree: object, place: Place) -> Iterator[tuple[Place, str]]:
    """Yield where a template has a variable that there is not, and what would be right."""
    if isinstance(tree, str):
        for match in VARIABLE.finditer(tree):
            if not match["dollar"] and name_of(match) not in NAMES:
                known = ", ".join(f"${name}" for name in sorted(NAMES))
                yield place, f"has no variable at {match[0]}; write $$ for a dollar, or {known}"
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from mistakes(value, (*place, key))
    elif isinstance(tree, list | tuple):
        for index, value in enumerate(tree):
            yield from mistakes(value, (*place, index))
