"""A cluster on the loopback with one Deployment, and nodes that scale it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import fake_kubernetes
import pytest
from fake_kubernetes import LEASES, FakeKubernetes, Request

from exporter.config import Authorization, HttpConfig, KubernetesConfig, ScaleTargetRef
from exporter.scaleout.clock import Clock
from exporter.scaleout.kubernetes import KubernetesReceiver
from exporter.scaleout.lease import micro_time
from exporter.scaleout.model import Attempt, Delivery

SCALE = "/apis/apps/v1/namespaces/llm/deployments/vllm/scale"
LEASE = "gpu-node-exporter-scaleout-llm"
LEASE_PATH = f"{LEASES}/{LEASE}"
COOLDOWN = 300.0


@dataclass(slots=True)
class Cluster:
    """The server with a Deployment of 4, and what nodes need to reach it."""

    fake: FakeKubernetes
    token_file: Path
    wall: float = 0.0  # of the nodes: wrong by decades, unless a test says otherwise
    plans: list[str] = field(default_factory=list)

    def config(self, **changes: Any) -> KubernetesConfig:
        """Return a node's config."""
        config = KubernetesConfig(
            api_server=self.fake.url,
            namespace="llm",
            scale_target_ref=ScaleTargetRef("apps/v1", "Deployment", "vllm"),
            max_replicas=16,
            lease=LEASE,
            http_config=HttpConfig(authorization=Authorization(self.token_file)),
            timeout_seconds=20.0,
        )
        return replace(config, **changes)

    def receiver(self, **changes: Any) -> KubernetesReceiver:
        """Return a node's receiver."""
        clock = Clock(lambda: self.wall, lambda: 0.0, "")
        return KubernetesReceiver("llm/kubernetes/0", self.config(**changes), clock)

    def delivery(self, event_id: str = "01A", plan: str | None = None, **event: Any) -> Delivery:
        """Return what the outbox hands over."""
        return Delivery(
            event_id=event_id,
            dedupe_key="llm:5f1c9a",
            kind="scale_out.requested",
            event={"dry_run": False, "cooldown_s": COOLDOWN, "step": 1, **event},
            created=0.0,
            deadline=600.0,
            attempt=1,
            plan=plan,
            remember_plan=self.plans.append,
        )

    def deliver(self, event_id: str = "01A", plan: str | None = None, **changes: Any) -> Attempt:
        """Make one attempt from a node of its own."""
        return self.receiver(**changes).deliver(self.delivery(event_id, plan))

    @property
    def replicas(self) -> int:
        """What the Deployment has."""
        return int(self.fake.scales[SCALE]["spec"].get("replicas", 0))

    def scale_to(self, replicas: int) -> None:
        """Have somebody else set the replicas."""
        self.fake.add_scale(SCALE, replicas)

    def lease(self, holder: str, age: float = 0.0) -> None:
        """Have a lease that was renewed so many seconds ago."""
        moment = micro_time(self.fake.now - age)
        self.fake.leases[LEASE_PATH] = {
            "metadata": {"name": LEASE, "resourceVersion": self.fake.next_version()},
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": 300,
                "acquireTime": moment,
                "renewTime": moment,
            },
        }

    @property
    def holder(self) -> str:
        """Who has the lease."""
        return str(self.fake.leases[LEASE_PATH]["spec"]["holderIdentity"])

    def asked(self, method: str) -> list[Request]:
        """Return the requests of a method."""
        return [request for request in self.fake.requests if request.method == method]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Give a cluster with a Deployment of 4 replicas."""
    token_file = tmp_path / "token"
    token_file.write_text("good\n", encoding="ascii")
    token_file.chmod(0o600)
    with fake_kubernetes.running() as fake:
        fake.add_scale(SCALE, 4)
        yield Cluster(fake, token_file)
