"""What a GPU has refused: not asked again at each tick, but from time to time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

REPROBE_SECONDS = 600.0  # a reading that the board refused is asked for again after this long


class Refusals:
    """Questions that a GPU has refused, until when."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: dict[object, float] = {}

    def add(self, question: object) -> None:
        """Remember that this was refused now."""
        self._until[question] = self._clock() + REPROBE_SECONDS

    def add_for_good(self, questions: Iterable[object]) -> None:
        """Remember that these are never to be asked."""
        self._until.update(dict.fromkeys(questions, math.inf))

    def holds(self, question: object) -> bool:
        """Return whether this is not to be asked now."""
        until = self._until.get(question)
        if until is None:
            return False
        if self._clock() < until:
            return True
        del self._until[question]
        return False

    def next(self, questions: Iterable[object]) -> float:
        """Return when the first of these is due again; inf if none was refused."""
        until = self._until
        return min((until[q] for q in questions if q in until), default=math.inf)
