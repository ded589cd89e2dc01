"""Processes and workloads: both halves joined, nothing lost or counted twice, all of it bounded."""

from __future__ import annotations

import getpass
import subprocess
import sys
from collections.abc import Collection, Iterator
from dataclasses import astuple, replace
from pathlib import Path

import pytest
from daemon import Page, running
from fake_nvml import FakeNvml
from hypothesis import given
from hypothesis import strategies as st

from exporter.accounts import LINGER_SECONDS, Accounts, Meter, Share
from exporter.cgroup import Attribution
from exporter.gpu.power import Power
from exporter.gpu.processes import Activity, GpuProcess, Processes
from exporter.gpu.utilization import Utilization
from exporter.processes_view import Account, Limits, ProcessesView
from exporter.procs import OTHER, UNKNOWN, HostProcess
from exporter.snapshot import Gpu
from exporter.workloads import Joiner

POD = "6f2a1f3c-91d7-4f0e-b1a2-7c5de0a4b913"
ID = "8c1f0b9e7a6d" + "4" * 52


def host(pid: int, unit: str = "", **by: str) -> HostProcess:
    """Return a process of a unit or of something else."""
    return HostProcess(
        pid, f"name{pid}", "alice", 5.0, 100 * pid, 1.5, Attribution(systemd_unit=unit, **by)
    )


@pytest.mark.parametrize(
    ("by", "workload"),
    [
        (Attribution("a.service", "", ID, POD, "7"), f"pod:{POD}"),
        (Attribution("a.service", "", ID, "", "7"), "slurm:7"),
        (Attribution("a.service", "", ID), "container:8c1f0b9e7a6d"),
        (Attribution("", "", "web-server-of-the-team"), "container:web-server-of-the-team"),
        (Attribution("a.service"), "unit:a.service"),
        (Attribution("a.service", "user@7.service"), "unit:user@7.service/a.service"),
        (Attribution(), "process:name3"),
    ],
)
def test_workload_is_the_first_of_five_kinds(by: Attribution, workload: str) -> None:
    """Pod, else Slurm job, else container, else unit, else the process's name."""
    assert replace(host(3), attribution=by).workload == workload


class Host:
    """Processes as the test sets them."""

    def __init__(self, *processes: HostProcess) -> None:
        self.there = {process.pid: process for process in processes}
        self.reads: list[int] = []
        self.kept: Collection[int] = ()
        self.samples_match = True
        self.are_ours = True

    def pids_match(self, _driver_version: str) -> bool:
        """Answer as set."""
        return self.are_ours

    def read(self, pid: int) -> HostProcess | None:
        """Look a process up."""
        self.reads.append(pid)
        return self.there.get(pid)

    def keep(self, pids: Collection[int]) -> None:
        """Note who is kept."""
        self.kept = pids


def on(pid: int, used: int | None, sm: float | None = 0.0) -> GpuProcess:
    """Return a process on a GPU."""
    return GpuProcess(pid, used, None if sm is None else Activity(sm, sm / 2, {}))


def gpu(
    *processes: GpuProcess, index: int = 0, busy: float = 0.0, joules: float | None = 0.0
) -> Gpu:
    """Return a GPU with these processes and counters."""
    return Gpu(
        index,
        f"GPU-{index}",
        utilization=Utilization(0.0, busy_seconds=busy),
        power=Power(energy_joules=joules),
        processes=Processes(len(processes), processes),
    )


def joined(joiner: Joiner, now: float, *gpus: Gpu) -> ProcessesView:
    """Join, and expect something."""
    view = joiner.join(gpus, "580.1", now)
    assert view is not None
    return view


def test_halves_are_joined_by_pid() -> None:
    """A process on two GPUs is on each of them, and once on the host and in its workload."""
    people = Host(host(7, "a.service"), host(8, "b.service"))
    view = joined(
        Joiner(people, Limits()),
        1.0,
        gpu(on(7, 100), on(8, 5)),
        gpu(on(7, 50), index=1),
    )
    assert [list(view.on_gpu[index].processes) for index in (0, 1)] == [
        [("7", "name7"), ("8", "name8")],
        [("7", "name7")],
    ]
    assert view.on_host.processes == (host(7, "a.service"), host(8, "b.service"))
    assert view.workloads.processes == {"unit:a.service": 1, "unit:b.service": 1}
    assert view.workloads.used_bytes == {"unit:a.service": 150, "unit:b.service": 5}


