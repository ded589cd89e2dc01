"""What the status page says, as frozen values: /api/v1/status is these, field by field.

The names are a promise. None: not known, or not there.
"""

from __future__ import annotations

from collections.abc import Mapping

from exporter.frozen import dataclass
from exporter.statuspage.past import Band

VERSION = 1  # goes up only when a reader of the version before would misread


@dataclass(frozen=True, slots=True)
class Issue:
    """Something that is wrong.

    Attributes:
        severity: critical or warning.
        what: Which sort of problem it is, in one word.
        text: The problem, in words.
        gpu: NVML index of the GPU that it is about.
        since_timestamp_seconds: Since when, in seconds since the epoch.
        is_from_start: It was so when the exporter began to look, and may have been before.
    """

    severity: str
    what: str
    text: str
    gpu: int | None
    since_timestamp_seconds: float | None
    is_from_start: bool


@dataclass(frozen=True, slots=True)
class GpuRule:
    """A rule that is firing for a GPU, or pending since its condition began to hold."""

    rule: str
    state: str
    since_timestamp_seconds: float


@dataclass(frozen=True, slots=True)
class Xid:
    """An XID error of a GPU since the node booted; `severity` as the label class of the metrics."""

    xid: int
    mnemonic: str
    severity: str
    action: str
    errors_total: int
    last_timestamp_seconds: float


@dataclass(frozen=True, slots=True)
class MigDevice:
    """A MIG device; one that shares its GPU instance shows the same as the other."""

    gpu: int
    mig_uuid: str
    profile: str
    memory_used_bytes: float | None
    memory_total_bytes: float | None
    graphics_engine_active_ratio: float | None


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that uses GPUs; memory and utilization are those of all its GPUs together.

    `sm_utilization_ratio` is the highest of one GPU. What /proc does not tell us is "" or None.
    """

    pid: int
    process: str
    user: str
    workload: str
    gpus: tuple[int, ...]
    memory_used_bytes: int | None
    sm_utilization_ratio: float | None
    resident_memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes with most GPU memory, and how many more there are."""

    heaviest: tuple[GpuProcess, ...]
    left_out: int


@dataclass(frozen=True, slots=True)
class GpuStatus:
    """One GPU; `history` is by reading, ECC errors are since the driver was loaded."""

    gpu: int
    uuid: str
    name: str
    pci_bus_id: str
    up: bool
    fault: str | None
    sample_age_seconds: float | None
    utilization_ratio: float | None
    memory_used_bytes: float | None
    memory_total_bytes: float | None
    memory_used_ratio: float | None
    temperature_celsius: float | None
    memory_temperature_celsius: float | None
    temperature_slowdown_celsius: float | None
    power_watts: float | None
    power_limit_watts: float | None
    sm_clock_hertz: float | None
    clock_events: tuple[str, ...]
    pcie_transmit_bytes_per_second: float | None
    pcie_receive_bytes_per_second: float | None
    pcie_link_generation: float | None
    pcie_link_width: float | None
    nvlink_transmit_bytes_per_second: float | None
    nvlink_receive_bytes_per_second: float | None
    nvlinks: int | None
    nvlinks_active: int | None
    ecc_corrected_errors: float | None
    ecc_uncorrected_errors: float | None
    recovery_action: str | None
    xids: tuple[Xid, ...]
    rules: tuple[GpuRule, ...]
    history: Mapping[str, Band]


@dataclass(frozen=True, slots=True)
class HostStatus:
    """The host's memory and swap; `history` is by reading."""

    memory_total_bytes: float | None
    memory_used_bytes: float | None
    memory_used_ratio: float | None
    swap_total_bytes: float | None
    swap_used_bytes: float | None
    history: Mapping[str, Band]


@dataclass(frozen=True, slots=True)
class RuleSummary:
    """One rule; `gpus` and `since` are those of its state, if that is pending or firing.

    `value` is that of the GPU nearest to firing; `ending` is what ends it while it fires.
    """

    rule: str
    condition: str
    ending: str
    metric: str
    threshold: float | None
    value: float | None
    state: str
    since_timestamp_seconds: float | None
    gpus: tuple[int, ...]
    firings_total: int


@dataclass(frozen=True, slots=True)
class RecordingSummary:
    """One recording on disk: gpu-node-exporter recordings show NAME."""

    name: str
    rule: str
    started_timestamp_seconds: float | None
    size_bytes: int
    active: bool


@dataclass(frozen=True, slots=True)
class Recordings:
    """The flight recorder, and its newest recordings."""

    active: bool
    stored_bytes: int | None
    dropped_total: int
    newest: tuple[RecordingSummary, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """A line of the audit; "" for what it does not say."""

    timestamp_seconds: float
    what: str
    result: str
    action: str
    rule: str
    kind: str
    target: str
    event_id: str
    detail: str


@dataclass(frozen=True, slots=True)
class ScaleOut:
    """Requests to scale out, and the newest lines of their audit.

    Attributes:
        durable: Whether every request is on disk; None if nothing is ever sent.
        paused: Whether nothing new is sent.
        cooldown_remaining_seconds: By action.
        outbox: Requests by state.
        newest: Newest first.
    """

    durable: bool | None
    paused: bool
    cooldown_remaining_seconds: Mapping[str, float]
    outbox: Mapping[str, int]
    newest: tuple[Decision, ...]


@dataclass(frozen=True, slots=True)
class InferenceServerStatus:
    """One inference server of the config, by its own metrics; `problem` is "" while it is up."""

    name: str
    kind: str
    up: bool
    problem: str
    requests_running: float | None
    requests_waiting: float | None
    kv_cache_used_ratio: float | None
    latency_p99_seconds: float | None


@dataclass(frozen=True, slots=True)
class DriverStatus:
    """Versions of the driver, of NVML, and of the newest CUDA that the driver runs."""

    driver_version: str
    nvml_version: str
    cuda_version: str


@dataclass(frozen=True, slots=True)
class Status:
    """The node.

    Attributes:
        version: Of these names.
        timestamp_seconds: When the readings were taken, in seconds since the epoch.
        age_seconds: How old they were when this was asked for.
        not_ready: Why there are no fresh readings; None: there are.
        history_step_seconds: How long each entry of a history stands for.
        history_until_timestamp_seconds: When the last of them ends.
    """

    version: int
    node: str
    simulated: bool
    exporter_version: str
    timestamp_seconds: float | None
    age_seconds: float | None
    not_ready: str | None
    driver: DriverStatus | None
    problems: tuple[Issue, ...]
    gpus: tuple[GpuStatus, ...]
    mig_devices: tuple[MigDevice, ...]
    processes: Processes | None
    host: HostStatus | None
    rules: tuple[RuleSummary, ...]
    recordings: Recordings | None
    scale_out: ScaleOut | None
    inference_servers: tuple[InferenceServerStatus, ...]
    history_step_seconds: float
    history_until_timestamp_seconds: float | None
