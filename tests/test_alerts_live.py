"""The real Prometheus and the real Alertmanager watch a simulated node, by the files in alerts/."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import alertmanager
import pytest
import yaml
from alert_rules import ALERTS, RULE_FILES
from alertmanager import Alertmanager
from daemon import running
from prometheus import job, prometheus
from scaleout_peers import Peer, Reply, serving, wait_until

NODE = "gpu-017"
SECONDS_PER_MINUTE = 2  # of `for` and `keep_firing_for`: one scrape or two are a minute here
NAMED = f"    relabel_configs: [{{target_label: instance, replacement: {NODE}}}]\n"
GPUS = 8
RESEND = "--rules.alert.resend-delay=5s"  # else a minute, if Alertmanager is found late

# The thresholds are the daemon's own: so low that the node as it is simulated is over them.
LOW = """\
poll: {fast: 250ms}
rules:
  - {alert: GpuMemoryHigh, metric: gpu_memory_used_ratio, above: 0.3}
  - {alert: GpuSustainedLoad, metric: gpu_utilization_ratio, above: 0.05, for: 10s}
actions:
  - {name: record, flight_recorder: {duration: 5s}}
alertmanager_receiver:
  routes:
    - {matchers: ['action="record"'], action: record}
"""
HIGH = LOW.replace("0.3", "0.99").replace("0.05", "1")


@dataclass(frozen=True, slots=True)
class Told:
    """One notification of an alert.

    Attributes:
        receiver: as the config calls it.
        alert: the alert's name.
        status: firing or resolved.
        labels: those of the alert.
        began: when it began, as Prometheus says.
    """

    receiver: str
    alert: str
    status: str
    labels: Mapping[str, str]
    began: str


class Sink:
    """Everything that Alertmanager has told anybody."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def told(self, receiver: str, alert: str) -> list[Told]:
        """Return the notifications of an alert that a receiver got."""
        return [one for one in self._all() if (one.receiver, one.alert) == (receiver, alert)]

    def _all(self) -> Iterator[Told]:
        for said in list(self._peer.said):
            body = json.loads(said.body)
            for alert in body["alerts"]:
                labels, began = alert["labels"], alert["startsAt"]
                yield Told(said.path[1:], labels["alertname"], alert["status"], labels, began)


def impatient(text: str) -> str:
    """Return a rule file whose minutes are seconds, or so."""

    def shorter(found: re.Match[str]) -> str:
        minutes = int(found[2]) * (60 if found[3] == "h" else 1)
        return f"{found[1]}: {minutes * SECONDS_PER_MINUTE}s"

    return re.sub(r"\b(for|keep_firing_for): (\d+)([mh])$", shorter, text, flags=re.MULTILINE)


def routes(sink: Peer, node: int) -> str:
    """Return the config as it is in the repository, but for addresses, secrets and patience."""
    config = yaml.safe_load((ALERTS / "alertmanager.yml").read_text())
    config["global"] = {}
    for receiver in config["receivers"]:
        name = receiver["name"]
        if name == "nobody":
            continue
        url = f"http://127.0.0.1:{sink.port}/{name}"
        if name == f"record-{NODE}":
            url = f"http://127.0.0.1:{node}/api/v1/alertmanager"
        receiver.clear()
        hook = {"url": url, "send_resolved": name in {"page", "ticket"}}
        receiver.update({"name": name, "webhook_configs": [hook]})
    text = json.dumps(config)
    return re.sub(r'"group_(wait|interval)": "\w+"', r'"group_\1": "1s"', text)


def rules(folder: Path, alertmanager_port: int) -> str:
    """Return the head of a Prometheus config: our rules each second, and whom to tell."""
    for path in RULE_FILES:
        (folder / path.name).write_text(impatient(path.read_text()))
    return (
        "global: {evaluation_interval: 1s}\n"
        f"rule_files: ['{folder}/*.rules.yml']\n"
        "alerting:\n"
        "  alertmanagers:\n"
        f"    - static_configs: [{{targets: ['127.0.0.1:{alertmanager_port}']}}]\n"
    )


def silenced(one: Alertmanager) -> list[bool]:
    """Return whether each alert about a GPU's memory, of those that Alertmanager has, is muted."""
    return [
        alert["status"]["state"] == "suppressed"
        for alert in one.alerts()
        if alert["labels"]["alertname"] == "GpuMemoryHigh"
    ]


@pytest.mark.slow(30)
def test_a_node_is_watched_from_fault_to_all_clear(tmp_path: Path) -> None:
    """Each receiver hears what is its own; a dead node pages once and silences the rest."""
    (tmp_path / "prometheus").mkdir()
    with ExitStack() as stack:
        peer = stack.enter_context(serving(Reply(200)))
        sink = Sink(peer)
        with running("--simulate", "--simulate.xid=2:3:79", config=LOW) as node:
            port = node.port
            watcher = stack.enter_context(
                alertmanager.running(tmp_path / "alertmanager", routes(peer, port))
            )
            head = rules(tmp_path / "prometheus", watcher.port)
            jobs = [job("gpu-node", port, more=NAMED)]
            folder = tmp_path / "prometheus"
            server = stack.enter_context(prometheus(folder, jobs, RESEND, head=head))
            wait_until(lambda: len(sink.told("ticket", "GpuMemoryHigh")) >= GPUS)
            wait_until(lambda: sink.told("scale-out", "GpuSustainedLoad"))
            wait_until(lambda: sink.told("deadman", "Watchdog"))
            wait_until(lambda: sink.told("page", "GpuXidCritical"))
            node.until(lambda page: page.value("gpu_recorder_recordings_total", reason="request"))
            assert {one.labels["instance"] for one in sink.told("ticket", "GpuMemoryHigh")} == {
                NODE
            }
            assert not sink.told("page", "GpuExporterDown")
            node.process.kill()
            tickets = len(sink.told("ticket", "GpuMemoryHigh"))
        wait_until(lambda: sink.told("page", "GpuExporterDown"))
        wait_until(lambda: all(silenced(watcher)))
        wait_until(lambda: not silenced(watcher))
        assert len(sink.told("ticket", "GpuMemoryHigh")) == tickets  # they have ended, unheard
        with running("--simulate", config=HIGH, listen=(f"127.0.0.1:{port}",)):
            wait_until(lambda: sink.told("page", "GpuExporterDown")[-1].status == "resolved")
            server.until('up{job="gpu-node"} == 1')
        # The page is told again when more of the node changes, but it is one trouble, with one end.
        down = sink.told("page", "GpuExporterDown")
        assert [status for status, _ in groupby(one.status for one in down)] == [
            "firing",
            "resolved",
        ]
        assert len({one.began for one in down}) == 1
