"""All checks in their order, and every kind of finding that they know."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.doctor import driver, gpus, health, links, node, now, trial, xids
from exporter.doctor.facts import Facts
from exporter.doctor.finding import Finding, Kind, Severity, Step

STAGES = (gpus, driver, health, xids, now, trial, links, node)
KINDS: tuple[Kind, ...] = tuple(kind for stage in STAGES for kind in stage.KINDS)


def examine(facts: Facts) -> tuple[Finding, ...]:
    """Return all that is to be said of a node: by step, and in each what is there, then the worst.

    Nothing is read here: the same facts give the same findings.
    """
    found = [finding for stage in STAGES for finding in stage.check(facts)]
    order = (Severity.OK, Severity.ERROR, Severity.WARNING, Severity.NOTE)
    return tuple(sorted(found, key=lambda f: (f.step.number, order.index(f.severity))))


def worst(findings: Sequence[Finding]) -> Severity:
    """Return the worst severity."""
    return max((f.severity for f in findings), key=lambda s: s.rank, default=Severity.OK)


def reference() -> str:
    """Return what may be wrong, what it means and what to do, as Markdown."""
    lines = ["## Findings", ""]
    for step in Step:
        lines += [
            f"### {step.number}. {step.value}",
            "",
            "| finding | what it means | what to do |",
        ]
        lines.append("|---|---|---|")
        for kind in (kind for kind in KINDS if kind.step is step):
            title = f"`{kind.name}`<br>{kind.severity.value}"
            remedy = kind.remedy.replace("<GPU>", "&lt;GPU&gt;").replace("|", "\\|")
            lines.append(f"| {title} | {kind.meaning} | {remedy} |")
        lines.append("")
    return "\n".join(lines)
