"""The report: as text for people, as JSON for programs."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Iterator
from typing import Any

from exporter.doctor import trial
from exporter.doctor.checks import worst
from exporter.doctor.facts import Facts, vram
from exporter.doctor.finding import Finding, Severity, Step
from exporter.doctor.words import counted
from exporter.frozen import dataclass
from exporter.snapshot import Gpu

WIDTH, INDENT = 80, 11
FORMAT = 1  # of the JSON; a change that breaks its readers counts up
COLOURS = {Severity.OK: "32", Severity.NOTE: "36", Severity.WARNING: "33", Severity.ERROR: "31;1"}


@dataclass(frozen=True, slots=True)
class Report:
    """What was found, on which node (a simulated one's profile, "" for this one), at what time."""

    facts: Facts
    findings: tuple[Finding, ...]
    simulated: str
    at: str

    @property
    def is_wrong(self) -> bool:
        """Whether the exit code is 1."""
        return worst(self.findings).is_wrong


def text(report: Report, *, colour: bool) -> str:
    """Return the report in 80 columns."""
    build = report.facts.snapshot.build
    where = f"simulated node {report.simulated}" if report.simulated else "this node"
    lines = [f"gpu-node-exporter doctor {build.version}, {where}, {report.at}"]
    for step in Step:
        lines += ["", f"{step.number}  {step.value}"]
        found = [finding for finding in report.findings if finding.step is step]
        lines += [line for f in found for line in _lines(f, colour=colour)] or [
            "   nothing to look at"
        ]
    return "\n".join([*lines, "", *_wrapped(verdict(report), 0), ""])


def verdict(report: Report) -> str:
    """Return the last line: what it comes to."""
    count = Counter(finding.severity for finding in report.findings)
    told = ", ".join(
        counted(count[severity], severity.value)
        for severity in (Severity.ERROR, Severity.WARNING, Severity.NOTE)
        if count[severity]
    )
    if count[Severity.ERROR]:
        return f"Not fit for inference: {told}."
    if count[Severity.WARNING]:
        return f"Fit for inference, but not in order: {told}."
    return f"Fit for inference: {told}." if told else "Fit for inference."


def _lines(finding: Finding, *, colour: bool) -> Iterator[str]:
    word = f"{finding.severity.value:<7}"
    if colour:
        word = f"\033[{COLOURS[finding.severity]}m{word}\033[0m"
    first, *more = [line for part in finding.what.split("\n") for line in _wrapped(part)]
    yield f"   {word} {first[INDENT:]}"
    yield from more
    for explanation in filter(None, (finding.meaning, finding.remedy and f"-> {finding.remedy}")):
        yield from _wrapped(explanation)


def _wrapped(line: str, indent: int = INDENT) -> list[str]:
    """Return a line in the width that there is; one that fits stays as it is, spaces too."""
    margin = " " * indent
    if len(line) <= WIDTH - indent:
        return [margin + line]
    deeper = margin + ("   " if line.startswith(("-> ", "GPU ")) else "")
    return textwrap.wrap(
        line,
        WIDTH,
        initial_indent=margin,
        subsequent_indent=deeper,
        break_long_words=False,
        break_on_hyphens=False,
    )


def as_dict(report: Report) -> dict[str, Any]:
    """Return the report as JSON has it; docs/doctor.md describes each key."""
    snapshot = report.facts.snapshot
    driver = snapshot.driver
    return {
        "format": FORMAT,
        "exporter_version": snapshot.build.version,
        "at": report.at,
        "simulated": report.simulated or None,
        "severity": worst(report.findings).value,
        "verdict": verdict(report),
        "driver": None
        if driver is None
        else {
            "driver_version": driver.driver_version,
            "nvml_version": driver.nvml_version,
            "cuda_version": driver.cuda_version,
        },
        "gpus": [_gpu(gpu) for gpu in snapshot.gpus],
        "trial": [
            {
                "group": group.name,
                "tier": group.tier.value,
                "seconds": group.seconds,
                "absent_on": list(group.absent_on),
                "errors": dict(group.errors),
            }
            for group in (trial.groups(report.facts) if snapshot.gpus else ())
        ],
        "findings": [_finding(finding) for finding in report.findings],
    }


def as_json(answer: dict[str, Any]) -> str:
    """Return a dict of `as_dict` as text."""
    return json.dumps(answer, indent=1) + "\n"


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "step": finding.step.number,
        "name": finding.name,
        "severity": finding.severity.value,
        "gpus": list(finding.gpus),
        "what": finding.what,
        "meaning": finding.meaning,
        "remedy": finding.remedy,
    }


def _gpu(gpu: Gpu) -> dict[str, Any]:
    watts = gpu.power_limits.watts if gpu.power_limits else {}
    return {
        "index": gpu.index,
        "uuid": gpu.uuid,
        "fault": gpu.fault.value if gpu.fault else None,
        "name": gpu.identity.name if gpu.identity else None,
        "pci_bus_id": gpu.identity.pci_bus_id if gpu.identity else None,
        "memory_total_bytes": vram(gpu),
        "memory_used_bytes": gpu.memory.used_bytes if gpu.memory else None,
        "utilization_ratio": gpu.utilization.gpu_ratio if gpu.utilization else None,
        "temperature_celsius": gpu.temperature.core_celsius if gpu.temperature else None,
        "power_watts": gpu.power.draw_watts if gpu.power else None,
        "power_limit_watts": watts.get("enforced"),
        "power_limit_default_watts": watts.get("default"),
        "processes": gpu.processes.count if gpu.processes else None,
    }
