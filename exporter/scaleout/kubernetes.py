"""Raises the replicas of a Kubernetes object through its scale subresource.

"One more" from each of many nodes would add many: a Lease lets one of them act in a cooldown. A
retry must not add another: the number that is aimed at is fixed, and committed, before the write.
"""

from __future__ import annotations

import logging
from http import HTTPStatus

from exporter.config import KubernetesConfig
from exporter.scaleout.apiserver import (
    MAX_CONFLICTS,
    ApiServer,
    EndedError,
    Reply,
    resource_path,
    section,
)
from exporter.scaleout.clock import Clock
from exporter.scaleout.lease import Claim, take
from exporter.scaleout.model import Attempt, Delivery, Outcome
from exporter.scaleout.records import RESOLVED

log = logging.getLogger(__name__)

AUTOSCALING = "autoscaling/v2"
PAGE = 8  # autoscalers in one answer: they are some KiB each, and 64 KiB are read
MAX_PAGES = 125


class KubernetesReceiver:
    """One object with a scale subresource. For one thread at a time."""

    def __init__(self, target: str, config: KubernetesConfig, clock: Clock) -> None:
        self.target = target
        self._config = config
        self._max = config.max_replicas
        self._api = ApiServer(config, clock)
        ref = config.scale_target_ref
        self._name = f"{ref.kind} {config.namespace}/{ref.name}"
        self._path = resource_path(
            ref.api_version, config.namespace, plural(ref.kind), ref.name, "scale"
        )

    def deliver(self, delivery: Delivery) -> Attempt:
        """Raise the replicas once in a cooldown, up to `max_replicas`; never lower them.

        Each of its requests has the config's timeout.
        """
        if delivery.kind == RESOLVED:
            return Attempt(Outcome.SUPPRESSED, error="an end of load lowers no replicas")
        try:
            if self._config.refuse_if_hpa:
                self._refuse_if_hpa()
            if self._config.lease is not None and not self._config.single_writer:
                take(self._api, self._claim(self._config.lease, delivery))
            return self._scale(delivery)
        except EndedError as end:
            return end.attempt

    def _refuse_if_hpa(self) -> None:
        """End the attempt if an autoscaler has the object: it would undo the change in seconds."""
        path = resource_path(AUTOSCALING, self._config.namespace, "horizontalpodautoscalers")
        query = {"limit": str(PAGE)}
        for _ in range(MAX_PAGES):
            page = self._api.read(path, query=query).body
            items = page.get("items")
            if not isinstance(items, list):
                raise EndedError(Attempt(Outcome.RETRY, error=f"GET {path}: not a list"))
            if any(self._is_owner(item) for item in items):
                error = f"hpa_owned: an autoscaler sets the replicas of {self._name}"
                raise EndedError(Attempt(Outcome.DEAD, error=error))
            token = section(page, "metadata").get("continue")
            if not token:
                return
            query["continue"] = str(token)
        error = f"more than {PAGE * MAX_PAGES} autoscalers in namespace {self._config.namespace}"
        raise EndedError(Attempt(Outcome.DEAD, error=error))

    def _is_owner(self, autoscaler: object) -> bool:
        if not isinstance(autoscaler, dict):
            return False
        ours = self._config.scale_target_ref
        theirs = section(section(autoscaler, "spec"), "scaleTargetRef")
        if (theirs.get("kind"), theirs.get("name")) != (ours.kind, ours.name):
            return False
        version = theirs.get("apiVersion")
        return not version or _group(str(version)) == _group(ours.api_version)

    def _claim(self, lease: str, delivery: Delivery) -> Claim:
        return Claim(
            namespace=self._config.namespace,
            name=lease,
            holder=delivery.event_id,
            cooldown_seconds=float(delivery.event["cooldown_s"]),
            dry_run=bool(delivery.event["dry_run"]),
        )

    def _scale(self, delivery: Delivery) -> Attempt:
        dry_run = bool(delivery.event["dry_run"])
        done = Outcome.DRY_RUN if dry_run else Outcome.DELIVERED
        plan = None if delivery.plan is None else int(delivery.plan)
        for _ in range(1 + MAX_CONFLICTS):
            scale = self._read()
            current = self._replicas(scale)
            if plan is not None and current >= plan:
                return Attempt(done, scale.status)
            why = self._why_not(current)
            if why:
                return Attempt(Outcome.SUPPRESSED, scale.status, why)
            # max_replicas may have been lowered since a plan was made.
            aim = min(current + self._step(delivery) if plan is None else plan, self._max)
            if plan is None:
                delivery.remember_plan(str(aim))
                plan = aim
            status = self._patch(scale.version, aim, dry_run=dry_run)
            if status != HTTPStatus.CONFLICT:
                dry = " (dry run)" if dry_run else ""
                log.info("%s: %s from %d to %d%s", self.target, self._name, current, aim, dry)
                return Attempt(done, status)
        error = f"{self._name}: changed {1 + MAX_CONFLICTS} times while we wanted to raise it"
        return Attempt(Outcome.RETRY, HTTPStatus.CONFLICT, error)

    def _step(self, delivery: Delivery) -> int:
        return self._config.step or int(delivery.event["step"])

    def _why_not(self, current: int) -> str:
        if current >= self._max:
            return f"at_max: {self._name} has {current} replicas, max_replicas is {self._max}"
        if current == 0 and not self._config.allow_from_zero:
            return f"at_zero: {self._name} has no replicas, and allow_from_zero is off"
        return ""

    def _read(self) -> Reply:
        missing = {HTTPStatus.NOT_FOUND}
        return self._unless_missing(self._api.read(self._path, also=missing))

    def _patch(self, version: str, replicas: int, *, dry_run: bool) -> int:
        """Write replicas if the object is still as read; return the status, 409 if it is not."""
        body = {"metadata": {"resourceVersion": version}, "spec": {"replicas": replicas}}
        own = {HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND}
        reply = self._api.write("PATCH", self._path, body, also=own, dry_run=dry_run)
        return self._unless_missing(reply).status

    def _unless_missing(self, reply: Reply) -> Reply:
        """End the attempt where there is no such object, or one that has no scale."""
        if reply.status != HTTPStatus.NOT_FOUND:
            return reply
        if section(reply.body, "details").get("name"):
            error = f"there is no {self._name}"
        else:
            error = f"{self._name} has no scale subresource; a DaemonSet, for one, has none"
        raise EndedError(Attempt(Outcome.DEAD, reply.status, error))

    def _replicas(self, scale: Reply) -> int:
        found = section(scale.body, "spec").get("replicas", 0)  # 0 is left out of the JSON
        if type(found) is int and found >= 0:
            return found
        error = f"{self._name}: spec.replicas is not a number of replicas"
        raise EndedError(Attempt(Outcome.RETRY, scale.status, error))


def plural(kind: str) -> str:
    """Return the name of a kind in paths, as most kinds have it: Deployment, deployments."""
    return f"{kind.lower()}s"


def _group(api_version: str) -> str:
    return api_version.rpartition("/")[0]
