"""The panels of the rules and of the host, and what all panels are written with."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.recorder.clock import iso, time_of_day, utc
from exporter.recorder.svg import safe
from exporter.statuspage import units
from exporter.statuspage.columns import Column, share, thresholds
from exporter.statuspage.gpus import band, clips
from exporter.statuspage.view import HostStatus, RuleSummary, Status

RECENT_SECONDS = 20 * 3600  # what is older is told with its day
# Heads of columns that stand to the right.
NUMBERS = {
    *("Now", "Threshold", "Fired", "Size", "VRAM", "SM", "RAM", "Active"),
    *("Running", "Waiting", "KV cache", "P99"),
}
RIGHT = ' class="n"'
STYLES = {"firing": "warning", "pending": "waiting"}


def now_of(status: Status) -> float:
    """Return when the page was asked for, in seconds since the epoch."""
    return (status.timestamp_seconds or 0.0) + (status.age_seconds or 0.0)


def moment(at: float, now: float) -> str:
    """Return a time in UTC, with its day unless it is recent."""
    text = time_of_day(at) if -1 <= now - at < RECENT_SECONDS else utc(at)
    return f'<time datetime="{iso(at)}">{text}</time>'


def begin(name: str, title: str, remark: str = "") -> str:
    """Return the begin of a panel; the remark is markup."""
    small = f" <small>{remark}</small>" if remark else ""
    head = f'<h2 id="h-{name}">{safe(title)}{small}</h2>'
    return f'<section class="{name}" aria-labelledby="h-{name}">{head}'


def table(name: str, *heads: str) -> str:
    """Return the begin of a table that becomes a list where there is little room."""
    cells = "".join(
        f'<th scope="col" role="columnheader"{RIGHT if head in NUMBERS else ""}>{safe(head)}</th>'
        for head in heads
    )
    return (
        f'<table class="stack" role="table" aria-labelledby="h-{name}"><thead role="rowgroup">'
        f'<tr role="row">{cells}</tr></thead><tbody role="rowgroup">'
    )


def cell(markup: str, style: str = "", label: str = "") -> str:
    """Return a cell; the label stands before it where there is no head above."""
    named = f' data-k="{label}"' if label else ""
    styled = f' class="{style}"' if style else ""
    return f'<td role="cell"{named}{styled}>{markup}</td>'


def rules(status: Status) -> Iterator[str]:
    """Yield the rules and their state."""
    yield begin("rules", "Rules")
    if status.rules:
        yield table("rules", "Rule", "Condition", "Now", "Threshold", "State", "Fired")
        for rule in status.rules:
            yield _rule(rule, now_of(status))
        yield "</tbody></table>"
    else:
        yield '<p class="soft">There are no rules: nothing is watched on this node.</p>'
    yield "</section>"


def _rule(rule: RuleSummary, now: float) -> str:
    state = f'<span class="word">{rule.state}</span>'
    if rule.since_timestamp_seconds is not None:
        since = rule.since_timestamp_seconds
        gpus = f", GPU {', '.join(map(str, rule.gpus))}" if rule.gpus else ""
        state += (
            f" {units.duration(now - since)}<br><small>since {moment(since, now)}{gpus}</small>"
        )
    cells = (
        f'<th scope="row" role="rowheader">{safe(rule.rule)}</th>',
        cell(_condition(rule)),
        cell(units.of_metric(rule.metric, rule.value), "n", "now"),
        cell(units.of_metric(rule.metric, rule.threshold), "n", "threshold"),
        cell(state, "w"),
        cell(f"{rule.firings_total}{units.GAP}×", "n", "fired"),
    )
    return f'<tr role="row" class="{STYLES.get(rule.state, "calm")}">{"".join(cells)}</tr>'


def _condition(rule: RuleSummary) -> str:
    condition = f"<code>{safe(rule.condition)}</code>"
    if rule.state != "firing":
        return condition
    return f"{condition}<br><small>ends at <code>{safe(rule.ending)}</code></small>"


def host(status: Status) -> Iterator[str]:
    """Yield the host's memory and swap."""
    yield begin("host", "Host")
    if status.host is None:
        yield '<p class="soft">There are no readings of the host.</p></section>'
        return
    lines = thresholds(status, "host_memory_used_ratio")
    memory, swap = share("Memory", "memory_used_ratio", lines), share("Swap", "swap_used_ratio", ())
    yield clips((memory,))
    yield '<div class="pair">'
    yield _half(memory, *_memory(status.host), status.host)
    yield _half(swap, *_swap(status.host), status.host)
    yield "</div></section>"


def _half(column: Column, value: str, note: str, host: HostStatus) -> str:
    past = host.history.get(column.readings[0])
    graph = "" if past is None else band("host", column, past, ())
    head = f"<p>{column.name} <small>{column.legend}</small></p>"
    return f"<div>{head}<b>{value}</b><small>{note}</small>{graph}</div>"


def _memory(host: HostStatus) -> tuple[str, str]:
    note = units.of_total(host.memory_used_bytes, host.memory_total_bytes)
    return units.percent(host.memory_used_ratio), note


def _swap(host: HostStatus) -> tuple[str, str]:
    used, total = host.swap_used_bytes, host.swap_total_bytes
    if total == 0:
        return "none", ""
    ratio = None if used is None or total is None else used / total
    return units.percent(ratio), units.of_total(used, total)
