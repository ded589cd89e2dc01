"""A node for tests of faults: fake driver, clocks, receiver, storage; and what must always hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from daemon import Daemon, Page, running
from fake_nvml import FakeNvml
from page_bounds import samples, sorts
from scaleout_peers import Peer, Reply, serving
from wall_clock import WallClock, build

CACHE = Path(__file__).parents[1] / ".cache"
MIB = 1 << 20
MOST_DESCRIPTORS = 80
MOST_THREADS = 60
MOST_RESIDENT_BYTES = 160 * MIB

CALM = {"count": 2, "gpu*.util": 40, "gpu*.memory_used": 20 << 30}
BUSY = {"gpu*.util": 100}
REFUSED, TAKEN = Reply(503), Reply(204)
CONFIG = """
poll: {{fast: 250ms, slow: 1s, deadline: 240ms}}
rules:
  - {{alert: Busy, metric: gpu_utilization_ratio, above: {above}, for: 2s, max_gap: 1s,
     min_coverage: 0, clear_below: 0.5, aggregate: max, actions: [record, ask]}}
  - {{alert: BusyForLong, metric: gpu_utilization_ratio, above: 0.8, for: 10m, actions: [ask]}}
actions:
  - {{name: record, flight_recorder: {{duration: 10m, max_bytes: 8MiB}}}}
  - {{name: ask, receiver: scaler, cooldown: 1h}}
receivers:
  - name: scaler
    webhook_configs: [{{url: "{url}", retry: {{min_backoff: 100ms, max_backoff: 500ms}}}}]
"""


class World:
    """One node, with daemons that come and go.

    Attributes:
        fake: The driver.
        clocks: The daemons' clocks.
        peer: Who is asked for more replicas; refuses, to begin with.
        storage: The daemons' folder.
    """

    def __init__(self, folder: Path, library: Path, peer: Peer) -> None:
        self.fake = FakeNvml(library, CALM)
        self.clocks = WallClock(build(CACHE), folder)
        self.peer = peer
        self.storage = folder / "storage"
        self.config_file = folder / "config.yml"
        self.configure()

    def text(self, above: float = 0.95) -> str:
        """Return a good config."""
        return CONFIG.format(above=above, url=self.peer.url)

    def configure(self, text: str | None = None) -> None:
        """Put a config in place in one step."""
        scratch = self.config_file.with_suffix(".new")
        scratch.write_text(self.text() if text is None else text)
        scratch.replace(self.config_file)

    def env(self) -> dict[str, str]:
        """Return the environment of a daemon."""
        return self.clocks.env(self.fake.env())

    def flags(self) -> tuple[str, ...]:
        """Return the flags of a daemon."""
        return f"--config.file={self.config_file}", f"--storage.path={self.storage}"

    def daemon(self) -> AbstractContextManager[Daemon]:
        """Run a daemon, which is killed in the end."""
        return running(*self.flags(), env=self.env())

    def answer(self, reply: Reply) -> None:
        """Have the receiver answer in this way from now on."""
        self.peer.replies[:] = [reply]

    def requests(self) -> dict[str, set[bytes]]:
        """Return the bodies that came, by the requests' ids."""
        found: dict[str, set[bytes]] = {}
        for said in list(self.peer.said):
            found.setdefault(said.headers["webhook-id"], set()).add(said.body)
        return found

    def only_request(self) -> dict[str, object]:
        """Return what the only request says, however often it came."""
        ((body,),) = self.requests().values()
        data: dict[str, object] = json.loads(body)["data"]
        return data


@contextmanager
def world(folder: Path, library: Path) -> Iterator[World]:
    """Give a world; its files are gone in the end."""
    with serving(REFUSED) as peer:
        node = World(folder, library, peer)
        try:
            yield node
        finally:
            node.fake.close()


def sound(daemon: Daemon) -> Page:
    """Return a page of a daemon that is well, whatever it has been through.

    The page parses, each value is within its bounds, and the daemon holds no more than it may. It
    has met no fault of its own.
    """
    page = daemon.page()
    for name, labels, value in samples(page.text):
        sort = sorts().get(name)
        lowest, highest = (float("-inf"), float("inf")) if sort is None else sort.bounds
        assert lowest <= value <= highest, (name, dict(labels), value)
    log = daemon.log
    assert "Traceback" not in log, log
    assert "a fault in" not in log, log
    assert daemon.descriptors <= MOST_DESCRIPTORS
    assert daemon.threads <= MOST_THREADS
    assert daemon.resident_bytes <= MOST_RESIDENT_BYTES
    return page
