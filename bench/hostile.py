"""What clients that never finish a request cost those who scrape, and how long they may stay."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from client import BenchError, clients
from daemons import Child, Program, Workplace, await_page

SILENT, DRIPPING = 300, 50
PACE_SECONDS = 0.02
CONNECT_SECONDS = 10.0
STAY_SECONDS = 40.0  # the crowd gives up before

CROWD = (sys.executable, str(Path(__file__).with_name("crowd.py")))


@dataclass(frozen=True, slots=True)
class Siege:
    """Seconds of each scrape without and with the crowd, and of the crowd's longest stay."""

    unloaded: list[float]
    loaded: list[float]
    longest_stay_seconds: float


def besiege(program: Program, workplace: Workplace, scrapes: int) -> Siege:
    """Scrape a fresh daemon alone, among the crowd, and alone again.

    Raises:
        BenchError: a connection of the crowd was not closed.
    """
    daemon, port = workplace.run(program)
    with daemon, clients(port) as scrapers:
        await_page(program, daemon, port)
        unloaded = scrapers.pace(PACE_SECONDS, scrapes // 2)[0]
        with workplace.child([*CROWD, str(port), str(SILENT), str(DRIPPING)]) as crowd:
            _await_connected(crowd)
            loaded = scrapers.pace(PACE_SECONDS, scrapes)[0]
            stay = float(crowd.finish(STAY_SECONDS).split()[-1])
        unloaded += scrapers.pace(PACE_SECONDS, scrapes // 2)[0]
    return Siege(unloaded, loaded, stay)


def _await_connected(crowd: Child) -> None:
    limit = time.perf_counter() + CONNECT_SECONDS
    while "connected" not in crowd.output():
        if crowd.process.poll() is not None or time.perf_counter() > limit:
            raise BenchError(f"the hostile clients cannot connect: {crowd.output()[-300:]}")
        time.sleep(0.02)
