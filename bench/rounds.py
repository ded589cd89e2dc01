"""One round: fresh processes of all daemons, side by side through every measurement."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import floor
from client import clients
from cpu import Memory, cpu_seconds, memory
from daemons import FULL, OURS, Program, Programs, Running, Workplace, await_page

FRESH_SECONDS = 1.05  # between two scrapes: longer than a poll, so that each sees another page
PACED_SECONDS = 0.105
CROWD = 10  # clients of the second closed loop
POLL_SECONDS, SLOW_SECONDS = 1.0, 30.0

UNKNOWN = Memory(0, 0)


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured. `soak`: scrapes of ours in the last round, for their memory."""

    rounds: int
    starts: int
    settle_seconds: float
    idle_seconds: float
    fresh_scrapes: int
    paced_scrapes: int
    loop_seconds: float
    scrapes: int
    soak: tuple[int, ...]
    siege_scrapes: int
    render_seconds: float
    requests: int


@dataclass(slots=True)
class Visit:
    """What a round saw of one daemon. Times in seconds, CPU in seconds; lists: one per scrape."""

    name: str
    start_seconds: float = 0.0
    series: int = 0
    page_bytes: int = 0
    gzip_bytes: int = 0
    rest: Memory = UNKNOWN
    idle_cpu_per_second: float = 0.0
    fresh: list[float] = field(default_factory=list)
    fresh_cpu: float = 0.0  # per scrape, without what it uses anyway
    paced: list[float] = field(default_factory=list)
    scrapes: int = 0
    loaded: Memory = UNKNOWN
    alone: list[float] = field(default_factory=list)
    alone_cpu: float = 0.0
    crowd: list[float] = field(default_factory=list)
    soaked: dict[int, Memory] = field(default_factory=dict)  # scrapes -> memory


@dataclass(frozen=True, slots=True)
class Polls:
    """CPU seconds of a poll: of the NVML calls and what is made of them, and of a whole process.

    floor: in C. our: by our daemon as it comes. full: with everything on, which calls the same.
    """

    floor_calls: float
    our_calls: float
    floor_process: float
    our_process: float
    full_process: float


@dataclass(frozen=True, slots=True)
class Round:
    """All visits of a round, ours first, and what a poll cost in it."""

    visits: tuple[Visit, ...]
    polls: Polls


def run_round(
    number: int, programs: Programs, floor_program: Path, effort: Effort, workplace: Workplace
) -> Round:
    """Start all daemons afresh, measure, and end them."""
    everyone = programs.all()
    turn = number % len(everyone)
    order = (*everyone[turn:], *everyone[:turn])  # nobody is always first
    visits = {program.name: Visit(program.name) for program in everyone}
    with ExitStack() as stack:
        running = _start(order, effort, workplace, visits, stack)
        polls = _idle(running, effort, floor_program, workplace, visits)
        _pace(running, effort, visits)
        for daemon in running:
            ours = daemon.program not in programs.peers()
            last = number == effort.rounds - 1
            _load(daemon, effort, effort.soak if ours and last else (), visits)
        idle = {one.name: one.idle_cpu_per_second for one in visits.values()}
        for daemon in running:
            visit = visits[daemon.program.name]
            _loops(daemon, visit, effort.loop_seconds, idle[visit.name])
    return Round(tuple(visits.values()), polls)


def _start(
    order: Sequence[Program],
    effort: Effort,
    workplace: Workplace,
    visits: Mapping[str, Visit],
    stack: ExitStack,
) -> list[Running]:
    """Start each daemon some times, alone, and keep the last of each."""
    running = []
    for program in order:
        taken = []
        for _ in range(effort.starts - 1):
            child, port = workplace.run(program)
            with child:
                taken.append(await_page(program, child, port).start_seconds)
        child, port = workplace.run(program)
        stack.enter_context(child)
        daemon = await_page(program, child, port)
        running.append(daemon)
        visits[program.name].start_seconds = statistics.median([*taken, daemon.start_seconds])
    return running


