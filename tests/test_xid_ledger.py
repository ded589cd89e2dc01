"""One error, one count: whoever tells of it, how often, and whatever happened before."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.xid.ledger import MAX_PAIRS, Count, Event, Ledger, Result, Source, State
from exporter.xid.store import FILE_NAME, Store
from exporter.xid.table import ANNOUNCED, CATALOGUE, UNKNOWN, Severity, xid

NVML, LOG = Source.NVML, Source.KERNEL_LOG
COUNTED, DUPLICATE = Result.COUNTED, Result.DUPLICATE
GPU = "0000:3b:00.0"


def event(
    source: Source,
    at: float,
    number: int = 31,
    *,
    gpu: str = GPU,
    pid: str = "",
    implied: bool = False,
    stamp: int = 0,
) -> Event:
    """Return an event at a time in seconds."""
    return Event(source, gpu, number, 1e9 + at, at, pid, implied, stamp)


def total(ledger: Ledger, number: int = 31, gpu: str = GPU) -> int:
    """Return how often a GPU had an XID."""
    return ledger.state().counts.get((gpu, number), Count(0, 0.0)).total


@pytest.mark.parametrize(("first", "second"), [(NVML, LOG), (LOG, NVML)])
def test_an_error_that_both_tell_is_one(first: Source, second: Source) -> None:
    """In either order, and within the window; outside of it these are two."""
    ledger = Ledger()
    assert [ledger.add(event(first, 100)), ledger.add(event(second, 129))] == [COUNTED, DUPLICATE]
    assert [ledger.add(event(first, 200)), ledger.add(event(second, 231))] == [COUNTED, COUNTED]
    assert total(ledger) == 3


def test_another_gpu_number_or_repetition_is_another_error() -> None:
    """Only the same XID of the same GPU is one error; what was matched once is used up."""
    ledger = Ledger()
    ledger.add(event(NVML, 100))
    assert ledger.add(event(LOG, 100, 79)) is COUNTED
    assert ledger.add(event(LOG, 100, gpu="0000:5e:00.0")) is COUNTED
    assert ledger.add(event(LOG, 100.1)) is DUPLICATE
    assert ledger.add(event(NVML, 105)) is COUNTED
    assert ledger.add(event(NVML, 106)) is COUNTED
    assert [ledger.add(event(LOG, at)) for at in (107, 109, 111)] == [DUPLICATE, DUPLICATE, COUNTED]
    assert total(ledger) == 4


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([(True, False), (False, True), (True, True)]), max_size=30),
    st.randoms(),
)
def test_every_error_counts_once_in_any_order(
    errors: list[tuple[bool, bool]], random: st.DataObject
) -> None:
    """Errors 40 s apart, told by one source or both with some delay, give their number."""
    told = []
    for index, (by_nvml, by_log) in enumerate(errors):
        at = 1000.0 + 40 * index
        told += [(at + random.uniform(0, 4), NVML)] * by_nvml  # type: ignore[attr-defined]  # hypothesis's Random
        told += [(at + random.uniform(0, 4), LOG)] * by_log  # type: ignore[attr-defined]  # the same
    ledger = Ledger()
    for at, source in sorted(told, key=lambda one: one[0]):
        ledger.add(event(source, at))
    assert total(ledger) == len(errors)


def test_lines_of_one_error_are_one() -> None:
    """The driver writes several lines of one error; another process's is another error."""
    ledger = Ledger()
    results = [
        ledger.add(event(LOG, at, 13, pid=pid))
        for at, pid in ((1.0, "7"), (1.1, "7"), (1.2, "8"), (1.9, "7"), (2.1, "7"))
    ]
    assert results == [COUNTED, DUPLICATE, COUNTED, DUPLICATE, COUNTED]


@pytest.mark.parametrize("first_has_number", [True, False])
def test_a_gpu_falls_off_the_bus_once(*, first_has_number: bool) -> None:
    """With a number and without, again and again, from both: it is one XID 79."""
    ledger = Ledger()
    for index in range(20):
        implied = (index % 2 == 0) != first_has_number
        ledger.add(event(LOG, 100 + index, 79, implied=implied))
    ledger.add(event(NVML, 101, 79))
    assert total(ledger, 79) == 1


