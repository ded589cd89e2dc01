"""From a sample to the receiver: what judging a tick costs, and how soon a request arrives."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import node
from client import BenchError
from tables import P99, Goal, Table, number, percentile

from exporter.config import Action, Config, Receiver, Rule, WebhookConfig
from exporter.gpu.utilization import Utilization
from exporter.rules import Engine
from exporter.scaleout.clock import Clock
from exporter.scaleout.service import Scaleout
from exporter.snapshot import Snapshot

TICKS = 300
PATIENCE_SECONDS = 10.0

# Ten rules as they are written: plain, waiting, smoothed, of a group, with a second condition.
RULES = (
    Rule("MemoryHigh", "gpu_memory_used_ratio", above=0.80, clear_below=0.75),
    Rule("Load", "gpu_utilization_ratio", above=0.95, for_seconds=10.0, clear_below=0.85),
    Rule("LoadForLong", "gpu_utilization_ratio", above=0.95, for_seconds=300.0),
    Rule("Smoothed", "gpu_utilization_ratio", above=0.8, for_seconds=30.0, smooth_seconds=10.0),
    Rule("Idle", "gpu_utilization_ratio", below=0.05, for_seconds=600.0),
    Rule("Hot", "gpu_temperature_celsius", above=85.0, for_seconds=10.0),
    Rule("HotMemory", "gpu_memory_temperature_celsius", above=95.0, for_seconds=10.0),
    Rule("Power", "gpu_power_watts", above=650.0, for_seconds=30.0),
    Rule("HostMemory", "host_memory_used_ratio", above=0.85, for_seconds=60.0),
    Rule("MemoryBusy", "gpu_memory_activity_ratio", above=0.9, for_seconds=10.0),
)


@dataclass(frozen=True, slots=True)
class Deciding:
    """What was measured.

    judge: CPU seconds of each tick's rules, for 8 GPUs. idle: CPU seconds that scale-out takes of
    each tick in which nothing happens. arrive: seconds from a sample that fires to the request at a
    receiver of this machine, each; the first has to load the HTTP client and stands apart.
    """

    judge: list[float]
    idle: list[float]
    first: float
    arrive: list[float]

    def table(self) -> Table:
        """Return all as a table."""
        rows = (
            ("rules of a tick, 8 GPUs, 10 rules: CPU, ms", *_spread(self.judge)),
            ("scale-out of a tick with an idle outbox: CPU, ms", *_spread(self.idle)),
            ("sample to receiver, ms", *_spread(self.arrive)),
            ("sample to receiver, the first, ms", number(1e3 * self.first), ""),
        )
        return Table("Deciding and sending", ("", "median", "p99"), rows)

    def goals(self) -> Iterator[Goal]:
        """Yield what it shall keep to."""
        judge = 1e3 * statistics.median(self.judge)
        yield Goal("rules of a tick, 8 GPUs, 10 rules: CPU, ms", judge, 1.0)
        idle = 1e3 * statistics.median(self.idle)
        yield Goal("scale-out of a tick with an idle outbox: CPU, ms", idle, 0.05)
        yield Goal("sample to receiver: p99, ms", 1e3 * percentile(self.arrive, P99), 50.0)


def _spread(seconds: list[float]) -> tuple[str, str]:
    return number(1e3 * statistics.median(seconds)), number(1e3 * percentile(seconds, P99))


def measure(requests: int) -> Deciding:
    """Judge some minutes of a simulated node, and send so many requests.

    Raises:
        BenchError: a request did not arrive.
    """
    ticks = node.ticks(TICKS)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, _receiver() as (url, arrivals):
        time_, service = _service(url, Path(folder))
        try:
            idle = _idle(service)
            first, *arrive = _send(requests + 1, ticks[-1], service, time_, arrivals)
        finally:
            service.stop()
    return Deciding(_judge(ticks), idle, first, arrive)


def _judge(ticks: list[Snapshot]) -> list[float]:
    engine = Engine(RULES, (), {}, 1.0)
    taken = []
    for tick in ticks:
        before = time.thread_time()
        engine.observe(tick, time.time())
        taken.append(time.thread_time() - before)
    return taken[1:]


def _idle(service: Scaleout) -> list[float]:
    taken = []
    for _ in range(TICKS):
        before = time.thread_time()
        service.tick({})
        service.view()
        taken.append(time.thread_time() - before)
    return taken[1:]


@dataclass(slots=True)
class _Time:
    """Clocks that run, and can be moved on, so that no cooldown is waited for."""

    ahead: float = 0.0
    clock: Clock = field(init=False)

    def __post_init__(self) -> None:
        self.clock = Clock(
            lambda: time.time() + self.ahead, lambda: time.monotonic() + self.ahead, "boot"
        )


def _service(url: str, folder: Path) -> tuple[_Time, Scaleout]:
    time_ = _Time()
    action = Action("scale-out", receiver="r", cooldown_seconds=1.0, max_per_hour=3600)
    config = Config(
        actions=(action,), receivers=(Receiver("r", webhook_configs=(WebhookConfig(url),)),)
    )
    return time_, Scaleout(config, folder, "node", "", time_.clock)


def _send(
    count: int, idle: Snapshot, service: Scaleout, time_: _Time, arrivals: list[float]
) -> list[float]:
    """Have a GPU of eight cross the threshold so many times; return the time of each request."""
    rule = Rule("Load", "gpu_utilization_ratio", above=0.95, actions=("scale-out",))
    engine = Engine((rule,), (), {}, 1.0)
    taken: list[float] = []
    for number_ in range(2 * count):
        tick = _loaded(idle, time.monotonic() + time_.ahead, 0.5 if number_ % 2 else 1.0)
        began = time.monotonic()
        events = engine.observe(tick, time_.clock.wall())
        service.tick(engine.firing)
        for event in events:
            service.decide(event, time_.clock.wall())
        if not number_ % 2:
            taken.append(_arrival(len(taken), arrivals) - began)
        time_.ahead += 1.0
    return taken


def _arrival(number_: int, arrivals: list[float]) -> float:
    until = time.monotonic() + PATIENCE_SECONDS
    while len(arrivals) <= number_:
        if time.monotonic() > until:
            raise BenchError(f"request {number_ + 1} did not arrive in {PATIENCE_SECONDS:g} s")
        time.sleep(0.0005)
    return arrivals[number_]


def _loaded(idle: Snapshot, now: float, load: float) -> Snapshot:
    first, *others = idle.gpus
    gpu = replace(first, sampled_at=now, utilization=Utilization(now, load))
    return replace(idle, taken_at=now, now=now, gpus=(gpu, *others))


@contextlib.contextmanager
def _receiver() -> Iterator[tuple[str, list[float]]]:
    """Run a receiver of webhooks; give its URL and the times at which requests came."""
    arrivals: list[float] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            arrivals.append(time.monotonic())
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response_only(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", arrivals
        finally:
            server.shutdown()
            thread.join()
