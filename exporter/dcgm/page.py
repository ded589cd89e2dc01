"""The page of --compat.dcgm.

Where MIG devices are there, the series are those of GPU instances, as dcgm-exporter has them: what
belongs to the board alone (power, temperature) is said of each of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from exporter.dcgm.counters import COUNTERS, Entity
from exporter.exposition import Rendered, braces
from exporter.metric import Metric, Row
from exporter.snapshot import Snapshot

Labels = list[tuple[str, str]]


class DcgmPage(Rendered):
    """The page of --compat.dcgm."""

    def __init__(self, hostname: str) -> None:
        """Take the label `Hostname`."""
        super().__init__()
        self._hostname = hostname

    def render(self, snapshot: Snapshot) -> list[bytes]:
        """Return the page in Prometheus's text format."""
        driver = snapshot.driver.driver_version if snapshot.driver else ""
        ends = [("Hostname", self._hostname), ("DCGM_FI_DRIVER_VERSION", driver)]
        known = [(entity, [*_labels(entity), *ends]) for entity in entities(snapshot)]
        lines: list[str] = []
        for counter in COUNTERS:
            series = [
                f"{counter.name}{braces([*_given(labels), *own])} {value!r}"
                for entity, labels in known
                for own, value in _values(counter, entity)
            ]
            if series:
                lines.append(f"# HELP {counter.name} {counter.help}")
                lines.append(f"# TYPE {counter.name} {counter.kind.value}")
                lines += series
        return ["".join(f"{line}\n" for line in lines).encode()]


def entities(snapshot: Snapshot) -> Iterator[Entity]:
    """Yield each GPU, or its GPU instances where it has some."""
    view = snapshot.xids
    is_watched = view is not None and any(view.sources.values())
    for gpu in snapshot.gpus:
        xids = snapshot.xids_of(gpu)
        if xids is not None and not xids.last_seconds and not is_watched:
            xids = None  # nobody looks: no error is not known
        parts = gpu.mig.instances.values() if gpu.mig else ()
        instances = {part.gpu_instance: part for part in parts}
        for _, instance in sorted(instances.items()):
            yield Entity(gpu, instance, xids)
        if not instances:
            yield Entity(gpu, None, xids)


def _labels(entity: Entity) -> Labels:
    gpu, instance = entity.gpu, entity.instance
    identity = gpu.identity
    labels = [
        ("gpu", str(gpu.index)),
        ("UUID", gpu.uuid),
        ("pci_bus_id", nvml_bus_id(identity.pci_bus_id) if identity else ""),
        ("device", f"nvidia{gpu.index}"),
        ("modelName", identity.name if identity else ""),
    ]
    if instance is not None:
        # "1c.3g.40gb" is a compute instance in a GPU instance of profile "3g.40gb".
        labels.append(("GPU_I_PROFILE", instance.profile.rpartition("c.")[2]))
        labels.append(("GPU_I_ID", str(instance.gpu_instance)))
    return labels


def nvml_bus_id(sysfs_bus_id: str) -> str:
    """Return "00000000:1A:00.0", as NVML writes it, for the kernel's "0000:1a:00.0"."""
    return f"0000{sysfs_bus_id.upper()}" if sysfs_bus_id else ""


def _given(labels: Labels) -> Labels:
    return [(name, value) for name, value in labels if value]


def _values(counter: Row[Entity], entity: Entity) -> Iterator[tuple[Labels, float]]:
    """Yield labels of its own and value of each series that there is."""
    if isinstance(counter, Metric):
        value = counter.value(entity)
        if value is not None and math.isfinite(value):
            yield [], value
        return
    for own, value in counter.values(entity).items():
        if value is not None:
            yield list(zip(counter.labels, own, strict=True)), value
