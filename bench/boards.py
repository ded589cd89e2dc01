"""The NVML part of the exporter's poll by itself: what poll_floor.c does, by the exporter's code.

    boards.py TICKS FAST_SECONDS SLOW_SECONDS

It writes the mean CPU seconds of a tick's jobs after the first WARM_UP ticks.
"""

from __future__ import annotations

import sys
import time

from exporter.board import Board, Plan
from exporter.catalogue import GPU_READERS
from exporter.nvml import NvmlDriver

WARM_UP = 3


def main(ticks: int, plan: Plan) -> float:
    """Read all GPUs at 1 tick per `plan.fast_seconds`; return the CPU seconds of a tick's jobs."""
    driver = NvmlDriver()
    _, found = driver.connect()
    boards = [Board(gpu, index / len(found)) for index, gpu in enumerate(found)]
    used = 0.0
    start = time.monotonic()
    for tick in range(ticks):
        time.sleep(max(start + tick * plan.fast_seconds - time.monotonic(), 0.0))
        now = time.monotonic()
        jobs = [job for board in boards if (job := board.next_job(driver, plan, now))]
        before = time.thread_time()
        for job in jobs:
            job.run()
        if tick >= WARM_UP:
            used += time.thread_time() - before
        for board in boards:
            outcome = board.settle(plan, now)
            if outcome is None or outcome.fault or outcome.errors:
                sys.exit(f"GPU {board.found.index} was not read: {outcome}")
    return used / max(ticks - WARM_UP, 1)


if __name__ == "__main__":
    PLAN = Plan(
        readers=GPU_READERS,
        fast_seconds=float(sys.argv[2]),
        slow_seconds=float(sys.argv[3]),
        blocking_seconds=5.0,
        deadline_seconds=0.5,
        mig_seconds=float(sys.argv[3]),  # one call on boards without MIG devices
    )
    print(f"{main(int(sys.argv[1]), PLAN):.9f}")
