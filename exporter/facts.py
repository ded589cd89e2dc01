"""What a log line is about, beside its text: logfmt's and JSON's own keys, journald's fields."""

from __future__ import annotations


def facts(**values: object) -> dict[str, dict[str, str]]:
    """Return the `extra` of a log call; a value that is None or "" is left out.

    Names are lower-case words: `gpu`, `uuid`, `xid`, `rule`. The journal has them as `GPU`,
    `UUID`, `XID`, `RULE`.
    """
    return {
        "facts": {name: str(value) for name, value in values.items() if value not in (None, "")}
    }
