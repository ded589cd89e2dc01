"""Step 4: every group of readings was taken of every GPU; how long that took, what failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from exporter.catalogue import CATALOGUE, Table
from exporter.doctor.facts import Facts, ReadSpeed, vram
from exporter.doctor.finding import Finding, Kind, Severity, Step, fine, names
from exporter.doctor.words import MIB, counted, size
from exporter.frozen import dataclass
from exporter.metric import Metric
from exporter.sampling import Reader, Tier
from exporter.snapshot import Gpu

STEP = Step.TRIAL
FAST_ROUND_SECONDS = 0.2  # from here on, the daemon gives each GPU a thread of its own
SLOW_GROUP_SECONDS = 0.05  # of one GPU
LEAST_BYTES = 64 * MIB  # of a file whose read speed says anything
SLOW_FILE_BYTES_PER_SECOND = 200 * MIB

FAILED = Kind(
    "reading-failed",
    STEP,
    Severity.WARNING,
    "The driver has this reading, but gave an error instead of it.",
    "Run the doctor again. If it fails again: dmesg | grep -i nvrm, and nvidia-smi -q -i <GPU>.",
)
SLOW_DRIVER = Kind(
    "driver-slow",
    STEP,
    Severity.WARNING,
    "The readings of each second take the driver a fifth of it, or longer.",
    "Switch persistence mode on. See who else asks the driver all the time (nvidia-smi in a loop, "
    "other exporters); raise poll.fast in the config.",
)
SLOW_READING = Kind(
    "reading-slow",
    STEP,
    Severity.NOTE,
    "A group of readings that is taken now and then takes the driver 50 ms or longer a GPU.",
    "Nothing; or switch its collector off in the config.",
)
NO_FILE = Kind(
    "model-unreadable",
    STEP,
    Severity.ERROR,
    "The model file could not be read, or not within 30 s.",
    "Look at its permissions, at the disk or network share, and at dmesg.",
)
SLOW_FILE = Kind(
    "model-slow",
    STEP,
    Severity.WARNING,
    "The model file is read at less than 200 MiB/s: each start of a server takes minutes.",
    "Keep models on a local NVMe disk, or copy them there first.",
)
SMALL_FILE = Kind(
    "model-small",
    STEP,
    Severity.NOTE,
    "The file is too small for its read speed to say anything.",
    "Name one of the model's large files, such as a .safetensors or .gguf.",
)
CACHED_FILE = Kind(
    "model-cached",
    STEP,
    Severity.NOTE,
    "The file system does not let the page cache be passed by, so that the speed may be that of "
    "RAM.",
    "Nothing; the first read after a boot may be slower.",
)
KINDS = (FAILED, SLOW_DRIVER, SLOW_READING, NO_FILE, SLOW_FILE, SMALL_FILE, CACHED_FILE)


@dataclass(frozen=True, slots=True)
class Group:
    """A group of readings in the trial.

    Attributes:
        name: As in gpu_exporter_read_duration_seconds.
        tier: How often the daemon reads it.
        seconds: Of its last reading, over all GPUs; None: it was not read.
        absent_on: GPUs that have no such reading.
        errors: Times that it failed, by error.
    """

    name: str
    tier: Tier
    seconds: float | None
    absent_on: tuple[int, ...]
    errors: Mapping[str, int]


def groups(facts: Facts) -> tuple[Group, ...]:
    """Return what the trial gave, by group."""
    snapshot = facts.snapshot
    return tuple(
        Group(
            name=reader.group,
            tier=reader.tier,
            seconds=snapshot.read_seconds.get(reader.group),
            absent_on=tuple(g.index for g in facts.gpus if not _tells(table, reader, g)),
            errors={
                error: times
                for (group, error), times in snapshot.read_errors.items()
                if group == reader.group
            },
        )
        for table, reader in ((t, t.reader) for t in CATALOGUE if t.reader is not None)
    )


def check(facts: Facts) -> Iterator[Finding]:
    """Look at the trial, and at the read speed of a model file."""
    if facts.gpus:
        yield from _readings(facts, groups(facts))
    if facts.model_file is not None:
        yield from _file(facts, facts.model_file)


def _readings(facts: Facts, tried: tuple[Group, ...]) -> Iterator[Finding]:
    count = len(facts.gpus)
    taken = sum(group.seconds or 0.0 for group in tried)
    yield fine(
        STEP,
        "trial",
        f"{len(tried)} groups of readings of {counted(count, 'GPU')} in {1000 * taken:.0f} ms",
    )
    absent: dict[tuple[int, ...], list[str]] = {}
    for group in tried:
        if group.absent_on and not group.errors:
            absent.setdefault(group.absent_on, []).append(group.name)
    for gpus, lacking in absent.items():
        what = f"{names(gpus)}: not told by board, driver or user: {', '.join(lacking)}"
        yield fine(STEP, "absent", what, gpus)
    for group in tried:
        silent = [gpu.index for gpu in facts.gpus if getattr(gpu, group.name) is None]
        where = f"{names(silent)}: " if silent else ""
        for error, times in group.errors.items():
            what = f"{where}{group.name} fails: {error}, {counted(times, 'time')}"
            yield FAILED.found(what, silent)
    if facts.snapshot.build.simulated:
        return
    fast = sum(group.seconds or 0.0 for group in tried if group.tier is Tier.FAST)
    if fast >= FAST_ROUND_SECONDS:
        yield SLOW_DRIVER.found(f"the readings of one second take {1000 * fast:.0f} ms")
    for group in tried:
        each = (group.seconds or 0.0) / count
        if group.tier is Tier.SLOW and each >= SLOW_GROUP_SECONDS:
            yield SLOW_READING.found(f"{group.name}: {1000 * each:.0f} ms a GPU")


def _tells(table: Table, reader: Reader[Any], gpu: Gpu) -> bool:
    """Return whether a group has anything to say of a GPU, or need not: see sampling.Reader."""
    reading = getattr(gpu, reader.group)
    if reading is None:
        return reader.tier is Tier.BLOCKING
    if not table.metrics:  # what it tells is shown by another table
        return any(_is_something(getattr(reading, field.name)) for field in fields(reading))
    return any(
        _is_something(row.value(reading) if isinstance(row, Metric) else row.values(reading))
        for row in table.metrics
    )


def _is_something(value: Any) -> bool:  # noqa: ANN401  whatever a group holds
    if isinstance(value, Mapping):
        return any(part is not None for part in value.values())
    return value is not None


def _file(facts: Facts, file: ReadSpeed) -> Iterator[Finding]:
    if file.problem:
        yield NO_FILE.found(f"{file.path}: {file.problem}")
        return
    if file.read_bytes < LEAST_BYTES:
        yield SMALL_FILE.found(f"{file.path}: {size(file.read_bytes)}")
        return
    speed = file.bytes_per_second
    what = f"{file.path}: {size(file.read_bytes)} read at {size(speed)}/s by one reader"
    largest = max((vram(gpu) or 0 for gpu in facts.gpus), default=0)
    if largest:
        what += f"; the VRAM of one GPU would be filled in {largest / speed:.0f} s"
    is_slow = speed < SLOW_FILE_BYTES_PER_SECOND
    yield SLOW_FILE.found(what) if is_slow else fine(STEP, "model", what)
    if not file.direct:
        yield CACHED_FILE.found(f"{file.path}: read through the page cache")
