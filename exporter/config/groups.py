"""Scale groups: which GPUs serve one workload."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import field

from exporter.frozen import dataclass
from exporter.schema import Place, identifier, key

_INDEX = "(0|[1-9][0-9]{0,2})"
_UUID = "GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def gpu(text: str) -> str:
    """Read GPUs: an NVML index, a range of them, or a UUID."""
    if re.fullmatch(_UUID, text) or re.fullmatch(_INDEX, text):
        return text
    if match := re.fullmatch(f"{_INDEX}-{_INDEX}", text):
        if int(match[1]) <= int(match[2]):
            return text
        raise ValueError(f"is no range upwards; write {match[2]}-{match[1]}")
    raise ValueError("is no GPU; write an index (0), a range (0-3) or a UUID (GPU-...)")


def indexes(gpus: str) -> range:
    """Return the NVML indexes that an entry of `ScaleGroup.gpus` names; of a UUID, none."""
    if gpus.startswith("GPU-"):
        return range(0)
    first, _, last = gpus.partition("-")
    return range(int(first), int(last or first) + 1)


@dataclass(frozen=True, slots=True)
class ScaleGroup:
    """GPUs that serve one workload, and grow as one.

    Attributes:
        name: The label `scale_group` of its requests.
        gpus: NVML indexes, ranges of them such as 0-3, and UUIDs.
    """

    name: str = field(metadata=key("name", identifier))
    gpus: tuple[str, ...] = field(metadata=key("gpus", gpu))

    def check(self) -> Iterator[tuple[Place, str]]:
        """Yield that it is empty."""
        if not self.gpus:
            yield ("gpus",), "has none; write at least one, or leave the group out"
