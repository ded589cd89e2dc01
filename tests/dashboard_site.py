"""A site for the dashboards: nodes of every kind, an inference server, and a real Prometheus."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from alert_rules import RULE_FILES
from daemon import running
from dashboards import filled, several, variables
from fake_nvml import FakeNvml
from inference_server import inference_server
from prometheus import Prometheus, job, prometheus
from scaleout_peers import serving

BUSY_NODE = "gpu-01:9836"  # has XIDs, records, and asks for replicas
PAUSED_NODE = "gpu-02:9836"  # full of sick GPUs; somebody holds its requests back
NODES = {  # what the boards of these two do not have
    "gpu-03:9836": "a100-mig",
    "gpu-04:9836": "h100-mig",
    "gpu-05:9836": "t4",
    "gpu-06:9836": "geforce",
}
SICK_NODE = "gpu-07:9836"  # with a lost GPU and failing readings, by the driver's library
VIRTUAL_NODE = "gpu-08:9836"  # a machine with a vGPU
SERVER = "gpu-01:8000"
HEAD = f"""
global: {{evaluation_interval: 1s}}
rule_files: {json.dumps([str(path) for path in RULE_FILES])}
"""
XIDS = ("--simulate.xid=2:3:31", "--simulate.xid=4:5:79")  # seconds:GPU:XID
LATE_XID = "--simulate.xid=240:1:63"  # for those who look that long
CONFIG = """
rules:
  - {{alert: GpuMemoryHigh, metric: gpu_memory_used_ratio, {memory}, actions: [record]}}
  - {{alert: GpuSustainedLoad, metric: gpu_utilization_ratio, {load}, actions: [record, scale-out]}}
actions:
  - {{name: record, flight_recorder: {{duration: 10m}}}}
  - {{name: scale-out, receiver: autoscaler, cooldown: 10m}}
receivers:
  - name: autoscaler
    webhook_configs: [{{url: "{url}"}}]
inference_servers:
  - {{name: llm-a, url: "http://127.0.0.1:{port}/metrics"}}
  - {{name: llm-b, url: "http://127.0.0.1:9/metrics"}}  # nothing listens there
"""


@dataclass(frozen=True, slots=True)
class Rules:
    """Where the rules of the busy node fire."""

    memory: str
    load: str

    def config(self, url: str, port: int) -> str:
        """Return the node's config: whom it asks for replicas, and its server's port."""
        return CONFIG.format(memory=self.memory, load=self.load, url=url, port=port)


NEVER = Rules("above: 1", "above: 1, for: 1h")
AT_ONCE = Rules("above: 0.1, clear_below: 0.01", "above: 0.02, for: 3s, clear_below: 0.01")
AS_DEFAULT = Rules(
    "above: 0.80, clear_below: 0.75",
    "above: 0.95, for: 10s, clear_below: 0.85, keep_firing_for: 30s",
)


@contextlib.contextmanager
def site(folder: Path, library: Path, rules: Rules = AT_ONCE) -> Iterator[Prometheus]:
    """Run all of it; Prometheus scrapes each second and evaluates alerts/.

    Args:
        folder: For Prometheus.
        library: The fake driver library.
        rules: Of the busy node, once Prometheus has scraped it.
    """
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(serving()).url
        port = stack.enter_context(inference_server())
        virtual = stack.enter_context(FakeNvml(library, {"profile": "vgpu"}))
        sick = stack.enter_context(FakeNvml(library))
        sick.set({"gpu1.lost": 1, "gpu2.call.nvmlDeviceGetPowerUsage.ret": 999})
        nodes = {
            BUSY_NODE: running("--simulate=h100x8", *XIDS, config=NEVER.config(url, port)),
            PAUSED_NODE: running(
                "--simulate=b200x8-sick", LATE_XID, config=AS_DEFAULT.config(url, port)
            ),
            **{instance: running(f"--simulate={profile}") for instance, profile in NODES.items()},
            VIRTUAL_NODE: running(env=virtual.env()),
            SICK_NODE: running(env=sick.env()),
        }
        with ThreadPoolExecutor() as pool:
            started = pool.map(stack.enter_context, nodes.values())
            daemons = dict(zip(nodes, started, strict=True))
        (daemons[PAUSED_NODE].config_file.parent / "storage" / "pause").touch()
        jobs = [target(instance, daemon.port) for instance, daemon in daemons.items()]
        jobs.append(target(SERVER, port, "vllm"))
        server = stack.enter_context(prometheus(folder, jobs, head=HEAD))
        # What begins before the first scrape did not grow since.
        server.until(f'count_over_time(scaleout_paused{{instance="{BUSY_NODE}"}}[1m]) >= 2')
        daemons[BUSY_NODE].config_file.write_text(rules.config(url, port))
        assert daemons[BUSY_NODE].get("/-/reload", "POST").status == 200
        yield server


def target(instance: str, port: int, of_job: str = "gpu-node") -> str:
    """Return a job for one port that has the instance and the job of a real node."""
    relabel = (
        "    relabel_configs:\n"
        f"      - {{target_label: instance, replacement: '{instance}'}}\n"
        f"      - {{target_label: job, replacement: {of_job}}}\n"
    )
    return job(instance, port, more=relabel)


def chosen(uid: str, server: Prometheus) -> Mapping[str, str]:
    """Return what a dashboard's variables become, by the lists that its queries give.

    All is chosen where the dashboard has it, else every option; one after the other, as each may
    depend on those before it.
    """
    values = {"__rate_interval": "10s"}
    for variable in variables(uid):
        name = variable["name"]
        if variable["type"] != "query":
            values[name] = variable["query"]
            continue
        options = listed(filled(variable["query"]["query"], values), server)
        if pattern := variable.get("regex", "").strip("/"):
            matches = (re.search(pattern, option) for option in options)
            options = list(dict.fromkeys(match.group(1) for match in matches if match))
        values[name] = variable.get("allValue") or several(options)
    return values


def listed(query: str, server: Prometheus) -> list[str]:
    """Return what label_values(...) of Grafana gives."""
    series, label = re.fullmatch(r"label_values\((.*), (\w+)\)", query).groups()  # type: ignore[union-attr]
    found: list[str] = server.ask(f"label/{label}/values", **{"match[]": series})
    return found
