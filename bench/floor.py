"""The lower bound of a poll: poll_floor.c beside the exporter's own NVML part, boards.py."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from client import BenchError
from daemons import Child
from fake import ROOT, FakeNvml, Node, nvml_header

SOURCE = Path(__file__).with_name("poll_floor.c")
BOARDS = (sys.executable, str(Path(__file__).with_name("boards.py")))
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror")

CHECK_TICK_SECONDS = 0.3  # GPM wants 0.1 s between two samples, and the first tick is long
CHECK_TICKS = (3, 5)  # what lies between the two is not the start
NEVER, ALWAYS = 1e9, 1e-3  # seconds of the slow tier: with no tick, with each


def build() -> Path:
    """Compile poll_floor.c, once for each content; return the program.

    Raises:
        BenchError: no compiler, or it does not compile.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise BenchError("no C compiler: cc is not on PATH; `make bench` installs gcc")
    header = nvml_header()
    digest = hashlib.sha256(SOURCE.read_bytes() + header.read_bytes()).hexdigest()[:16]
    program = ROOT / ".cache/bench" / f"poll_floor-{digest}"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        include = f"-I{header.parent}"
        command = [compiler, *FLAGS, include, "-o", str(program), str(SOURCE), "-ldl", "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"bench/poll_floor.c does not compile:\n{done.stderr}")
    return program


def command(program: tuple[str, ...], ticks: int, fast: float, slow: float) -> list[str]:
    """Return the command line of poll_floor or boards.py; periods in seconds."""
    return [*program, str(ticks), f"{fast:g}", f"{slow:g}"]


def difference(program: Path, node: Node, folder: Path) -> str:
    """Return how the NVML calls of both differ, "" if they are the same: by the library's log.

    Raises:
        BenchError: one of them fails.
    """
    found: list[str] = []
    for slow, tier in ((NEVER, "fast tick"), (ALWAYS, "slow tick")):
        floor = _calls_per_tick((str(program),), slow, node, folder)
        boards = _calls_per_tick(BOARDS, slow, node, folder)
        found += [
            f"{tier}: {what} {boards[what]} times by the exporter, {floor[what]} by poll_floor.c"
            for what in sorted(boards | floor)
            if boards[what] != floor[what]
        ]
    return "; ".join(found)


def _calls_per_tick(
    program: tuple[str, ...], slow: float, node: Node, folder: Path
) -> Counter[str]:
    with ExitStack() as stack:
        runs = []
        for ticks in CHECK_TICKS:
            fake = stack.enter_context(FakeNvml(node.library, node.scenario))
            log = folder / f"calls-{ticks}.log"
            line = command(program, ticks, CHECK_TICK_SECONDS, slow)
            runs.append((fake, stack.enter_context(Child(line, fake.env(), log))))
        counts = []
        for fake, child in runs:
            child.finish(seconds=20.0)
            calls = fake.calls()
            counts.append(Counter(calls.by_symbol) + _fields(calls.fields))
    few, many = counts
    return Counter(
        {what: (many[what] - few[what]) // (CHECK_TICKS[1] - CHECK_TICKS[0]) for what in many}
    )


def _fields(by_gpu: Mapping[int, Mapping[int, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for fields in by_gpu.values():
        total.update({f"field {number}": times for number, times in fields.items()})
    return total
