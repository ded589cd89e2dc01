"""docs/examples: what an operator copies is valid, and names what there is."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from debian import program

from exporter.catalogue import CATALOGUE, COLLECTORS, RULE_METRICS
from exporter.config import load
from exporter.flags import run_parser

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
PROMETHEUS, KUBERNETES = EXAMPLES / "prometheus", EXAMPLES / "kubernetes"
# Debian's Prometheus is built without Kubernetes' discovery.
CHECKED = sorted({"prometheus.yml", "federation.yml", "remote_write.yml"})
NAME = "gpu-node-exporter"
LABEL = {"app.kubernetes.io/name": NAME}
METRICS = {metric.name for table in CATALOGUE for metric in table.metrics}

FLEET_TEST = """
rule_files: [{rules}]
evaluation_interval: 30s
tests:
  - interval: 30s
    input_series:
      - {{series: 'gpu_up{{pool="a", gpu="0", instance="n1"}}', values: '1x20'}}
      - {{series: 'gpu_up{{pool="a", gpu="1", instance="n1"}}', values: '0x20'}}
      - {{series: 'gpu_up{{pool="b", gpu="0", instance="n2"}}', values: '1x20'}}
      - {{series: 'gpu_utilization_ratio{{pool="a", gpu="0", instance="n1"}}', values: '0.5x20'}}
      - {{series: 'gpu_busy_seconds_total{{pool="a", gpu="0", instance="n1"}}', values: '0+15x20'}}
      - {{series: 'gpu_temperature_celsius{{pool="a", gpu="0", instance="n1"}}', values: '50x20'}}
      - {{series: 'gpu_temperature_celsius{{pool="a", gpu="1", instance="n1"}}', values: '60x20'}}
    promql_expr_test:
      - expr: cluster_pool:gpu_up:sum
        eval_time: 10m
        exp_samples:
          - {{labels: 'cluster_pool:gpu_up:sum{{pool="a"}}', value: 1}}
          - {{labels: 'cluster_pool:gpu_up:sum{{pool="b"}}', value: 1}}
      - expr: cluster_pool:gpu_up:count
        eval_time: 10m
        exp_samples:
          - {{labels: 'cluster_pool:gpu_up:count{{pool="a"}}', value: 2}}
          - {{labels: 'cluster_pool:gpu_up:count{{pool="b"}}', value: 1}}
      - expr: cluster_pool:gpu_busy_seconds:rate5m
        eval_time: 10m
        exp_samples: [{{labels: 'cluster_pool:gpu_busy_seconds:rate5m{{pool="a"}}', value: 0.5}}]
      - expr: cluster_pool:gpu_temperature_celsius:max
        eval_time: 10m
        exp_samples: [{{labels: 'cluster_pool:gpu_temperature_celsius:max{{pool="a"}}', value: 60}}]
      - expr: cluster_pool:gpu_power_watts:sum
        eval_time: 10m
        exp_samples: []
