"""The real daemon when GPUs or the driver fail: what is sick costs only itself, and is told."""

from __future__ import annotations

import signal
import time

import pytest
from daemon import Daemon, Page, running
from fake_nvml import FakeNvml

BRISK = "poll: {fast: 250ms, slow: 1s, deadline: 240ms}\n"  # a slow machine makes none hung
ENERGY = "gpu_energy_joules_total"  # the fake's counter moves with time: whoever reads it sees that
OF_A_SICK_GPU = {
    *("gpu_up", "gpu_fault", "gpu_exporter_sample_age_seconds"),
    *("gpu_xid_errors_total", "gpu_xid_last_timestamp_seconds"),
}
FRESH_SECONDS = 2.5
WATCH_SECONDS = 4.0


def healthy(*sick: int) -> list[float]:
    """Return gpu_up of eight GPUs of which these are sick."""
    return [float(gpu not in sick) for gpu in range(8)]


def staleness(daemon: Daemon, gpus: list[int]) -> dict[int, float]:
    """Scrape for some seconds; return the longest time that a GPU's energy did not move."""
    last: dict[int, tuple[float | None, float]] = {}
    longest = dict.fromkeys(gpus, 0.0)
    until = time.monotonic() + WATCH_SECONDS
    while (now := time.monotonic()) < until:
        page = daemon.page()
        for gpu in gpus:
            energy = page.value(ENERGY, gpu=str(gpu))
            if energy is None or gpu not in last or energy != last[gpu][0]:
                last[gpu] = energy, now
            longest[gpu] = max(longest[gpu], now - last[gpu][1])
            assert energy is not None, gpu
            age = page.value("gpu_exporter_sample_age_seconds", gpu=str(gpu))
            assert age is not None
            assert age < FRESH_SECONDS
    return longest


def is_bare(page: Page, gpu: int, reason: str) -> bool:
    """Return whether a page tells of a GPU only that it is sick, and why."""
    return (
        page.value("gpu_up", gpu=str(gpu)) == 0
        and page.fault(gpu) == {reason}
        and page.names(gpu=str(gpu)) <= OF_A_SICK_GPU
    )


@pytest.mark.slow
def test_one_of_eight_lost_and_back(fake: FakeNvml) -> None:
    """It is down with its reason and no readings, the others go on; it comes back by itself."""
    with running(env=fake.env(), config=BRISK) as daemon:
        before = daemon.after_polls(2)
        fake.set({"gpu3.lost": 1})
        page = daemon.until(lambda page: page.up() != healthy())
        assert page.up() == healthy(3)
        assert is_bare(page, 3, "lost")
        assert page.names(gpu="4") == before.names(gpu="4")
        assert daemon.ready() == (200, "ready\n")
        later = daemon.after_polls(4)
        assert is_bare(later, 3, "lost")
        assert later.value(ENERGY, gpu="4") > page.value(ENERGY, gpu="4")  # type: ignore[operator]
        told = f"GPU 3 ({_uuid(before, 3)}) gives no readings: lost"
        assert daemon.messages("error").count(told) == 1
        fake.set({"gpu3.lost": 0})
        daemon.until(lambda page: page.up() == healthy())
        page = daemon.until(lambda page: page.names(gpu="3") == before.names(gpu="3"))
        assert page.fault(3) == set()
        assert _uuid(page, 3) == _uuid(before, 3)
        assert f"GPU 3 ({_uuid(page, 3)}) answers again (was lost)" in daemon.messages("info")
        assert page.value("gpu_exporter_read_errors_total", group="device", error="lost") == 1


def _uuid(page: Page, gpu: int) -> str:
    ((labels, _),) = page.all("gpu_up", gpu=str(gpu))
    return labels["uuid"]


