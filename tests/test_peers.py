"""docs/peers.md: what it says of our metrics is true."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from daemon import Page

from exporter.catalogue import CATALOGUE
from exporter.dcgm.counters import COUNTERS
from exporter.metric import MetricVec

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PEERS = sorted((DOCS / "peers").glob("*.csv"))
LABELS = {
    metric.name: {*table.labels, *(metric.labels if isinstance(metric, MetricVec) else ())}
    for table in CATALOGUE
    for metric in table.metrics
}
OUR_NAME = re.compile(r"`((?:gpu|host)_[a-z0-9_]+)[`{]")

each_peer = pytest.mark.parametrize("path", PEERS, ids=lambda path: path.stem)


def rows(path: Path) -> Iterator[tuple[str, list[str], dict[str, str], str]]:
    """Yield family, our names, label values and note of each row."""
    with path.open(newline="") as file:
        for row in csv.DictReader(file, strict=True):
            labels = dict(pair.split("=") for pair in row["labels"].split())
            yield row["family"], row["ours"].split(), labels, row["note"]


@cache
def simulated() -> dict[str, list[dict[str, str]]]:
    """Return labels of all series on the golden pages, by name."""
    found: dict[str, list[dict[str, str]]] = {}
    for page in (ROOT / "tests" / "golden").glob("*.prom"):
        for name, labels in Page(page.read_text()).series:
            found.setdefault(name, []).append(dict(labels))
    return found


def test_five_peers_are_there() -> None:
    """Each has a file with its families, and no family is there twice."""
    assert [path.stem for path in PEERS] == [
        *("all-smi", "dcgm-exporter", "node_exporter", "nvidia_gpu_exporter", "nvitop-exporter")
    ]
    for path in PEERS:
        times = Counter(family for family, *_ in rows(path))
        assert len(times) >= 60
        assert max(times.values()) == 1, times.most_common(1)


@each_peer
def test_family_has_ours_or_a_reason(path: Path) -> None:
    """Every row names metrics of our catalogue, with labels that these have, or says why none."""
    for family, ours, labels, note in rows(path):
        assert ours or note, family
        assert "|" not in note, family
        for name in ours:
            assert name in LABELS, (family, name)
            assert set(labels) <= LABELS[name], (family, name)
        for label in re.findall(r"label `(\w+)`", note):
            assert any(label in LABELS[name] for name in ours), (family, label)
        for name in OUR_NAME.findall(note):
            assert name in LABELS, (family, name)


@each_peer
def test_label_values_are_those_of_our_pages(path: Path) -> None:
    """Where a golden page has the metric, a series on one of them has these label values."""
    checked = 0
    for family, ours, labels, _ in rows(path):
        for name in ours:
            series = simulated().get(name, [])
            if series and labels:
                assert any(labels.items() <= own.items() for own in series), (family, name)
                checked += 1
    assert checked or path.stem == "node_exporter"  # golden pages have no host


def test_tables_are_current() -> None:
    """docs/peers.md is what `make docs` writes."""
    done = subprocess.run(
        [sys.executable, "-c", "import peers_reference as p; print(p.tables(), end='')"],
        cwd=ROOT / "scripts",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout in (DOCS / "peers.md").read_text()


def test_names_of_the_compat_page_are_mapped() -> None:
    """Each counter of --compat.dcgm is in the peer's table with ours, and on its own page."""
    ours = {family: names for family, names, *_ in rows(DOCS / "peers" / "dcgm-exporter.csv")}
    text = (DOCS / "dcgm.md").read_text()
    for counter in COUNTERS:
        assert ours[counter.name], counter.name
        short = counter.name.removeprefix("DCGM_FI_DEV_FB")  # "_USED" beside the first one's name
        assert f"`{short}`" in text or f"`{counter.name}`" in text, counter.name
    named = OUR_NAME.findall(text)
    assert len(named) > 20
    assert {name for name in named if name in LABELS} == set(named)
