"""XID errors as a daemon's user sees them: on the page, over a restart, in a hang, in rules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon import Page, running
from fake_nvml import FakeNvml
from kernel_log_feed import USER, Fifo, kmsg, xid_line

BRISK = "poll: {fast: 250ms}\n"


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    """Give a FIFO in the place of /dev/kmsg."""
    fifo = Fifo(tmp_path / "kmsg")
    yield fifo
    fifo.close()


def total(page: Page, gpu: int, xid: int) -> float | None:
    """Return what is counted of a GPU."""
    return page.value("gpu_xid_errors_total", gpu=str(gpu), xid=str(xid))


def sources(page: Page) -> dict[str, float]:
    """Return which sources work."""
    return {own["source"]: value for own, value in page.all("gpu_exporter_xid_source_up")}


def addresses(page: Page) -> dict[str, str]:
    """Return the kernel's notation of each GPU's address, by index."""
    return {own["gpu"]: own["pci_bus_id"].removesuffix(".0") for own, _ in page.all("gpu_info")}


def test_errors_of_two_sources_on_the_page(fake: FakeNvml, fifo: Fifo, tmp_path: Path) -> None:
    """Once each, with meaning and time; a forged one not at all; and again after a restart."""
    flags = (f"--path.kmsg={fifo.path}", f"--storage.path={tmp_path / 'storage'}")
    with running(*flags, env=fake.env(), config=BRISK) as daemon:
        page = daemon.until(lambda page: sources(page) == {"nvml": 1, "kernel_log": 1})
        assert total(page, 3, 79) == 0
        assert total(page, 3, 78) is None
        bus = addresses(page)
        lines = [
            kmsg(xid_line(79, bus["3"])),
            kmsg(xid_line(48, bus["2"])),
            kmsg(xid_line(79, bus["5"]), priority=USER),
            kmsg(xid_line(119, "0000:f0:00")),
        ]
        fake.xid(2, 48)
        fifo.write(*lines)
        page = daemon.until(
            lambda page: (
                total(page, 3, 79) == total(page, 2, 48) == 1
                and page.value("gpu_exporter_xid_events_total", source="nvml", result="counted")
                != page.value("gpu_exporter_xid_events_total", source="nvml", result="duplicate")
            )
        )
        assert total(page, 5, 79) == 0
        (labels, since), *more = page.all("gpu_xid_last_timestamp_seconds", gpu="3")
        assert not more
        assert labels["class"] == "critical"
        assert (labels["mnemonic"], labels["action"]) == (
            "ROBUST_CHANNEL_GPU_HAS_FALLEN_OFF_THE_BUS",
            "RESTART_BM",
        )
        assert page.value("gpu_xid_unlisted_errors_total", pci_bus_id="0000:f0:00.0") == 1
        daemon.eventually(
            lambda: True if "119" in (tmp_path / "storage/xids.json").read_text() else None
        )
        assert daemon.stop()[0] == 0
    fifo.write(*lines, kmsg(xid_line(79, bus["3"])))
    with running(*flags, env=fake.env(), config=BRISK) as daemon:
        page = daemon.until(lambda page: total(page, 3, 79) is not None)
        # The first page with counters has all of them: nothing goes down, nothing old goes up.
        assert (total(page, 3, 79), total(page, 2, 48), total(page, 0, 79)) == (2, 1, 0)
        assert page.value("gpu_xid_last_timestamp_seconds", gpu="3", xid="79") != since


def test_a_hung_wait_costs_nothing_else(fake: FakeNvml, fifo: Fifo) -> None:
    """With NVML's wait hung, pages, the kernel log and the end of the daemon go on."""
    gate = fake.folder / "gate"
    gate.touch()
    fake.set({"call.nvmlEventSetWait_v2.block_until_removed": gate})
    with running(f"--path.kmsg={fifo.path}", env=fake.env(), config=BRISK) as daemon:
        page = daemon.until(lambda page: sources(page).get("kernel_log") == 1)
        fifo.write(kmsg(xid_line(79, addresses(page)["0"])))
        page = daemon.until(lambda page: total(page, 0, 79) == 1)
        assert page.up() == [1] * 8
        assert fake.calls().count("nvmlEventSetWait_v2") == 1
        code, seconds = daemon.stop()
    assert code == 0
    assert seconds < 5


def test_the_collector_can_be_switched_off(fake: FakeNvml) -> None:
    """Then there is no series, and NVML is asked for no event."""
    with running("--no-collector.xid", env=fake.env(), config=BRISK) as daemon:
        assert not [name for name in daemon.after_polls(2).names() if "xid" in name]
    assert fake.calls().count("nvmlEventSetCreate") == 0
    off = BRISK + "collectors: {xid: false}\n"
    with running("--simulate=t4", "--simulate.xid=0:0:31", config=off) as daemon:
        assert not [name for name in daemon.page().names() if "xid" in name]
        daemon.config_file.write_text(BRISK)
        assert daemon.get("/-/reload", "POST").status == 200
        daemon.until(lambda page: total(page, 0, 31) == 1)
        daemon.config_file.write_text(off)
        assert daemon.get("/-/reload", "POST").status == 200
        daemon.until(lambda page: not [name for name in page.names() if "xid" in name])


def test_a_simulated_node_has_the_errors_that_were_planted() -> None:
    """They come as from NVML; this machine's kernel log is none of a simulated node's."""
    flags = "--simulate=h100x8", "--simulate.xid=0.5:3:79", "--simulate.xid=0:0:31"
    with running(*flags, config=BRISK) as daemon:
        page = daemon.until(lambda page: total(page, 3, 79) == total(page, 0, 31) == 1)
        assert sources(page) == {"nvml": 1}
        assert not page.all("gpu_exporter_xid_events_total", source="kernel_log")


BUSY = """
poll: {fast: 250ms}
rules:
  - {alert: Busy, metric: gpu_temperature_celsius, above: 1, for: 2s, actions: [scale-out]}
actions:
  - {name: scale-out, receiver: nobody, dry_run: true}
receivers:
  - {name: nobody, webhook_configs: [{url: "http://127.0.0.1:9/"}]}
"""


@pytest.mark.parametrize(("xid", "result"), [(79, "ignored"), (31, "dry_run")])
def test_a_critical_xid_keeps_a_gpu_from_asking_for_replicas(xid: int, result: str) -> None:
    """The load of a GPU that is hurt says nothing; an application's error changes nothing."""
    with running("--simulate=t4", f"--simulate.xid=0:0:{xid}", config=BUSY) as daemon:
        page = daemon.until(
            lambda page: any(
                value for own, value in page.all("scaleout_events_total", action="scale-out")
            )
        )
        assert total(page, 0, xid) == 1
        assert page.value("scaleout_events_total", action="scale-out", result=result) == 1
