"""The state of one series under a rule, and how a reading changes it.

No state at all is "inactive"; a run of samples at which the condition holds is "pending", and with
`fired` it is "firing". Missing samples neither confirm nor deny: a hole longer than `max_gap`, or
too low a coverage, starts every wait anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from exporter.config import Rule
from exporter.frozen import dataclass
from exporter.rules.readings import Level, Owner, Reading, Sample
from exporter.rules.samples import Tick
from exporter.rules.sustained import expected_samples, has_lasted, is_covered, is_hole
from exporter.scaleout.model import EventKind, SeriesSummary

ABSENT_SECONDS = 30.0  # without a sample, a series is over
MIN_REPEAT_SECONDS = 10.0  # rules with a short `for` tell no more often that they still fire
CLEARED, ABSENT = "cleared", "absent"


@dataclass(frozen=True, slots=True)
class Clock:
    """One tick: monotonic seconds, seconds since the epoch, seconds between ticks."""

    at: float
    wall: float
    interval: float


def epoch(at: float, now: Clock | Tick) -> float:
    """Return seconds since the epoch, by the wall clock as it is now, of a monotonic time.

    A clock that was set meanwhile thus never puts an end before its beginning.
    """
    return now.wall - (now.at - at)


@dataclass(frozen=True, slots=True)
class Tally:
    """One owner's samples within a run."""

    value: float
    minimum: float
    total: float
    samples: int


@dataclass(frozen=True, slots=True)
class Run:
    """Samples on the same side of a threshold, none on the other between them."""

    at: float  # of the first; monotonic
    samples: int
    tallies: Mapping[Owner, Tally]


class Fired(NamedTuple):
    """That a series fires: for which scale group and, in seconds since the epoch, since when."""

    scale_group: str
    started_at: float
    fired_at: float


