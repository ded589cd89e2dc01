"""What a decision is made by, and what it is."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.config import Action
from exporter.frozen import dataclass
from exporter.scaleout.outbox import Recorded


@dataclass(frozen=True, slots=True)
class Setup:
    """What the config says.

    Attributes:
        actions: By name, those that send requests.
        targets: Of each receiver: its targets, and for how many seconds each is tried.
        labels: The node's external labels.
        node: The node's name.
    """

    actions: Mapping[str, Action]
    targets: Mapping[str, Mapping[str, float]]
    labels: Mapping[str, str]
    node: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided of one action.

    Attributes:
        action: Its name.
        result: One of `verdict.RESULTS`.
        detail: Why, in words.
        event_id: Of the request that is sent; "" if none is.
    """

    action: str
    result: str
    detail: str = ""
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided of an event, and where that was written; None if nothing had to be."""

    verdicts: tuple[Verdict, ...]
    recorded: Recorded | None
