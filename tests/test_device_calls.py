"""What a tick costs the driver: how often each question is put to it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pynvml
import pytest
from nvml_loaded import PLAN, Node

from exporter import structs
from exporter.catalogue import GPU_READERS
from exporter.fields import field_id
from exporter.sampling import Fault, Tier

FAST_CALLS = {  # nvmlDeviceGet...
    "UtilizationRates": 1,
    "MemoryInfo_v2": 1,
    "TemperatureV": 1,
    "PowerUsage": 1,
    "ClockInfo": 2,
    "CurrentClocksEventReasons": 1,
    "Samples": 1,
    "FieldValues": 1,
}


def test_tick_of_eight_gpus_is_eleven_calls_each(node: Node) -> None:
    """8 getters, 1 batch of fields and 2 calls of profiling, on each GPU at each tick."""
    readers = tuple(r for r in GPU_READERS if r.tier not in {Tier.BLOCKING, Tier.MIG})
    poller = node.poller(replace(PLAN, readers=readers, slow_seconds=600.0))
    node.clock.seconds = 1201.0
    poller.tick()
    before = node.calls()
    for _ in range(20):
        node.clock.seconds += 1
        assert {gpu.fault for gpu in poller.tick().gpus} == {None}
    after = node.calls()
    expected = {f"nvmlDeviceGet{name}": 20 * n for name, n in FAST_CALLS.items()}
    expected["nvmlGpmSampleGet"] = 20
    for gpu in range(8):
        made = {s: n - before.count(s, gpu) for s, n in after.by_gpu[gpu].items()}
        assert {s: n for s, n in made.items() if n} == expected
    assert after.count("nvmlGpmMetricsGet") - before.count("nvmlGpmMetricsGet") == 8 * 20
    assert sum(FAST_CALLS.values()) + 2 == 11
    assert after.max_in_flight == 1


def test_batches_go_one_at_a_time_however_many_threads_read(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read side by side, GPUs share the driver, but not for fields and profiling."""
    monkeypatch.setattr("exporter.batches.SERIAL_WAIT_SECONDS", 60.0)
    poller = node.poller(replace(PLAN, deadline_seconds=60.0))
    node.put(
        "gpu*.call.nvmlDeviceGetPowerUsage.delay_ms=50",
        "gpu*.call.nvmlDeviceGetFieldValues.delay_ms=5",
        "gpu*.call.nvmlGpmSampleGet.delay_ms=5",
    )
    for _ in range(2):
        poller._split = True
        node.clock.seconds += 1
        assert {gpu.fault for gpu in poller.tick().gpus} == {None}
    assert node.calls().max_in_flight >= 2
    assert node.calls().max_in_flight_batch == 1


def test_hang_in_a_batch_holds_no_other_gpu(node: Node, tmp_path: Path) -> None:
    """The one that hangs keeps its turn for ever; the others soon do without waiting for it."""
    poller = node.poller(replace(PLAN, deadline_seconds=1.0))
    block = tmp_path / "block"
    block.touch()
    node.put(f"gpu3.call.nvmlDeviceGetFieldValues.block_until_removed={block}")
    try:
        for _ in range(2):
            node.clock.seconds += 1
            gpus = poller.tick().gpus
            assert [gpu.fault for gpu in gpus] == [None] * 3 + [Fault.HUNG] + [None] * 4
            assert all(gpu.power and gpu.power.energy_joules for gpu in gpus if not gpu.fault)
    finally:
        block.unlink()
    while poller.tick().gpus[3].fault:
        time.sleep(0.005)


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
    monkeypatch.setattr("exporter.structs.CALLS", Watched(structs.CALLS))
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
        for request in {request for reader in GPU_READERS for request in reader.fields}
        if (number := field_id(request.field, "580.95.05"))
        and pynvml.nvmlDeviceGetFieldValues(handle, [(number, request.scope)])[0].nvmlReturn == 0
    )
    assert {n: count - before[n] for n, count in after.items() if count > before[n]} == answering
