"""Debian's Alertmanager on the loopback, and nodes that push to it."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from debian import program

from exporter.config import AlertmanagerConfig
from exporter.scaleout.alertmanager import AlertmanagerPush
from exporter.scaleout.clock import Clock, system_clock
from exporter.scaleout.model import Delivery

START_SECONDS = 20.0  # it takes 0.1

KEY = ("GpuSustainedLoad", "llm-a")
FIRING = frozenset({KEY})
LABELS = {"cluster": "prod-eu1", "scale_group": "of the node", "rack": ""}
GPU = {"gpu": "3", "uuid": "GPU-8a", "value": 0.99, "min": 0.97, "mean": 0.98}

SCALE_OUT = (Path(__file__).parents[1] / "docs" / "scale-out.md").read_text(encoding="utf-8")
# The first example in YAML of its section.
DOCUMENTED = SCALE_OUT.split("## Alertmanager's webhook into the daemon")[1].split("```")[1]
DOCUMENTED = DOCUMENTED.removeprefix("yaml\n")


def documented(port: int, token_file: Path) -> str:
    """Return the config of the documentation for a receiver on the loopback, and impatient."""
    return (
        DOCUMENTED.replace("https://gpu-node-exporter.internal:9836", f"http://127.0.0.1:{port}")
        .replace("/etc/alertmanager/scale-out-token", str(token_file))
        .replace("group_interval: 1m", "group_interval: 1s")
    )


@dataclass(frozen=True, slots=True)
class Alertmanager:
    """One that runs. It is no member of a cluster."""

    port: int

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.port}"

    def alerts(self) -> list[dict[str, Any]]:
        """Return the alerts that fire for it now, as its API gives them."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=START_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", "/api/v2/alerts")
            found: list[dict[str, Any]] = json.load(connection.getresponse())
        return found


@contextlib.contextmanager
def running(folder: Path, config: str, port: int = 0) -> Iterator[Alertmanager]:
    """Run one with a config while the context lasts; its state is in the folder, made anew."""
    folder.mkdir(parents=True)
    config_file, log_file = folder / "alertmanager.yml", folder / "log"
    config_file.write_text(config, encoding="utf-8")
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [
                str(program("prometheus-alertmanager")),
                f"--config.file={config_file}",
                f"--storage.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--cluster.listen-address=",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        yield Alertmanager(_port(process, log_file))
    finally:
        process.terminate()
        try:
            process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _port(process: subprocess.Popen[bytes], log_file: Path) -> int:
    """Return the port that it says it listens on."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        said = re.search(rb'msg="Listening on" address=\S+:(\d+)', log_file.read_bytes())
        if said:
            return int(said[1])
        time.sleep(0.01)
    raise AssertionError(log_file.read_text(encoding="utf-8"))


@pytest.fixture
def pushes() -> Iterator[contextlib.ExitStack]:
    """Close what the test opened."""
    with contextlib.ExitStack() as stack:
        yield stack


def push_to(
    stack: contextlib.ExitStack,
    url: str,
    node: str,
    resend_seconds: float = 15.0,
    clock: Clock | None = None,
    labels: Mapping[str, str] = LABELS,
    timeout_seconds: float = 5.0,
) -> AlertmanagerPush:
    """Return a push that closes with the stack."""
    push = AlertmanagerPush(
        "autoscaler/alertmanager/0",
        AlertmanagerConfig(
            api_url=url, resend_delay_seconds=resend_seconds, timeout_seconds=timeout_seconds
        ),
        external_labels=labels,
        node=node,
        page_url=f"http://{node}:9836/",
        clock=clock or system_clock(),
    )
    stack.callback(push.close)
    return push


def delivery(
    rule: str = KEY[0], series: tuple[Mapping[str, Any], ...] = (GPU,), *, resolved: bool = False
) -> Delivery:
    """Return what the outbox hands over."""
    return Delivery(
        event_id="01J",
        dedupe_key="llm-a:5f1c9a",
        kind="scale_out.resolved" if resolved else "scale_out.requested",
        event={
            "rule": rule,
            "scale_group": KEY[1],
            "reason": "cleared" if resolved else "gpu_utilization_ratio >= 0.95 for 10s",
            "series": list(series),
        },
        created=time.time(),
        deadline=time.time() + 600,
        attempt=1,
        plan=None,
        remember_plan=lambda _: None,
    )
