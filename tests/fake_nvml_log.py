"""The call log of the fake library: what the processes under test asked it."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

_NAMED = (
    "serial",
    "scenario_errors",
    "max_in_flight",
    "max_in_flight_batch",
    "after_fork",
    "gpm_swapped",
    "gpm_reused",
    "gpm_short_window",
    "gpm_samples",
    "event_sets",
    "shutdowns_during_wait",
)
_MAGIC = b"FAKENVML"
_HEADER = struct.Struct("=8s6I")


@dataclass(frozen=True, slots=True)
class Calls:
    """What the library was asked, by every process that loaded it with this log.

    A wait for events is counted, but is no call in flight. `*_in_flight` are maxima: over all
    calls, over field batches and GPM, and by GPU. `gpm_samples` and `event_sets` exist now.
    """

    by_symbol: Mapping[str, int] = field(default_factory=dict)
    by_gpu: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    fields: Mapping[int, Mapping[int, int]] = field(default_factory=dict)
    max_in_flight_by_gpu: Mapping[int, int] = field(default_factory=dict)
    max_in_flight: int = 0
    max_in_flight_batch: int = 0
    after_fork: int = 0
    gpm_swapped: int = 0
    gpm_reused: int = 0
    gpm_short_window: int = 0
    gpm_samples: int = 0
    event_sets: int = 0
    shutdowns_during_wait: int = 0
    serial: int = 0

    @property
    def inits(self) -> int:
        """Calls of nvmlInit, under either name."""
        return self.count("nvmlInitWithFlags") + self.count("nvmlInit_v2")

    def count(self, symbol: str, gpu: int | None = None) -> int:
        """Calls of one symbol, on one GPU or on all and none."""
        counts = self.by_symbol if gpu is None else self.by_gpu.get(gpu, {})
        return counts.get(symbol, 0)


def parse_log(data: bytes) -> Calls:
    """Decodes the file that fakenvml/log.c lays out.

    Args:
        data: its bytes.

    Returns:
        The counts; none while the library is about to lay the file out.

    Raises:
        ValueError: the library did not understand a line of the scenario.
    """
    if not data.startswith(_MAGIC):
        return Calls()
    _, symbols, columns, fields, named, name_bytes, error_bytes = _HEADER.unpack_from(data)
    at = _HEADER.size
    counters = dict(zip(_NAMED, struct.unpack_from(f"={named}I", data, at), strict=True))
    at += 4 * named
    first_error = data[at : at + error_bytes].split(b"\0")[0].decode()
    at += error_bytes
    if counters.pop("scenario_errors"):
        raise ValueError(f"fake NVML: {first_error}")
    numbers = struct.unpack_from(f"={columns * (1 + symbols + fields)}I", data, at)
    rows = [numbers[i : i + columns] for i in range(0, len(numbers), columns)]
    at += 4 * len(numbers)
    names = [
        data[at + i * name_bytes : at + (i + 1) * name_bytes].split(b"\0")[0].decode()
        for i in range(symbols)
    ]
    calls = list(zip(names, rows[1 : 1 + symbols], strict=True))
    reads = list(enumerate(rows[1 + symbols :]))
    gpus = range(columns - 1)
    return Calls(
        by_symbol={name: sum(row) for name, row in calls if any(row)},
        by_gpu={g: {name: row[g] for name, row in calls if row[g]} for g in gpus},
        fields={g: {number: row[g] for number, row in reads if row[g]} for g in gpus},
        max_in_flight_by_gpu=dict(zip(gpus, rows[0], strict=False)),
        **counters,
    )