def test_process_that_cannot_be_seen_keeps_its_memory() -> None:
    """Its GPU memory has no name and no owner; nothing of the host is made up for it."""
    view = joined(Joiner(Host(), Limits()), 1.0, gpu(on(7, 100)))
    assert list(view.on_gpu[0].processes) == [("7", "")]
    assert view.on_host.processes == ()
    assert view.workloads.used_bytes == {UNKNOWN: 100}


def test_lightest_are_left_out_of_series_but_not_of_sums() -> None:
    """The two heaviest are shown; the others are counted, and stay with their workload."""
    people = Host(*(host(pid, "a.service") for pid in range(1, 6)))
    reading = gpu(on(1, 50), on(2, 40), on(3, 30), on(4, None), on(5, 10))
    view = joined(Joiner(people, Limits(processes_per_gpu=2)), 1.0, reading)
    assert list(view.on_gpu[0].processes) == [("1", "name1"), ("2", "name2")]
    assert (view.on_gpu[0].left_out, view.on_gpu[0].left_out_bytes) == (3, 40)
    assert [process.pid for process in view.on_host.processes] == [1, 2]
    assert view.workloads.used_bytes == {"unit:a.service": 130}
    assert view.workloads.processes == {"unit:a.service": 5}


def test_processes_beyond_those_told_apart_are_other() -> None:
    """What the reading only sums up is booked on one workload."""
    reading = replace(gpu(), processes=Processes(42, (on(1, 50),), 41, 900, 0.5))
    view = joined(Joiner(Host(host(1, "a.service")), Limits()), 1.0, reading)
    assert (view.on_gpu[0].left_out, view.on_gpu[0].left_out_bytes) == (41, 900)
    assert view.workloads.used_bytes == {"unit:a.service": 50, OTHER: 900}
    assert view.workloads.processes == {"unit:a.service": 1, OTHER: 41}


def test_series_end_with_the_process() -> None:
    """What the driver no longer lists is gone, and nothing of it is remembered."""
    people = Host(host(7, "a.service"), host(8, "b.service"))
    joiner = Joiner(people, Limits())
    joined(joiner, 1.0, gpu(on(7, 100), on(8, 5)))
    view = joined(joiner, 31.0, gpu(on(8, 5)))
    assert list(view.on_gpu[0].processes) == [("8", "name8")]
    assert [process.pid for process in view.on_host.processes] == [8]
    assert view.workloads.used_bytes == {"unit:b.service": 5}
    assert people.kept == {8}


def test_host_is_asked_only_when_a_gpu_was_read() -> None:
    """Between two readings nothing is looked up, and the view stays the same object."""
    people = Host(host(7), host(8))
    joiner = Joiner(people, Limits())
    first, second = gpu(on(7, 1)), gpu(on(8, 1), index=1)
    view = joined(joiner, 1.0, first, second)
    assert joined(joiner, 2.0, replace(first, sampled_at=2.0), second) is view
    assert people.reads == [7, 8]
    joined(joiner, 31.0, gpu(on(7, 2)), second)
    assert people.reads == [7, 8, 7]


def test_gpu_that_is_sick_takes_its_processes_with_it() -> None:
    """Its readings are gone; others keep theirs. Without any, there is no view."""
    joiner = Joiner(Host(host(7), host(8)), Limits())
    both = (gpu(on(7, 1)), gpu(on(8, 1), index=1))
    joined(joiner, 1.0, *both)
    assert set(joined(joiner, 2.0, Gpu(0, "GPU-0"), both[1]).on_gpu) == {1}
    assert joiner.join([Gpu(0, "GPU-0"), Gpu(1, "GPU-1")], "580.1", 3.0) is None


def test_pids_of_another_namespace_are_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """PIDs that are not ours are not looked up; samples of such PIDs tell of nobody; said once."""
    people = Host(host(7, "a.service"))
    people.samples_match = False
    joiner = Joiner(people, Limits())
    view = joined(joiner, 1.0, gpu(on(7, 100, 0.5)))
    assert view.on_gpu[0].processes["7", "name7"].activity is None
    people.are_ours = False
    view = joined(joiner, 31.0, gpu(on(7, 100, 0.5)))
    assert list(view.on_gpu[0].processes) == [("7", "")]
    assert len(people.reads) == len(caplog.messages) == 1


