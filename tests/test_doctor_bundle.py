"""The doctor's bundle for support: what is in it, and that nothing secret is."""

from __future__ import annotations

import getpass
import json
import re
import socket
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from exporter.catalogue import CATALOGUE, COLLECTORS, RULE_METRICS
from exporter.cgroup import attribution
from exporter.config import Config, ConfigError, load
from exporter.doctor.bundle import FOLDER, BundleError, write
from exporter.doctor.checks import examine
from exporter.doctor.command import gather
from exporter.doctor.facts import Facts, ReadSpeed, Space
from exporter.doctor.redact import KEPT, Redactor
from exporter.doctor.report import Report
from exporter.gpu.fabric import Fabric
from exporter.gpu.inventory import Platform
from exporter.metric import MetricVec
from exporter.once import sources
from exporter.processes_view import ProcessesView
from exporter.procs import HostProcess

CONFIGS = Path(__file__).parent / "configs"
COMMAND = str(Path(sys.executable).parent / "gpu-node-exporter")
FILES = {"README.txt", "report.txt", "report.json", "page.prom", "config.json", "versions.json"}

# Labels of the page whose values may name somebody: each is an alias, or its series are left out.
HIDDEN = {"uuid", "serial", "chassis_serial", "cluster_uuid", "mig_uuid"}
LEFT_OUT = {"pid", "process", "user", "systemd_unit", "container_id", "pod_uid", "slurm_job_id"}
LEFT_OUT |= {"workload", "rule", "receiver", "mnemonic", "class", "xid", "server"}
# What says nothing of whose machine it is.
HARMLESS = {
    *("gpu", "name", "pci_bus_id", "architecture", "compute_capability", "vbios_version", "brand"),
    *("part_number", "inforom_version", "gsp_firmware_version", "module_id", "minor_number"),
    *("virtualization", "slot", "tray", "host", "peer_type", "clique_id", "remote_pci_bus_id"),
    *("remote_type", "version", "python_version", "simulated", "driver_version", "nvml_version"),
    *("cuda_version", "availability", "cause", "condition", "configuration", "counter", "device"),
    *("domain", "engine", "error", "fan", "group", "health", "kind", "limit", "link", "location"),
    *("mode", "pipe", "product", "profile", "gpu_instance", "compute_instance", "reason", "unit"),
    *("resource", "result", "source", "state", "status", "threshold", "type", "window", "zone"),
    "action",  # of the recovery, and of XID errors
}

SECRETS = (
    "hunter2-password",
    "bastion.corp.example",
    "https://scaler.corp.example/v1/scale?token=t0psecret",
    "t0psecret",
    "10.11.12.13",
    "2001:db8:85a3::8a2e:370:7334",
    "aa:bb:cc:dd:ee:ff",
    "alice.liddell",
    "wonderland-team",
    "alice@wonderland.example",
    "/srv/wonderland/models",
    "/home/cheshire/.config",
    "SERIAL-1650000012345",
    "CHASSIS-4711",
    "9d2b6c51-7a0e-4b1f-8c3d-0e1f2a3b4c5d",
    "0b6c1d4e-8a37-4f52-9c1e-5d2f7a90b3c8",
    "deadbeefdeadbeefdeadbeefdeadbeefdeadbeef",
    "queen-of-hearts.service",
    "WhiteRabbit",
)
CONFIG = """
global:
  external_labels: {cluster: wonderland-team, owner: alice.liddell}
rules:
  - {alert: GpuBusy, metric: gpu_utilization_ratio, above: 0.9, actions: [wonderland-team]}
actions:
  - {name: wonderland-team, receiver: WhiteRabbit}
receivers:
  - name: WhiteRabbit
    webhook_configs:
      - url: "https://scaler.corp.example/v1/scale?token=t0psecret"
        signing_secret_file: /home/cheshire/.config/secret
        format: template
        template: {text: "hunter2-password", chat: 4711081504711}
        http_config:
          basic_auth: {username: alice.liddell, password_file: /srv/wonderland/models/pw}
"""


