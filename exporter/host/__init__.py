"""The host beside the GPUs: one file a group, each with a dataclass, `read` and METRICS."""

from collections.abc import Callable
from typing import Generic, TypeVar

from exporter.frozen import dataclass
from exporter.host import cpu, disk, memory, pressure, swap, thermal
from exporter.metric import Row
from exporter.sampling import Tier

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Group(Generic[T]):
    """What is read together.

    `read` raises OSError or ValueError when the group as a whole fails; `following` corrects a
    reading by the one before it; `name` is the value of the label `group` in our own metrics.
    """

    name: str
    tier: Tier
    read: Callable[[], T]
    metrics: tuple[Row[T], ...]
    following: Callable[[T, T], T] | None = None


GROUPS = (
    Group("host_memory", Tier.FAST, memory.read, memory.METRICS),
    Group("host_swap", Tier.FAST, swap.read, swap.METRICS),
    Group("host_pressure", Tier.FAST, pressure.read, pressure.METRICS),
    Group("host_cpu", Tier.MEDIUM, cpu.read, cpu.METRICS, cpu.following),
    Group("host_disk", Tier.MEDIUM, disk.read, disk.METRICS),
    Group("host_thermal", Tier.SLOW, thermal.read, thermal.METRICS),
)
