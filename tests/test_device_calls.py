"""What a tick costs the driver: how often each question is put to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pynvml
import pytest
from nvml_loaded import PLAN, Node

from exporter.catalogue import GPU_READERS
from exporter.fields import field_id
from exporter.poll import Poller, Sources
from exporter.snapshot import Build, Reload

FAST_CALLS = {  # nvmlDeviceGet...
    "UtilizationRates": 1,
    "MemoryInfo_v2": 1,
    "TemperatureV": 1,
    "PowerUsage": 1,
    "ClockInfo": 2,
    "CurrentClocksEventReasons": 1,
    "PerformanceState": 1,
    "FieldValues": 1,
}


def test_tick_of_eight_gpus_is_eleven_calls_each(node: Node) -> None:
    """8 getters, 1 batch of fields and 2 calls of profiling, on each GPU at each tick."""
    sources = Sources(node.driver, Build("1", "3", simulated=False), lambda: None, node.clock)
    reload = Reload(successful=True, success_timestamp_seconds=0)
    seldom = replace(PLAN, slow_seconds=600.0, blocking_seconds=600.0)
    poller = Poller(sources, seldom, (), reload)
    node.put("profile=h100x8")
    while poller.tick().driver is None:  # looking for the driver has a thread of its own
        node.clock.seconds += 5
    node.clock.seconds = 1201.0
    poller.tick()
    poller._blocking_crew.wait(60)
    before = node.calls()
    for _ in range(20):
        node.clock.seconds += 1
        poller.tick()
    after = node.calls()
    expected = {f"nvmlDeviceGet{name}": 20 * n for name, n in FAST_CALLS.items()}
    expected["nvmlGpmSampleGet"] = 20
    for gpu in range(8):
        made = {s: n - before.count(s, gpu) for s, n in after.by_gpu[gpu].items()}
        assert {s: n for s, n in made.items() if n} == expected
    assert after.count("nvmlGpmMetricsGet") - before.count("nvmlGpmMetricsGet") == 8 * 20
    assert sum(FAST_CALLS.values()) + 2 == 11
    assert after.max_in_flight == 1


@pytest.mark.parametrize("profile", ["l40s", "geforce", "gb10", "t4", "a100-mig", "vgpu"])
def test_what_a_board_refused_is_never_repeated(
    node: Node, monkeypatch: pytest.MonkeyPatch, profile: str
) -> None:
    """A question that was refused is not put again; every field that answers is, each time."""
    refused: list[tuple[str, tuple[object, ...]]] = []

    class Watched(dict[str, Callable[..., Any]]):
        def __getitem__(self, name: str) -> Callable[..., Any]:
            function: Callable[..., Any] = super().__getitem__(name)

            def call(handle: object, *args: object) -> object:
                assert (name, args) not in refused
                try:
                    return function(handle, *args)
                except pynvml.NVMLError:
                    refused.append((name, args))
                    raise

            return call

    monkeypatch.setattr("exporter.device._CALLS", Watched(vars(pynvml)))
    node.connect(f"profile={profile}")
    device = node.device()
    node.read(device)
    node.read(device)  # what stands in for a refused field is asked for now
    before = node.calls().fields[0]
    node.read(device)
    after = node.calls().fields[0]
    assert refused
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    answering = Counter(
        number
        for reader in GPU_READERS
        for request in reader.fields
        if (number := field_id(request.field, "580.95.05"))
        and pynvml.nvmlDeviceGetFieldValues(handle, [(number, request.scope)])[0].nvmlReturn == 0
    )
    assert {n: count - before[n] for n, count in after.items() if count > before[n]} == answering
