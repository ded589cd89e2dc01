"""The page: what it means, what it never contains, and that it is rendered once."""

from __future__ import annotations

import gzip
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import meaning, oracle

from exporter.exposition import Page
from exporter.gpu.clocks import Clocks
from exporter.gpu.identity import Identity
from exporter.gpu.memory import Memory
from exporter.gpu.nvlinks import NvLinks
from exporter.gpu.power import Power
from exporter.gpu.utilization import Utilization
from exporter.sampling import DriverInfo, Fault
from exporter.snapshot import Build, Gpu, Reload, Snapshot

ALL_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NUMBERS = st.none() | st.floats() | st.integers(-(2**70), 2**70)
COUNTS = st.none() | st.floats(0) | st.integers(0, 2**70)
MAPPING = st.dictionaries(ALL_TEXT, NUMBERS, max_size=3)
COUNT_MAPPING = st.dictionaries(ALL_TEXT, COUNTS, max_size=3)


@st.composite
def gpus(draw: st.DrawFn, index: int) -> Gpu:
    """Draw a GPU with any text, any number, and any part missing."""
    return Gpu(
        index=index,
        uuid=draw(ALL_TEXT),
        fault=draw(st.none() | st.sampled_from(Fault)),
        sampled_at=draw(st.none() | st.floats(0, 1e6)),
        identity=draw(st.none() | st.builds(Identity, *[ALL_TEXT] * 6)),
        memory=draw(st.none() | st.builds(Memory, *[st.none() | st.integers(1, 2**64)] * 4)),
        utilization=draw(
            st.none() | st.builds(Utilization, st.just(0.0), NUMBERS, NUMBERS, COUNTS)
        ),
        power=draw(st.none() | st.builds(Power, NUMBERS, COUNTS)),
        clocks=draw(st.none() | st.builds(Clocks, MAPPING, MAPPING, COUNT_MAPPING)),
        nvlinks=draw(
            st.none()
            | st.builds(
                NvLinks,
                *[MAPPING] * 2,
                *[COUNT_MAPPING] * 2,
                *[st.dictionaries(st.tuples(ALL_TEXT, ALL_TEXT), COUNTS, max_size=3)] * 2,
                COUNT_MAPPING,
            )
        ),
    )


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Draw a snapshot of up to three GPUs."""
    return Snapshot(
        taken_at=0.0,
        now=draw(st.floats(0, 1)),
        stale_after_seconds=10.0,
        build=Build(draw(ALL_TEXT), "3.10", simulated=draw(st.booleans())),
        reload=Reload(successful=True, success_timestamp_seconds=1.5e9),
        driver=draw(st.none() | st.builds(DriverInfo, ALL_TEXT, ALL_TEXT, ALL_TEXT)),
        gpus=tuple(draw(gpus(index)) for index in range(draw(st.integers(0, 3)))),
        read_errors=draw(
            st.dictionaries(st.tuples(ALL_TEXT, ALL_TEXT), st.integers(0), max_size=3)
        ),
    )


@settings(max_examples=60, deadline=None)
@given(snapshots())
def test_text_page_means_what_prometheus_client_writes(snapshot: Snapshot) -> None:
    """Names, types, help, label values and numbers survive, whatever text and numbers are read."""
    page = Page(openmetrics=False).plain(snapshot).decode()
    ours, theirs = (
        meaning(text, openmetrics=False) for text in (page, oracle(snapshot, openmetrics=False))
    )
    assert ours == theirs


@settings(max_examples=60, deadline=None)
@given(snapshots())
def test_openmetrics_page_means_what_prometheus_client_writes(snapshot: Snapshot) -> None:
    """The same for OpenMetrics, with units; its strict parser takes the page."""
    page = Page(openmetrics=True).plain(snapshot).decode()
    ours, theirs = (
        meaning(text, openmetrics=True) for text in (page, oracle(snapshot, openmetrics=True))
    )
    assert ours == theirs


@settings(max_examples=30, deadline=None)
@given(st.lists(snapshots(), min_size=2, max_size=5))
def test_template_of_the_snapshot_before_leaves_no_trace(sequence: list[Snapshot]) -> None:
    """One Page fed with ever other shapes renders each as a fresh Page does."""
    page = Page(openmetrics=False)
    for snapshot in sequence:
        assert page.plain(snapshot) == Page(openmetrics=False).plain(snapshot)


@settings(max_examples=60, deadline=None)
@given(snapshots())
def test_nothing_but_finite_numbers_and_no_line_twice(snapshot: Snapshot) -> None:
    """No NaN, no infinity, no None, and no series or TYPE line twice."""
    lines = Page(openmetrics=False).plain(snapshot).decode().split("\n")
    assert lines.pop() == ""
    series = [line.rpartition(" ")[0] for line in lines if not line.startswith("#")]
    values = [line.rpartition(" ")[2] for line in lines if not line.startswith("#")]
    assert len(series) == len(set(series))
    assert not {"nan", "inf", "-inf", "None", "True", "False"} & set(values)
    types = [line for line in lines if line.startswith("# TYPE")]
    assert len(types) == len(set(types))


def snapshot_of(*boards: Gpu) -> Snapshot:
    """Return a snapshot with these GPUs."""
    return Snapshot(
        0.0, 0.0, 10.0, Build("1", "3", simulated=False), Reload(True, 0.0), gpus=boards
    )


def test_page_and_its_gzip_are_made_once_per_snapshot() -> None:
    """The same bytes object serves every scrape of a snapshot; the next snapshot gets its own."""
    page = Page(openmetrics=False)
    first = snapshot_of(Gpu(0, "GPU-a", power=Power(100.0, 5.0)))
    assert page.plain(first) is page.plain(first)
    assert page.zipped(first) is page.zipped(first)
    assert gzip.decompress(page.zipped(first)) == page.plain(first)
    second = replace(first, gpus=(Gpu(0, "GPU-a", power=Power(200.0, 6.0)),))
    assert b"gpu_power_watts" in page.plain(second)
    assert b" 200.0\n" in gzip.decompress(page.zipped(second))


def test_readings_that_vanish_take_their_series_along() -> None:
    """A value that turns None, and a GPU that turns faulty, leave nothing of the page before."""
    page = Page(openmetrics=False)
    page.plain(
        snapshot_of(Gpu(0, "GPU-a", power=Power(100.0, 5.0)), Gpu(1, "GPU-b", power=Power(7.0)))
    )
    text = page.plain(
        snapshot_of(Gpu(0, "GPU-a", power=Power(None, 5.0)), Gpu(1, "GPU-b", fault=Fault.LOST))
    ).decode()
    assert "gpu_power_watts" not in text
    assert 'gpu_energy_joules_total{gpu="0",uuid="GPU-a"} 5.0' in text
    assert 'gpu_up{gpu="1",uuid="GPU-b"} 0' in text
    assert 'gpu_fault{gpu="1",uuid="GPU-b",reason="lost"} 1' in text
