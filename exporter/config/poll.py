"""How often readings are taken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field

from exporter.frozen import dataclass
from exporter.schema import Place, as_duration, duration, key


@dataclass(frozen=True, slots=True)
class Poll:
    """How often readings are taken.

    Attributes:
        fast_seconds: Between two readings of utilization, memory, temperature, power and clocks.
        slow_seconds: Between two readings of what seldom changes.
        pcie_seconds: Between two readings of PCIe throughput where one takes a GPU 20 ms.
        deadline_seconds: How long a GPU may take to answer before it is taken for hung; None for
            half of `fast_seconds`.
        mig_seconds: Between two readings of MIG devices.
    """

    fast_seconds: float = field(
        default=1.0, metadata=key("fast", duration, at_least="250ms", at_most="60s")
    )
    slow_seconds: float = field(default=30.0, metadata=key("slow", duration, at_most="10m"))
    pcie_seconds: float = field(
        default=5.0, metadata=key("pcie", duration, at_least="1s", at_most="10m")
    )
    deadline_seconds: float | None = field(
        default=None, metadata=key("deadline", duration, at_least="50ms")
    )
    mig_seconds: float = field(
        default=5.0, metadata=key("mig", duration, at_least="1s", at_most="30s")
    )

    def check(self) -> Iterator[tuple[Place, str]]:
        """Yield what the intervals say against each other."""
        fast = as_duration(self.fast_seconds)
        if self.slow_seconds < self.fast_seconds:
            yield ("slow",), f"is shorter than fast ({fast}); write {fast} or longer"
        if self.deadline_seconds is not None and self.deadline_seconds >= self.fast_seconds:
            yield ("deadline",), f"is not shorter than fast ({fast}); write less than {fast}"