def test_numbers_of_gpus_and_xids_are_bounded() -> None:
    """Beyond the bound events are dropped and counted as such; known ones go on counting."""
    ledger = Ledger()
    for number in range(MAX_PAIRS):
        ledger.add(event(LOG, number, number + 1))
    assert ledger.add(event(LOG, 5000, 99_999)) is Result.DROPPED
    assert ledger.add(event(LOG, 5000, 1)) is COUNTED
    assert len(ledger.state().counts) == MAX_PAIRS
    assert ledger.results()[LOG, Result.DROPPED] == 1


def test_the_log_is_not_flooded(caplog: pytest.LogCaptureFixture) -> None:
    """A storm of one XID is one line a minute, with name and action."""
    ledger = Ledger()
    with caplog.at_level(logging.WARNING):
        for second in range(120):
            ledger.add(event(NVML, float(second), 79))
    assert caplog.messages == [
        f"XID 79 (ROBUST_CHANNEL_GPU_HAS_FALLEN_OFF_THE_BUS, RESTART_BM) on {GPU}, no. {number}"
        for number in (1, 61)
    ]


def test_counts_go_on_after_a_restart_of_the_same_boot(tmp_path: Path) -> None:
    """The file brings back counts, times and the mark in the kernel log; another boot forgets."""
    store, ledger = Store(tmp_path / "new", "boot-1"), Ledger()
    assert store.load() is None
    ledger.add(event(LOG, 7, stamp=7_000_000))
    ledger.add(event(LOG, 9, 79, stamp=9_000_000))
    store.save(ledger)
    again = Store(tmp_path / "new", "boot-1").load()
    assert again == ledger.state()
    assert again == State(
        {(GPU, 31): Count(1, 1e9 + 7), (GPU, 79): Count(1, 1e9 + 9)}, kernel_microseconds=9_000_000
    )
    after = Ledger(again)
    after.add(event(NVML, 50))
    assert total(after) == 2
    assert Store(tmp_path / "new", "boot-2").load() is None
    assert Store(tmp_path / "new", "").load() is None


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", '{"boot": "b"}',
     '{"boot": "b", "counts": [[1]], "kernel_microseconds": 1}',
     '{"boot": "b", "counts": [], "kernel_microseconds": 1e999}'],
)  # fmt: skip
def test_a_broken_file_is_no_reason_to_fail(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told in one line, and counting begins anew."""
    (tmp_path / FILE_NAME).write_text(text)
    assert Store(tmp_path, "b").load() is None
    assert len(caplog.messages) == 1
    assert "XID errors are counted anew" in caplog.messages[0]


def test_a_disk_that_cannot_be_written_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Counting goes on without it; once it can be, all is written, also without another error."""
    (tmp_path / "file").write_text("in the way")
    store, ledger = Store(tmp_path / "file", "b"), Ledger()
    for second in range(3):
        ledger.add(event(NVML, second))
        store.save(ledger)
    assert [m for m in caplog.messages if "will not outlive" in m] == caplog.messages[-1:]
    (tmp_path / "file").unlink()
    store.save(ledger)
    assert Store(tmp_path / "file", "b").load() == ledger.state()


def test_the_catalogue_says_what_each_number_means() -> None:
    """Every number has a name, action and class; those that alerts rely on are right."""
    assert list(CATALOGUE) == list(range(1, 173))
    assert all(row.mnemonic and row.action for row in CATALOGUE.values())
    critical = {n for n, row in CATALOGUE.items() if row.severity is Severity.CRITICAL}
    assert critical > {46, 48, 62, 64, 74, 79, 95, 109, 119, 120, 140, 143, *range(144, 151), 167}
    assert not critical & {13, 31, 43, 45, 63, 92, 94, 121, 154, 162}
    assert xid(94).severity is xid(45).severity is Severity.APPLICATION
    assert xid(154).severity is xid(43).severity is Severity.INFORMATIONAL
    assert xid(79).action == "RESTART_BM"
    assert (xid(4711).mnemonic, xid(4711).action) == (UNKNOWN, UNKNOWN)
    assert xid(4711).severity is Severity.CRITICAL
    assert set(ANNOUNCED) <= set(CATALOGUE)
