"""The daemon with everything on, on a node full of processes, beside the daemon as it comes."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from client import clients
from cpu import cpu_seconds, memory
from daemons import GPUS, Program, Running, Workplace, await_page
from fake import FakeNvml
from tables import Table, number

PROCESSES = 50
SETTLE_SECONDS = 2.0
KIB, MIB = 1 << 10, 1 << 20

# What is on by default goes on, a recording runs all the while, and there is whom to ask for more.
CONFIG = """
global: {external_labels: {cluster: bench, scale_group: llm}}
processes: {max_per_gpu: 100, max_workloads: 200}
rules:
  - {alert: Recorded, metric: gpu_memory_total_bytes, above: 1, actions: [record]}
  - {alert: MemoryHigh, metric: gpu_memory_used_ratio, above: 0.99, clear_below: 0.9}
  - {alert: Load, metric: gpu_utilization_ratio, above: 0.99, for: 10s, actions: [scale-out]}
  - {alert: Smoothed, metric: gpu_utilization_ratio, above: 0.98, for: 30s, smooth: 10s}
  - {alert: Idle, metric: gpu_utilization_ratio, below: 0.02, for: 10m}
  - {alert: Hot, metric: gpu_temperature_celsius, above: 95, for: 10s}
  - {alert: HotMemory, metric: gpu_memory_temperature_celsius, above: 105, for: 10s}
  - {alert: Power, metric: gpu_power_watts, above: 750, for: 30s}
  - {alert: HostMemory, metric: host_memory_used_ratio, above: 0.99, for: 60s}
  - {alert: MemoryBusy, metric: gpu_memory_activity_ratio, above: 0.99, for: 10s}
actions:
  - {name: record, flight_recorder: {duration: 10m, max_bytes: 256MiB}}
  - {name: scale-out, receiver: autoscaler}
receivers:
  - {name: autoscaler, webhook_configs: [{url: "http://127.0.0.1:9/"}]}
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a daemon that nobody scrapes uses of a CPU in each second, and its page and memory."""

    cpu_seconds_per_second: float
    series: int
    page_bytes: int
    gzip_bytes: int
    rss_bytes: int


@dataclass(frozen=True, slots=True)
class Crowded:
    """Both daemons, side by side."""

    usual: Cost
    full: Cost

    def table(self) -> Table:
        """Return both as a table."""
        both = self.usual, self.full
        rows = (
            ("CPU of a poll, whole process, us", [1e6 * c.cpu_seconds_per_second for c in both]),
            ("series on the page", [c.series for c in both]),
            ("page, KiB", [c.page_bytes / KIB for c in both]),
            ("page in gzip, KiB", [c.gzip_bytes / KIB for c in both]),
            ("RSS, MiB", [c.rss_bytes / MIB for c in both]),
        )
        title = f"Everything on, and {PROCESSES} processes on the GPUs"
        head = ("", "as it comes", "everything on", "ratio")
        return Table(
            title,
            head,
            tuple((name, *map(number, pair), number(pair[1] / pair[0])) for name, pair in rows),
        )


def measure(program: Program, library: Path, folder: Path, seconds: float) -> Crowded:
    """Run both for so many seconds without a scrape, at a poll a second, then scrape each.

    Raises:
        BenchError: one gives no page.
    """
    for name in ("usual", "full"):
        (folder / name).mkdir()
    config = folder / "full.yml"
    config.write_text(CONFIG, encoding="utf-8")
    full = replace(program, command=(*program.command, "--compat.dcgm", f"--config.file={config}"))
    with ExitStack() as stack:
        pids = stack.enter_context(_sleepers())
        fake = stack.enter_context(FakeNvml(library, _scenario(pids)))
        places = (Workplace(folder / "usual", library), Workplace(folder / "full", library))
        places[1].env["FAKE_NVML_SCENARIO"] = fake.env()["FAKE_NVML_SCENARIO"]
        running = []
        for one, place in zip((program, full), places, strict=True):
            child, port = place.run(one)
            running.append(await_page(one, stack.enter_context(child), port))
        time.sleep(SETTLE_SECONDS)
        used = _idle(running, seconds)
        return Crowded(*(_cost(one, cpu) for one, cpu in zip(running, used, strict=True)))


def _idle(running: Sequence[Running], seconds: float) -> list[float]:
    """Return what each uses of a CPU when nobody scrapes."""
    began = time.perf_counter()
    before = [cpu_seconds(daemon.pid) for daemon in running]
    time.sleep(seconds)
    after = [cpu_seconds(daemon.pid) for daemon in running]
    elapsed = time.perf_counter() - began
    return [(end - start) / elapsed for start, end in zip(before, after, strict=True)]


def _cost(daemon: Running, cpu_seconds_per_second: float) -> Cost:
    with clients(daemon.port) as scrapers:
        answer = scrapers.scrape()
    return Cost(
        cpu_seconds_per_second,
        series=sum(not line.startswith(b"#") for line in answer.page.splitlines()),
        page_bytes=len(answer.page),
        gzip_bytes=len(answer.body),
        rss_bytes=memory(daemon.pid).rss_bytes,
    )


def _scenario(pids: list[int]) -> Mapping[str, str]:
    """Return keys of the fake library: the processes, spread over the GPUs."""
    return {
        f"gpu{place % GPUS}.process.{pid}": f"{(place + 1) << 28},c,{place % 20 + 1}"
        for place, pid in enumerate(pids)
    }


@contextmanager
def _sleepers() -> Iterator[list[int]]:
    """Run processes that use no GPU, to stand for those that do."""
    sleeping = [subprocess.Popen(["/bin/sleep", "600"]) for _ in range(PROCESSES)]
    try:
        yield [one.pid for one in sleeping]
    finally:
        for one in sleeping:
            one.kill()
        for one in sleeping:
            one.wait()
