"""Whatever the driver answers, nothing wrong is on a page, nothing is doubled, and nothing stops.

The long form: `FUZZ_BEHAVIOURS=200000 .venv/bin/pytest tests/test_nvml_fuzz.py`.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator

import pynvml
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from nvml_fuzz import BEHAVIOURS, GROUPS, PROFILES, Inline, Machine, behaviour
from nvml_liar import NODE, Liar, Lie
from nvml_loaded import Node

from exporter import hold, poll
from exporter.config import DEFAULT_RULES
from exporter.exposition import Page
from exporter.rules import Engine
from exporter.statuspage import Past, StatusPage

WANTED = int(os.environ.get("FUZZ_BEHAVIOURS", "10000"))
POLLS = 8  # of one machine, each with a behaviour of its own


@pytest.fixture
def liar(node: Node, monkeypatch: pytest.MonkeyPatch) -> Iterator[Liar]:
    """Give a library that lies, in the place where pynvml keeps its own."""
    monkeypatch.setattr(poll, "Crew", Inline)
    monkeypatch.setattr(hold, "Crew", Inline)
    node.connect()
    liar = Liar(pynvml.nvmlLib)
    with monkeypatch.context() as patch:
        patch.setattr(pynvml, "nvmlLib", liar)
        patch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
        yield liar


class Consumers:
    """All that is made of a snapshot: pages, rules, the status page."""

    def __init__(self) -> None:
        self._page, self._openmetrics = Page(openmetrics=False), Page(openmetrics=True)
        self._past = Past(1.0)
        self._engine = Engine(DEFAULT_RULES, (), {}, 1.0)
        self._status = StatusPage("node", "/metrics", self._past)

    def take(self, machine: Machine, *, whole: bool) -> None:
        """Take the machine's latest snapshot, and judge the page; `whole`: whatever shows it."""
        snapshot = machine.latest
        machine.judge(self._page.plain(snapshot).decode())
        self._engine.observe(snapshot, 0.0)
        self._past.add(snapshot, 0.0)
        if whole:
            assert self._openmetrics.plain(snapshot).endswith(b"# EOF\n")
            built = self._status.of(snapshot)
            assert json.loads(built.json)
            assert built.page.startswith(b"<!doctype html>")


@pytest.mark.slow(65)
@pytest.mark.timeout(7200)
def test_any_driver(node: Node, liar: Liar, caplog: pytest.LogCaptureFixture) -> None:
    """Each value was answered for its page and is within its unit's bounds; no fault is ours.

    What counts is polls in which the driver gave at least one answer that is not the truth, and was
    heard.
    """
    caplog.set_level(logging.DEBUG, "exporter")
    heard = 0
    consumers = Consumers()

    @settings(
        max_examples=WANTED,
        deadline=None,
        derandomize="FUZZ_BEHAVIOURS" not in os.environ,  # for everybody the same; else new ones
        suppress_health_check=list(HealthCheck),
    )
    @given(
        profile=st.sampled_from(PROFILES),
        left_out=st.integers(0, (1 << len(GROUPS)) - 1),
        behaviours=st.lists(BEHAVIOURS, min_size=3, max_size=POLLS),
    )
    def fuzz(profile: str, left_out: int, behaviours: list[bytes]) -> None:
        nonlocal heard
        if heard >= WANTED:
            return
        machine = Machine(node, liar, profile, left_out)
        for data in behaviours:
            lies, seconds = behaviour(data)
            note(f"after {seconds} s: {lies}")
            machine.tick(lies, seconds)
            heard += bool(liar.told)
            consumers.take(machine, whole=data is behaviours[-1])
            if machine.is_gone:
                break
        records, caplog.handler.records = caplog.records[:], []
        said = [r.getMessage() for r in records if r.exc_info or "unexpected" in r.getMessage()]
        assert said == []

    fuzz()
    assert heard >= WANTED


def test_the_liar_is_heard(node: Node, liar: Liar) -> None:
    """Absurd numbers, refusals with garbage behind them, and a batch in parts come through pynvml.

    The judge sees what nobody has answered, and what is out of bounds.
    """
    machine = Machine(node, liar, "l40s")
    page = Page(openmetrics=False)
    machine.tick(
        {
            (0, "nvmlDeviceGetPowerUsage"): Lie(0, (123_456,)),
            (0, "nvmlDeviceGetTemperatureV"): Lie(4, (77,)),
            (0, "nvmlDeviceGetFieldValues"): Lie(0, (5000,), None, (3, 0), (2,)),
            (0, "nvmlDeviceGetName"): Lie(0, (), b'a "new"\nname'),
            (NODE, "nvmlSystemGetNVMLVersion"): Lie(0, (), b"9"),
        },
        seconds=5,
    )
    text = page.plain(machine.latest).decode()
    found = {name: v for name, labels, v in machine.judge(text) if ("gpu", "0") in labels}
    assert found["gpu_power_watts"] == 123.456
    assert "gpu_temperature_celsius" not in found or found["gpu_temperature_celsius"] != 77
    assert r"a \"new\"\nname" in text
    assert 'nvml_version="9"' in text
    for wrong in ("gpu_power_watts 123.456", "gpu_power_watts -1", "gpu_utilization_ratio 1.01"):
        name, value = wrong.split()
        line = f'# HELP {name} x\n# TYPE {name} gauge\n{name}{{gpu="1",uuid="u"}} {value}\n'
        with pytest.raises(AssertionError, match=name):
            machine.judge(line)
    with pytest.raises(AssertionError, match="doubled"):
        machine.judge("# HELP gpu_up x\n# TYPE gpu_up gauge\n" + 'gpu_up{gpu="0"} 1\n' * 2)


def test_bytes_that_are_no_text_cost_their_group(node: Node, liar: Liar) -> None:
    """Wherever such bytes stand, the group is absent for that reason, and the GPU is up."""
    machine = Machine(node, liar, "geforce")
    no_text = Lie(0, (), b"\xff\xfe")
    machine.tick({(0, "nvmlDeviceGetPciInfo_v3"): no_text, (0, "nvmlDeviceGetSerial"): no_text}, 1)
    snapshot = machine.latest
    assert snapshot.read_errors == {("identity", "invalid_text"): 1}
    assert [(gpu.fault, gpu.identity is None) for gpu in snapshot.gpus] == [
        (None, True),
        (None, False),
    ]
