"""Where readings come from, and one look at the node for commands beside the daemon."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from exporter import __version__
from exporter.board import Plan
from exporter.hold import UNANSWERED
from exporter.host import Group
from exporter.host.processes import Processes
from exporter.nvml import NvmlDriver
from exporter.poll import Poller, Sources
from exporter.sampling import Reader
from exporter.snapshot import Build, NvmlPause, Process, Reload, Snapshot
from exporter.users import Users

if TYPE_CHECKING:
    from exporter.simulate import PlantedXid  # real nodes never need it

DEADLINE_SECONDS = 5.0
TICK_SECONDS = 1.0
MOST_CONNECT_TICKS = 30


def sources(
    simulate: str | None,
    process: Callable[[], Process | None],
    xids: Sequence[PlantedXid] = (),
    pause: Callable[[], NvmlPause | None] = lambda: None,
) -> Sources:
    """Return where readings come from: NVIDIA's driver, or the simulated node of a profile.

    `xids` are errors that the simulated GPUs will have; `pause` tells when to let go of the driver.
    """
    build = Build(__version__, platform.python_version(), simulate is not None)
    if simulate is None:
        return Sources(NvmlDriver(), build, process, processes=Processes(Users().name), pause=pause)
    from exporter.simulate import SimulatedDriver  # noqa: PLC0415  real nodes never need it

    driver = SimulatedDriver(simulate, xids=xids)
    return Sources(driver, build, process, processes=driver.processes(time.time()), pause=pause)


def look(
    simulate: str | None, readers: Sequence[Reader[Any]], groups: Sequence[Group[Any]] = ()
) -> Snapshot:
    """Read these groups of every GPU and of the host once.

    A GPU that does not answer within 5 s is in it with its fault; without a driver it has none,
    and says why in `driver_problem`.
    """
    return watch(sources(simulate, lambda: None), readers, groups, 1)


def watch(
    origin: Sources,
    readers: Sequence[Reader[Any]],
    groups: Sequence[Group[Any]],
    ticks: int,
    sleep: Callable[[float], None] = time.sleep,
) -> Snapshot:
    """Read these groups `ticks` times, a second apart, and return the last: with rates, too.

    Without persistence mode, nvmlInit takes seconds for each GPU: it is waited for.

    Raises:
        DriverGoneError: the driver was unloaded or replaced meanwhile.
    """
    every = TICK_SECONDS
    plan = Plan(tuple(readers), every, every, every, DEADLINE_SECONDS)
    reload = Reload(successful=True, success_timestamp_seconds=time.time())
    poller = Poller(origin, plan, tuple(groups), reload)
    snapshot = poller.tick()
    for _ in range(MOST_CONNECT_TICKS):
        if snapshot.driver_problem != UNANSWERED:
            break
        sleep(TICK_SECONDS)
        snapshot = poller.tick()
    for _ in range(ticks - 1):
        sleep(TICK_SECONDS)
        snapshot = poller.tick()
    return snapshot