@pytest.mark.slow
def test_one_of_eight_hung_and_released(fake: FakeNvml) -> None:
    """With the default pace: the other seven stay fresh, and it comes back when it can.

    It holds one thread, however long it hangs.
    """
    with running(env=fake.env()) as daemon:
        daemon.after_polls(2)
        fake.hang(3)
        page = daemon.until(lambda page: page.up() != healthy())
        assert page.up() == healthy(3)
        assert is_bare(page, 3, "hung")
        daemon.after_polls(1)
        threads = daemon.threads
        longest = staleness(daemon, [0, 1, 2, 4, 5, 6, 7])
        assert max(longest.values()) < FRESH_SECONDS, longest
        page = daemon.page()
        assert is_bare(page, 3, "hung")
        age = page.value("gpu_exporter_sample_age_seconds", gpu="3")
        assert age is not None
        assert age > WATCH_SECONDS
        assert daemon.ready() == (200, "ready\n")
        assert daemon.threads == threads
        fake.release(3)
        page = daemon.until(lambda page: page.up() == healthy())
        assert page.value(ENERGY, gpu="3")
        assert daemon.threads == threads


@pytest.mark.slow
def test_scrape_answers_while_a_poll_waits_for_a_hung_gpu(fake: FakeNvml) -> None:
    """In the time that a poll gives a GPU to answer, pages of the poll before are served."""
    with running(env=fake.env(), config="poll: {fast: 3s, deadline: 2900ms}\n") as daemon:
        fake.hang(3)
        asked = fake.calls().count("nvmlDeviceGetUtilizationRates", 2)
        daemon.eventually(
            lambda: fake.calls().count("nvmlDeviceGetUtilizationRates", 2) > asked or None
        )
        for _ in range(5):
            assert daemon.page().up() == healthy()
        daemon.until(lambda page: page.up() == healthy(3))


@pytest.mark.slow
def test_hung_at_the_start(fake: FakeNvml) -> None:
    """A GPU that hangs before its name is known: the others are found, and it is, once it wakes."""
    fake.hang(3)
    with running(env=fake.env(), config=BRISK) as daemon:
        page = daemon.until(lambda page: page.up() == healthy(3))
        assert is_bare(page, 3, "hung")
        assert _uuid(page, 3) == ""
        assert daemon.ready() == (200, "ready\n")
        fake.release(3)
        page = daemon.until(lambda page: page.up() == healthy())
        assert _uuid(page, 3).startswith("GPU-")
        daemon.wait_for_log("answers again (was hung)")


def test_all_lost_and_back(fake: FakeNvml) -> None:
    """Not one GPU answers: the daemon lives, is not ready and says why; the host stays fresh."""
    with running(env=fake.env(), config=BRISK) as daemon:
        fake.set({"gpu*.lost": 1})
        page = daemon.until(lambda page: page.up() == [0.0] * 8)
        assert all(is_bare(page, gpu, "lost") for gpu in range(8))
        assert daemon.ready() == (503, "not ready: no GPU gives readings: lost\n")
        cpu = sum(value for _, value in page.all("host_cpu_seconds_total"))
        daemon.until(lambda page: sum(v for _, v in page.all("host_cpu_seconds_total")) > cpu)
        fake.set({"gpu*.lost": 0})
        daemon.until(lambda page: page.up() == healthy())
        assert daemon.ready() == (200, "ready\n")


def test_one_forbidden_and_allowed_later(fake: FakeNvml) -> None:
    """A GPU that this user may not open is down for that reason; once allowed, it is read."""
    fake.set({"gpu5.call.nvmlDeviceGetHandleByIndex_v2.ret": 4})
    with running(env=fake.env(), config=BRISK) as daemon:
        page = daemon.page()
        assert page.up() == healthy(5)
        assert is_bare(page, 5, "no_permission")
        assert page.value("gpu_devices", source="nvml") == 8
        fake.clear("gpu5.call.nvmlDeviceGetHandleByIndex_v2.ret")
        page = daemon.until(lambda page: page.up() == healthy())
        assert page.value("gpu_power_watts", gpu="5")


