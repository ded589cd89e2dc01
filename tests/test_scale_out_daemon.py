"""The whole way: a GPU's load, a rule, a recording, and one request that arrives, on the daemon."""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from daemon import COMMAND, running
from fake_nvml import FakeNvml
from http_client import connect
from scaleout_peers import Reply, serving
from standardwebhooks import Webhook

CONFIG = """
global: {{external_labels: {{cluster: lab, scale_group: llm-a}}}}
rules:
  - {{alert: GpuMemoryHigh, metric: gpu_memory_used_ratio, above: 0.80, clear_below: 0.75,
     actions: [record]}}
  - {{alert: GpuSustainedLoad, metric: gpu_utilization_ratio, above: 0.95, for: 10s,
     clear_below: 0.85, keep_firing_for: 1s, actions: [record, scale-out]}}
actions:
  - {{name: record, flight_recorder: {{duration: 10m}}}}
  - {{name: scale-out, receiver: autoscaler, cooldown: 5m}}
receivers:
  - name: autoscaler
    webhook_configs: [{{url: "{url}", signing_secret_file: "{secret_file}"}}]
alertmanager_receiver:
  routes: [{{matchers: ['alertname="NodeFull"'], action: scale-out}}]
"""
CALM = {"gpu*.util": 40, "gpu*.memory_used": 20 << 30}
CALM_AGAIN = {"gpu2.util": 40, "gpu2.memory_used": 20 << 30}
BUSY = {"gpu2.util": 100, "gpu2.memory_used": 70 << 30}


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    """Return a file with a signing secret."""
    path = tmp_path / "secret"
    path.write_text("whsec_" + base64.b64encode(secrets.token_bytes(24)).decode() + "\n")
    path.chmod(0o600)
    return path


@pytest.mark.slow(25)
def test_sustained_load_is_recorded_and_asked_for_once(fake: FakeNvml, secret_file: Path) -> None:
    """A step to 100 %: one signed request after 10 s, and a recording that began before the step.

    The request tells of the GPU that caused it. While the load lasts, the cooldown holds every
    other request back.
    """
    fake.set(CALM)
    with serving(Reply(204)) as peer:
        config = CONFIG.format(url=peer.url, secret_file=secret_file)
        with running(env=fake.env(), config=config) as daemon:
            daemon.after_polls(5)
            fake.set(BUSY)
            page = daemon.until(
                lambda page: page.value(
                    "scaleout_deliveries_total", receiver="autoscaler", result="delivered"
                )
            )
            assert page.value("gpu_rule_state", rule="GpuSustainedLoad") == 2
            assert page.value("gpu_recorder_active") == 1
            page = daemon.after_polls(4)
            assert page.value("gpu_utilization_window_min_ratio", gpu="2") == 1
            fake.set(CALM_AGAIN)
            daemon.until(lambda page: page.value("gpu_recorder_active") == 0)
            storage = daemon.config_file.parent / "storage"
            lines = subprocess.run(
                [COMMAND, "recordings", "export", "latest", "--format=jsonl"],
                env={**os.environ, "STATE_DIRECTORY": str(storage)},
                capture_output=True,
                text=True,
                check=True,
            ).stdout.splitlines()
        (request,) = peer.said
    gpus = [gpu for line in lines for gpu in json.loads(line).get("gpus", ()) if gpu["gpu"] == "2"]
    used = [gpu["gpu_memory_used_ratio"] for gpu in gpus if "gpu_memory_used_ratio" in gpu]
    assert used[0] < 0.8 < max(used)
    Webhook(secret_file.read_text().strip()).verify(request.body, dict(request.headers))
    data = json.loads(request.body)["data"]
    began, fired = (datetime.fromisoformat(data[at][:-1]) for at in ("started_at", "fired_at"))
    assert timedelta(seconds=10) <= fired - began <= timedelta(seconds=11.5)
    assert data["rule"] == "GpuSustainedLoad"
    assert [series["gpu"] for series in data["series"]] == ["2"]
    assert (data["cluster"], data["scale_group"]) == ("lab", "llm-a")


@pytest.mark.slow
def test_alertmanager_drives_the_same_action(fake: FakeNvml, secret_file: Path) -> None:
    """A webhook of Alertmanager to our receiver becomes one request, and its repeat none."""
    alert = {
        "status": "firing",
        "labels": {"alertname": "NodeFull", "cluster": "lab"},
        "startsAt": "2026-01-01T00:00:00Z",
    }
    body = json.dumps({"version": "4", "status": "firing", "alerts": [alert]}).encode()
    head = (
        "POST /api/v1/alertmanager HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    fake.set(CALM)
    with serving(Reply(204)) as peer:
        config = CONFIG.format(url=peer.url, secret_file=secret_file)
        with running(env=fake.env(), config=config) as daemon:
            answers = []
            for _ in range(2):
                with connect(daemon.port) as client:
                    client.send(head + body)
                    answers.append(client.answer())
            page = daemon.until(
                lambda page: page.value(
                    "scaleout_deliveries_total", receiver="autoscaler", result="delivered"
                )
            )
        assert len(peer.said) == 1
    assert [answer.status for answer in answers] == [200, 200]
    assert page.value("scaleout_events_total", action="scale-out", result="cooldown") == 1
