"""Profiling counters: their names, absence where there are none, and one query a tick."""

from __future__ import annotations

import pytest
from nvml_loaded import Node, flat

from exporter.catalogue import RULE_METRICS
from exporter.gpu.profiling import ALL, ratio
from exporter.sampling import Tier

FAST_CALLS = 11  # of one GPU and tick
NAMES = {
    "graphics_ratio": 1,
    "sm_ratio": 2,
    "occupancy_ratio": 3,
    "tensor_ratio": 5,
    "dram_ratio": 10,
    "pipes.integer": 4,
    "pipes.tensor_hmma": 7,
    "pipes.tensor_imma": 9,
    "pipes.fp64": 11,
    "pipes.fp32": 12,
    "pipes.fp16": 13,
}


def profiling(node: Node, *lines: str) -> dict[str, float]:
    """Return what the second tick of GPU 0 tells, by name."""
    node.connect(*lines)
    device = node.device()
    node.read(device, Tier.FAST)
    seen = flat(node.read(device, Tier.FAST))
    return {n.removeprefix("profiling."): v for n, v in seen.items() if n.startswith("profiling.")}


@pytest.mark.parametrize("profile", ["h100x8", "b200x8"])
def test_each_counter_has_its_name(node: Node, profile: str) -> None:
    """Each share comes from its own counter, as a ratio."""
    planted = [f"gpu0.gpm.{metric}.value={metric + 0.5}" for metric in ALL]
    seen = profiling(node, f"profile={profile}", *planted)
    assert seen == {name: pytest.approx((metric + 0.5) / 100) for name, metric in NAMES.items()}


@pytest.mark.parametrize("profile", ["a100-mig", "l40s", "t4", "geforce", "gb10"])
def test_boards_before_hopper_have_none(node: Node, profile: str) -> None:
    """Absent, not 0; and such a board is asked for samples never, for support not each tick."""
    assert profiling(node, f"profile={profile}") == {}
    assert node.calls().count("nvmlGpmSampleGet") == 0
    assert node.calls().count("nvmlGpmQueryDeviceSupport") == 1


@pytest.mark.parametrize(
    ("percent", "expected"),
    [(0.0, 0.0), (100.0, 1.0), (100.4, 1.0), (101.5, None), (-0.1, None), (None, None)],
)
def test_a_percentage_that_is_none(percent: float | None, expected: float | None) -> None:
    """What lies a little above 100 is rounding of the counters; more is nonsense."""
    assert ratio(percent) == expected


def test_one_counter_without_a_value(node: Node) -> None:
    """A counter that fails leaves out itself alone."""
    seen = profiling(node, "gpu0.gpm.5.ret=3", "gpu0.gpm.7.value=nan", "gpu0.gpm.10.value=400")
    assert set(NAMES) - set(seen) == {"tensor_ratio", "pipes.tensor_hmma", "dram_ratio"}


def test_a_fast_tick_has_eleven_calls(node: Node) -> None:
    """The counters of all groups come with the one sample and the one query that there were."""
    node.connect()
    device = node.device()
    for _ in range(2):
        node.read(device, Tier.FAST)
    before = node.calls()
    node.read(device, Tier.FAST)
    after = node.calls()
    calls = {n: after.count(n) - before.count(n) for n in after.by_symbol}
    assert sum(calls.values()) == FAST_CALLS
    assert (calls["nvmlGpmSampleGet"], calls["nvmlGpmMetricsGet"]) == (1, 1)
    assert after.gpm_samples == 2


def test_rules_can_watch_them() -> None:
    """A rule may name each of them that has one value a GPU."""
    assert {"gpu_sm_active_ratio", "gpu_tensor_active_ratio", "gpu_dram_active_ratio"} <= set(
        RULE_METRICS
    )
