"""What an operator may set: the configuration file as frozen, typed values."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from exporter.schema import ConfigError, Place, as_duration, boolean, duration, key

__all__ = ["Config", "ConfigError", "Poll", "load"]


@dataclass(frozen=True, slots=True)
class Poll:
    """How often readings are taken.

    Attributes:
        fast_seconds: Between two readings of utilization, memory, temperature, power and clocks.
        slow_seconds: Between two readings of what seldom changes.
        pcie_seconds: Between two readings of PCIe throughput where one takes a GPU 20 ms.
        deadline_seconds: How long a GPU may take to answer before it is taken for hung; None for
            half of `fast_seconds`.
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

    def check(self) -> Iterator[tuple[Place, str]]:
        """Yield what the intervals say against each other."""
        fast = as_duration(self.fast_seconds)
        if self.slow_seconds < self.fast_seconds:
            yield ("slow",), f"is shorter than fast ({fast}); write {fast} or longer"
        if self.deadline_seconds is not None and self.deadline_seconds >= self.fast_seconds:
            yield ("deadline",), f"is not shorter than fast ({fast}); write less than {fast}"


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file. Without one, every field has its default.

    Attributes:
        poll: How often readings are taken.
        collectors: Groups of readings by name, switched on or off; one that is not named keeps
            its own default.
    """

    poll: Poll = Poll()
    collectors: Mapping[str, bool] = field(
        default_factory=lambda: MappingProxyType({}),
        metadata=key("collectors", boolean, among="collectors"),
    )


def load(path: Path, collectors: Collection[str]) -> Config:
    """Read a configuration file in which `collectors` are the names there are.

    Raises:
        ConfigError: all that is wrong with the file.
    """
    from exporter import yamlfile  # noqa: PLC0415  yaml is 1.5 MiB that a daemon without a file saves

    return yamlfile.load(path, Config, {"collectors": collectors})
