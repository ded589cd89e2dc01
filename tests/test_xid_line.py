"""Lines of the kernel log: those that the driver writes, and those that only look like it."""

from __future__ import annotations

import json
import re

import pytest
from chaos import ROUNDS
from hypothesis import example, given, settings
from hypothesis import strategies as st

from exporter.xid.journal import _record
from exporter.xid.kernel_log import Record
from exporter.xid.kmsg import record_of
from exporter.xid.line import MalformedError, Told, parse

# Shapes that drivers of several years have written.
XIDS = {
    "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off"
    " the bus.": (Told("0000:3b:00.0", 79, "'<unknown>'")),
    "NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus.": Told("0000:01:00.0", 79),
    "NVRM: Xid (0000:03:00): 14, Channel 00000001": Told("0000:03:00.0", 14),
    "NVRM: Xid (0000:01:00): 31, Ch 0000000b, engmask 00000120, intr 10000000": (
        Told("0000:01:00.0", 31)
    ),
    "NVRM: Xid (PCI:0000:C6:00): 119, pid=1101234, name=nvidia-smi, Timeout after 6s of waiting for"
    " RPC response from GPU0 GSP! Expected function 76 (GSP_RM_CONTROL) (0x2080a0a4 0x4).": (
        Told("0000:c6:00.0", 119, "1101234")
    ),
    "NVRM: Xid (PCI:0000:cb:00): 13, pid=977, name=python3, Graphics SM Warp Exception on (GPC 7,"
    " TPC 0, SM 0): Out Of Range Address": Told("0000:cb:00.0", 13, "977"),
    "NVRM: Xid (PCI:0009:01:00): 149, NETIR_LINK_EVT  Fatal   XC0 i0 Link 01 (0x021425c6 0x0)": (
        Told("0009:01:00.0", 149)
    ),
    "NVRM: Xid (PCI:0000:10:1c): 63, pid=1896, Row Remapper: New row marked for remapping, reset"
    " gpu to activate.": Told("0000:10:1c.0", 63, "1896"),
    "NVRM: Xid (PCI:0000:3b:00): 94, pid=7, name=NVRM: Xid (PCI:0000:5e:00): 79, x, Contained": (
        Told("0000:3b:00.0", 94, "7")
    ),
    "NVRM: GPU 0000:29:00.0: GPU has fallen off the bus.": (
        Told("0000:29:00.0", 79, is_implied=True)
    ),
    "NVRM: The NVIDIA GPU 0000:18:00.0\nNVRM: (PCI ID: 10de:2901) installed in this system has\n"
    "NVRM: fallen off the bus and is not responding to commands.": (
        Told("0000:18:00.0", 79, is_implied=True)
    ),
}
OTHERS = [
    "",
    "nvidia-nvswitch1: SXid (PCI:0000:06:00.0): 20034, Fatal, Link 30 LTSSM Fault Up",
    "python3[42]: saw NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.",
    " NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.",
    "audit: type=1400 comm=x\nNVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.",
    "NVRM: GPU at PCI:0000:91:00: GPU-b6c3b2be-c55b-d076-fa0e-d464e4c7e08b",
    "NVRM: GPU 0000:91:00.0: GPU serial number is 1653723052734.",
    "NVRM: The NVIDIA GPU invalid-bdf.0\nNVRM: fallen off the bus and is not responding.",
]
MALFORMED = [
    "NVRM: Xid",
    "NVRM: Xid error: xyz, invalid data",
    "NVRM: Xid (invalid): 79, some error",
    "NVRM: Xid (PCI:0000:3b:00): seventy-nine, x",
    "NVRM: Xid (PCI:0000:3b:00): 0, x",
    "NVRM: Xid (PCI:0000:3b:00): 123456789, x",
    "NVRM: Xid (PCI:0000:3b:00): \u0667\u0669, x",
    "NVRM: Xid (PCI:0000:3b:00): 79x",
    "NVRM: Xid (PCI:" + "0" * 100_000 + ":3b:00): 79, x",
]


@pytest.mark.parametrize("message", XIDS)
def test_what_the_driver_writes_is_read(message: str) -> None:
    """Address, number and process of every shape; text behind the first match does not count."""
    assert parse(message) == XIDS[message]


@pytest.mark.parametrize("message", OTHERS)
def test_other_messages_tell_nothing(message: str) -> None:
    """A message that only holds the text of another, or is about something else, is no XID."""
    assert parse(message) is None


@pytest.mark.parametrize("message", MALFORMED, ids=range(len(MALFORMED)))
def test_broken_messages_are_called_so(message: str) -> None:
    """What begins like an XID and has no address or number is malformed."""
    with pytest.raises(MalformedError):
        parse(message)


