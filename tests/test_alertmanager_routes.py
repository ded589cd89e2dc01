"""alerts/alertmanager.yml: who hears of which alert, and what silences what."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import alertmanager
import pytest
import yaml
from alert_rules import ALERTS, Rule, alerts, fired_labels
from alertmanager import Alertmanager
from daemon import PATIENCE_SECONDS
from debian import program

from exporter.scaleout.alertmanager import JOB

CONFIG = ALERTS / "alertmanager.yml"
RECORDED = "gpu-017:9836"  # the node that has a route for its recordings
NODE = "gpu-018:9836"
SEVERITIES = {"critical": "page", "warning": "ticket", "info": "nobody", "none": "nobody"}
SECRETS = {"password", "credentials", "routing_key", "service_key", "token", "api_key", "url_file"}
SCRAPE_SECONDS = EVALUATION_SECONDS = 15

each_alert = pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert.name)


def document() -> dict[str, Any]:
    """Return the config."""
    found: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    return found


def amtool(*words: object) -> tuple[int, str]:
    """Run amtool; return its exit code and all that it says."""
    done = subprocess.run(
        [program("amtool"), *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout


def receivers(labels: Mapping[str, str]) -> str:
    """Return what amtool says of the receivers of an alert with these labels."""
    pairs = [f"{name}={value}" for name, value in labels.items()]
    _, said = amtool("config", "routes", "test", f"--config.file={CONFIG}", *pairs)
    lines = [line for line in said.splitlines() if not line.startswith("Warning:")]
    return "".join(lines)


def test_amtool_takes_the_config_as_it_stands() -> None:
    """No placeholder is in the way: it is valid before anything is changed."""
    code, said = amtool("check-config", CONFIG)
    assert code == 0, said


@each_alert
def test_every_alert_reaches_its_receiver(alert: Rule) -> None:
    """Critical pages, warning is a ticket, machines act, the rest is for dashboards."""
    told = SEVERITIES[alert.labels["severity"]]
    told = {"Watchdog": "deadman", "GpuSustainedLoad": "scale-out"}.get(alert.name, told)
    records = alert.labels.get("action") == "record"
    for node, recorder in ((RECORDED, "record-gpu-017"), (NODE, "nobody")):
        labels = {**fired_labels(alert.name)[0], "instance": node}
        labels = {key: value for key, value in labels.items() if re.fullmatch(r"[\w:.-]+", value)}
        assert receivers(labels) == (f"{recorder},{told}" if records else told)


def test_alert_that_a_node_pushes_is_scaled_by_too() -> None:
    """A node's own alert has neither severity nor action; it has the job, and goes the same way."""
    labels = {"alertname": "GpuSustainedLoad", "node": "gpu-017", "scale_group": "llm-a"}
    assert receivers({**labels, "job": JOB}) == "scale-out"
    assert {fired["job"] for fired in fired_labels("GpuSustainedLoad")} == {JOB}


def test_alert_of_somebody_else_is_a_ticket() -> None:
    """What no route knows is not lost."""
    assert receivers({"alertname": "Unheard", "team": "x"}) == "ticket"


def test_secrets_are_files() -> None:
    """No secret can be written into the config by following it."""

    def keys(node: object) -> Iterator[str]:
        if isinstance(node, dict):
            yield from node
            for value in node.values():
                yield from keys(value)
        elif isinstance(node, list):
            for value in node:
                yield from keys(value)

    named = set(keys(document()))
    assert not {key for key in named if key in SECRETS or key.endswith(("_password", "_secret"))}
    assert {"credentials_file", "routing_key_file", "smtp_auth_password_file"} <= named


def test_names_in_the_config_are_those_of_the_rules() -> None:
    """Alerts, severities, components, families and actions; NodeDown is the operator's own."""
    known = {"alertname": {alert.name for alert in alerts()} | {"NodeDown"}}
    for label in ("severity", "component", "family", "action"):
        known[label] = {alert.labels[label] for alert in alerts() if label in alert.labels}
    for label, values in re.findall(r"'(\w+)!?=~?\"([\w|-]+)\"'", CONFIG.read_text()):
        if label != "instance":
            assert set(values.split("|")) <= known[label], label


