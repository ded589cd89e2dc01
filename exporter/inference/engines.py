"""Where each kind of server has what we look for.

vLLM: https://docs.vllm.ai/en/latest/design/metrics.html (kv_cache_usage_perc was called
gpu_cache_usage_perc before V1). TGI: text-generation-inference's router. Triton: its user guide on
metrics, and that of its TensorRT-LLM backend.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from exporter.frozen import dataclass
from exporter.inference.page import Labels, Page, Type
from exporter.inference_view import Load

MICROSECONDS = 1e-6


@dataclass(frozen=True, slots=True)
class Place:
    """All series of a name, or those of them that have a label."""

    name: str
    label: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Engine:
    """A kind of server.

    Attributes:
        running: Added up over engines, ranks and models; so is `waiting`.
        cache: Of these the highest.
        buckets: A histogram of the time from arrival to the end of the answer, in seconds.
        quantile_us: Its P99 as the server itself makes it, in microseconds; of these the highest.
    """

    kind: str
    running: tuple[Place, ...]
    waiting: tuple[Place, ...]
    cache: tuple[Place, ...] = ()
    buckets: str = ""
    quantile_us: tuple[Place, ...] = ()

    def wanted(self) -> dict[str, Type]:
        """Return the names of its samples, and the type of each."""
        names: dict[str, Type] = {}
        for place in (*self.running, *self.waiting, *self.cache):
            names[place.name] = "gauge"
        for place in self.quantile_us:
            names[place.name] = "summary"
        if self.buckets:
            names[self.buckets] = "histogram"
        return names


ENGINES = (
    Engine(
        "vllm",
        running=(Place("vllm:num_requests_running"),),
        waiting=(Place("vllm:num_requests_waiting"),),
        cache=(Place("vllm:kv_cache_usage_perc"), Place("vllm:gpu_cache_usage_perc")),
        buckets="vllm:e2e_request_latency_seconds_bucket",
    ),
    Engine(
        "tgi",
        running=(Place("tgi_batch_current_size"),),
        waiting=(Place("tgi_queue_size"),),
        buckets="tgi_request_duration_bucket",
    ),
    Engine(
        "triton",
        running=(Place("nv_trt_llm_request_metrics", ("request_type", "scheduled")),),
        # A request waits in Triton first, then in the backend.
        waiting=(
            Place("nv_inference_pending_request_count"),
            Place("nv_trt_llm_request_metrics", ("request_type", "waiting")),
        ),
        cache=(Place("nv_trt_llm_kv_cache_block_metrics", ("kv_cache_block_type", "fraction")),),
        quantile_us=(Place("nv_inference_request_summary_us", ("quantile", "0.99")),),
    ),
)


def engines(kind: str) -> tuple[Engine, ...]:
    """Return the engines that a server of this kind may be: of auto, all."""
    return tuple(engine for engine in ENGINES if kind in ("auto", engine.kind))


@dataclass(frozen=True, slots=True)
class Found:
    """What a page says.

    Attributes:
        kind: Whose names it has; "" for nobody's.
        load: Without a latency that is made of `buckets`.
        buckets: Of the histogram; None: not there.
    """

    kind: str
    load: Load
    buckets: dict[Labels, float] | None


def look(page: Page, candidates: Iterable[Engine]) -> Found:
    """Return what a whole page says; of each value, by the first engine that has it."""
    found = [_of(page, engine) for engine in candidates]
    speaking = [one for one in found if one.load != Load() or one.buckets is not None]
    return Found(
        speaking[0].kind if speaking else "",
        Load(
            requests_running=_first(one.load.requests_running for one in found),
            requests_waiting=_first(one.load.requests_waiting for one in found),
            kv_cache_used_ratio=_first(one.load.kv_cache_used_ratio for one in found),
            latency_p99_seconds=_first(one.load.latency_p99_seconds for one in found),
        ),
        next((one.buckets for one in found if one.buckets is not None), None),
    )


def _of(page: Page, engine: Engine) -> Found:
    latency_us = _value(page, engine.quantile_us, max)
    ratio = _value(page, engine.cache, max)
    if ratio is not None and ratio > 1:
        page.spoiled.update(place.name for place in engine.cache)
        ratio = None
    load = Load(
        requests_running=_value(page, engine.running, sum),
        requests_waiting=_value(page, engine.waiting, sum),
        kv_cache_used_ratio=ratio,
        latency_p99_seconds=None if latency_us is None else latency_us * MICROSECONDS,
    )
    return Found(engine.kind, load, page.series.get(engine.buckets))


def _value(
    page: Page, places: tuple[Place, ...], combine: Callable[[list[float]], float]
) -> float | None:
    """Return the one value of several series; None if there are none, or one was spoiled."""
    if any(place.name in page.spoiled for place in places):
        return None
    values = [
        value
        for place in places
        for labels, value in page.series.get(place.name, {}).items()
        if place.label is None or place.label in labels
    ]
    combined = combine(values) if values else math.inf
    return combined if math.isfinite(combined) else None


def _first(values: Iterable[float | None]) -> float | None:
    return next((value for value in values if value is not None), None)
