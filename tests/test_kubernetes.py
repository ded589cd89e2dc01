"""Scaling out through the scale subresource, against an API server that behaves as recorded."""

from __future__ import annotations

import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import fake_kubernetes
import pytest
from fake_kubernetes import LEASES, FakeKubernetes
from kubernetes_cluster import LEASE_PATH, Cluster, cluster

from exporter.config import ScaleTargetRef
from exporter.scaleout.lease import micro_time
from exporter.scaleout.model import Attempt, Outcome

__all__ = ["cluster"]  # for pytest

RECORDED = Path(__file__).parent / "fixtures" / "kubernetes"

# In the order in which they were made of the real server; the version it counted from is 209.
EXCHANGES = """
scale_get statefulset_scale_get daemonset_has_no_scale_404 unauthorized_401 scale_patch_ok
scale_patch_noop scale_patch_dryrun scale_patch_stale_409 scale_patch_negative_422
scale_patch_wrongtype_415 notfound_404 forbidden_403 lease_get_404 lease_create_201
lease_create_exists_409 lease_get_200 lease_put_ok lease_put_stale_409 lease_put_bad_time_400
lease_put_time_without_micros_400
""".split()


def autoscaler(name: str, kind: str = "Deployment", **ref: str) -> dict[str, Any]:
    """Return an autoscaler of an object."""
    return {"spec": {"scaleTargetRef": {"kind": kind, "name": name, **ref}}}


# The fake server


def test_the_fake_server_answers_as_the_recorded_one(cluster: Cluster) -> None:
    """Status, reason and body of each exchange are those of a Kubernetes 1.36."""
    fake = cluster.fake
    assert sorted(EXCHANGES) == sorted(path.stem for path in RECORDED.glob("*.json"))
    fake.now = 1_795_254_476.0  # 2026-11-21T09:47:56Z
    for name in ("scale_get", "statefulset_scale_get"):
        recorded = json.loads((RECORDED / f"{name}.json").read_text("utf-8"))
        fake.scales[recorded["request"]["path"]] = recorded["response"]["body"]
    for name in EXCHANGES:
        recorded = json.loads((RECORDED / f"{name}.json").read_text("utf-8"))
        if name == "scale_patch_ok":
            fake.version = 214
        fake.token = "bad" if name == "unauthorized_401" else "good"
        fake.may_scale = "vllm" if name == "forbidden_403" else None
        status, body = exchange(fake, recorded["request"])
        assert (name, status) == (name, recorded["response"]["status"])
        assert known(body) == known(recorded["response"]["body"]), name


def exchange(fake: FakeKubernetes, request: dict[str, Any]) -> tuple[int, Any]:
    """Make a recorded request."""
    connection = HTTPConnection(fake.url.removeprefix("http://"), timeout=20)
    headers = {"Authorization": "Bearer good", "Content-Type": request["content_type"] or ""}
    body = json.dumps(request["body"]) if request["body"] else None
    connection.request(request["method"], request["path"], body, headers)
    response = connection.getresponse()
    found = response.status, json.loads(response.read())
    connection.close()
    return found


def known(body: dict[str, Any]) -> dict[str, Any]:
    """Return a body without what the fake does not make up: uids and managers."""
    unknown = ("managedFields", "uid")
    metadata = {key: value for key, value in body["metadata"].items() if key not in unknown}
    return {**body, "metadata": metadata}


# One node


def test_adds_a_step_under_a_lease(cluster: Cluster) -> None:
    """The replicas grow by `step`, by a precondition, and the lease has the action's cooldown."""
    assert cluster.deliver(step=2) == Attempt(Outcome.DELIVERED, 200)
    assert cluster.replicas == 6
    assert cluster.plans == ["6"]
    lease = cluster.fake.leases[LEASE_PATH]["spec"]
    assert (lease["holderIdentity"], lease["leaseDurationSeconds"]) == ("01A", 300)
    assert lease["renewTime"] == micro_time(cluster.fake.now)
    (patch,) = cluster.asked("PATCH")
    assert patch.body == {"metadata": {"resourceVersion": "210"}, "spec": {"replicas": 6}}
    assert patch.query == {"fieldManager": "gpu-node-exporter", "fieldValidation": "Strict"}


