"""What may stand on a page, whatever the driver says: bounds by unit, and nothing it never said."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TypeVar

from prometheus_client.parser import text_string_to_metric_families

from exporter.catalogue import CATALOGUE
from exporter.metric import Kind
from exporter.sampling import Tier

KIB, MIB, PIB = 1 << 10, 1 << 20, 1 << 50
MAX_COUNT = (1 << 63) - 1
FLAG_WORDS = ("1 if ", "1 while ", "1 for ", "Who may ")  # how the help of a flag begins

# Lowest and highest value, by the end of the name; the first that fits.
BOUNDS: Mapping[str, tuple[float, float]] = {
    "gpu_fan_speed_ratio": (0, 10),  # may pass 1
    "gpu_performance_state": (0, 15),
    "gpu_pcie_link_generation": (1, 15),
    "gpu_pcie_link_width": (1, 64),
    "gpu_recovery_action": (0, 255),
    "_ratio": (0, 1),
    "_celsius": (-50, 200),
    "_watts": (0, 100_000),
    "_hertz": (0, 1e11),
    "_bytes_per_second": (0, PIB),
    "_bytes_total": (0, 18 * MAX_COUNT * KIB),  # the sum over all links
    "_bytes": (0, PIB),
    "": (0, MAX_COUNT),
}
Scale = Callable[[float], float]
# What an answer of the driver becomes, likewise.
SCALES: Mapping[str, tuple[Scale, ...]] = {
    "_watts": (lambda n: n / 1000,),
    "_joules_total": (lambda n: n / 1000,),
    "_hertz": (lambda n: n * 1e6,),
    "_seconds_total": (lambda n: n / 1e9,),
    "_ratio": (lambda n: n / 100, lambda n: min(n, 100.0) / 100),
    "_bytes_total": (float, lambda n: n * KIB),
    "gpu_nvlink_speed_bytes_per_second": (lambda n: n * 1_000_000,),
    "_bytes_per_second": (lambda n: n * KIB, lambda n: n * MIB),
    "": (float,),
}
# Made of several answers, or also of those before.
DERIVED = {
    "gpu_busy_seconds_total",
    "gpu_utilization_ratio",
    "gpu_memory_used_ratio",
    "gpu_mig_memory_used_ratio",
    "gpu_nvlink_transmit_bytes_total",
    "gpu_nvlink_receive_bytes_total",
    "gpu_nvlink_transmit_bytes_per_second",
    "gpu_nvlink_receive_bytes_per_second",
    "gpu_nvlink_bit_error_ratio",
    "gpu_processes",
    "gpu_processes_left_out",
    "gpu_processes_left_out_memory_used_bytes",
    "gpu_process_memory_used_bytes",
    "gpu_process_sm_utilization_ratio",
    "gpu_process_memory_activity_ratio",
    "gpu_process_engine_utilization_ratio",
}
# Kept from readings before: parts of totals that stand still, and what takes its time on purpose.
KEPT = {
    "gpu_ecc_location_errors_total",
    "gpu_pcie_transmit_bytes_per_second",
    "gpu_pcie_receive_bytes_per_second",
}

T = TypeVar("T")
Labels = frozenset[tuple[str, str]]
Sample = tuple[str, Labels, float]


@dataclass(frozen=True, slots=True)
class Sort:
    """What is known of a GPU's metric. Without scales, its values need not be a single answer."""

    bounds: tuple[float, float]
    scales: tuple[Scale, ...]
    is_static: bool


@cache
def sorts() -> dict[str, Sort]:
    """Return what is known of every metric of GPUs, by its name."""
    found = {}
    for table in (table for table in CATALOGUE if table.labels):
        is_static = table.reader is not None and table.reader.tier is Tier.STATIC
        for metric in table.metrics:
            name = metric.name
            is_flag = metric.kind is Kind.INFO or metric.help.startswith(FLAG_WORDS)
            found[name] = Sort(
                (0, 1) if is_flag else _by_ending(BOUNDS, name),
                () if is_flag or name in DERIVED else _by_ending(SCALES, name),
                is_static or name in KEPT,
            )
    return found


def _by_ending(table: Mapping[str, T], name: str) -> T:
    return next(value for ending, value in table.items() if name.endswith(ending))


def samples(page: str) -> list[Sample]:
    """Return every sample of a page by prometheus_client's parser; each series is there once."""
    head, *families = re.split("^# HELP ", page, flags=re.MULTILINE)
    assert head == ""
    found = [sample for family in families for sample in _family(family)]
    names = [family.split(" ", 1)[0] for family in families]
    assert len(set(names)) == len(names), "a family stands on the page twice"
    return found


@lru_cache(maxsize=4096)  # most families of most pages are those of the page before
def _family(text: str) -> tuple[Sample, ...]:
    (family,) = text_string_to_metric_families("# HELP " + text)
    found = tuple((s.name, frozenset(s.labels.items()), float(s.value)) for s in family.samples)
    assert len({sample[:2] for sample in found}) == len(found), f"a series is doubled: {text}"
    return found


def wrong(
    found: list[Sample],
    now: Mapping[str, AbstractSet[float]],
    ever: Mapping[str, AbstractSet[float]],
) -> list[str]:
    """Return what is wrong with the samples of GPUs, a line each.

    Args:
        found: Those of a page.
        now: What the driver has answered for this page, by the GPU's index.
        ever: The same, since the GPU was opened.
    """
    lines = []
    sources: dict[tuple[str, bool, tuple[Scale, ...]], set[float]] = {}
    for name, labels, value in found:
        gpu = dict(labels).get("gpu", "")
        sort = sorts().get(name)
        if sort is None or not gpu:
            continue
        lowest, highest = sort.bounds
        if not lowest <= value <= highest:
            lines.append(f"{name}{dict(labels)} is {value}, not within {lowest} and {highest}")
        elif sort.scales:
            key = (gpu, sort.is_static, sort.scales)
            if key not in sources:
                answers = (ever if sort.is_static else now).get(gpu, set())
                sources[key] = {float(scale(answer)) for scale in sort.scales for answer in answers}
            if value not in sources[key]:
                lines.append(f"{name}{dict(labels)} is {value}, which the driver has not answered")
    return lines
