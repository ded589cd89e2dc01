"""The panels of what the daemon did: decisions on scale-out, and recordings."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.recorder.svg import safe
from exporter.statuspage import units
from exporter.statuspage.panels import begin, cell, moment, now_of, table
from exporter.statuspage.view import Decision, Recordings, RecordingSummary, ScaleOut, Status

BAD = {"dead", "expired", "outbox_full"}


def scale_out(status: Status) -> Iterator[str]:
    """Yield how requests to scale out stand, and the newest lines of their audit."""
    yield begin("scale", "Scale-out", "newest first")
    if status.scale_out is not None:
        yield f"<p>{_standing(status.scale_out)}</p>"
        if status.scale_out.newest:
            yield table("scale", "Time", "What", "Result", "Why")
            for decision in status.scale_out.newest:
                yield _decision(decision, now_of(status))
            yield "</tbody></table>"
        else:
            yield '<p class="soft">Nothing has been decided yet.</p>'
    yield "</section>"


def _standing(scale_out: ScaleOut) -> str:
    words = []
    if scale_out.durable is None:
        words.append("no receiver is configured, so nothing is sent")
    elif scale_out.durable:
        words.append("every request is on disk")
    else:
        words.append("requests are in memory alone")
    if scale_out.paused:
        words.append("paused")
    for action, seconds in scale_out.cooldown_remaining_seconds.items():
        if seconds > 0:
            words.append(f"{action} cools down for {units.duration(seconds)}")
    states = ((state.replace("_", " "), count) for state, count in scale_out.outbox.items())
    outbox = [f"{count} {state}" for state, count in states if count]
    if outbox:
        words.append(f"outbox: {', '.join(outbox)}")
    text = "; ".join(words)
    return safe(text[:1].upper() + text[1:] + ".")


def _decision(decision: Decision, now: float) -> str:
    what = decision.what
    if decision.what == "decision":
        what = f"{decision.action}: {decision.rule} {decision.kind}"
    elif decision.target:
        what = f"{decision.what} at {decision.target}"
    style = "critical" if decision.result in BAD else "calm"
    result = f'<span class="word">{safe(decision.result.replace("_", " "))}</span>'
    cells = (
        cell(moment(decision.timestamp_seconds, now), "t"),
        cell(safe(what), "w"),
        cell(result, "t"),
        cell(safe(decision.detail), "w soft"),
    )
    return f'<tr role="row" class="{style}">{"".join(cells)}</tr>'


def recordings(status: Status) -> Iterator[str]:
    """Yield the newest recordings."""
    yield begin("recordings", "Recordings", "newest first")
    if status.recordings is not None:
        yield f"<p>{_stored(status.recordings)}</p>"
        if status.recordings.newest:
            yield table("recordings", "Begun", "For", "Size")
            for recording in status.recordings.newest:
                yield _recording(recording, now_of(status))
            yield "</tbody></table>"
    yield "</section>"


def _stored(recordings: Recordings) -> str:
    if recordings.active:
        text = "A recording is under way."
    elif recordings.newest:
        text = "None is under way."
    else:
        text = "There is none yet."
    if recordings.stored_bytes:
        text += f" {units.size(recordings.stored_bytes)} on disk."
    if recordings.dropped_total:
        text += f" Samples lost because the disk did not keep up: {recordings.dropped_total}."
    shows = "<code>gpu-node-exporter recordings show</code>"
    return f"{text} {shows} tells more." if recordings.newest else text


def _recording(recording: RecordingSummary, now: float) -> str:
    at = recording.started_timestamp_seconds
    begun = "" if at is None else moment(at, now)
    size = '<span class="word">recording</span>' if recording.active else ""
    name = f'<span title="{safe(recording.name)}">{safe(recording.rule)}</span>'
    cells = (
        cell(begun, "t"),
        cell(name, "w"),
        cell(size or units.size(recording.size_bytes), "n"),
    )
    style = ' class="active"' if recording.active else ""
    return f'<tr role="row"{style}>{"".join(cells)}</tr>'
