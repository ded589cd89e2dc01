"""What a test or a demo plants in a simulated GPU: answers that stand over the board's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from exporter.fields import Field
from exporter.frozen import dataclass
from exporter.simulate.board import MigSlice


@dataclass(frozen=True, slots=True)
class Planted:
    """Answers in NVML's units, by call, and by field with its scope; None: refused.

    `mig_slices` are the MIG devices of another layout than the board's.
    """

    calls: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[tuple[Field, int], float | None] = field(default_factory=dict)
    mig_slices: tuple[MigSlice, ...] | None = None


NOTHING = Planted()