@dataclass(frozen=True, slots=True)
class Series:
    """One series.

    Attributes:
        members: As of the last reading; None before the first.
        last_at: Monotonic time of the last sample; None before the first.
        run: Samples since which the condition holds; while firing, since it was last told.
        calm: Samples since which it is clear, while firing.
        fired: None while pending.
        told: What the last event said of the samples.
    """

    members: tuple[str, ...] | None = None
    last_at: float | None = None
    run: Run | None = None
    calm: Run | None = None
    fired: Fired | None = None
    told: tuple[SeriesSummary, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """News of one series; `reason` is that of its end."""

    kind: EventKind
    fired: Fired
    series: tuple[SeriesSummary, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """What a reading made of a series, and the interval in which its condition held till now."""

    series: Series | None
    changes: tuple[Change, ...] = ()
    held: tuple[float, float] | None = None


def advance(series: Series | None, reading: Reading, rule: Rule, clock: Clock) -> Step:
    """Take a series (None: inactive) through one reading."""
    series = series or Series()
    sample = reading.sample
    at = clock.at if sample is None else sample.at
    changes: tuple[Change, ...] = ()
    if series.last_at is not None and is_hole(at - series.last_at, ABSENT_SECONDS):
        if series.fired is not None:
            changes = (Change(EventKind.RESOLVED, series.fired, series.told, ABSENT),)
        series = Series()
    if _is_broken(series, reading, rule):
        series = replace(series, run=None, calm=None)
    if sample is None:
        return Step(_waiting(series, reading, clock), changes)
    held = None
    if sample.level is Level.HOLDS and series.run is not None and series.last_at is not None:
        held = (series.last_at, at)
    if series.fired is None:
        step = _pending(series.run, reading, sample, rule, clock)
    else:
        step = _firing(series, series.fired, reading, sample, rule, clock)
    return Step(step.series, changes + step.changes, held)


def _is_broken(series: Series, reading: Reading, rule: Rule) -> bool:
    """Tell whether no wait may go on: a hole, or the GPUs are not those of the last reading."""
    if series.members is not None and series.members != reading.members:
        return True
    return (
        reading.sample is not None
        and series.last_at is not None
        and is_hole(reading.sample.at - series.last_at, rule.max_gap_seconds)
    )


def _waiting(series: Series, reading: Reading, clock: Clock) -> Series | None:
    """Return a series that has no sample now; one without a wait and not firing is inactive."""
    if series.fired is None and series.run is None:
        return None
    if series.last_at is not None and series.members == reading.members:
        return series
    last_at = clock.at if series.last_at is None else series.last_at
    return replace(series, members=reading.members, last_at=last_at)


def _pending(run: Run | None, reading: Reading, sample: Sample, rule: Rule, clock: Clock) -> Step:
    if sample.level is not Level.HOLDS:
        return Step(None)
    run = _extended(run, sample)
    pending = Series(reading.members, sample.at, run)
    if not _is_due(run, sample, rule.for_seconds):
        return Step(pending)
    fresh = _extended(None, sample)
    if not _is_evident(run, sample, rule, clock):
        return Step(replace(pending, run=fresh))
    fired = Fired(reading.group, epoch(run.at, clock), epoch(sample.at, clock))
    told = _summaries(run, sample, clock)
    firing = Series(reading.members, sample.at, fresh, None, fired, told)
    return Step(firing, (Change(EventKind.FIRING, fired, told),))


def _firing(
    series: Series, fired: Fired, reading: Reading, sample: Sample, rule: Rule, clock: Clock
) -> Step:
    told = series.told
    run = calm = None
    changes: tuple[Change, ...] = ()
    if sample.level is Level.HOLDS:
        run = _extended(series.run, sample)
        if _is_due(run, sample, max(rule.for_seconds, MIN_REPEAT_SECONDS)):
            if _is_evident(run, sample, rule, clock):
                told = _summaries(run, sample, clock)
                again = fired._replace(started_at=epoch(run.at, clock))
                changes = (Change(EventKind.REPEAT, again, told),)
            run = _extended(None, sample)
    elif sample.level is Level.CLEAR:
        calm = _extended(series.calm, sample)
        if _is_due(calm, sample, rule.keep_firing_for_seconds):
            if _is_evident(calm, sample, rule, clock):
                summaries = _summaries(calm, sample, clock)
                return Step(None, (Change(EventKind.RESOLVED, fired, summaries, CLEARED),))
            calm = _extended(None, sample)
    return Step(Series(reading.members, sample.at, run, calm, fired, told), changes)


def _extended(run: Run | None, sample: Sample) -> Run:
    """Return the run with one more sample, or a new one."""
    if run is None:
        tallies = {owner: Tally(value, value, value, 1) for owner, value in sample.values}
        return Run(sample.at, 1, tallies)
    tallies = dict(run.tallies)
    for owner, value in sample.values:
        tally = tallies.get(owner)
        tallies[owner] = (
            Tally(value, value, value, 1)
            if tally is None
            else Tally(value, min(tally.minimum, value), tally.total + value, tally.samples + 1)
        )
    return Run(run.at, run.samples + 1, tallies)


def _is_due(run: Run, sample: Sample, seconds: float) -> bool:
    return has_lasted(sample.at - run.at, seconds)


def _is_evident(run: Run, sample: Sample, rule: Rule, clock: Clock) -> bool:
    expected = expected_samples(sample.at - run.at, clock.interval)
    return is_covered(run.samples, expected, rule.min_coverage)


def _summaries(run: Run, sample: Sample, clock: Clock) -> tuple[SeriesSummary, ...]:
    expected = expected_samples(sample.at - run.at, clock.interval)
    return tuple(
        SeriesSummary(
            gpu=gpu,
            uuid=uuid,
            value=tally.value,
            minimum=tally.minimum,
            mean=tally.total / tally.samples,
            samples=tally.samples,
            expected=expected,
        )
        for (gpu, uuid), tally in run.tallies.items()
    )
