"""The real Prometheus scrapes the real daemon, and its promtool has nothing to say of any page."""

from __future__ import annotations

import contextlib
import re
import subprocess
from pathlib import Path

import pytest
from daemon import Page, running
from debian import program
from fake_nvml import FakeNvml
from prometheus import job, prometheus

from exporter.simulate import PROFILES

BRISK = "poll: {fast: 250ms}\n"
JOBS = {"second": "1s", "usual": "15s"}
USUAL_SCRAPES = 2
USUAL_PATIENCE_SECONDS = 60.0  # the first comes within 15 s, the second 15 s after it


@pytest.mark.slow(30)
def test_prometheus_scrapes_without_a_complaint(tmp_path: Path) -> None:
    """At 1 s and at 15 s: up, every sample of our page taken, not one warning, rates that fit."""
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(running("--simulate"))
        jobs = [job(name, daemon.port, interval) for name, interval in JOBS.items()]
        server = stack.enter_context(prometheus(tmp_path, jobs))
        usual = f'count_over_time(up{{job="usual"}}[5m]) >= {USUAL_SCRAPES}'
        server.until(usual, USUAL_PATIENCE_SECONDS)
        assert server.of_jobs("min_over_time(up[5m])") == dict.fromkeys(JOBS, 1.0)
        server.until('count_over_time(up{job="second"}[5m]) >= 12')
        daemon.until(
            lambda page: (
                server.of_jobs("scrape_samples_scraped") == dict.fromkeys(JOBS, len(page.series))
            )
        )
        kept = server.query("scrape_samples_post_metric_relabeling - scrape_samples_scraped")
        assert {value for _, value in kept} == {0.0}
        rates = server.query('rate(gpu_busy_seconds_total{job="second"}[10s])')
        loads = server.query('avg_over_time(gpu_utilization_ratio{job="second"}[10s])')
        assert len(rates) == len(loads) == 8
        mean = {labels["gpu"]: load for labels, load in loads}
        for labels, rate in rates:
            assert rate == pytest.approx(mean[labels["gpu"]], abs=0.2)
        infos = server.query(
            'gpu_utilization_ratio * on(gpu, uuid) group_left(name) gpu_info{job="second"}'
        )
        assert {labels["name"] for labels, _ in infos} == {"NVIDIA H100 80GB HBM3"}
        complaints = re.findall(r"^.*\blevel=(?:warn|error)\b.*$", server.log, re.MULTILINE)
        assert complaints == []
        assert re.search(r"\blevel=info\b", server.log)  # it is written as we read it


def promtool(page: Page) -> tuple[int, str]:
    """Return the exit code and all output of `promtool check metrics` for a page."""
    done = subprocess.run(
        [program("promtool"), "check", "metrics"],
        input=page.text,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("profile", PROFILES)
def test_promtool_has_nothing_to_say_of_a_page(profile: str) -> None:
    """Names, types, units and help of every board's page hold Prometheus's own rules."""
    with running(f"--simulate={profile}", config=BRISK) as daemon:
        assert promtool(daemon.after_polls(2)) == (0, "")


def test_promtool_has_nothing_to_say_of_a_sick_node(fake: FakeNvml) -> None:
    """Nor of a page with a lost GPU, errors counted, and a bad reload."""
    fake.set({"gpu1.lost": 1, "gpu2.call.nvmlDeviceGetPowerUsage.ret": 999})
    with running(env=fake.env(), config=BRISK) as daemon:
        daemon.config_file.write_text("nonsense: 1\n")
        daemon.get("/-/reload", "POST")
        page = daemon.after_polls(3)
    assert page.all("gpu_exporter_read_errors_total")
    assert promtool(page) == (0, "")


def test_promtool_does_complain_of_a_bad_page() -> None:
    """It would speak: a counter without its suffix."""
    code, said = promtool(Page("# HELP gpu_busy A time.\n# TYPE gpu_busy counter\ngpu_busy 1\n"))
    assert code != 0
    assert "_total" in said
