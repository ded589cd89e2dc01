"""The real daemon on the fake driver library: what it shows, and how it is run."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest
from daemon import Daemon, Page, running
from fake_nvml import LIBRARY, FakeNvml
from http_client import connect, get

BRISK = "poll: {fast: 250ms, deadline: 240ms}\n"  # a slow machine makes none hung
SENDS = """
receivers: [{name: scaler, webhook_configs: [{url: "http://127.0.0.1:9"}]}]
"""
MIB = 1 << 20

MEMORY = {f"gpu_memory_{what}_bytes" for what in ("total", "used", "free", "reserved")}
MEMORY |= {"gpu_memory_used_ratio"}
BAR1 = {f"gpu_bar1_memory_{what}_bytes" for what in ("total", "used", "free")}
NVLINK = {"gpu_nvlink_active", "gpu_nvlink_errors_total", "gpu_nvlink_info"}
NVLINK |= {"gpu_nvlink_speed_bytes_per_second"}
NVLINK |= {f"gpu_nvlink_link_{way}_bytes_total" for way in ("transmit", "receive")}
NVLINK |= {f"gpu_nvlink_{way}_bytes_per_second" for way in ("transmit", "receive")}
NVLINK |= {f"gpu_nvlink_{way}_bytes_total" for way in ("transmit", "receive")}
PCIE_RATES = {f"gpu_pcie_{way}_bytes_per_second" for way in ("transmit", "receive")}
POWER = {"gpu_power_watts", "gpu_energy_joules_total", "gpu_power_limit_watts"}
EVENTS = {"gpu_clock_event_active", "gpu_clock_event_seconds_total"}
LOAD = {"gpu_utilization_ratio", "gpu_memory_activity_ratio", "gpu_busy_seconds_total"}
PCIE_LINK = {"gpu_pcie_link_generation", "gpu_pcie_link_width", "gpu_pcie_replays_total"}
PCIE_LINK |= {"gpu_pcie_errors_total"}
BEFORE_NVLINK_5, NVLINK_5 = {"gpu_nvlink_bit_error_ratio"}, {"gpu_nvlink_data_errors_total"}
NVLINK |= BEFORE_NVLINK_5 | NVLINK_5
PROFILING = {
    *("gpu_graphics_engine_active_ratio", "gpu_sm_active_ratio", "gpu_sm_occupancy_ratio"),
    *("gpu_tensor_active_ratio", "gpu_dram_active_ratio", "gpu_pipe_active_ratio"),
}
HBM, FANS = {"gpu_memory_temperature_celsius"}, {"gpu_fan_speed_ratio"}
THRESHOLDS, CORE = {"gpu_temperature_threshold_celsius"}, {"gpu_temperature_celsius"}
ALWAYS = {
    *("gpu_up", "gpu_fault", "gpu_info", "gpu_clock_hertz", "gpu_clock_max_hertz"),
    *("gpu_performance_state", "gpu_engine_utilization_ratio", "gpu_exporter_sample_age_seconds"),
}
EVERYTHING = ALWAYS.union(
    *(
        MEMORY,
        BAR1,
        NVLINK,
        PCIE_RATES,
        POWER,
        EVENTS,
        LOAD,
        PCIE_LINK,
        HBM,
        FANS,
        THRESHOLDS,
        CORE,
        PROFILING,
    )
)
LACKS = {
    "h100x8": FANS | BEFORE_NVLINK_5,
    "b200x8": FANS | NVLINK_5,
    "l40s": FANS | PROFILING | HBM | NVLINK,
    "t4": FANS | PROFILING | HBM | NVLINK,
    "geforce": HBM | PROFILING | NVLINK,
    "a100-mig": FANS | PROFILING | NVLINK | LOAD | {"gpu_engine_utilization_ratio"},
    "gb10": (FANS | PROFILING | HBM | NVLINK | MEMORY | BAR1 | POWER | PCIE_RATES | THRESHOLDS)
    - {"gpu_power_watts"}
    | {"gpu_pcie_replays_total", "gpu_pcie_errors_total"},
}


@pytest.mark.parametrize("profile", LACKS)
def test_a_page_has_what_the_board_has(fake: FakeNvml, profile: str) -> None:
    """Each board shows all that it answers, and no series for what it does not."""
    fake.set(profile=profile)
    with running(env=fake.env(), config=BRISK) as daemon:
        daemon.after_polls(2)
        page = daemon.until(lambda page: PCIE_RATES & page.names() or profile == "gb10")
        assert daemon.messages("warning") == daemon.messages("error") == []
    assert EVERYTHING - page.names(gpu="0") == LACKS[profile]
    assert set(page.up()) == {1.0}
    assert page.value("gpu_exporter_read_errors_total") is None
    assert page.value("gpu_exporter_nvml_up") == 1


def test_a_reading_is_on_the_page_two_polls_later_in_base_units(fake: FakeNvml) -> None:
    """Per cent, MHz, mW, mJ, KiB and MiB/s become ratios, Hz, W, J and bytes; of that GPU alone."""
    with running(env=fake.env()) as daemon:
        fake.set(
            {
                "gpu2.util": 73,
                "gpu2.memory_util": 41,
                "gpu2.temp": 83,
                "gpu2.memory_temp": 91,
                "gpu2.power_mw": 412_500,
                "gpu2.memory_used": 60_000 * MIB,
                "gpu2.clock_sm": 1755,
                "gpu2.reasons": 0x24,
                "gpu2.pcie_tx_bytes_per_second": 3_000 * MIB,
                "gpu2.field.83.value": 123_456_789,
                "gpu2.field.74.value": 1_500_000_000,
                "gpu2.field.138.value": 1 << 40,
            }
        )
        page = daemon.after_polls(2)
        # Means, whose start may lie before the change.
        rate = "gpu_pcie_transmit_bytes_per_second"
        busy = daemon.until(
            lambda p: p.value(rate, gpu="2") == pytest.approx(3_000 * MIB, rel=1e-3)
        )
        daemon.until(lambda p: p.value("gpu_utilization_ratio", gpu="2") == 0.73)
    of_gpu_2 = {
        "gpu_memory_activity_ratio": 0.41,
        "gpu_temperature_celsius": 83,
        "gpu_memory_temperature_celsius": 91,
        "gpu_power_watts": 412.5,
        "gpu_memory_used_bytes": 60_000 * MIB,
        "gpu_memory_total_bytes": 81_559 * MIB,
        "gpu_memory_reserved_bytes": 479 * MIB,
        "gpu_memory_free_bytes": 21_080 * MIB,
        "gpu_memory_used_ratio": pytest.approx(60_000 / 81_559),
        "gpu_energy_joules_total": 123_456.789,
    }
    assert {name: page.value(name, gpu="2") for name in of_gpu_2} == of_gpu_2
    assert page.value("gpu_clock_hertz", gpu="2", domain="sm") == 1_755_000_000
    assert page.value("gpu_clock_event_seconds_total", gpu="2", reason="sw_power_cap") == 1.5
    active = page.all("gpu_clock_event_active", gpu="2")
    reasons = {labels["reason"] for labels, value in active if value}
    assert reasons == {"sw_power_cap", "sw_thermal_slowdown"}
    assert page.value("gpu_nvlink_transmit_bytes_total", gpu="2") == 1 << 50
    assert page.value("gpu_temperature_celsius", gpu="3") != 83
    assert busy.value(rate, gpu="3") < 2_000 * MIB  # type: ignore[operator]  # a None fails as well


def test_busy_seconds_are_the_integral_of_the_load(fake: FakeNvml) -> None:
    """At 50 % each second adds half a one, no less and no more."""
    fake.set({"gpu*.util": 50})
    with running(env=fake.env(), config=BRISK) as daemon:
        started = time.monotonic()
        first = daemon.after_polls(1)
        last = daemon.after_polls(6)
        elapsed = time.monotonic() - started
    name = "gpu_busy_seconds_total"
    polls = last.polls - first.polls
    for gpu in map(str, range(8)):
        busy = last.value(name, gpu=gpu) - first.value(name, gpu=gpu)  # type: ignore[operator]
        assert 0.9 * polls * 0.25 / 2 <= busy <= elapsed / 2


def test_a_library_that_cannot_be_loaded_leaves_the_host(tmp_path: Path) -> None:
    """Without a driver the daemon lives, says why once, and shows the host; it is not ready."""
    (tmp_path / LIBRARY).write_text("no library\n")
    env = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    with running(env=env, config=BRISK) as daemon:
        page = daemon.after_polls(2)
        status, text = daemon.ready()
        (warning,) = daemon.messages("warning")
    assert page.value("gpu_exporter_nvml_up") == 0
    assert page.value("host_memory_total_bytes")
    ours = ("gpu_exporter_", "gpu_rule_", "gpu_recorder_")
    of_gpus = {name for name in page.names() if name.startswith("gpu_")}
    assert {name for name in of_gpus if not name.startswith(ours)} == {"gpu_devices"}
    assert page.all("gpu_devices", source="nvml") == []
    assert status == 503
    for said in (text, warning):
        assert f"{LIBRARY}: " in said
        assert "install the NVIDIA driver, or mount its library into the container" in said


@pytest.mark.slow(15)
def test_a_driver_that_comes_late_is_picked_up(fake: FakeNvml) -> None:
    """While its module is not loaded, that is said once; then all GPUs are there."""
    fake.set({"init.ret": 9})
    with running(env=fake.env()) as daemon:
        assert daemon.page().value("gpu_exporter_nvml_up") == 0
        assert daemon.ready()[0] == 503
        daemon.eventually(lambda: True if fake.calls().inits >= 2 else None)
        (warning,) = daemon.messages("warning")
        assert "driver_not_loaded" in warning
        assert "modprobe nvidia" in warning
        fake.clear("init.ret")
        page = daemon.until(lambda page: page.value("gpu_exporter_nvml_up"))
        assert page.up() == [1.0] * 8
        assert daemon.ready() == (200, "ready\n")
        daemon.after_polls(3)
        assert fake.calls().inits == 3  # none for a scrape or a poll
        assert len(daemon.messages("warning")) == 1


def _reload(daemon: Daemon, how: str) -> None:
    if how == "signal":
        daemon.process.send_signal(signal.SIGHUP)
    else:
        daemon.get("/-/reload", "POST")


RELOADED = "gpu_exporter_config_last_reload_successful"


@pytest.mark.parametrize("how", ["signal", "request"])
def test_reload_takes_a_good_config_and_keeps_the_old_for_a_bad_one(
    fake: FakeNvml, how: str
) -> None:
    """A collector goes off and on by config; a bad file changes nothing but the metric and log."""
    with running(env=fake.env(), config=BRISK) as daemon:
        assert "gpu_power_watts" in daemon.page().names()
        daemon.config_file.write_text(BRISK + "collectors: {power: false}\n")
        _reload(daemon, how)
        page = daemon.until(lambda page: "gpu_power_watts" not in page.names())
        assert not POWER & page.names()
        assert page.value(RELOADED) == 1
        good_at = page.value("gpu_exporter_config_last_reload_success_timestamp_seconds")
        daemon.config_file.write_text("poll: {fast: 1 hour}\ncolectors: {}\n")
        _reload(daemon, how)
        page = daemon.until(lambda page: page.value(RELOADED) == 0)
        page = daemon.after_polls(2)
        assert "gpu_power_watts" not in page.names()
        assert page.value("gpu_exporter_config_last_reload_success_timestamp_seconds") == good_at
        mistakes = daemon.messages("error")
        assert [f"{daemon.config_file}:{line}:" in m for line, m in enumerate(mistakes, 1)] == [
            True,
            True,
        ]
        daemon.config_file.write_text(BRISK)
        _reload(daemon, how)
        page = daemon.until(lambda page: "gpu_power_watts" in page.names())
        assert page.value(RELOADED) == 1
        assert daemon.ready()[0] == 200


def test_reload_by_request_answers_what_is_wrong(fake: FakeNvml) -> None:
    """200 for a good file, 500 with every mistake for a bad one, 405 for a GET."""
    with running(env=fake.env()) as daemon:
        assert daemon.get("/-/reload", "POST").status == 200
        daemon.config_file.write_text("nonsense: 1\n")
        answer = daemon.get("/-/reload", "POST")
        assert answer.status == 500
        assert f"{daemon.config_file}:1:1: ".encode() in answer.body
        assert daemon.get("/-/reload").status == 405


def test_flag_of_a_collector_is_stronger_than_the_config(fake: FakeNvml) -> None:
    """What the command line switches on or off stays so, whatever the file says."""
    flags = ("--collector.power", "--no-collector.temperature", "--no-collector.host_memory")
    config = "collectors: {power: false, temperature: true, memory: false}\n"
    with running(*flags, env=fake.env(), config=config) as daemon:
        names = daemon.page().names()
    assert names >= POWER | LOAD
    assert not names & (CORE | HBM | THRESHOLDS | MEMORY | BAR1)
    assert "host_memory_total_bytes" not in names
    assert "host_swap_total_bytes" in names


def test_every_address_is_served() -> None:
    """IPv4 and IPv6 side by side give the same page; the log names each."""
    with socket.socket(socket.AF_INET6) as sock:
        try:
            sock.bind(("::1", 0))
        except OSError as error:
            pytest.skip(f"this machine has no IPv6: {error}")
    listen = ("127.0.0.1:0", "[::1]:0", "127.0.0.1:0")
    with running("--simulate=t4", listen=listen) as daemon:
        assert [host for host, _ in daemon.addresses] == ["127.0.0.1", "::1", "127.0.0.1"]
        for host, port in daemon.addresses:
            with connect(port, host) as client:
                assert Page(client.get().body.decode()).up() == [1.0]


def test_http_in_the_whole(fake: FakeNvml) -> None:
    """A path of its own for the metrics; HEAD without a body; 404 and 405; the page for people."""
    with running("--web.telemetry-path=/gpus", env=fake.env()) as daemon:
        with connect(daemon.port) as client:
            body = client.get("/gpus").body
            client.send(get("/gpus", method="HEAD"))
            head = client.answer(bodiless=True)
            assert (head.status, client.get("/gpus").status) == (200, 200)
            assert abs(int(head.headers["content-length"]) - len(body)) < 2_000
            assert client.get("/metrics").status == 404
            assert client.get("/-/healthy").body == b"healthy\n"
            assert b"8 \xc3\x97 NVIDIA H100 80GB HBM3" in client.get("/").body
        refused = daemon.get("/gpus", "POST")
        assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")


def test_threads_share_one_heap() -> None:
    """No thread has a heap of its own, for which glibc would reserve 64 MiB of addresses."""
    with running("--simulate") as daemon:
        daemon.after_polls(3)
        assert daemon.threads > 3
        maps = (daemon.proc / "maps").read_text()
    reserved = re.findall(r"^(\w+)-(\w+) ---p .* 0 +$", maps, re.MULTILINE)
    assert reserved  # each stack's guard page
    assert max(int(end, 16) - int(start, 16) for start, end in reserved) < 16 << 20


def test_what_is_not_used_is_not_loaded() -> None:
    """SQLite costs 2 MiB: a daemon that sends nothing and receives nothing does without."""
    with running("--simulate") as daemon:
        daemon.after_polls(2)
        idle = (daemon.proc / "maps").read_text()
    with running("--simulate", config=SENDS) as daemon:
        assert "_sqlite3" in (daemon.proc / "maps").read_text()
    assert "_ctypes" in idle  # such modules are seen there
    assert "_sqlite3" not in idle


def test_stop_is_quick_and_clean(fake: FakeNvml) -> None:
    """SIGTERM and SIGINT end it with 0, and nothing is left on stderr but the log."""
    for number in (signal.SIGTERM, signal.SIGINT):
        with running(env=fake.env()) as daemon:
            daemon.process.send_signal(number)
            assert daemon.process.wait(3) == 0
            assert all(line.startswith("ts=") for line in daemon.log.splitlines())
            assert daemon.messages("info")[-1] == "stopping"


def test_stop_waits_for_no_hung_call(fake: FakeNvml) -> None:
    """With a call that never returns, in a poll or in nvmlInit, SIGTERM still ends it in 3 s."""
    with running(env=fake.env(), config=BRISK) as daemon:
        fake.hang(3)
        daemon.until(lambda page: page.fault(3) == {"hung"})
        code, seconds = daemon.stop()
        assert (code, seconds < 3) == (0, True)
    fake.set({"init.delay_ms": 120_000})
    with running(env=fake.env()) as daemon:
        assert daemon.ready() == (503, "not ready: the driver has not answered yet\n")
        assert daemon.page().value("host_memory_total_bytes")
        code, seconds = daemon.stop()
        assert (code, seconds < 3) == (0, True)
