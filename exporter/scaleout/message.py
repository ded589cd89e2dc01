"""What a request says: its id, the key that is the same on every node, and the JSON object."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from typing import Any

from exporter.config import Action
from exporter.frozen import dataclass
from exporter.scaleout.clock import rfc3339
from exporter.scaleout.model import EventKind, RuleEvent, SeriesSummary
from exporter.scaleout.records import REQUESTED, RESOLVED, Change, Row
from exporter.scaleout.verdict import Case

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
ID_LETTERS = 26
MAX_LABEL = 256  # characters; labels may have come over the network
MAX_REASON = 1024


def event_id(wall: float) -> str:
    """Return a new id: 48 bits of milliseconds, then 80 random ones; a ULID, sorted by time."""
    milliseconds = max(int(wall * 1000), 0) & ((1 << 48) - 1)
    number = (milliseconds << 80) | int.from_bytes(os.urandom(10), "big")
    return "".join(CROCKFORD[(number >> 5 * place) & 31] for place in range(ID_LETTERS - 1, -1, -1))


def dedupe_key(action: Action, group: Mapping[str, str], wall: float) -> str:
    """Return what is the same on all nodes that ask for the same thing within one cooldown.

    It differs where the nodes straddle the edge of a window, so it is a help and no guarantee.
    """
    window = math.floor(wall / action.cooldown_seconds)
    text = json.dumps([action.name, sorted(group.items()), window])
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    scale_group = group.get("scale_group")
    return f"{scale_group}:{digest}" if scale_group else digest


def group_of(
    action: Action, event: RuleEvent, labels: Mapping[str, str], node: str
) -> dict[str, str]:
    """Return the values of an action's `group_by`; a label that there is not is empty."""
    gpus = ",".join(sorted({series.gpu for series in event.series}))
    known = {
        "node": node,
        "gpu": gpus,
        **labels,
        "rule": event.rule,
        "scale_group": event.scale_group,
    }
    return {name: short(known.get(name, "")) for name in action.group_by}


def describe(
    event: RuleEvent, action: Action, labels: Mapping[str, str], node: str
) -> dict[str, Any]:
    """Return the JSON object that receivers get, but for its id and dedupe key."""
    return {
        "dry_run": action.dry_run,
        "reason": event.reason[:MAX_REASON],
        "scale_group": short(event.scale_group),
        "cluster": short(labels.get("cluster", "")),
        "node": node,
        "action": action.name,
        "step": action.step,
        "rule": short(event.rule),
        "repeat": event.kind is EventKind.REPEAT,
        "started_at": rfc3339(event.started_at),
        "fired_at": rfc3339(event.fired_at),
        "series": [_series(series) for series in event.series],
        "cooldown_s": action.cooldown_seconds,
    }


@dataclass(frozen=True, slots=True)
class Identity:
    """What names a request, and when it was created (seconds since the epoch)."""

    event_id: str
    dedupe_key: str
    created: float


def request(
    case: Case,
    identity: Identity,
    data: Mapping[str, Any],
    targets: Mapping[str, float],
    resolves: str | None,
) -> Change:
    """Return what asks every target of a receiver for what a case wants.

    Args:
        case: What was found to be sent.
        identity: Its name.
        data: What `describe` returned.
        targets: With the seconds for which each is tried.
        resolves: The id of what an end is the end of.
    """
    is_end = case.event.kind is EventKind.RESOLVED
    whole = {"event_id": identity.event_id, "dedupe_key": identity.dedupe_key, **data}
    if is_end:
        whole["resolves"] = resolves
    body = json.dumps(whole).encode()
    rows = tuple(
        Row(
            event_id=identity.event_id,
            target=target,
            kind=RESOLVED if is_end else REQUESTED,
            action=case.action.name,
            group_key=case.group_key,
            dedupe_key=identity.dedupe_key,
            body=body,
            created=identity.created,
            deadline=case.now + deadline_seconds,
            next_at=case.now,
        )
        for target, deadline_seconds in targets.items()
    )
    if is_end:
        return Change(*case.key, rows, withdrawn=case.episode)
    return Change(
        *case.key,
        rows,
        fired=(identity.event_id, case.now),
        cooldown_until=case.now + case.action.cooldown_seconds,
        announced=case.episode if case.action.send_resolved else None,
    )


def short(text: str) -> str:
    """Return text of at most MAX_LABEL characters that UTF-8 has.

    If it is cut, it ends in a digest of the whole.
    """
    encoded = text.encode(errors="replace")
    text = encoded.decode()
    if len(text) <= MAX_LABEL:
        return text
    digest = hashlib.sha256(encoded).hexdigest()[:16]
    return f"{text[: MAX_LABEL - len(digest) - 1]}~{digest}"


def _series(series: SeriesSummary) -> dict[str, object]:
    return {
        "gpu": series.gpu,
        "uuid": series.uuid,
        "value": _number(series.value),
        "min": _number(series.minimum),
        "mean": _number(series.mean),
        "samples": series.samples,
        "expected": series.expected,
    }


def _number(value: float) -> float | None:
    """Return a number that JSON has."""
    return value if math.isfinite(value) else None
