"""A simulated node as fast as it will go: `python tests/soak.py POLLS FOLDER URL`.

Every poll goes the whole way: rules, recorder, requests to the webhook at URL, the status page's
past. GPUs are lost and come back, hang and are released, have XID errors; processes come and go;
every few polls the pages are asked for. The last line of the output is what the process held after
the warm-up and at the end.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
import threading
import time
from dataclasses import replace
from itertools import count
from pathlib import Path

from recorded_node import PLAN
from status_site import SENDING, Site

from exporter.config import Receiver, WebhookConfig
from exporter.httpd import Request
from exporter.sampling import Fault
from exporter.threads import share_heap
from exporter.xid.ledger import Event, Source

HASTY = replace(PLAN, deadline_seconds=0.1)
GPUS = 8
WARM_UP_POLLS = 800  # at least, and a tenth: allocator and thread pools come to rest slowly
LOST_EVERY, LOST_POLLS = 250, 60
HUNG_EVERY, HUNG_POLLS = 500, 20
MOVE_EVERY, XID_EVERY, RENDER_EVERY = 50, 90, 5
XIDS = (13, 31, 43, 79, 94)
ACCEPTED = (
    {"accept-encoding": "gzip"},
    {"accept": "application/openmetrics-text; version=1.0.0", "accept-encoding": "gzip"},
)


class Soak:
    """A simulated node that fails over and over again."""

    def __init__(self, storage: Path, url: str) -> None:
        self.hung = 0
        self.lost = 0
        receiver = Receiver("autoscaler", webhook_configs=(WebhookConfig(url),))
        self._site = Site(storage, config=replace(SENDING, receivers=(receiver,)), plan=HASTY)
        self._site.xids.switch(on=True)
        self._routes = {route.path: route for route in self._site.routes()}
        self._pids = count(10_000)

    def poll(self, number: int) -> None:
        """Let a second pass; strike or heal a GPU if it is its turn; poll."""
        for every, polls, fault in (
            (LOST_EVERY, LOST_POLLS, Fault.LOST),
            (HUNG_EVERY, HUNG_POLLS, Fault.HUNG),
        ):
            turn, since = divmod(number, every)
            if since == every - polls:
                self._site.driver._released = threading.Event()
                self._site.faults[turn % GPUS] = fault
            elif since == 0 and number:
                self._site.faults.pop((turn - 1) % GPUS, None)
                self._site.driver.release()
        if number % MOVE_EVERY == 0:
            self._move(number // MOVE_EVERY % GPUS)
        if number % XID_EVERY == 0:
            self._err(number // XID_EVERY)
        faults = self._tick()
        self.lost += Fault.LOST in faults
        self.hung += Fault.HUNG in faults
        if number % RENDER_EVERY == 0:
            self._ask("/metrics", "/", "/api/v1/status")

    def hang(self) -> None:
        """Let all GPUs hang at once: no later poll needs more threads than that."""
        self._site.driver.release()
        self._site.driver._released = threading.Event()
        self._site.faults.update(dict.fromkeys(range(GPUS), Fault.HUNG))
        for _ in range(HUNG_POLLS):
            self._tick()

    def settle(self) -> None:
        """Heal all; poll until every GPU is back, recordings and requests are done."""
        self._site.faults.clear()
        self._site.driver.release()
        for _ in range(1000):
            self._site.run(1)
            latest = self._site.pipeline.latest
            assert latest is not None
            assert latest.recorder is not None
            assert latest.scaleout is not None
            is_idle = not latest.recorder.active and not latest.scaleout.outbox.get("pending")
            if is_idle and not any(gpu.fault for gpu in latest.gpus):
                self._ask("/metrics", "/", "/api/v1/status")
                return
            time.sleep(0.001)
        raise AssertionError("a GPU, a recording or a request does not come to rest")

    def figures(self) -> dict[str, float]:
        """Return what this node has been through."""
        latest = self._site.pipeline.latest
        assert latest is not None
        assert latest.recorder is not None
        assert latest.scaleout is not None
        return {
            "lost": self.lost,
            "hung": self.hung,
            "recordings": sum(latest.recorder.recordings.values()),
            "delivered": sum(
                number
                for (_, result), number in latest.scaleout.deliveries.items()
                if result == "delivered"
            ),
            "pids": next(self._pids) - 10_000,
        }

    def close(self) -> None:
        """End its threads."""
        self._site.recorder.close()
        self._site.scaleout.stop()
        self._site.xids.stop()

    def _tick(self) -> list[Fault | None]:
        self._site.run(1)
        latest = self._site.pipeline.latest
        assert latest is not None
        return [gpu.fault for gpu in latest.gpus]

    def _move(self, gpu: int) -> None:
        """Let others use a GPU, as far as it is opened anew: after it was lost."""
        tenants = tuple(
            replace(tenant, pid=next(self._pids)) if gpu in tenant.gpus else tenant
            for tenant in self._site.driver._tenants
        )
        self._site.driver._tenants = tenants
        self._site.processes._tenants = {tenant.pid: tenant for tenant in tenants}

    def _err(self, number: int) -> None:
        now = self._site.clock.seconds
        address = f"00000000:{number % GPUS:02X}:00.0"
        xid = XIDS[number % len(XIDS)]
        event = Event(Source.KERNEL_LOG, address, xid, self._site.wall, now)
        self._site.xids._ledger.add(event)

    def _ask(self, *paths: str) -> None:
        for path in paths:
            for headers in ACCEPTED:
                request = Request("GET", path, "", headers, b"", "127.0.0.1")
                assert self._routes[path].handler(request).status == 200


class Mallinfo2(ctypes.Structure):
    """What mallinfo2(3) returns."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def held() -> dict[str, int]:
    """Return what this process holds.

    Bytes from malloc and blocks from Python's allocator are what is in use; the resident bytes have
    in them what allocators keep for the next one who asks.
    """
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = Mallinfo2
    malloc = libc.mallinfo2()
    return {
        "resident_bytes": pages * os.sysconf("SC_PAGESIZE"),
        "malloc_bytes": malloc.uordblks + malloc.hblkhd,
        "blocks": sys.getallocatedblocks(),
        "descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208  same, without our own
        "threads": threading.active_count(),
        "objects": len(gc.get_objects()),
    }


def main(polls: int, storage: Path, url: str) -> None:
    """Soak, and print the figures."""
    share_heap()
    node = Soak(storage, url)
    node.hang()
    node.settle()
    warm_up = max(WARM_UP_POLLS, polls // 10)
    for number in range(warm_up):
        node.poll(number)
    node.settle()
    before, started = held(), time.monotonic()
    node.hung = node.lost = 0
    for number in range(warm_up, warm_up + polls):
        node.poll(number)
    node.settle()
    figures = {**node.figures(), "seconds": round(time.monotonic() - started, 1)}
    print(json.dumps({"before": before, "after": held(), **figures}))  # noqa: T201  its output
    node.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
