"""Inference servers and rules on the daemon: busy GPUs ask for more only if requests wait."""

from __future__ import annotations

import json

from daemon import Daemon, running
from fake_nvml import FakeNvml
from inference_pages import page
from scaleout_peers import Peer, Reply, serving

CONFIG = """
poll: {{fast: 250ms, slow: 250ms, deadline: 200ms}}
global: {{external_labels: {{cluster: lab, scale_group: llm-a}}}}
rules:
  - alert: Busy
    metric: gpu_utilization_ratio
    above: 0.95
    for: 2s
    aggregate: all
    actions: [scale-out]
    and: {{metric: inference_requests_waiting, above: 1}}
  - {{alert: BusyAlone, metric: gpu_utilization_ratio, above: 0.95, for: 2s, aggregate: all}}
  - {{alert: Cache, metric: inference_kv_cache_used_ratio, above: 0.9, aggregate: max}}
actions: [{{name: scale-out, receiver: autoscaler, cooldown: 5m}}]
receivers:
  - name: autoscaler
    webhook_configs: [{{url: "{hook}"}}]
inference_servers:
  - {{name: llm, url: "http://127.0.0.1:{port}/metrics", interval: 500ms, timeout: 500ms}}
"""
BUSY = {"gpu*.util": 100}


def serve(peer: Peer, text: str, status: int = 200) -> None:
    """Let a server have another page from now on."""
    peer.replies[:] = [Reply(status, {}, text.encode())]


def state(daemon: Daemon, rule: str) -> float | None:
    """Return the state of a rule."""
    return daemon.page().value("gpu_rule_state", rule=rule)


def test_busy_gpus_ask_for_more_only_if_requests_wait(fake: FakeNvml) -> None:
    """At 100 % with nothing waiting only the rule without `and` fires; with 5 waiting one request.

    The page of metrics has none of the server's values; the status page has.
    """
    fake.set(BUSY)
    with serving(Reply(204)) as hook, serving() as server:
        serve(server, page("vllm-v1", num_requests_waiting=0))
        with running(
            env=fake.env(), config=CONFIG.format(hook=hook.url, port=server.port)
        ) as daemon:
            daemon.until(lambda page: page.value("gpu_rule_state", rule="BusyAlone") == 2)
            daemon.after_polls(8)
            assert (state(daemon, "Busy"), state(daemon, "Cache")) == (0, 0)
            assert hook.said == []
            serve(server, page("vllm-v1", num_requests_waiting=5, kv_cache_usage_perc=0.97))
            seen = daemon.until(lambda page: page.value("gpu_rule_state", rule="Busy") == 2)
            daemon.eventually(lambda: hook.said or None)
            assert state(daemon, "Cache") == 2
            assert seen.value("gpu_exporter_inference_server_up", server="llm") == 1
            assert "vllm" not in seen.text
            assert "inference_requests" not in seen.text
            (told,) = json.loads(daemon.get("/api/v1/status").body)["inference_servers"]
            assert (told["requests_waiting"], told["kv_cache_used_ratio"]) == (5, 0.97)
            assert b"Inference servers" in daemon.get("/").body
            serve(server, page("vllm-v1", num_requests_waiting=0))
            daemon.until(lambda page: page.value("gpu_rule_state", rule="Busy") == 0)
            assert len(hook.said) == 1


def test_server_that_cannot_be_read_is_told_and_nothing_fires(fake: FakeNvml) -> None:
    """A bad answer has no values: it is counted, told on the status page, and no rule fires."""
    fake.set(BUSY)
    with serving(Reply(204)) as hook, serving() as server:
        serve(server, page("vllm-v1", num_requests_waiting=5), status=500)
        config = CONFIG.format(hook=hook.url, port=server.port)
        with running(env=fake.env(), config=config) as daemon:
            seen = daemon.until(lambda page: page.value("gpu_rule_state", rule="BusyAlone") == 2)
            assert seen.value("gpu_exporter_inference_server_up", server="llm") == 0
            assert seen.value("gpu_exporter_read_errors_total", group="inference", error="status")
            assert (state(daemon, "Busy"), hook.said) == (0, [])
            problems = json.loads(daemon.get("/api/v1/status").body)["problems"]
            texts = [one["text"] for one in problems if one["what"] == "inference_server"]
            assert texts == ["Inference server llm cannot be read: it answers 500"]
            serve(server, page("vllm-v1", num_requests_waiting=5))
            daemon.until(lambda page: page.value("gpu_rule_state", rule="Busy") == 2)
            daemon.config_file.write_text("{}")
            assert daemon.get("/-/reload", "POST").status == 200
            gone = daemon.until(
                lambda page: page.value("gpu_exporter_inference_server_up", server="llm") is None
            )
            assert "inference" not in gone.text.replace("gpu_exporter_inference_server_up", "")
