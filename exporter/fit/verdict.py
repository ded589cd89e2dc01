"""What is needed beside what GPUs have free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from exporter.fit.model import Model
from exporter.fit.parts import Need, Use, need
from exporter.frozen import dataclass

MAX_BATCH = 1 << 20


@dataclass(frozen=True, slots=True)
class Offer:
    """A GPU: its index, its name, and bytes that are free on it."""

    index: int
    name: str
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a model fits on the GPUs that have most free.

    Attributes:
        need: On each of them.
        chosen: Their indexes; none if there are too few GPUs.
        spare_bytes: Left on the fullest; less than 0: so much is missing.
        largest_batch: Sequences that would fit; None where what one takes is not known.
    """

    need: Need
    chosen: tuple[int, ...] = ()
    spare_bytes: float | None = None
    largest_batch: int | None = None

    @property
    def fits(self) -> bool | None:
        """Whether it does; None without GPUs to compare with."""
        return None if self.spare_bytes is None else self.spare_bytes >= 0


def judge(model: Model, use: Use, gpus: int, offers: Sequence[Offer]) -> Verdict:
    """Compare the need with the `gpus` GPUs that have most free."""
    needed = need(model, use, gpus)
    best = sorted(offers, key=lambda offer: -offer.free_bytes)[:gpus]
    if len(best) < gpus:
        return Verdict(needed)
    least = min(offer.free_bytes for offer in best)
    batch = _largest_batch(model, use, gpus, least) if needed.is_whole else None
    chosen = tuple(sorted(offer.index for offer in best))
    return Verdict(needed, chosen, least - needed.total_bytes, batch)


def _largest_batch(model: Model, use: Use, gpus: int, free: int) -> int:
    """Return the largest batch that fits, by halving: each part grows with it, or stays."""
    fits, too_much = 0, MAX_BATCH + 1
    while too_much - fits > 1:
        middle = (fits + too_much) // 2
        if need(model, replace(use, batch=middle), gpus).total_bytes <= free:
            fits = middle
        else:
            too_much = middle
    return fits