@pytest.fixture(scope="module")
def facts() -> Facts:
    """A node full of what must not leave it."""
    told = gather(sources("h100x8", lambda: None), None, sleep=lambda _: None)
    gpus = list(told.snapshot.gpus)
    identity = gpus[0].identity
    assert identity is not None
    gpus[0] = replace(
        gpus[0],
        uuid="GPU-9d2b6c51-7a0e-4b1f-8c3d-0e1f2a3b4c5d",
        identity=replace(identity, serial="SERIAL-1650000012345"),
        platform=Platform("CHASSIS-4711", 1, 1, 1, 1, 1),
        fabric=Fabric(
            ("completed", "success", "", "", "1", "0b6c1d4e-8a37-4f52-9c1e-5d2f7a90b3c8")
        ),
    )
    view = told.snapshot.processes
    assert isinstance(view, ProcessesView)
    unit = "0::/system.slice/queen-of-hearts.service\n"
    person = HostProcess(77, "WhiteRabbit", "alice.liddell", 0.0, 1, 1.0, attribution(unit))
    view = replace(view, on_host=replace(view.on_host, processes=(person,)))
    problem = (
        "mount of 10.11.12.13 (2001:db8:85a3::8a2e:370:7334, aa:bb:cc:dd:ee:ff) for"
        " alice@wonderland.example failed: /home/cheshire/.config hunter2-password"
        " deadbeefdeadbeefdeadbeefdeadbeefdeadbeef at https://bastion.corp.example/x of"
        f" {socket.gethostname()} by {getpass.getuser()} for alice.liddell"
    ).replace(" hunter2-password", "")
    machine = replace(
        told.machine,
        models=Space("/srv/wonderland/models", 1, 1),
        storage=Space("/srv/wonderland/models", 1 << 40, 1 << 40),
    )
    snapshot = replace(told.snapshot, gpus=tuple(gpus), processes=view)
    file = ReadSpeed("/srv/wonderland/models/m", 0, 0.0, direct=False, problem=problem)
    return replace(told, snapshot=snapshot, machine=machine, model_file=file)


def bundled(folder: Path, facts: Facts, config: Config | ConfigError) -> dict[str, str]:
    """Write a bundle, and return the texts in it by name."""
    path = folder / "bundle.tgz"
    write(path, Report(facts, examine(facts), "", "now"), config)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        assert {member.name.partition("/")[2] for member in members} == FILES
        assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members} == {(0, 0, "", "", 0)}
        archive.extractall(folder, filter="data")
    return {name: (folder / FOLDER / name).read_text() for name in FILES}


def config(folder: Path, text: str) -> Config:
    """Load a config file."""
    path = folder / "config.yml"
    path.write_text(text, encoding="utf-8")
    return load(path, COLLECTORS, RULE_METRICS)


def test_nothing_secret_leaves(facts: Facts, tmp_path: Path) -> None:
    """What was planted in readings, processes, paths, errors and config is in no file."""
    files = bundled(tmp_path, facts, config(tmp_path, CONFIG))
    for name, content in files.items():
        for secret in SECRETS:
            assert secret.lower() not in content.lower(), (name, secret)
    # Names of a machine may be words that stand here anyway: those that are none of ours.
    for name in ("report.txt", "report.json"):
        assert socket.gethostname() not in files[name] or len(socket.gethostname()) < 3
    assert "4711081504711" not in files["config.json"]


def test_bundle_says_enough(facts: Facts, tmp_path: Path) -> None:
    """What helps stays: findings, models, versions, numbers and metrics of the config."""
    files = bundled(tmp_path, facts, config(tmp_path, CONFIG))
    report = json.loads(files["report.json"])
    expected = [finding.name for finding in examine(facts) if finding.name != "processes"]
    assert [finding["name"] for finding in report["findings"]] == expected
    assert len({gpu["uuid"] for gpu in report["gpus"]}) == 8
    assert report["gpus"][0]["uuid"] in files["page.prom"]  # one alias for one thing
    assert report["gpus"][0]["name"] == "NVIDIA H100 80GB HBM3"
    assert "13.580.95.05" in files["report.txt"]  # a version, though it looks like an address
    assert 'pci_bus_id="0000:1b:00.0"' in files["page.prom"]
    rule = json.loads(files["config.json"])["rules"][0]
    assert (rule["alert"], rule["metric"], rule["above"]) == (
        "GpuBusy",
        "gpu_utilization_ratio",
        0.9,
    )
    versions = json.loads(files["versions.json"])
    assert versions["libraries"]["h11"]
    assert versions["python"]