def test_commits_the_plan_before_it_writes(cluster: Cluster) -> None:
    """When the plan cannot be committed, nothing is written: a retry could not know of it."""

    def fail(_: str) -> None:
        raise OSError

    delivery = replace(cluster.delivery(), remember_plan=fail)
    with pytest.raises(OSError):  # noqa: PT011  the one of above
        cluster.receiver().deliver(delivery)
    assert cluster.replicas == 4


def test_single_writer_takes_no_lease(cluster: Cluster) -> None:
    """With `single_writer` the coordination API is never asked."""
    assert cluster.deliver(single_writer=True).outcome is Outcome.DELIVERED
    assert not [request for request in cluster.fake.requests if request.path.startswith(LEASES)]


def test_dry_run_stores_nothing(cluster: Cluster) -> None:
    """The server checks lease and scale of a dry run, and keeps neither."""
    attempt = cluster.receiver().deliver(cluster.delivery(dry_run=True))
    assert attempt == Attempt(Outcome.DRY_RUN, 200)
    assert cluster.replicas == 4
    assert cluster.fake.leases == {}
    writes = cluster.asked("POST") + cluster.asked("PATCH")
    assert [write.query["dryRun"] for write in writes] == ["All", "All"]


def test_dry_run_takes_over_no_lease(cluster: Cluster) -> None:
    """A lease that has run out stays with its last holder in a dry run."""
    cluster.lease("01Z", age=301)
    attempt = cluster.receiver().deliver(cluster.delivery(dry_run=True))
    assert (attempt.outcome, cluster.holder) == (Outcome.DRY_RUN, "01Z")


def test_end_of_load_changes_nothing(cluster: Cluster) -> None:
    """What tells of the end of an episode makes no request at all."""
    delivery = replace(cluster.delivery(), kind="scale_out.resolved")
    assert cluster.receiver().deliver(delivery).outcome is Outcome.SUPPRESSED
    assert cluster.fake.requests == []


@pytest.mark.parametrize(
    ("api_version", "kind", "path"),
    [
        ("apps/v1", "StatefulSet", "/apis/apps/v1/namespaces/llm/statefulsets/vllm/scale"),
        ("v1", "Pool", "/api/v1/namespaces/llm/pools/vllm/scale"),
        (
            "leaderworkerset.x-k8s.io/v1",
            "LeaderWorkerSet",
            "/apis/leaderworkerset.x-k8s.io/v1/namespaces/llm/leaderworkersets/vllm/scale",
        ),
    ],
)
def test_path_of_a_kind(cluster: Cluster, api_version: str, kind: str, path: str) -> None:
    """Each kind is asked for where Kubernetes has it."""
    cluster.deliver(scale_target_ref=ScaleTargetRef(api_version, kind, "vllm"))
    assert cluster.fake.requests[-1].path == path


# Many nodes


def test_hundred_nodes_at_once_add_one(cluster: Cluster) -> None:
    """Of 100 nodes at the same instant one adds a replica, 99 find that it is done."""
    start = threading.Barrier(100)

    def node(number: int) -> Outcome:
        receiver = cluster.receiver()
        start.wait(20)
        return receiver.deliver(cluster.delivery(f"01N{number}")).outcome

    with ThreadPoolExecutor(100) as pool:
        outcomes = Counter(pool.map(node, range(100)))
    assert outcomes == {Outcome.DELIVERED: 1, Outcome.DEDUPLICATED: 99}
    assert cluster.replicas == 5


