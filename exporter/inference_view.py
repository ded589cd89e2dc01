"""What is known of the node's inference servers, for rules and for people.

It is theirs, not ours: /metrics has none of it but whether they could be read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import field, fields

from exporter.frozen import dataclass
from exporter.metric import Metric, MetricVec, Row


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a server is, or several: the highest of each. None: not told, or not believed.

    Attributes:
        requests_running: Requests that are being computed.
        requests_waiting: Requests in its queue.
        kv_cache_used_ratio: Share of its key-value cache in use, 0 to 1.
        latency_p99_seconds: Time that 99 % of the requests of the last minute stayed under, from
            their arrival to the end of the answer.
    """

    requests_running: float | None = None
    requests_waiting: float | None = None
    kv_cache_used_ratio: float | None = None
    latency_p99_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """One server, as it was last read.

    Attributes:
        name: As the config calls it.
        kind: vllm, tgi or triton; auto until that is known.
        gpus: NVML indexes and UUIDs of its GPUs; empty: all.
        load: None while it cannot be read.
        problem: Why it cannot be read, or "".
    """

    name: str
    kind: str
    gpus: Collection[str]
    load: Load | None
    problem: str


@dataclass(frozen=True, slots=True)
class InferenceView:
    """All servers of the config.

    Attributes:
        servers: In the config's order.
        errors: Readings that failed, by the word for the error.
        read_seconds: What the longest of the last readings took.
    """

    servers: tuple[Server, ...]
    errors: Mapping[str, int] = field(default_factory=dict)
    read_seconds: float | None = None

    def of_gpu(self, index: int, uuid: str) -> Load:
        """Return the highest of the servers that use a GPU."""
        loads = [
            server.load
            for server in self.servers
            if server.load is not None
            and (not server.gpus or uuid in server.gpus or str(index) in server.gpus)
        ]
        return loads[0] if len(loads) == 1 else _highest(loads)


def _highest(loads: list[Load]) -> Load:
    values = {
        field.name: max(
            (value for load in loads if (value := getattr(load, field.name)) is not None),
            default=None,
        )
        for field in fields(Load)
    }
    return Load(**values)


METRICS: tuple[Row[InferenceView], ...] = (
    MetricVec(
        "gpu_exporter_inference_server_up",
        "1 while the metrics page of an inference server of the config can be read.",
        ("server",),
        lambda v: {server.name: int(server.load is not None) for server in v.servers},
    ),
)

RULE_METRICS: tuple[Row[Load], ...] = (
    Metric(
        "inference_requests_running",
        "Requests that are being computed.",
        lambda load: load.requests_running,
    ),
    Metric(
        "inference_requests_waiting",
        "Requests in the server's queue.",
        lambda load: load.requests_waiting,
    ),
    Metric(
        "inference_kv_cache_used_ratio",
        "Share of the key-value cache in use.",
        lambda load: load.kv_cache_used_ratio,
    ),
    Metric(
        "inference_latency_p99_seconds",
        "Time that 99 % of the requests of the last minute stayed under.",
        lambda load: load.latency_p99_seconds,
    ),
)