def test_time_to_the_first_page_is_as_told() -> None:
    """The example in the head of the config adds up, from the values that are there."""
    page = next(route for route in document()["route"]["routes"] if route["receiver"] == "page")
    wait = int(page["group_wait"].removesuffix("s"))
    lost = next(alert for alert in alerts() if alert.name == "GpuLost")
    held = int(lost.wait.removesuffix("m")) * 60
    total = SCRAPE_SECONDS + EVALUATION_SECONDS + held + wait
    told = f"{SCRAPE_SECONDS} + {EVALUATION_SECONDS} + {held} + {wait} = {total} s"
    assert told in CONFIG.read_text()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    """Give a real Alertmanager with the routes and inhibitions of the config, that tells nobody."""
    config = document()
    config["global"] = {}
    config["receivers"] = [{"name": receiver["name"]} for receiver in config["receivers"]]
    folder = tmp_path_factory.mktemp("alertmanager") / "one"
    with alertmanager.running(folder, json.dumps(config)) as one:
        yield one


def as_fired(name: str, instance: str, uuid: str = "") -> dict[str, str]:
    """Return the labels of an alert as Prometheus sends it, for a node and GPU."""
    labels = {**fired_labels(name)[0], "instance": instance, "cluster": "eu1"}
    del labels["alertstate"]
    return {**labels, "uuid": uuid} if uuid else labels


def told_of(one: Alertmanager, sent: Sequence[Mapping[str, str]], expected: set[str]) -> set[str]:
    """Send alerts of one node; return which are told, once it is those or patience has ended.

    Alertmanager inhibits a moment after it has taken an alert.
    """
    body = json.dumps([{"labels": labels} for labels in sent]).encode()
    request = urllib.request.Request(  # noqa: S310  the loopback
        f"{one.url}/api/v2/alerts", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10):  # noqa: S310  the same
        pass
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        states = {
            f"{labels['alertname']} {labels.get('uuid', '')}".strip(): alert["status"]["state"]
            for alert in one.alerts()
            if (labels := alert["labels"])["instance"] == sent[0]["instance"]
        }
        told = {name for name, state in states.items() if state != "suppressed"}
        if (len(states) == len(sent) and told == expected) or time.monotonic() > deadline:
            return told
        time.sleep(0.05)


def test_a_dead_node_silences_all_about_it(running: Alertmanager) -> None:
    """Of the node only GpuExporterDown is told; a server that hangs is no matter of the node."""
    about = {"gpu", "host", "process", "scaleout"}
    names = [alert.name for alert in alerts() if alert.labels["component"] in about]
    names += ["GpuExporterDown", "InferenceServerDown", "InferenceStalled"]
    sent = [as_fired(name, "dead", "GPU-a" if name == "GpuLost" else "") for name in names]
    expected = {"GpuExporterDown", "InferenceStalled"}
    assert told_of(running, sent, expected) == expected


def test_a_lost_gpu_silences_its_own_alerts_alone(running: Alertmanager) -> None:
    """Those of the other GPUs of the node, and of the host, are told."""
    sent = [
        as_fired("GpuLost", "lost", "GPU-a"),
        as_fired("GpuXidCritical", "lost", "GPU-a"),
        as_fired("GpuMemoryHigh", "lost", "GPU-a"),
        as_fired("GpuMemoryExhausted", "lost", "GPU-b"),
        as_fired("GpuMissing", "lost"),
        as_fired("HostMemoryHigh", "lost"),
    ]
    expected = {"GpuLost GPU-a", "GpuMemoryExhausted GPU-b", "GpuMissing", "HostMemoryHigh"}
    assert told_of(running, sent, expected) == expected


def test_a_page_silences_the_ticket_of_the_same_trouble_alone(running: Alertmanager) -> None:
    """Of its family, GPU and node: labels that both lack do not make two troubles one."""
    sent = [
        as_fired("GpuScaleOutFailed", "troubled"),
        as_fired("GpuScaleOutStuck", "troubled"),
        as_fired("HostMemoryHigh", "troubled"),
        as_fired("HostSwapping", "troubled"),
        as_fired("GpuMemoryExhausted", "troubled", "GPU-a"),
        as_fired("GpuMemoryHigh", "troubled", "GPU-a"),
        as_fired("GpuMemoryHigh", "troubled", "GPU-b"),
    ]
    silent = {"GpuScaleOutStuck", "GpuMemoryHigh GPU-a"}
    names = {f"{labels['alertname']} {labels.get('uuid', '')}".strip() for labels in sent}
    assert told_of(running, sent, names - silent) == names - silent