def test_a_call_that_fails_now_and_then_costs_its_group_at_those_polls(fake: FakeNvml) -> None:
    """Every third power reading fails: absent then, counted, logged at its edges; never 0."""
    power = "nvmlDeviceGetPowerUsage"
    fake.set({f"gpu2.call.{power}.ret": 999, f"gpu2.call.{power}.every": 3})
    with running(env=fake.env(), config=BRISK) as daemon:
        seen: dict[float, float | None] = {}
        last = daemon.page().polls + 9
        while (page := daemon.page()).polls < last or None not in seen.values():
            seen[page.polls] = page.value("gpu_power_watts", gpu="2")
            assert page.value("gpu_temperature_celsius", gpu="2")
            assert page.value("gpu_power_watts", gpu="1")
            assert page.up() == healthy()
        failed = {polls % 3 for polls, watts in seen.items() if watts is None}
        assert len(failed) == 1
        assert all(watts is None or watts > 50 for watts in seen.values())
        assert not failed & {polls % 3 for polls, watts in seen.items() if watts is not None}
        before = fake.calls().count(power, 2) // 3
        page = daemon.page()
        errors = page.value("gpu_exporter_read_errors_total", group="power", error="unknown")
        assert errors is not None  # the call that is counted last may be of the next poll
        assert before - 1 <= errors <= fake.calls().count(power, 2) // 3
        assert page.value("gpu_exporter_polls_total", result="partial") == errors
        assert "GPU 2: cannot read power: unknown" in daemon.messages("warning")
        assert "GPU 2: power is read again" in daemon.messages("info")


@pytest.mark.slow
def test_calls_that_block_hang_alone(fake: FakeNvml) -> None:
    """PCIe sampling that hangs on an L40S costs that GPU its rate, and no poll its time."""
    fake.set(profile="l40s")
    rate = "gpu_pcie_transmit_bytes_per_second"
    config = "poll: {fast: 250ms, pcie: 1s}\n"
    with running(env=fake.env(), config=config) as daemon:
        daemon.until(lambda page: len(page.all(rate)) == 4)
        fake.hang(1, "nvmlDeviceGetPcieThroughput")
        page = daemon.until(lambda page: not page.all(rate, gpu="1"))
        assert page.up() == [1.0] * 4
        assert page.value("gpu_power_watts", gpu="1")
        others = daemon.after_polls(8)
        assert len(others.all(rate)) == 3
        skipped = others.value("gpu_exporter_polls_total", result="skipped")
        assert skipped is not None
        assert skipped <= others.polls / 4  # a slow machine skips one; the hang would skip seven
        fake.release(1)
        daemon.until(lambda page: len(page.all(rate)) == 4)


def test_driver_that_goes_away_ends_the_process(fake: FakeNvml) -> None:
    """A library whose driver was unloaded cannot be replaced: exit 1, one line, no traceback."""
    with running(env=fake.env(), config=BRISK) as daemon:
        daemon.after_polls(2)
        fake.set({"ret": 1})
        assert daemon.process.wait(10) == 1
        gone = "the driver is gone (uninitialized); only a new process can load another"
        assert daemon.messages("error") == [gone]
        assert "Traceback" not in daemon.log


def test_slow_driver_is_read_side_by_side_but_not_its_batches(fake: FakeNvml) -> None:
    """While a poll takes long, GPUs are read at once; fields and profiling one at a time."""
    fake.set({"gpu*.call.nvmlDeviceGetPowerUsage.delay_ms": 60})
    with running(env=fake.env()) as daemon:
        daemon.eventually(lambda: True if fake.calls().max_in_flight >= 4 else None)
        page = daemon.after_polls(2)
        assert page.up() == healthy()
    calls = fake.calls()
    assert calls.max_in_flight_batch == 1
    assert max(calls.max_in_flight_by_gpu.values()) == 1
    assert (calls.gpm_reused, calls.gpm_swapped, calls.gpm_short_window) == (0, 0, 0)


@pytest.mark.slow
def test_nothing_stale_is_shown_after_the_process_was_stopped(fake: FakeNvml) -> None:
    """Frozen for 8 s, the first scrape after it has readings of now or none; then all is back."""
    with running(env=fake.env()) as daemon:
        before = daemon.after_polls(2)
        daemon.process.send_signal(signal.SIGSTOP)
        time.sleep(8)
        daemon.process.send_signal(signal.SIGCONT)
        page = daemon.page()
        for gpu in map(str, range(8)):
            energy = page.value(ENERGY, gpu=gpu)
            if energy is None:
                assert page.value("gpu_up", gpu=gpu) == 0
                assert page.names(gpu=gpu) <= OF_A_SICK_GPU
            else:  # 8 s at the least power that it draws
                assert energy > before.value(ENERGY, gpu=gpu) + 8 * 70  # type: ignore[operator]
        daemon.until(lambda page: page.up() == healthy())
        assert daemon.ready() == (200, "ready\n")
