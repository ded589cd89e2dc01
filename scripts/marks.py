# noqa: INP001  of scripts, in no package
"""The part of a document that `make docs` writes, between two marks."""

from __future__ import annotations

from pathlib import Path

BEGIN, END = "<!-- `make docs` writes from here -->\n", "<!-- to here -->\n"


def write_between(path: Path, text: str) -> None:
    """Put a text between the marks of a document.

    Raises:
        ValueError: it has not both of them, once.
    """
    head, rest = path.read_text("utf-8").split(BEGIN)
    _, tail = rest.split(END)
    path.write_text(f"{head}{BEGIN}{text}{END}{tail}", encoding="utf-8")
