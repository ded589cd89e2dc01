"""Scaling out in Kubernetes while others meddle, answers get lost and servers refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from fake_kubernetes import Fault, Request
from kubernetes_cluster import LEASE, LEASE_PATH, Cluster, cluster
from scaleout_peers import FakeClock

from exporter.config import ScaleTargetRef
from exporter.scaleout.audit import Audit
from exporter.scaleout.delivery import Sender, Tally
from exporter.scaleout.model import Outcome
from exporter.scaleout.outbox import Outbox
from exporter.scaleout.receivers import Target
from exporter.scaleout.records import REQUESTED, Change, Row

__all__ = ["cluster"]  # for pytest


def before(method: str, path_end: str, act: Callable[[], None]) -> Callable[[Request], None]:
    """Return a meddler that acts ahead of each request of a method to a path."""

    def meddle(request: Request) -> None:
        if request.method == method and request.path.endswith(path_end):
            act()

    return meddle


# The lease


@pytest.mark.parametrize(
    ("age", "outcome"),
    [
        (299.0, Outcome.DEDUPLICATED),
        (300.0, Outcome.DELIVERED),
        (-299.0, Outcome.DEDUPLICATED),
        (-3e8, Outcome.DELIVERED),
    ],
    ids=["lasts", "has run out", "of a clock ahead", "of a clock that was wrong by years"],
)
def test_lease_of_another(cluster: Cluster, age: float, outcome: Outcome) -> None:
    """A lease that lasts stops a node; one that does not is taken over, by replacing it."""
    cluster.lease("01Z", age)
    assert cluster.deliver().outcome is outcome
    assert cluster.replicas == (5 if outcome is Outcome.DELIVERED else 4)
    assert cluster.holder == ("01A" if outcome is Outcome.DELIVERED else "01Z")


def test_lease_that_nobody_has(cluster: Cluster) -> None:
    """A lease made by hand, without a spec, is free."""
    cluster.lease("")
    cluster.fake.leases[LEASE_PATH].pop("spec")
    assert cluster.deliver().outcome is Outcome.DELIVERED
    assert cluster.holder == "01A"


def test_lease_of_ours_goes_on(cluster: Cluster) -> None:
    """A retry that finds its own lease resumes without writing it."""
    cluster.lease("01A", age=100)
    assert cluster.deliver().outcome is Outcome.DELIVERED
    assert cluster.asked("PUT") == []
    assert cluster.replicas == 5


def test_lease_of_ours_that_has_run_out_is_renewed(cluster: Cluster) -> None:
    """A late retry takes its own lease anew, so that no other node acts beside it."""
    cluster.lease("01A", age=301)
    assert cluster.deliver().outcome is Outcome.DELIVERED
    assert cluster.deliver("01B").outcome is Outcome.DEDUPLICATED


def test_lease_is_lost_to_another(cluster: Cluster) -> None:
    """A node whose takeover comes second finds that the other has it."""
    cluster.lease("01Z", age=301)
    cluster.fake.before = before("PUT", LEASE, lambda: cluster.lease("01B"))
    assert cluster.deliver().outcome is Outcome.DEDUPLICATED
    assert cluster.replicas == 4


def test_lease_deleted_between_steps_is_made_anew(cluster: Cluster) -> None:
    """A lease that vanishes between GET and PUT is created."""
    cluster.lease("01Z", age=301)
    cluster.fake.before = before("PUT", LEASE, cluster.fake.leases.clear)
    assert cluster.deliver().outcome is Outcome.DELIVERED
    assert cluster.holder == "01A"


def test_storm_on_the_lease_is_bounded(cluster: Cluster) -> None:
    """A lease that changes under every PUT ends the attempt after 5 more, for a later one."""
    cluster.lease("01Z", age=301)
    cluster.fake.before = before("PUT", LEASE, lambda: cluster.lease("01Z", age=301))
    attempt = cluster.deliver()
    assert (attempt.outcome, attempt.status) == (Outcome.RETRY, 409)
    assert len(cluster.asked("PUT")) == 6
    assert cluster.replicas == 4


def test_storm_on_the_scale_is_bounded(cluster: Cluster) -> None:
    """An object that changes under every PATCH ends the attempt after 5 more; the plan stays."""
    cluster.fake.before = before("PATCH", "/scale", lambda: cluster.scale_to(4))
    attempt = cluster.deliver()
    assert (attempt.outcome, attempt.status) == (Outcome.RETRY, 409)
    assert len(cluster.asked("PATCH")) == 6
    assert (cluster.replicas, cluster.plans) == (4, ["5"])


def test_conflict_with_who_did_it_already(cluster: Cluster) -> None:
    """When a PATCH loses to somebody who raised as far, nothing is added."""
    cluster.fake.before = before("PATCH", "/scale", lambda: cluster.scale_to(7))
    assert cluster.deliver().outcome is Outcome.DELIVERED
    assert (cluster.replicas, len(cluster.asked("PATCH"))) == (7, 1)


# What fails


def test_token_that_is_renewed(cluster: Cluster) -> None:
    """A refused token is worth a slow retry, and the file is read again for it."""
    cluster.fake.token = "new"  # noqa: S105  of a fake
    receiver = cluster.receiver()
    attempt = receiver.deliver(cluster.delivery())
    assert (attempt.outcome, attempt.status) == (Outcome.RETRY, 401)
    assert attempt.retry_after_seconds == 15.0
    cluster.token_file.write_text("new", encoding="ascii")
    assert receiver.deliver(cluster.delivery()).outcome is Outcome.DELIVERED


def test_token_that_is_missing(cluster: Cluster) -> None:
    """Without its token file nothing is sent, and the error names the file."""
    cluster.token_file.unlink()
    attempt = cluster.deliver()
    assert attempt.outcome is Outcome.RETRY
    assert str(cluster.token_file) in attempt.error
    assert cluster.fake.requests == []


def test_role_that_does_not_allow_it(cluster: Cluster) -> None:
    """A role may be mended: a slow retry, with the reason in words."""
    cluster.fake.may_scale = "other"
    attempt = cluster.deliver()
    assert (attempt.outcome, attempt.status) == (Outcome.RETRY, 403)
    assert attempt.retry_after_seconds == 15.0
    assert "role" in attempt.error


@pytest.mark.parametrize(
    ("kind", "words"), [("Deployment", "there is no Deployment llm/x"), ("DaemonSet", "no scale")]
)
def test_object_that_cannot_be_scaled(cluster: Cluster, kind: str, words: str) -> None:
    """An object that is not there, or has no scale, ends the request with what is wrong."""
    attempt = cluster.deliver(scale_target_ref=ScaleTargetRef("apps/v1", kind, "x"))
    assert (attempt.outcome, attempt.status) == (Outcome.DEAD, 404)
    assert words in attempt.error


@pytest.mark.parametrize(
    ("status", "outcome", "wait"),
    [
        (400, Outcome.DEAD, None),
        (404, Outcome.DEAD, None),
        (415, Outcome.DEAD, None),
        (422, Outcome.DEAD, None),
        (302, Outcome.DEAD, None),
        (429, Outcome.RETRY, 7.0),
        (500, Outcome.RETRY, 7.0),
        (503, Outcome.RETRY, 7.0),
    ],
)
@pytest.mark.parametrize(
    ("method", "path_end"),
    [("GET", "horizontalpodautoscalers"), ("POST", "leases"), ("PATCH", "/scale")],
)
def test_statuses(
    cluster: Cluster, method: str, path_end: str, status: int, outcome: Outcome, wait: float | None
) -> None:
    """At each step a status means the same, and its body, which may hold secrets, is not told."""
    headers = {"Retry-After": "7", "Location": "/elsewhere"}
    cluster.fake.faults = [Fault(method, path_end, status, headers, b'{"message": "good"}')]
    attempt = cluster.deliver()
    assert (attempt.outcome, attempt.status) == (outcome, status)
    assert attempt.retry_after_seconds == wait
    assert "good" not in attempt.error
    assert cluster.replicas == 4


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"[]",
        b"\xff",
        b"[" * 60_000,
        b'{"spec": {"replicas": 4}}',
        b'{"metadata": {"resourceVersion": "1"}, "spec": {"replicas": -1}}',
        b'{"metadata": {"resourceVersion": "1"}, "spec": {"replicas": "4"}}',
    ],
)
def test_answers_that_are_none(cluster: Cluster, body: bytes) -> None:
    """What no API server says is retried, and nothing is written because of it."""
    cluster.fake.faults = [Fault("GET", "/scale", 200, body=body)]
    attempt = cluster.deliver()
    assert (attempt.outcome, attempt.status) == (Outcome.RETRY, 200)
    assert cluster.asked("PATCH") == []


def test_list_that_is_none(cluster: Cluster) -> None:
    """While it is not known whether an autoscaler has the object, nothing is written."""
    cluster.fake.faults = [Fault("GET", "horizontalpodautoscalers", 200, body=b"{}")]
    assert cluster.deliver().outcome is Outcome.RETRY
    assert {request.method for request in cluster.fake.requests} == {"GET"}


@pytest.mark.parametrize(
    ("method", "path_end"), [("POST", "leases"), ("PUT", LEASE), ("PATCH", "/scale")]
)
def test_answer_lost_after_the_server_acted(cluster: Cluster, method: str, path_end: str) -> None:
    """A retry with the plan that was committed ends at the plan, not one above it."""
    if method == "PUT":
        cluster.lease("01Z", age=301)
    cluster.fake.faults = [Fault(method, path_end)]
    assert cluster.deliver().outcome is Outcome.RETRY
    assert cluster.fake.faults == []
    plan = cluster.plans[-1] if cluster.plans else None
    assert cluster.deliver(plan=plan).outcome is Outcome.DELIVERED
    assert (cluster.replicas, cluster.plans, cluster.holder) == (5, ["5"], "01A")


def test_answer_lost_and_process_ended(cluster: Cluster, tmp_path: Path) -> None:
    """The plan is in the outbox: the next process ends at it, not one above."""
    clock = FakeClock()
    row = Row(
        event_id="01A",
        target="llm/kubernetes/0",
        kind=REQUESTED,
        action="scale-out",
        group_key="[]",
        dedupe_key="d",
        body=json.dumps({"dry_run": False, "cooldown_s": 300.0, "step": 1}).encode(),
        created=clock.clock.wall(),
        deadline=clock.clock.since_boot() + 600,
        next_at=clock.clock.since_boot(),
    )
    change = Change("scale-out", "[]", (row,), ("01A", 0.0), cooldown_until=0.0)
    cluster.fake.faults = [Fault("PATCH", "/scale")]
    for _ in range(2):
        with closing(Outbox(tmp_path / "state", clock.clock)) as outbox:
            if not cluster.asked("GET"):
                outbox.record([change])
            target = Target("llm", cluster.receiver(), cluster.config(), rehearses=True)
            Sender(target, outbox, Audit(None, clock.clock), Tally(), clock.clock).step()
            assert cluster.replicas == 5
            left = outbox.next_row(row.target)
        clock.passes(20)
    assert left is None
    assert len(cluster.asked("PATCH")) == 1


def test_plan_is_sent_again(cluster: Cluster) -> None:
    """A retry whose first PATCH did not arrive aims at the same number, not at a step more."""
    cluster.lease("01A", age=100)
    cluster.scale_to(5)
    assert cluster.deliver(plan="6", step=3).outcome is Outcome.DELIVERED
    assert (cluster.replicas, cluster.plans) == (6, [])


def test_plan_above_a_limit_that_was_lowered(cluster: Cluster) -> None:
    """A plan from before max_replicas was lowered goes no further than the new one."""
    assert cluster.deliver(plan="9", max_replicas=5).outcome is Outcome.DELIVERED
    assert cluster.replicas == 5


def test_server_that_is_away(cluster: Cluster) -> None:
    """A connection that is refused is worth another attempt."""
    attempt = cluster.deliver(api_server="http://127.0.0.1:1")
    assert attempt.outcome is Outcome.RETRY
    assert attempt.error.startswith("connect: ")


def test_plan_that_is_reached_at_max(cluster: Cluster) -> None:
    """A retry that finds the plan reached is delivered, also where that is max_replicas."""
    cluster.lease("01A", age=100)
    cluster.scale_to(16)
    assert cluster.deliver(plan="16").outcome is Outcome.DELIVERED
    assert cluster.asked("PATCH") == []