"""


def manifest(name: str) -> dict[str, Any]:
    """Return a manifest, as YAML says it."""
    found: dict[str, Any] = yaml.safe_load((KUBERNETES / name).read_text())
    return found


def promtool(*arguments: str | Path) -> str:
    """Run promtool; return what it says, having said that all is well."""
    done = subprocess.run(
        [program("promtool"), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", CHECKED)
def test_prometheus_takes_its_configs(name: str) -> None:
    """The real promtool finds each config, the rules and the alerts that it names good."""
    assert "SUCCESS" in promtool("check", "config", "--lint=all", PROMETHEUS / name)


def test_every_prometheus_file_is_looked_at() -> None:
    """No file of the examples escapes: configs, rules, and the two that promtool cannot check."""
    files = {path.name for path in PROMETHEUS.glob("*.yml")}
    assert files == {*CHECKED, "kubernetes.yml", "fleet.rules.yml", "gpu-nodes.yml"}


def test_discovery_in_kubernetes_finds_our_pods() -> None:
    """What Prometheus keeps by discovery are the pods of the DaemonSet, by label and port."""
    (job,) = yaml.safe_load((PROMETHEUS / "kubernetes.yml").read_text())["scrape_configs"]
    (discovery,) = job["kubernetes_sd_configs"]
    kept = {
        rule["source_labels"][0]: rule["regex"]
        for rule in job["relabel_configs"]
        if rule.get("action") == "keep"
    }
    (container,) = manifest("daemonset.yaml")["spec"]["template"]["spec"]["containers"]
    assert discovery["namespaces"]["names"] == [manifest("namespace.yaml")["metadata"]["name"]]
    assert kept == {
        "__meta_kubernetes_pod_label_app_kubernetes_io_name": NAME,
        "__meta_kubernetes_pod_container_port_name": container["ports"][0]["name"],
    }


def test_fleet_rules(tmp_path: Path) -> None:
    """The fleet's sums are right, a GPU that is down is counted, and nothing is made up."""
    rules = PROMETHEUS / "fleet.rules.yml"
    assert "SUCCESS" in promtool("check", "rules", "--lint=all", rules)
    test = tmp_path / "test.yml"
    test.write_text(FLEET_TEST.format(rules=rules))
    promtool("test", "rules", test)


def test_every_metric_there_is() -> None:
    """Each metric that the examples name is in the catalogue."""
    text = "".join(path.read_text() for path in PROMETHEUS.glob("*.yml"))
    named = set(re.findall(r"(?<!:)\b(?:gpu|host|scaleout)_[a-z0-9_]+\b(?!:)", text))
    patterns = {name for name in named if name.endswith("_")}  # gpu_process_.*
    assert named - patterns - METRICS == set()
    assert all(any(metric.startswith(one) for metric in METRICS) for one in patterns)


def test_kustomization_is_whole() -> None:
    """Every manifest is named, and everything that is named is there."""
    kustomization = manifest("kustomization.yaml")
    there = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(kustomization["resources"]) == there
    (config,) = kustomization["configMapGenerator"]
    assert load(KUBERNETES / config["files"][0], COLLECTORS, RULE_METRICS).external_labels


def test_operator_gets_the_alerts_as_they_are() -> None:
    """The PrometheusRule holds the groups of alerts/, file by file; `make docs` writes it."""
    files = sorted((EXAMPLES.parents[1] / "alerts").glob("*.rules.yml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    assert files
    assert manifest("prometheusrule.yaml")["spec"]["groups"] == groups


def test_service_finds_the_pods() -> None:
    """DaemonSet, Service and ServiceMonitor are tied by labels and the name of a port."""
    daemonset = manifest("daemonset.yaml")["spec"]
    (container,) = daemonset["template"]["spec"]["containers"]
    service, monitor = manifest("service.yaml"), manifest("servicemonitor.yaml")["spec"]
    assert daemonset["selector"]["matchLabels"] == LABEL
    assert daemonset["template"]["metadata"]["labels"] == LABEL
    assert service["metadata"]["labels"] == LABEL
    assert service["spec"]["selector"] == LABEL
    assert monitor["selector"]["matchLabels"] == LABEL
    (port,) = service["spec"]["ports"]
    assert port["targetPort"] == container["ports"][0]["name"]
    assert [endpoint["port"] for endpoint in monitor["endpoints"]] == [port["name"]]


def test_pod_runs_the_daemon_with_the_least_rights() -> None:
    """The flags are the daemon's, what it writes is mounted, and it has no right but hostPID."""
    pod = manifest("daemonset.yaml")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    flags = run_parser(()).parse_args(container["args"])
    mounts = {
        mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]
    }
    assert mounts == {
        str(flags.config_file.parent): True,
        str(flags.storage_path): False,
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["automountServiceAccountToken"] is False
    assert [key for key in pod if key.startswith("host")] == ["hostPID"]
    probed = {container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")}
    assert probed == {"/-/healthy", "/-/ready"}
