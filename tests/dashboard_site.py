"""A site for the dashboards: nodes of every kind, an inference server, and a real Prometheus."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from alert_rules import RULE_FILES
from daemon import running
from dashboards import filled, several, variables
from fake_nvml import FakeNvml
from inference_server import inference_server
from prometheus import Prometheus, job, prometheus
from scaleout_peers import serving

BUSY_NODE = "gpu-01:9836"  # has XIDs, records, and asks for replicas
NODES = {  # what its boards do not have
    "gpu-02:9836": "b200x8-sick",
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
RULES = """
rules:
  - {{alert: GpuMemoryHigh, metric: gpu_memory_used_ratio, above: {memory}, clear_below: 0.01,
     actions: [record]}}
  - {{alert: GpuSustainedLoad, metric: gpu_utilization_ratio, above: {load}, for: 3s,
     clear_below: 0.01, actions: [record, scale-out]}}
actions:
  - {{name: record, flight_recorder: {{duration: 10m}}}}
  - {{name: scale-out, receiver: autoscaler, cooldown: 10m}}
receivers:
  - name: autoscaler
    webhook_configs: [{{url: "{url}"}}]
"""


@contextlib.contextmanager
def site(folder: Path, library: Path) -> Iterator[Prometheus]:
    """Run all of it; Prometheus scrapes each second and evaluates alerts/.

    Args:
        folder: For Prometheus.
        library: The fake driver library.
    """
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(serving()).url
        busy = running(
            "--simulate=h100x8", *XIDS, config=RULES.format(url=url, memory=0.99, load=1)
        )
        daemons = {BUSY_NODE: stack.enter_context(busy)}
        for instance, profile in NODES.items():
            daemons[instance] = stack.enter_context(running(f"--simulate={profile}"))
        virtual = stack.enter_context(FakeNvml(library, {"profile": "vgpu"}))
        daemons[VIRTUAL_NODE] = stack.enter_context(running(env=virtual.env()))
        fake = stack.enter_context(FakeNvml(library))
        fake.set({"gpu1.lost": 1, "gpu2.call.nvmlDeviceGetPowerUsage.ret": 999})
        daemons[SICK_NODE] = stack.enter_context(running(env=fake.env()))
        jobs = [target(instance, daemon.port) for instance, daemon in daemons.items()]
        jobs.append(target(SERVER, stack.enter_context(inference_server()), "vllm"))
        server = stack.enter_context(prometheus(folder, jobs, head=HEAD))
        # What begins before the first scrape did not grow since.
        server.until(f'count_over_time(scaleout_paused{{instance="{BUSY_NODE}"}}[1m]) >= 2')
        config = RULES.format(url=url, memory=0.1, load=0.02)
        daemons[BUSY_NODE].config_file.write_text(config)
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
