"""Golden pages: what the daemon shows for known machines, byte for byte.

`pytest tests/test_golden.py --update` writes them anew; read the diff.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from scripted import Clock

from exporter.board import Plan
from exporter.catalogue import GPU_READERS
from exporter.exposition import Page
from exporter.poll import Poller, Sources
from exporter.sampling import Fault
from exporter.simulate import PROFILES, SimulatedDriver
from exporter.snapshot import Build, Reload, Snapshot

GOLDEN = Path(__file__).parent / "golden"
PLAN = Plan(
    readers=GPU_READERS,
    fast_seconds=1.0,
    slow_seconds=30.0,
    blocking_seconds=5.0,
    deadline_seconds=0.2,
)
MACHINES: dict[str, tuple[str, Mapping[int, Fault]]] = {
    **{profile: (profile, {}) for profile in PROFILES},
    "h100x8-one-lost": ("h100x8", {3: Fault.LOST}),
    "h100x8-one-hung": ("h100x8", {3: Fault.HUNG}),
    "h100x8-one-forbidden": ("h100x8", {3: Fault.NO_PERMISSION}),
}


def observe(profile: str, faults: Mapping[int, Fault]) -> Snapshot:
    """Return the snapshot of a simulated machine 90 s into its scenario; faults strike at 88 s."""
    clock = Clock()
    struck: dict[int, Fault] = {g: f for g, f in faults.items() if f is Fault.NO_PERMISSION}
    driver = SimulatedDriver(profile, clock, faults=struck)
    poller = Poller(
        Sources(
            driver,
            Build("1.0.0", "3.10", simulated=True),
            lambda: None,
            clock,
            driver.processes(1.7e9),
        ),
        PLAN,
        (),
        Reload(successful=True, success_timestamp_seconds=1.7e9),
    )
    for second in range(1, 91):
        clock.seconds += 1
        if second == 88:
            struck.update(faults)
        snapshot = poller.tick()
        poller._blocking_crew.wait(60)
    driver.release()
    return replace(snapshot, read_seconds={})


@pytest.mark.parametrize("machine", MACHINES)
def test_page_of_a_known_machine(machine: str, request: pytest.FixtureRequest) -> None:
    """The page of this machine is exactly the one that was reviewed."""
    page = Page(openmetrics=False).plain(observe(*MACHINES[machine])).decode()
    golden = GOLDEN / f"{machine}.prom"
    if request.config.getoption("--update"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(page)
    assert page == golden.read_text()


@pytest.mark.parametrize("fault", ["lost", "hung", "forbidden"])
def test_sick_gpu_leaves_only_what_is_known_of_it(fault: str) -> None:
    """With GPU 3 sick, its page has gpu_up 0, its reason and its age; the others have all."""
    healthy, sick = (
        (GOLDEN / f"{name}.prom").read_text().splitlines()
        for name in ("h100x8", f"h100x8-one-{fault}")
    )
    reason = {"forbidden": "no_permission"}.get(fault, fault)
    of_gpu_3 = [line for line in sick if 'gpu="3"' in line and not line.startswith("#")]
    names = {line.split("{")[0] for line in of_gpu_3}
    assert names <= {"gpu_up", "gpu_fault", "gpu_exporter_sample_age_seconds"}
    assert next(line for line in of_gpu_3 if line.startswith("gpu_up")).endswith(" 0")
    assert [line.split('reason="')[1] for line in of_gpu_3 if line.endswith('"} 1')] == [
        f'{reason}"}} 1'
    ]
    for other in "0124567":
        series = [
            [n.rpartition(" ")[0] for n in page if f'gpu="{other}"' in n]
            for page in (healthy, sick)
        ]
        assert series[0] == series[1]
