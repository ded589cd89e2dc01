"""docs/xid.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from exporter.xid.ledger import MAX_PAIRS, WINDOW_SECONDS, Result
from exporter.xid.table import ANNOUNCED, CATALOGUE, Severity

PAGE = Path(__file__).parent.parent / "docs/xid.md"
MARK = "<!-- catalogue: written by pytest tests/test_xid_docs.py --update -->\n"


def catalogue() -> str:
    """Return the catalogue as Markdown."""
    rows = [
        f"| {row.number} | `{row.mnemonic}` | {row.severity.value} | `{row.action}` |\n"
        for row in CATALOGUE.values()
    ]
    return "".join(["\n| XID | mnemonic | class | action |\n|---|---|---|---|\n", *rows])


def test_the_catalogue_is_current(request: pytest.FixtureRequest) -> None:
    """Its last part is the table of the code; `--update` writes it."""
    text, mark, table = PAGE.read_text().partition(MARK)
    if request.config.getoption("--update"):
        PAGE.write_text(text + mark + catalogue())
    assert table == catalogue()


def test_what_is_said_beside_it() -> None:
    """Announced XIDs, results, bounds, and the actions of each class."""
    text = " ".join(PAGE.read_text().partition(MARK)[0].split())
    assert ", ".join(map(str, ANNOUNCED)) + ". Any other" in text
    assert all(f"| `{result.value}` | " in text for result in Result)
    assert f"within {WINDOW_SECONDS:.0f} s is one error" in text
    assert f"beyond {MAX_PAIRS} pairs" in text
    for severity in (Severity.APPLICATION, Severity.INFORMATIONAL):
        row = re.search(rf"\| `{severity.value}` \| [^|]* \| ([^|]*) \|", text)
        assert row is not None
        own = {x.action for x in CATALOGUE.values() if x.severity is severity} - {"UNKNOWN"}
        assert set(re.findall(r"`(\w+)`", row[1])) == own
