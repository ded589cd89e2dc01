"""Time that stands still for the daemon, and a wall clock that others set."""

from __future__ import annotations

import signal
import time
from datetime import datetime, timedelta, timezone

import pytest
from chaos_world import BUSY, TAKEN, World, sound
from daemon import Page
from http_client import connect, get

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

STOP_SECONDS = 8.0
FRESH_SECONDS = 1.25  # as `poll` in the config has it: three times `fast` and twice `deadline`
HOUR, YEARS = 3600.0, 26 * 365 * 86400.0
PENDING, FIRING = 1, 2
RULE = "Busy"


def state(page: Page) -> float | None:
    """Return the state of the rule that is watched."""
    return page.value("gpu_rule_state", rule=RULE)


def is_truthful(page: Page) -> bool:
    """Return whether GPUs that are shown as up have been read just now."""
    ages = page.all("gpu_exporter_sample_age_seconds")
    return 0.0 in page.up() or all(age <= FRESH_SECONDS + 0.1 for _, age in ages)


def moment(text: object) -> datetime:
    """Read a time of a request."""
    return datetime.fromisoformat(str(text).replace("Z", "+00:00"))


@pytest.mark.chaos
def test_standstill_restarts_the_wait(chaotic: World) -> None:
    """Stopped amid a rule's wait: what was before does not count, and nothing old is shown as new.

    `max_gap` is 1 s here.
    """
    chaotic.answer(TAKEN)
    chaotic.configure(chaotic.text().replace("for: 2s", "for: 5s"))
    with chaotic.daemon() as daemon:
        chaotic.fake.set(BUSY)
        daemon.until(lambda page: state(page) == PENDING)
        daemon.process.send_signal(signal.SIGSTOP)
        time.sleep(STOP_SECONDS)
        with connect(daemon.port) as waiting:  # it is answered before the next poll, or beside it
            waiting.send(get("/metrics"))
            resumed = datetime.now(timezone.utc)
            daemon.process.send_signal(signal.SIGCONT)
            assert is_truthful(Page(waiting.answer().body.decode()))
        page = daemon.until(lambda page: page.up() == [1.0] * 2)
        assert is_truthful(page)
        assert daemon.ready() == (200, "ready\n")
        daemon.until(lambda page: state(page) == FIRING and chaotic.requests())
        data = chaotic.only_request()
        assert moment(data["started_at"]) >= resumed
        assert moment(data["fired_at"]) >= resumed + timedelta(seconds=5)
        assert daemon.page().value("gpu_rule_firings_total", rule=RULE) == 1
        sound(daemon)


@pytest.mark.parametrize(
    "jump",
    [
        -HOUR,
        pytest.param(HOUR, marks=pytest.mark.chaos(long=True)),
        pytest.param(YEARS, marks=pytest.mark.chaos(long=True)),
    ],
)
def test_clock_is_set_while_a_rule_waits_and_a_request_too(chaotic: World, jump: float) -> None:
    """Neither is early, late or doubled: the rule fires once, the request is tried, and arrives."""
    with chaotic.daemon() as daemon:
        chaotic.fake.set(BUSY)
        daemon.until(lambda page: state(page) == PENDING)
        chaotic.clocks.jump(jump)
        daemon.until(lambda _page: len(chaotic.peer.said) >= 2)
        chaotic.clocks.jump(jump)
        tries = len(chaotic.peer.said)
        daemon.until(lambda _page: len(chaotic.peer.said) >= tries + 2)
        chaotic.answer(TAKEN)
        page = daemon.until(lambda page: page.value("scaleout_outbox_events", state="delivered"))
        assert page.value("scaleout_outbox_events", state="expired") == 0
        assert page.value("gpu_rule_firings_total", rule=RULE) == 1
        assert is_truthful(page)
        sound(daemon)
        assert daemon.stop()[0] == 0
    data = chaotic.only_request()
    lasted = moment(data["fired_at"]) - moment(data["started_at"])
    assert timedelta(seconds=1.9) <= lasted <= timedelta(seconds=5)
    ahead = moment(data["fired_at"]) - datetime.now(timezone.utc)
    assert abs(ahead.total_seconds() - jump) < HOUR / 2


@pytest.mark.chaos(long=True)
def test_a_machine_that_slept_goes_on(chaotic: World) -> None:
    """Suspended for an hour, the request in the outbox is past its deadline, and told as lost."""
    with chaotic.daemon() as daemon:
        chaotic.fake.set(BUSY)
        daemon.until(lambda _page: chaotic.peer.said)
        chaotic.clocks.suspend(HOUR)
        page = daemon.until(lambda page: page.value("scaleout_outbox_events", state="expired"))
        assert page.value("scaleout_outbox_events", state="pending") == 0
        assert is_truthful(page)
        assert len(chaotic.requests()) == 1
        sound(daemon)