def test_records_of_kmsg() -> None:
    r"""Facility, stamp and text of a record as /dev/kmsg has it, \xNN undone; else it is none."""
    caller = b"4,339,5140900,c,caller=T1;NVRM: Xid (PCI:0000:3b:00): 79, x"
    assert record_of(caller) == Record(0, 5140900, "NVRM: Xid (PCI:0000:3b:00): 79, x")
    assert record_of(rb"12,7,1,-;a\x0ab\xc3\xa4\xff") == Record(1, 1, "a\nb\u00e4\ufffd")
    for broken in (b"", b";x", b"4,1;x", b"4,1,;x", b"-4,1,1,-;x", b"4,1,1,-", b"9" * 5000 + b";x"):
        assert record_of(broken) is None


# As journalctl 252 wrote them, shortened; the second was made with echo ... > /dev/kmsg.
KERNEL = {
    "MESSAGE": "NVRM: Xid (PCI:0000:3b:00): 79, x",
    "__REALTIME_TIMESTAMP": "1795271071201307",
    "__CURSOR": "s=a6e8889c37ea;i=1;b=9f21e7488ec6;m=30b8dc09c;t=660ca1e79781b;x=e3d0c4376d9efd43",
    "_SOURCE_MONOTONIC_TIMESTAMP": "9000100",
    "__MONOTONIC_TIMESTAMP": "13078741148",
    "_BOOT_ID": "9f21e7488ec642609956b5699adaaa1a",
    "SYSLOG_FACILITY": "0",
}
FORGED = {
    **KERNEL,
    "SYSLOG_FACILITY": "1",
    "SYSLOG_IDENTIFIER": "NVRM",
    "MESSAGE": "Xid (PCI:0000:3b:00): 79, forged by echo",
}


def test_records_of_the_journal() -> None:
    """The same of the journal's JSON; user space keeps its facility, and gets back its NVRM:."""
    assert _record(json.dumps(KERNEL).encode()) == Record(0, 9000100, str(KERNEL["MESSAGE"]))
    forged = _record(json.dumps(FORGED).encode())
    assert forged == Record(1, 9000100, "NVRM: Xid (PCI:0000:3b:00): 79, forged by echo")
    numbers = {**KERNEL, "MESSAGE": [78, 86, 255, 77]}
    assert _record(json.dumps(numbers).encode()) == Record(0, 9000100, "NV\ufffdM")
    early = {k: v for k, v in KERNEL.items() if k != "_SOURCE_MONOTONIC_TIMESTAMP"}
    record = _record(json.dumps(early).encode())
    assert record is not None
    assert record.microseconds == 13078741148
    broken: list[object] = [
        *([], 7, None),
        {**KERNEL, "SYSLOG_FACILITY": "kern"},
        {**KERNEL, "MESSAGE": None},
        {**KERNEL, "MESSAGE": [999]},
        {**KERNEL, "_SOURCE_MONOTONIC_TIMESTAMP": "soon"},
        {k: v for k, v in KERNEL.items() if k != "SYSLOG_FACILITY"},
    ]
    for entry in broken:
        assert _record(json.dumps(entry).encode()) is None, entry
    assert _record(b"-- No entries --") is None


PARTS = st.sampled_from(
    ["NVRM: Xid", " (PCI:", "0000:3b:00", ".0", "): ", "79", ", pid=", "'<unknown>'", ", name=",
     "\n", "NVRM: GPU ", ": GPU has", " fallen off the bus", " ", "\x00", "\\x0a", "\u0667",
     "\ud800", ";"]
)  # fmt: skip
TEXTS = st.lists(PARTS, max_size=12).map("".join) | st.text(max_size=50)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 300) | st.floats() | TEXTS | st.just(10**30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@pytest.mark.chaos
@settings(max_examples=200 * ROUNDS, deadline=None)
@given(
    st.binary(max_size=200)
    | TEXTS.map(lambda text: b"4,1,1,-;" + text.encode(errors="replace"))
    | st.dictionaries(st.sampled_from(sorted({**KERNEL, **FORGED})), VALUES).map(
        lambda entry: json.dumps({**KERNEL, **entry}).encode()
    )
)
@example(b'{"MESSAGE":' + b"[" * 100_000)
@example(json.dumps({**KERNEL, "SYSLOG_FACILITY": float("inf")}).encode())
@example(json.dumps({**KERNEL, "SYSLOG_FACILITY": "9" * 5000}).encode())
@example(json.dumps({**KERNEL, "MESSAGE": "NVRM: Xid (PCI:0000:3b:00): 79, pid=\ud800"}).encode())
def test_any_line_is_a_record_or_none(line: bytes) -> None:
    """Whatever the kernel log holds is a record or none; its text an XID, none, or malformed."""
    for record in (record_of(line), _record(line)):
        if record is None:
            continue
        try:
            told = parse(record.message)
        except MalformedError:
            continue
        if told is not None:
            assert re.fullmatch(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.0", told.pci_bus_id)
            assert 0 < told.xid < 100_000
            told.pid.encode()