def test_time_and_energy_are_shared_out_by_sm_utilization() -> None:
    """30 s of a GPU: each workload held it as long; 20 busy seconds and 9 kJ go 3 : 1."""
    people = Host(host(7, "a.service"), host(8, "b.service"))
    joiner = Joiner(people, Limits())
    born = joined(joiner, 0.0, gpu(on(7, 1, 0.0), on(8, 1, 0.0), busy=5.0, joules=1000.0))
    assert set(born.workloads.accounts.values()) == {Account(0.0, 0.0, 0.0)}
    view = joined(joiner, 30.0, gpu(on(7, 1, 0.6), on(8, 1, 0.2), busy=25.0, joules=10_000.0))
    one, other = (view.workloads.accounts[f"unit:{name}.service"] for name in "ab")
    assert astuple(one) == pytest.approx((30.0, 15.0, 6750.0))
    assert astuple(other) == pytest.approx((30.0, 5.0, 2250.0))


def test_memory_decides_where_utilization_does_not() -> None:
    """Idle, or with MIG: in proportion to memory; without that, in equal parts."""
    for shares, parts in (
        ({"a": Share(0.0, 300), "b": Share(0.0, 100)}, (0.75, 0.25)),
        ({"a": Share(None, 300), "b": Share(None, 100)}, (0.75, 0.25)),
        ({"a": Share(None, None), "b": Share(0.0, None)}, (0.5, 0.5)),
    ):
        accounts = Accounts(9)
        accounts.open(shares, 0.0, Meter(0.0, None, 0.0))
        accounts.charge(shares, shares, Meter(0.0, None, 0.0), Meter(30.0, None, 100.0))
        joules = [accounts.all[name].energy_joules for name in ("a", "b")]
        assert joules == [100 * part for part in parts]
        assert [accounts.all[name].busy_seconds for name in ("a", "b")] == [None, None]


def test_workload_that_ended_meanwhile_pays_by_what_it_did_before() -> None:
    """Whoever was there at the first of two readings pays; whoever came since begins at 0."""
    joiner = Joiner(Host(host(7, "a.service"), host(8, "b.service")), Limits())
    joined(joiner, 0.0, gpu(on(7, 1, 0.5)))
    view = joined(joiner, 30.0, gpu(on(8, 1, 0.9), busy=10.0, joules=50.0))
    assert view.workloads.accounts == {
        "unit:a.service": Account(30.0, 10.0, 50.0),
        "unit:b.service": Account(0.0, 0.0, 0.0),
    }
    assert list(view.workloads.processes) == ["unit:b.service"]


def test_account_outlives_its_workload_for_five_minutes() -> None:
    """The last scrape finds all of it; then the series end, and a later one begins at 0."""
    joiner = Joiner(Host(host(7, "a.service")), Limits())
    joined(joiner, 0.0, gpu(on(7, 1)))
    ended = joined(joiner, 30.0, gpu())
    assert ended.workloads.processes == {}
    last = joined(joiner, LINGER_SECONDS, gpu())
    assert last.workloads.accounts == {"unit:a.service": Account(30.0, 0.0, 0.0)}
    assert joined(joiner, LINGER_SECONDS + 1.0, gpu()).workloads.accounts == {}
    back = joined(joiner, LINGER_SECONDS + 2.0, gpu(on(7, 1)))
    assert back.workloads.accounts == {"unit:a.service": Account(0.0, 0.0, 0.0)}


def test_counter_that_began_anew_charges_nobody() -> None:
    """After a reset of the GPU, or a reading without it, no energy is made up."""
    joiner = Joiner(Host(host(7, "a.service")), Limits())
    for second, joules in enumerate((500.0, 600.0, 20.0, None, 40.0, 45.0)):
        view = joined(joiner, float(second), gpu(on(7, 1), joules=joules))
    assert view.workloads.accounts["unit:a.service"].energy_joules == 105.0


def test_workloads_beyond_the_bound_share_one() -> None:
    """The bound holds, sums stay whole, and room is made by those that have ended."""
    people = Host(*(host(pid, f"{pid}.service") for pid in range(1, 9)))
    joiner = Joiner(people, Limits(workloads=2))
    view = joined(joiner, 0.0, gpu(*(on(pid, pid) for pid in range(1, 6))))
    assert view.workloads.used_bytes == {"unit:1.service": 1, "unit:2.service": 2, OTHER: 12}
    assert view.workloads.processes[OTHER] == 3
    joined(joiner, 30.0, gpu(on(2, 2)))
    view = joined(joiner, 60.0, gpu(on(2, 2), on(7, 7), on(8, 8)))
    assert view.workloads.used_bytes == {"unit:2.service": 2, "unit:7.service": 7, OTHER: 8}
    assert set(view.workloads.accounts) == {"unit:2.service", "unit:7.service", OTHER}


