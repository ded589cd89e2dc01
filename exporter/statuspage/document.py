"""The whole page: one HTML document that asks no other host for anything."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.resources import files
from urllib.parse import quote

from exporter.recorder.clock import iso, time_of_day
from exporter.recorder.svg import safe
from exporter.statuspage import gpus, logbook, panels, servers, units, usage
from exporter.statuspage.panels import moment, now_of
from exporter.statuspage.view import Issue, Status

REFRESH_SECONDS = 2
REFRESH_WITHOUT_SCRIPT_SECONDS = 10
MOST_PROBLEMS = 24
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">'
    '<rect width="16" height="16" rx="3" fill="{color}"/>'
    '<path d="M3 11V8m3 3V5m4 6V7m3 4V4" stroke="#fff" stroke-width="2"/></svg>'
)
COLORS = {"critical": "#b0201a", "warning": "#c27803", "well": "#1d7146"}


class Document:
    """What of the page stays the same: style, script, and the policy that admits only these."""

    def __init__(self, metrics_paths: Sequence[str]) -> None:
        """Take the paths of the pages with metrics."""
        folder = files("exporter.statuspage")
        self._style = (folder / "page.css").read_text(encoding="utf-8")
        self._script = (folder / "page.js").read_text(encoding="utf-8")
        self._links = (
            *((path, path) for path in metrics_paths),
            ("/api/v1/status", "JSON"),
            ("/-/ready", "/-/ready"),
        )
        self._build = _digest(self._style + self._script)[:12]
        self.policy = "; ".join(
            (
                "default-src 'none'",
                f"style-src 'sha256-{_digest(self._style)}'",
                f"script-src 'sha256-{_digest(self._script)}'",
                "img-src data:",
                "connect-src 'self'",
                "base-uri 'none'",
                "form-action 'none'",
                "frame-ancestors 'none'",
            )
        )

    def render(self, status: Status) -> str:
        """Return the page."""
        return "\n".join(self._lines(status))

    def _lines(self, status: Status) -> Iterator[str]:
        worst = _worst(status)
        yield "<!doctype html>"
        yield (
            f'<html lang="en" data-refresh="{REFRESH_SECONDS}" data-build="{self._build}" '
            f'data-node="{safe(status.node)}"><head><meta charset="utf-8">'
        )
        yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
        yield '<meta name="color-scheme" content="light dark">'
        seconds = REFRESH_WITHOUT_SCRIPT_SECONDS
        yield f'<noscript><meta http-equiv="refresh" content="{seconds}"></noscript>'
        yield f"<title>{safe(_title(status))}</title>"
        icon = quote(ICON.format(color=COLORS[worst]))
        yield f'<link rel="icon" href="data:image/svg+xml,{icon}">'
        yield f"<style>{self._style}</style></head><body>"
        yield '<p id="lost" class="note lost" role="alert" hidden></p>'
        yield from self._header(status)
        yield "<main>"
        if status.simulated:
            text = "These GPUs are simulated. Nothing here was measured."
            yield f'<p class="note" id="simulated">{text}</p>'
        yield from _problems(status, worst)
        yield from _gpus(status)
        yield '<div class="panels"><div>'
        yield from panels.rules(status)
        yield from servers.servers(status)
        yield from usage.processes(status)
        yield from logbook.scale_out(status)
        yield "</div><div>"
        yield from panels.host(status)
        yield from usage.mig_devices(status)
        yield from logbook.recordings(status)
        yield "</div></div></main>"
        yield from _footer(status)
        yield f"<script>{self._script}</script></body></html>"

    def _header(self, status: Status) -> Iterator[str]:
        yield f"<header><h1>{safe(status.node)}</h1><p>{' · '.join(_facts(status))}</p><nav>"
        for path, name in self._links:
            yield f'<a href="{safe(path)}">{safe(name)}</a>'
        button = '<button id="pause" type="button" aria-pressed="false" data-own hidden>'
        yield f"{button}Pause</button></nav></header>"


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _worst(status: Status) -> str:
    severities = {problem.severity for problem in status.problems}
    return next((one for one in ("critical", "warning") if one in severities), "well")


def _count(status: Status) -> str:
    count = len(status.problems)
    return f"{count} problem{'s' if count > 1 else ''}" if count else "nothing is wrong"


def _title(status: Status) -> str:
    return f"{_count(status)} – {status.node}"


def _facts(status: Status) -> Iterator[str]:
    for name, count in Counter(gpu.name for gpu in status.gpus if gpu.name).items():
        yield f"{count} × {safe(name)}"
    if status.driver is not None:
        yield f"driver {safe(status.driver.driver_version)}"
        yield f"CUDA {safe(status.driver.cuda_version)}"
    if status.timestamp_seconds is not None:
        at = status.timestamp_seconds
        yield f'<time datetime="{iso(at)}">{time_of_day(at)} UTC</time>'


def _problems(status: Status, worst: str) -> Iterator[str]:
    yield f'<section class="{worst}-box" aria-labelledby="h-problems">'
    count = _count(status)
    heading = count[:1].upper() + count[1:]
    yield f'<h2 id="h-problems" role="status">{heading}</h2>'
    if status.problems:
        yield '<ul class="problems">'
        for problem in status.problems[:MOST_PROBLEMS]:
            since = _since(problem, now_of(status))
            yield (
                f'<li class="{problem.severity}"><span class="word">{problem.severity}</span>'
                f'<span>{safe(problem.text)}</span><span class="since">{since}</span></li>'
            )
        yield "</ul>"
        if len(status.problems) > MOST_PROBLEMS:
            yield f'<p class="soft">{len(status.problems) - MOST_PROBLEMS} more: see the JSON.</p>'
    else:
        yield f'<p class="soft">{_calm(status)}</p>'
    yield "</section>"


def _since(problem: Issue, now: float) -> str:
    at = problem.since_timestamp_seconds
    if at is None:
        return ""
    at_least = "at least " if problem.is_from_start else ""
    return f"{at_least}{units.duration(now - at)}, since {moment(at, now)}"


def _calm(status: Status) -> str:
    answering = f"{len(status.gpus)} GPUs answer" if status.gpus else "There are no GPUs"
    pending = [rule.rule for rule in status.rules if rule.state == "pending"]
    rules = f"{safe(', '.join(pending))} pending" if pending else "no rule is pending or firing"
    return f"{answering}, {rules}."


def _gpus(status: Status) -> Iterator[str]:
    yield '<section aria-label="GPUs">'
    if status.gpus:
        yield from gpus.table(status)
    else:
        yield '<p class="soft">There are no GPUs to be shown.</p>'
    yield "</section>"


def _footer(status: Status) -> Iterator[str]:
    version = safe(status.exporter_version)
    yield f"<footer><span>gpu-node-exporter {version}</span><span>Times are UTC.</span>"
    yield (
        f"<span>Graphs show the range of every {status.history_step_seconds:g} s; of PCIe and "
        "NVLink, the highest.</span>"
    )
    yield "</footer>"
