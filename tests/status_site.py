"""The status page of a simulated node at times that the test chooses, by the daemon's own parts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from recorded_node import PLAN
from scripted import Clock

from exporter.board import Plan
from exporter.config import Action, Config, FlightRecorder, Receiver, WebhookConfig
from exporter.host import Group
from exporter.host.memory import METRICS as MEMORY_METRICS
from exporter.host.memory import Memory
from exporter.host.swap import METRICS as SWAP_METRICS
from exporter.host.swap import Swap
from exporter.httpd import Route
from exporter.inference_view import InferenceView
from exporter.pipeline import Pipeline
from exporter.poll import Poller, Sources
from exporter.recorder.flight import Recorder, settings
from exporter.rules import Engine
from exporter.sampling import Fault, Tier
from exporter.scaleout.clock import Clock as WallClock
from exporter.scaleout.service import Scaleout
from exporter.simulate import SimulatedDriver
from exporter.snapshot import Build, Reload
from exporter.statuspage import Past, StatusPage
from exporter.web import Web
from exporter.xid import Monitor

NODE = "gpu-node-7.example.com"
GIB = 1 << 30
HOST_MEMORY = Memory(2015 * GIB, 1204 * GIB, 96 * GIB, 1080 * GIB)
HOST_SWAP = Swap(8 * GIB, 8 * GIB - 311 * (1 << 20), 0, 0)
# Nothing listens on port 9 of this machine: a request is tried again and again.
SENDING = Config(
    actions=(
        Action("record", FlightRecorder()),
        Action("scale-out", receiver="autoscaler", group_by=()),
    ),
    receivers=(Receiver("autoscaler", webhook_configs=(WebhookConfig("http://127.0.0.1:9/"),)),),
)


class Site:
    """A simulated node with rules, recorder and scale-out, and its page over HTTP.

    Attributes:
        faults: By GPU; from the next tick on.
        driver: Whose GPUs they are.
        processes: What the host knows of those that use the GPUs.
        xids: Counts XID errors, of which nobody tells it yet.
        inference: What is known of inference servers; likewise.
    """

    def __init__(
        self,
        storage: Path,
        profile: str = "h100x8",
        config: Config = SENDING,
        plan: Plan = PLAN,
    ) -> None:
        self.faults: dict[int, Fault] = {}
        self.inference: InferenceView | None = None
        self.clock = Clock()
        self.wall = time.time()
        clock = WallClock(lambda: self.wall, self.clock, "boot")
        self.driver = driver = SimulatedDriver(profile, self.clock, faults=self.faults)
        self.processes = driver.processes(self.wall)
        poller = Poller(
            Sources(
                driver,
                Build("1.2.3", "3.10", simulated=True),
                lambda: None,
                self.clock,
                processes=self.processes,
            ),
            plan,
            (
                Group("host_memory", Tier.FAST, lambda: HOST_MEMORY, MEMORY_METRICS),
                Group("host_swap", Tier.FAST, lambda: HOST_SWAP, SWAP_METRICS),
            ),
            Reload(successful=True, success_timestamp_seconds=self.wall),
        )
        self.recorder = Recorder(storage, settings(config), NODE)
        self.scaleout = Scaleout(config, storage, NODE, "http://localhost/", clock)
        self.past = Past(plan.fast_seconds)
        engine = Engine(config.rules, config.scale_groups, {}, plan.fast_seconds)
        self.xids = Monitor(driver, (), None)
        self.pipeline = Pipeline(
            poller,
            engine,
            self.recorder,
            self.scaleout,
            self.xids,
            self.past,
            lambda _now: self.inference,
            lambda: self.wall,
        )
        self._page = StatusPage(NODE, "/metrics", self.past)

    def run(self, seconds: int) -> None:
        """Go on by some seconds of the node's own time."""
        for _ in range(seconds):
            self.clock.seconds += 1
            self.wall += 1
            self.pipeline.tick()
            self.recorder._writer._commands.join()

    def routes(self) -> Sequence[Route]:
        """Return what the daemon serves."""
        web = Web(lambda: self.pipeline.latest, lambda: None, "/metrics", self._page, self.clock)
        return web.routes()


@contextmanager
def sites(storage: Path, profile: str = "h100x8", config: Config = SENDING) -> Iterator[Site]:
    """Give a site; its threads end with the context."""
    site = Site(storage, profile, config)
    try:
        yield site
    finally:
        site.recorder.close()
        site.scaleout.stop()
