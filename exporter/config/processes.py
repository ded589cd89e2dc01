"""How much is shown of the processes that use GPUs."""

from __future__ import annotations

from dataclasses import field

from exporter.frozen import dataclass
from exporter.schema import count, key


@dataclass(frozen=True, slots=True)
class Processes:
    """How much is shown of the processes that use GPUs.

    Attributes:
        max_per_gpu: Processes of one GPU with series of their own: those with most GPU memory.
        max_workloads: Workloads with series of their own; the others share one.
    """

    max_per_gpu: int = field(
        default=20, metadata=key("max_per_gpu", count, at_least="0", at_most="100")
    )
    max_workloads: int = field(
        default=100, metadata=key("max_workloads", count, at_least="1", at_most="1000")
    )