READINGS = st.lists(
    st.tuples(
        st.lists(
            st.builds(
                on,
                st.integers(1, 9),
                st.none() | st.integers(0, 1000),
                st.none() | st.floats(0, 1),
            ),
            min_size=1,
            max_size=9,
            unique_by=lambda process: process.pid,
        ),
        st.floats(0, 30),
        st.floats(0, 1e6),
    ),
    min_size=2,
    max_size=8,
)
Reading = tuple[list[GpuProcess], float, float]


@given(READINGS)
def test_sum_over_workloads_is_what_the_gpu_did(readings: list[Reading]) -> None:
    """Whoever comes and goes, no second and no joule is lost, or counted twice."""
    joiner = Joiner(Host(*(host(pid, f"{pid}.service") for pid in range(1, 8))), Limits())
    busy = joules = 0.0
    for turn, (processes, more_busy, more_joules) in enumerate(readings):
        if turn:
            busy, joules = busy + more_busy, joules + more_joules
        view = joined(joiner, 30.0 * turn, gpu(*processes, busy=busy, joules=joules))
    accounts = view.workloads.accounts.values()
    assert sum(account.busy_seconds or 0.0 for account in accounts) == pytest.approx(busy)
    assert sum(account.energy_joules or 0.0 for account in accounts) == pytest.approx(joules)


@given(READINGS, st.integers(1, 4))
def test_bound_on_workloads_holds(readings: list[Reading], most: int) -> None:
    """However many come: so many of their own, `other` and `unknown`; each process is in one."""
    joiner = Joiner(Host(*(host(pid, f"{pid}.service") for pid in range(1, 8))), Limits(20, most))
    for turn, (processes, _, _) in enumerate(readings):
        workloads = joined(joiner, 30.0 * turn, gpu(*processes)).workloads
        assert len(workloads.accounts) <= most + 2
        assert workloads.processes.keys() <= workloads.accounts.keys()
        assert sum(workloads.processes.values()) == len(processes)


@pytest.fixture
def children() -> Iterator[list[int]]:
    """Give the PIDs of two processes that wait, one of them with 32 MiB."""
    code = "import sys; data = bytearray({} << 20); print('ready', flush=True); sys.stdin.read()"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code.format(mib)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for mib in (32, 0)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_daemon_shows_real_processes(fake: FakeNvml, children: list[int]) -> None:
    """From driver and kernel to the page: memory, RSS, owner, workload; gone when it is over."""
    large, small = children
    fake.set(
        {
            f"gpu2.process.{large}": "4096,c,70",
            f"gpu2.process.{small}": "1024,c,0",
            "gpu2.process.4194302": "512,c,0",  # no PID of this host
        }
    )
    config = "poll: {slow: 1s}\nprocesses: {max_per_gpu: 2}"
    with running(env=fake.env(), config=config) as daemon:
        page = daemon.until(lambda page: page.value("gpu_processes", gpu="2") == 3)
        memory = {
            labels["pid"]: value for labels, value in page.all("gpu_process_memory_used_bytes")
        }
        assert memory == {str(large): 4096, str(small): 1024}
        assert page.value("gpu_processes_left_out", gpu="2") == 1
        assert page.value("gpu_processes_left_out_memory_used_bytes", gpu="2") == 512
        assert _rss(page, large) > 32 << 20
        comm = Path(f"/proc/{large}/comm").read_text().strip()
        [(info, _)] = page.all("gpu_process_info", pid=str(large))
        assert (info["process"], info["user"]) == (comm, getpass.getuser())
        workload = page.value("gpu_workload_processes", workload=info["workload"])
        assert workload == 2
        assert page.value("gpu_workload_memory_used_bytes", workload=UNKNOWN) == 512
        fake.clear(f"gpu2.process.{large}")
        page = daemon.until(lambda page: page.value("gpu_processes", gpu="2") == 2)
        assert not page.names(pid=str(large))


def _rss(page: Page, pid: int) -> float:
    return page.value("gpu_process_resident_memory_bytes", pid=str(pid)) or 0.0
