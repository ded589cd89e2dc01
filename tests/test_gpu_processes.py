"""Processes of a GPU, read from the fake library: its layouts, its sizing, its samples."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest
from nvml_loaded import Node

from exporter import lists
from exporter.gpu.processes import IDLE, KEPT, Activity, GpuProcess, Processes, read
from exporter.sampling import ProcessSample, RunningProcess, Tier

GIB = 1 << 30
COMPUTE = "nvmlDeviceGetComputeRunningProcesses_v3"
UTILIZATION = "nvmlDeviceGetProcessesUtilizationInfo"


def processes(node: Node, *machine: str, index: int = 0) -> Processes:
    """Connect to a machine and read the processes of one of its GPUs."""
    node.connect(*machine)
    reading: Processes = node.read(node.device(index))["processes"]
    return reading


def test_memory_of_each_process_on_its_gpu(node: Node) -> None:
    """Compute, graphics and MPS processes with their bytes; elsewhere there is none."""
    machine = ("gpu0.process.7=1024", "gpu0.process.8=4096,g,0", "gpu0.process.9=2048,m,0")
    found = processes(node, *machine)
    assert [(p.pid, p.used_bytes) for p in found.heaviest] == [(8, 4096), (9, 2048), (7, 1024)]
    assert (found.count, found.rest_count, found.rest_bytes) == (3, 0, 0)
    elsewhere = node.read(node.device(1))["processes"]
    assert (elsewhere.count, elsewhere.heaviest) == (0, ())


def test_memory_that_the_driver_does_not_tell_is_absent(node: Node) -> None:
    """NVML's sentinel of 2**64 - 1 bytes is no size."""
    assert processes(node, "gpu0.process.7=na").heaviest[0].used_bytes is None


def test_one_call_a_list_and_none_for_its_size(node: Node) -> None:
    """Each list is had with one call; pynvml would make two."""
    processes(node, "gpu0.process.7=1024")
    assert node.calls().count(COMPUTE, 0) == node.calls().count(UTILIZATION, 0) == 1


