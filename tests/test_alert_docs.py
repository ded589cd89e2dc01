"""Runbooks and docs/alerts.md: there for every alert, and true."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from alert_rules import ALERTS, ROOT, alerts, promtool
from alert_series import KNOWN, TARGET
from daemon import COMMAND
from promql import matchers, metrics

RUNBOOKS = sorted(path for path in (ALERTS / "runbooks").glob("*.md") if path.stem != "README")
PAGE = ROOT / "docs" / "alerts.md"
SECTIONS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]
# Programs of the base system, the driver, and what is watched; ours and Prometheus's beside them.
PROGRAMS = set(
    "amtool cat curl df dmesg free fuser gpu-node-exporter grep iostat ipmitool journalctl ls lsmod"
    " lspci mount nvidia-smi nv-fabricmanager ping promtool ps py-spy systemctl timeout uptime"
    " vmstat docker ssh".split()
)
FILTERS = {"grep", "head", "tail", "less", "sort", "uniq", "awk"}

each_runbook = pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: path.stem)


def commands(path: Path) -> Iterator[str]:
    """Yield the commands of a page, without remarks."""
    for block in re.findall(r"^```sh\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            yield re.sub(r"\s+# .*", "", line)


def test_every_alert_has_its_runbook() -> None:
    """The pages are those of the alerts, and no other."""
    assert [path.stem for path in RUNBOOKS] == sorted(alert.name for alert in alerts())


@each_runbook
def test_runbook_has_its_sections(path: Path) -> None:
    """Title, meaning, impact, diagnosis with commands, mitigation: each says something."""
    text = path.read_text()
    assert text.startswith(f"# {path.stem}\n")
    parts = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)[1:]
    assert parts[::2] == SECTIONS
    assert all(len(part.strip()) > 10 for part in parts[1::2])
    assert list(commands(path))
    assert parts[7].strip().startswith("* ")


@each_runbook
def test_commands_of_a_runbook_exist(path: Path) -> None:
    """Each begins with a program that is known, and names only series that exist."""
    for command in commands(path):
        quoted = re.sub(r"'[^']*'|\"[^\"]*\"", "Q", command)
        for part in quoted.split(";"):
            first, *filters = part.split("|")
            assert first.split()[0] in PROGRAMS, command
            assert {one.split()[0] for one in filters} <= FILTERS, command
        for expr in re.findall(r"promtool query instant \S+ '([^']*)'", command):
            assert metrics(expr) - {"ALERTS"} <= KNOWN.keys(), command
            for matcher in matchers(expr):
                own = KNOWN.get(matcher.metric, {"alertstate", "component"})
                assert matcher.label in own | TARGET, command


def test_our_own_commands_are_as_runbooks_give_them() -> None:
    """Subcommands and flags of gpu-node-exporter."""
    given = {
        tuple(re.sub(r"[|;].*", "", command).split()[1:])
        for path in [*RUNBOOKS, ALERTS / "runbooks" / "README.md"]
        for command in [*commands(path), *re.findall(r"`([^`]*)`", path.read_text())]
        if command.startswith("gpu-node-exporter ")
    }
    helps: dict[tuple[str, ...], str] = {}
    for words in given:
        nested = words[0] in {"recordings", "scale-out", "nvml"}
        command = words[: 2 if nested else 1]
        if command not in helps:
            done = subprocess.run(
                [COMMAND, *command, "--help"], capture_output=True, text=True, check=True
            )
            helps[command] = done.stdout
        flags = {word for word in words if word.startswith("--")}
        assert not {flag for flag in flags if flag not in helps[command]}, words
    assert ("scale-out", "status") in helps


def test_links_lead_somewhere() -> None:
    """Files and headings that the pages name are there."""
    for path in [*RUNBOOKS, ALERTS / "runbooks" / "README.md", PAGE]:
        for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", path.read_text()):
            file = (path.parent / target) if target else path
            assert file.exists(), (path, target)
            if anchor:
                headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
                known = {
                    re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings
                }
                assert anchor in known, (path, anchor)


def test_table_of_alerts_is_current() -> None:
    """docs/alerts.md is what `make docs` writes."""
    before = PAGE.read_text()
    done = subprocess.run(
        [sys.executable, "-c", "import alerts_reference as a; print(a.table(), end='')"],
        cwd=ROOT / "scripts",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout in before


def test_thresholds_and_repeats_are_as_told() -> None:
    """The defaults of the thresholds, and how often Alertmanager tells again."""
    text = PAGE.read_text()
    rules = (ALERTS / "load.rules.yml").read_text()
    for name in ("GpuMemoryHigh", "GpuSustainedLoad"):
        told = re.search(rf'`gpu_rule_threshold\{{rule="{name}"\}}` \| ([\d.]+) \|', text)
        assert told
        default = re.search(rf'rule="{name}"\}}\)\s+or [^\n]* \* 0 \+ ([\d.]+)', rules)
        assert default
        assert told[1] == default[1]
    config = yaml.safe_load((ALERTS / "alertmanager.yml").read_text())["route"]
    again = {route["receiver"]: route.get("repeat_interval") for route in config["routes"]}
    for receiver, told_again in (("page", "4h"), ("scale-out", "5m")):
        assert again[receiver] == told_again
        assert re.search(rf"`{receiver}`.*\| {told_again[0]} {told_again[1]}", text)


def test_names_are_changed_as_told(tmp_path: Path) -> None:
    """The sed lines leave no name of ours, and rules and unit tests that still pass."""
    folder = tmp_path / "alerts"
    shutil.copytree(ALERTS, folder)
    lines = re.findall(r"\| `(sed -i [^`]*)` \|", PAGE.read_text())
    assert len(lines) == 3
    for line in lines:
        named = line.replace("NAME", "gpus").replace("URL", "https://here")
        subprocess.run(named, shell=True, cwd=folder, check=True, env={"PATH": os.environ["PATH"]})  # noqa: S602  the user's shell
    files = [*folder.glob("*.rules.yml"), *folder.glob("tests/*.yml")]
    text = "".join(path.read_text() for path in files)
    assert 'job="gpu-node"' not in text
    assert "example.com" not in text
    code, said = promtool("test", "rules", folder / "tests" / "load.yml", folder / "tests/host.yml")
    assert code == 0, said