def _idle(
    running: Sequence[Running],
    effort: Effort,
    floor_program: Path,
    workplace: Workplace,
    visits: Mapping[str, Visit],
) -> Polls:
    """Watch what all of them cost when nobody scrapes, with the two pollers beside them."""
    ticks = math.ceil(effort.settle_seconds + effort.idle_seconds) + 2
    with ExitStack() as stack:
        pollers = [
            stack.enter_context(
                workplace.child(floor.command(program, ticks, POLL_SECONDS, SLOW_SECONDS))
            )
            for program in ((str(floor_program),), floor.BOARDS)
        ]
        time.sleep(effort.settle_seconds)
        watched = {daemon.program.name: daemon.pid for daemon in running}
        watched["floor"] = pollers[0].process.pid
        began = time.perf_counter()
        before = {name: cpu_seconds(pid) for name, pid in watched.items()}
        for daemon in running:
            visits[daemon.program.name].rest = memory(daemon.pid)
        time.sleep(effort.idle_seconds)
        used = {name: cpu_seconds(pid) - before[name] for name, pid in watched.items()}
        elapsed = time.perf_counter() - began
        for visit in visits.values():
            visit.idle_cpu_per_second = used[visit.name] / elapsed
        floor_calls, our_calls = (float(poller.finish(ticks + 10.0)) for poller in pollers)
    ours, full = (visits[name].idle_cpu_per_second * POLL_SECONDS for name in (OURS, FULL))
    return Polls(
        floor_calls=floor_calls,
        our_calls=our_calls,
        floor_process=used["floor"] / elapsed * POLL_SECONDS,
        our_process=ours,
        full_process=full,
    )


def _pace(running: Sequence[Running], effort: Effort, visits: Mapping[str, Visit]) -> None:
    """Scrape all daemons in turns, slowly as Prometheus does, then ten times as fast."""
    seen = [visits[daemon.program.name] for daemon in running]
    with clients(*(daemon.port for daemon in running)) as scrapers:
        for which, visit in enumerate(seen):
            answer = scrapers.scrape(which)
            visit.page_bytes, visit.gzip_bytes = len(answer.page), len(answer.body)
            visit.series = sum(not line.startswith(b"#") for line in answer.page.splitlines())
        before = [cpu_seconds(daemon.pid) for daemon in running]
        began = time.perf_counter()
        taken = scrapers.pace(FRESH_SECONDS, effort.fresh_scrapes)
        after = [cpu_seconds(daemon.pid) for daemon in running]
        elapsed = time.perf_counter() - began
        for visit, times, start, end in zip(seen, taken, before, after, strict=True):
            visit.fresh = times
            visit.fresh_cpu = (end - start - visit.idle_cpu_per_second * elapsed) / len(times)
        for visit, times in zip(
            seen, scrapers.pace(PACED_SECONDS, effort.paced_scrapes), strict=True
        ):
            visit.paced = times
            visit.scrapes = 1 + len(visit.fresh) + len(times)


def _load(
    daemon: Running, effort: Effort, soak: tuple[int, ...], visits: Mapping[str, Visit]
) -> None:
    """Scrape until a number of scrapes is reached, and see what memory that has taken."""
    visit = visits[daemon.program.name]
    with clients(daemon.port) as scrapers:
        visit.scrapes += len(scrapers.loop(count=effort.scrapes - visit.scrapes))
        visit.loaded = memory(daemon.pid)
    with clients(*[daemon.port] * CROWD) as scrapers:
        for count in soak:
            visit.scrapes += len(scrapers.loop(count=count - visit.scrapes))
            visit.soaked[count] = memory(daemon.pid)


def _loops(daemon: Running, visit: Visit, seconds: float, idle: float) -> None:
    """Scrape as fast as one client can, then ten."""
    with clients(daemon.port) as scrapers:
        before, began = cpu_seconds(daemon.pid), time.perf_counter()
        visit.alone = scrapers.loop(seconds)
        used, elapsed = cpu_seconds(daemon.pid) - before, time.perf_counter() - began
        visit.alone_cpu = (used - idle * elapsed) / len(visit.alone)
    with clients(*[daemon.port] * CROWD) as scrapers:
        visit.crowd = scrapers.loop(seconds)