def test_list_that_has_grown_is_asked_for_again(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More processes than there was room for, and one answer that was too short all the same."""
    monkeypatch.setattr(lists, "ROOM", 2)
    monkeypatch.setattr(lists, "SPARE", 0)
    key = f"gpu0.call.{COMPUTE}"
    machine = [f"gpu0.process.{pid}={pid}" for pid in range(1, 31)]
    found = processes(node, *machine, f"{key}.ret=7", f"{key}.times=2")
    assert [p.pid for p in found.heaviest] == list(range(30, 0, -1))
    assert node.calls().count(COMPUTE, 0) == 4


def test_list_that_never_stops_growing_fails_alone(node: Node) -> None:
    """A few attempts, one error; all else of the GPU is read."""
    node.connect(f"gpu0.call.{COMPUTE}.ret=7")
    outcome = node.take(node.device())
    assert outcome.errors == {"processes": "insufficient_size"}
    assert outcome.readings["processes"] is None
    assert outcome.readings["memory"] is not None
    assert node.calls().count(COMPUTE, 0) == lists.ATTEMPTS


def test_drivers_before_510_have_the_functions_before(node: Node) -> None:
    """The older functions are asked where the newer ones are missing; the missing but once."""
    node.connect("driver=470.82.01", "gpu0.process.7=1024")
    device = node.device()
    found = node.read(device)["processes"]
    assert [(p.pid, p.used_bytes) for p in found.heaviest] == [(7, 1024)]
    node.read(device)
    calls = node.calls()
    assert calls.count(COMPUTE, 0) == calls.count(UTILIZATION, 0) == 1
    assert calls.count(COMPUTE.replace("_v3", "_v2"), 0) == 2
    assert calls.count("nvmlDeviceGetProcessUtilization", 0) == 2


@pytest.mark.parametrize(
    ("driver", "count"), [("535.54.03", None), ("535.86.10", None), ("535.104.05", 2)]
)
def test_lists_of_another_layout_than_they_say_are_not_read(
    node: Node, driver: str, count: int | None
) -> None:
    """Some drivers write 32 bytes an entry where 24 are agreed on: no figure of theirs is shown."""
    found = processes(node, f"driver={driver}", "gpu0.process.7=1024", "gpu0.process.9=4096")
    assert found.count == count
    assert len(found.heaviest) == (count or 0)
    assert node.calls().count(COMPUTE, 0) == (0 if count is None else 1)


@pytest.mark.parametrize("profile", ["t4", "vgpu", "gb10", "geforce"])
def test_what_was_refused_is_not_asked_again(node: Node, profile: str) -> None:
    """No list that a board refuses is asked for at the next reading, though the cursor moves."""
    node.connect(f"profile={profile}", "driver=535.261.03", "gpu0.process.7=1024")
    device = node.device()
    node.read(device)
    before = node.calls()
    last: dict[str, object] = {}
    for second in (101, 102, 103):
        node.put(f"time={second}")
        last = node.read(device, Tier.SLOW, last=last)
    after = node.calls()
    made = {s: n - before.count(s, 0) for s, n in after.by_gpu[0].items() if "Process" in s}
    assert UTILIZATION not in {symbol for symbol, count in made.items() if count}
    assert set(made.values()) <= {0, 3}


def test_activity_is_that_since_the_reading_before(node: Node) -> None:
    """Busy processes have their shares, idle ones 0; a process of an hour ago has no say."""
    node.connect("gpu0.process.7=1024,c,70", "gpu0.process.8=512,c,0")
    device = node.device()
    first = node.read(device)["processes"]
    node.put("time=130")
    second = node.read(device, last={"processes": first})["processes"]
    assert second.heaviest == (
        GpuProcess(7, 1024, Activity(0.7, 0.35, {})),
        GpuProcess(8, 512, IDLE),
    )
    assert second.cursor > first.cursor
    third = node.read(device, last={"processes": second})["processes"]  # not a sample since
    assert [p.activity for p in third.heaviest] == [IDLE, IDLE]


def test_first_samples_count_while_they_are_fresh(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its buffer holds the past: at the first reading, what is older than 2 s is unknown."""
    node.connect("gpu0.process.7=1024,c,70")
    stale = node.read(node.device())["processes"]
    assert [p.activity for p in stale.heaviest] == [None]
    now = stale.cursor / 1e6
    monkeypatch.setattr(time, "time", lambda: now + 1.0)
    fresh = node.read(node.device())["processes"]
    assert [p.activity for p in fresh.heaviest] == [Activity(0.7, 0.35, {})]


def test_clock_that_was_set_back_does_not_hide_what_is_busy(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cursor from the future would make everybody idle until then: it begins anew."""
    node.connect("gpu0.process.7=1024,c,70")
    device = node.device()
    reading = node.read(device)["processes"]
    future = Processes(1, reading.heaviest, cursor=reading.cursor + 3_600_000_000)
    monkeypatch.setattr(time, "time", lambda: reading.cursor / 1e6)
    again = node.read(device, last={"processes": future})["processes"]
    assert [p.activity for p in again.heaviest] == [Activity(0.7, 0.35, {})]


def test_instances_of_mig(node: Node) -> None:
    """With MIG, processes have their instances, and no activity, which is absent and not 0."""
    found = processes(
        node, "profile=a100-mig", "gpu0.process.7=1024,c,50,5", "gpu0.process.8=512,c,50,1"
    )
    assert found.heaviest == (
        GpuProcess(7, 1024, None, ((5, 0),)),
        GpuProcess(8, 512, None, ((1, 0),)),
    )


def test_ten_thousand_processes_are_bounded(node: Node) -> None:
    """The heaviest are told apart, the others are summed, in little time and space."""
    node.fake.set({f"gpu0.process.{pid}": f"{pid},c,1" for pid in range(1, 10_001)})
    node.connect()
    device = node.device()
    node.read(device)
    found = node.read(device)["processes"]
    assert found.count == 10_000
    assert [p.pid for p in found.heaviest] == list(range(10_000, 10_000 - KEPT, -1))
    assert found.rest_count == 10_000 - KEPT
    assert found.rest_bytes == sum(range(1, 10_000 - KEPT + 1))


class Scripted:
    """A GPU with these lists and samples; None: it refuses."""

    max_gap_seconds = 3.0

    def __init__(
        self, running: list[RunningProcess] | None, samples: list[ProcessSample] | None = None
    ) -> None:
        self._answers: Mapping[str, object] = {COMPUTE: running, UTILIZATION: samples}

    def now(self) -> float:
        """Return any time."""
        return 0.0

    def ask(self, call: str, *_args: object) -> object:
        """Answer."""
        return self._answers.get(call)

    def field(self, *_args: object) -> None:
        """Have none."""

    def gpm(self) -> dict[int, float]:
        """Have none."""
        return {}

    def utilization_samples(self) -> tuple[()]:
        """Have none."""
        return ()

    def mig_devices(self) -> tuple[()]:
        """Have none."""
        return ()

    def mig_gpm(self, *_args: object) -> dict[int, float]:
        """Have none."""
        return {}


def running(pid: int, used: int | None, instance: int | None = None) -> RunningProcess:
    """Return an entry of a list."""
    return RunningProcess(pid, used, instance, None if instance is None else 0)


def test_board_without_lists_has_no_count() -> None:
    """Where nothing is listed on principle, there are not 0 processes: it is not known."""
    assert read(Scripted(None), None) == Processes()


def test_process_in_several_places_is_one() -> None:
    """The same memory twice counts once, that of two MIG instances is added up."""
    device = Scripted(
        [running(7, 100), running(7, 100), running(8, 5, 1), running(8, 6, 2), running(9, None)]
    )
    found = read(device, None)
    assert [(p.pid, p.used_bytes) for p in found.heaviest] == [(7, 100), (8, 11), (9, None)]
    assert found.heaviest[1].instances == ((1, 0), (2, 0))


def test_pid_of_0_is_nobody() -> None:
    """A driver that hides other namespaces' processes lists them as 0: counted, never named."""
    found = read(Scripted([running(0, 50), running(0, 60), running(3, 1)]), None)
    assert [p.pid for p in found.heaviest] == [3]
    assert (found.count, found.rest_count, found.rest_bytes) == (3, 2, 110)


def test_samples_that_cannot_be_are_dropped() -> None:
    """Shares above 100 % are garbage; several samples of one process give their mean."""
    samples = [
        ProcessSample(7, 10, 20, 10, 4, 0, None, None),
        ProcessSample(7, 11, 60, 30, 0, 0, 100, 50),
        ProcessSample(8, 12, 4_294_967_295, 0, 0, 0, 0, 0),
        ProcessSample(8, 12, 0, 0, 0, 0, 3000, 0),
    ]
    found = read(Scripted([running(7, 2), running(8, 1)], samples), Processes(cursor=5))
    assert [p.activity for p in found.heaviest] == [
        Activity(0.4, 0.2, {"encoder": 0.02, "jpeg": 0.5, "ofa": 0.25}),
        IDLE,
    ]
    assert found.cursor == 12
