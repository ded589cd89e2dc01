#!/usr/bin/env python3
"""Writes the tables of docs/peers.md from the CSV files in docs/peers/."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from marks import write_between

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "peers.md"
SOURCES = ROOT / "docs" / "peers"


@dataclass(frozen=True, slots=True)
class Family:
    """A metric family of a peer.

    Attributes:
        name: As the peer has it; with a * where it stands for all that begin so.
        ours: Names in our catalogue; none: the note says why.
        labels: Label values of ours that it is equal to.
        note: What is different, or the reason for leaving it out.
    """

    name: str
    ours: tuple[str, ...]
    labels: dict[str, str]
    note: str


def main() -> None:
    """Write them anew."""
    write_between(TARGET, tables())


def peers() -> dict[str, tuple[Family, ...]]:
    """Return the families of each peer, in the order of its file."""
    return {path.stem: tuple(_families(path)) for path in sorted(SOURCES.glob("*.csv"))}


def _families(path: Path) -> Iterator[Family]:
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, strict=True):
            labels = dict(pair.split("=") for pair in row["labels"].split())
            yield Family(row["family"], tuple(row["ours"].split()), labels, row["note"])


def tables() -> str:
    """Return all families as Markdown, a table for each peer."""
    return "\n".join(_table(peer, families) for peer, families in peers().items())


def _table(peer: str, families: tuple[Family, ...]) -> str:
    matched = sum(1 for family in families if family.ours)
    rows = "".join(f"| `{f.name}` | {_ours(f)} | {f.note} |\n" for f in families)
    return (
        f"## {peer}\n\n{len(families)} families, {matched} of them matched.\n\n"
        f"| its family | ours | note |\n|---|---|---|\n{rows}"
    )


def _ours(family: Family) -> str:
    pairs = ",".join(f'{name}="{value}"' for name, value in family.labels.items())
    braces = f"{{{pairs}}}" if pairs else ""
    return ", ".join(f"`{name}{braces}`" for name in family.ours) or "none"


if __name__ == "__main__":
    main()