def test_every_label_is_decided_on(facts: Facts, tmp_path: Path) -> None:
    """A label that names somebody has aliases for values, or no series at all."""
    page = bundled(tmp_path, facts, Config())["page.prom"]
    there = set(re.findall(r'[{,](\w+)="', page))
    assert not there & LEFT_OUT
    for label in HIDDEN & there:
        values = set(re.findall(rf'[{{,]{label}="([^"]*)"', page))
        assert all(re.fullmatch("|(uuid|serial)-[0-9a-f]{8}", value) for value in values), label


def test_two_bundles_share_no_alias() -> None:
    """An alias cannot be found out by trying: each bundle has a key of its own, which is gone."""
    first, second = Redactor(()), Redactor(())
    assert first.alias("uuid", "GPU-1") == first.alias("uuid", "GPU-1")
    assert first.alias("uuid", "GPU-1") != first.alias("uuid", "GPU-2")
    assert first.alias("uuid", "GPU-1") != second.alias("uuid", "GPU-1")


def words(value: Any, owner: str = "") -> Iterator[str]:
    """Yield all texts of a config but those that are ours."""
    if is_dataclass(value):
        for field in fields(value):
            if (type(value).__name__, field.name) not in KEPT:
                yield from words(getattr(value, field.name), owner)
    elif isinstance(value, dict) or hasattr(value, "items"):
        for name, part in value.items():
            if not isinstance(part, bool):
                yield str(name)
            yield from words(part)
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from words(part)
    elif isinstance(value, (str, Path)):
        yield str(value)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("good-*.yml")), ids=lambda path: path.stem)
def test_no_text_of_any_config_stays(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the config has as text becomes an alias, but metrics, names of rules and formats."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials")
    loaded = load(path, COLLECTORS, RULE_METRICS)
    left = json.dumps(Redactor(()).config(loaded))
    for word in words(loaded):
        assert json.dumps(word) not in left


def test_bad_config_is_only_counted(facts: Facts, tmp_path: Path) -> None:
    """The mistakes of a config that cannot be read quote it: only how many there are is told."""
    bad = ConfigError(("config.yml:1:1: hunter2-password is no key", "config.yml:2:1: too"))
    assert json.loads(bundled(tmp_path, facts, bad)["config.json"]) == {"mistakes": 2}


@pytest.mark.parametrize(
    "harmless",
    [
        "driver 580.95.05, NVML 13.580.95.05, VBIOS 96.00.A5.00.01",
        "at 0000:1b:00.0, at 12:30:45, VLLM::EngineCore",
        "kernel 6.8.0-60-generic, Python 3.11.7, InfoROM G520.0200.00.05",
        "GPU 0-7: 18 of 18 NVLinks up",
    ],
)
def test_harmless_text_stays(harmless: str) -> None:
    """Versions, PCI addresses and times are no addresses of the network."""
    assert Redactor(("root", "gpu")).text(harmless) == harmless


def test_bundle_never_overwrites(facts: Facts, tmp_path: Path) -> None:
    """A file that is there, even a link to one, stays as it is; a bad place is told in a line."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "link").symlink_to(precious)
    report = Report(facts, (), "", "now")
    for path in (precious, tmp_path / "link"):
        with pytest.raises(BundleError, match="is there already; name another"):
            write(path, report, Config())
    with pytest.raises(BundleError, match="No such file"):
        write(tmp_path / "none" / "b.tgz", report, Config())
    assert precious.read_text() == "mine"


def test_command_writes_the_bundle(tmp_path: Path) -> None:
    """`--bundle` writes it beside the report, and says so; a second time it refuses in one line."""
    path = tmp_path / "b.tgz"
    arguments = [COMMAND, "doctor", "--simulate=t4", "--bundle", str(path)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"{path} is for support; look through it first.\n")
    assert tarfile.is_tarfile(path)
    again = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stdout) == (1, "")
    assert "is there already; name another file" in again.stderr
    assert again.stderr.count("\n") == 1


def test_labels_of_the_catalogue_are_known() -> None:
    """A new label fails here until somebody has decided whether it may leave the machine."""
    every = {
        label
        for table in CATALOGUE
        for metric in table.metrics
        for label in (*table.labels, *(metric.labels if isinstance(metric, MetricVec) else ()))
    }
    assert every == HIDDEN | LEFT_OUT | HARMLESS
