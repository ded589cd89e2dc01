"""Measures the exporter beside its peers, on one fake node of 8 H100 with 50 processes, in one run.

Daemons run side by side in rounds of fresh processes, so that what else the machine does meets all
of them: compare ratios of one run, not figures of two. docs/performance.md says what is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import FrameType

import decide
import fake
import floor
import hostile
import render
from client import BenchError
from daemons import Programs, Workplace, find_programs
from fake import FakeNvml
from report import Results
from rounds import Effort, run_round

FULL = Effort(
    rounds=3,
    starts=7,
    settle_seconds=3.0,
    idle_seconds=30.0,
    fresh_scrapes=60,
    paced_scrapes=100,
    loop_seconds=2.0,
    scrapes=1000,
    soak=(10_000, 100_000),
    siege_scrapes=400,
    render_seconds=1.5,
    requests=1000,
)
QUICK = Effort(
    rounds=1,
    starts=1,
    settle_seconds=2.0,
    idle_seconds=8.0,
    fresh_scrapes=10,
    paced_scrapes=30,
    loop_seconds=0.6,
    scrapes=200,
    soak=(),
    siege_scrapes=100,
    render_seconds=0.3,
    requests=100,
)
BEGIN = "<!-- make bench writes what follows -->"
END = "<!-- until here -->"


def main(arguments: Sequence[str]) -> int:
    """Measure, print the tables, write what is asked for; return the exit code."""
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, _end)
    flags = _parser().parse_args(arguments)
    effort = QUICK if flags.quick else FULL
    if flags.scrapes is not None:
        effort = replace(effort, scrapes=flags.scrapes)
    try:
        if flags.markdown:
            _around(flags.markdown)  # a mistake shall not cost minutes
        programs = find_programs()
        began = time.monotonic()
        results, notes = _measure(programs, effort)
        notes = [_machine(programs, effort, time.monotonic() - began), *notes]
        text = "\n".join([*(f"{note}\n" for note in notes), *map(str, results.tables())])
        print(text)
        if flags.markdown:
            before, after = _around(flags.markdown)
            flags.markdown.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}", encoding="utf-8")
        if flags.json:
            data = {"notes": notes, **results.data()}
            flags.json.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    except (BenchError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench/run.py",
        description="Measure gpu-node-exporter beside its peers; takes about 9 minutes.",
    )
    parser.add_argument(
        "--quick", action="store_true", help="one short round, in a minute: to try, not to quote"
    )
    parser.add_argument(
        "--scrapes",
        type=int,
        metavar="N",
        help="scrapes of every daemon after which its memory is read again "
        f"(default: {FULL.scrapes}; {QUICK.scrapes} with --quick)",
    )
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="put the tables between FILE's two marks"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    return parser


def _measure(programs: Programs, effort: Effort) -> tuple[Results, list[str]]:
    floor_program = floor.build()
    with ExitStack() as stack:
        node = stack.enter_context(fake.node())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        workplace = Workplace(folder, stack.enter_context(FakeNvml(node.library, node.scenario)))
        _say("comparing the NVML calls of poll_floor.c with the exporter's")
        different = floor.difference(floor_program, node, folder)
        rounds = []
        for number in range(effort.rounds):
            _say(f"round {number + 1} of {effort.rounds}: all daemons side by side")
            rounds.append(run_round(number, programs, floor_program, effort, workplace))
        _say("hostile clients")
        siege = hostile.besiege(programs.ours, workplace, effort.siege_scrapes)
        _say("rendering")
        renderings = render.measure(effort.render_seconds)
        _say("deciding and sending")
        deciding = decide.measure(effort.requests)
    notes = []
    if different:
        notes.append(f"**The C program makes other calls, so its ratios say nothing**: {different}")
    if effort is not FULL:
        notes.append("**Not the full measurement: p99 and CPU are rough.**")
    return Results(rounds, renderings, siege, deciding), notes


def _machine(programs: Programs, effort: Effort, seconds: float) -> str:
    peers = ", ".join(
        f"{program.name} {program.version}" for program in (programs.ours, *programs.peers())
    )
    load = " ".join(f"{one:.2f}" for one in os.getloadavg())
    return (
        f"{effort.rounds} rounds in {seconds / 60:.1f} minutes; {peers}; "
        f"Python {platform.python_version()}, Linux {platform.release()}, {_cpu_model()}, "
        f"{os.cpu_count()} CPUs, load at the end {load}."
    )


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _around(file: Path) -> tuple[str, str]:
    """Return what stands before and after the marks of a file.

    Raises:
        BenchError: they are not there.
    """
    text = file.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise BenchError(f"{file} lacks the lines {BEGIN} and {END}, between which the tables go")
    return before, after


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr)


def _end(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
