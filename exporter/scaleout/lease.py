"""A cooldown that all nodes share: a coordination.k8s.io/v1 Lease, held by who scaled out last."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from http import HTTPStatus
from typing import Any

from exporter.frozen import dataclass
from exporter.scaleout.apiserver import (
    MAX_CONFLICTS,
    ApiServer,
    EndedError,
    Reply,
    resource_path,
    section,
)
from exporter.scaleout.model import Attempt, Outcome

API_VERSION = "coordination.k8s.io/v1"
MAX_SECONDS = 2**31 - 1  # leaseDurationSeconds is an int32

# MicroTime: API servers take and give exactly six digits.
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6})Z", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True, slots=True)
class Claim:
    """What is asked of a lease.

    Attributes:
        namespace: The lease's.
        name: The lease's.
        holder: Who wants it: the id of the event.
        cooldown_seconds: For how long.
        dry_run: Whether the server is to store nothing.
    """

    namespace: str
    name: str
    holder: str
    cooldown_seconds: float
    dry_run: bool

    @property
    def collection(self) -> str:
        """The path of the namespace's leases."""
        return resource_path(API_VERSION, self.namespace, "leases")

    @property
    def path(self) -> str:
        """The path of the lease."""
        return resource_path(API_VERSION, self.namespace, "leases", self.name)

    def spec(self, now: float) -> dict[str, Any]:
        """Return what the lease says once it is taken, at `now` seconds since the epoch."""
        moment = micro_time(now)
        duration = min(max(math.ceil(self.cooldown_seconds), 1), MAX_SECONDS)
        return {
            "holderIdentity": self.holder,
            "leaseDurationSeconds": duration,
            "acquireTime": moment,
            "renewTime": moment,
        }


def take(api: ApiServer, claim: Claim) -> None:
    """Return when the lease is the claimant's.

    All times are by the clock of the API server, so nodes need not agree on the time.

    Raises:
        EndedError: Somebody else has it (DEDUPLICATED), or it cannot be had now.
    """
    for _ in range(1 + MAX_CONFLICTS):
        lease = api.read(claim.path, also={HTTPStatus.NOT_FOUND})
        if lease.status == HTTPStatus.NOT_FOUND:
            taken = _create(api, claim, lease.at)
        else:
            spec = section(lease.body, "spec")
            is_held, is_ours = _is_held(spec, lease.at), spec.get("holderIdentity") == claim.holder
            if is_held and not is_ours:
                raise EndedError(Attempt(Outcome.DEDUPLICATED))
            taken = is_held or _replace(api, claim, lease)
        if taken:
            return
    text = f"lease {claim.name}: changed {1 + MAX_CONFLICTS} times while we wanted it"
    raise EndedError(Attempt(Outcome.RETRY, HTTPStatus.CONFLICT, text))


def _create(api: ApiServer, claim: Claim, now: float) -> bool:
    body = {
        "apiVersion": API_VERSION,
        "kind": "Lease",
        "metadata": {"name": claim.name, "namespace": claim.namespace},
        "spec": claim.spec(now),
    }
    conflict = {HTTPStatus.CONFLICT}  # AlreadyExists: another node was first
    reply = api.write("POST", claim.collection, body, also=conflict, dry_run=claim.dry_run)
    return reply.status != HTTPStatus.CONFLICT


def _replace(api: ApiServer, claim: Claim, lease: Reply) -> bool:
    """Take a lease that has run out, unless somebody changed or deleted it since it was read."""
    metadata = {**section(lease.body, "metadata"), "resourceVersion": lease.version}
    body = {
        "apiVersion": API_VERSION,
        "kind": "Lease",
        "metadata": metadata,
        "spec": claim.spec(lease.at),
    }
    gone = {HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND}
    reply = api.write("PUT", claim.path, body, also=gone, dry_run=claim.dry_run)
    return reply.status not in gone


def _is_held(spec: Mapping[str, Any], now: float) -> bool:
    """Return whether a lease lasts at `now`.

    One renewed further ahead than it lasts was written by a clock that was wrong: it would
    otherwise stop every scale-out until that clock's time comes.
    """
    renewed, duration = _seconds(spec.get("renewTime")), spec.get("leaseDurationSeconds")
    if renewed is None or type(duration) is not int or not spec.get("holderIdentity"):
        return False
    return renewed - duration < now < renewed + duration


def micro_time(seconds: float) -> str:
    """Return seconds since the epoch as Kubernetes' MicroTime, `2026-11-21T09:40:10.123456Z`."""
    moment = _EPOCH + timedelta(seconds=seconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _seconds(text: object) -> float | None:
    found = _TIME.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return None
    try:
        return datetime.fromisoformat(found[1]).replace(tzinfo=timezone.utc).timestamp()
    except ValueError:  # such as the 30th of February
        return None