def test_hundred_nodes_at_once_take_over_once(cluster: Cluster) -> None:
    """The same when there is a lease already, that has run out."""
    cluster.lease("01Z", age=301)
    start = threading.Barrier(100)

    def node(number: int) -> Outcome:
        receiver = cluster.receiver(refuse_if_hpa=False)
        start.wait(20)
        return receiver.deliver(cluster.delivery(f"01N{number}")).outcome

    with ThreadPoolExecutor(100) as pool:
        outcomes = Counter(pool.map(node, range(100)))
    assert outcomes == {Outcome.DELIVERED: 1, Outcome.DEDUPLICATED: 99}
    assert cluster.replicas == 5


def test_hundred_nodes_one_after_another_add_one(cluster: Cluster) -> None:
    """Of 100 nodes within 2 s of the server's clock, with clocks of their own, one adds."""
    outcomes: Counter[Outcome] = Counter()
    for number in range(100):
        cluster.fake.now += 0.02
        cluster.wall = number * 1e6
        outcomes[cluster.deliver(f"01N{number}").outcome] += 1
    assert outcomes == {Outcome.DELIVERED: 1, Outcome.DEDUPLICATED: 99}
    assert cluster.replicas == 5


# What limits the replicas


@pytest.mark.parametrize("version", ["apps/v1", "apps/v1beta1", ""])
def test_object_of_an_autoscaler_is_left_alone(cluster: Cluster, version: str) -> None:
    """An autoscaler of the object, on whichever page of the list, ends the request."""
    others = [autoscaler(f"other{n}") for n in range(20)]
    cluster.fake.autoscalers = [*others, autoscaler("vllm", apiVersion=version)]
    attempt = cluster.deliver()
    assert attempt.outcome is Outcome.DEAD
    assert attempt.error.startswith("hpa_owned: ")
    assert {request.method for request in cluster.fake.requests} == {"GET"}


def test_autoscalers_of_others_do_not_matter(cluster: Cluster) -> None:
    """Another name, kind or group is another object."""
    cluster.fake.autoscalers = [
        autoscaler("vllm2", apiVersion="apps/v1"),
        autoscaler("vllm", "StatefulSet", apiVersion="apps/v1"),
        autoscaler("vllm", apiVersion="example.com/v1"),
    ]
    assert cluster.deliver().outcome is Outcome.DELIVERED


def test_autoscalers_are_not_asked_for_if_unwanted(cluster: Cluster) -> None:
    """Without `refuse_if_hpa` there is no list, and no need to be allowed to read it."""
    cluster.fake.autoscalers = [autoscaler("vllm")]
    assert cluster.deliver(refuse_if_hpa=False).outcome is Outcome.DELIVERED
    assert not [r for r in cluster.fake.requests if r.path == fake_kubernetes.AUTOSCALERS]


@pytest.mark.parametrize("replicas", [16, 17])
def test_at_max_nothing_is_written(cluster: Cluster, replicas: int) -> None:
    """At max_replicas and above it the replicas stay: they are never lowered."""
    cluster.scale_to(replicas)
    attempt = cluster.deliver()
    assert attempt.outcome is Outcome.SUPPRESSED
    assert attempt.error.startswith("at_max: ")
    assert (cluster.replicas, cluster.plans) == (replicas, [])


def test_step_of_the_action_counts_without_one_of_the_target(cluster: Cluster) -> None:
    """What an action asks for is what the replicas grow by, unless the target says otherwise."""
    assert cluster.receiver().deliver(cluster.delivery(step=3)) == Attempt(Outcome.DELIVERED, 200)
    assert cluster.replicas == 7


def test_a_step_ends_at_max(cluster: Cluster) -> None:
    """A step that would go beyond max_replicas goes up to it."""
    cluster.scale_to(15)
    assert cluster.deliver(step=4).outcome is Outcome.DELIVERED
    assert cluster.replicas == 16


def test_from_zero_only_if_allowed(cluster: Cluster) -> None:
    """What was scaled to zero stays there unless the config says otherwise."""
    cluster.scale_to(0)
    assert cluster.deliver().outcome is Outcome.SUPPRESSED
    assert cluster.replicas == 0
    assert cluster.deliver(allow_from_zero=True).outcome is Outcome.DELIVERED
    assert cluster.replicas == 1
