"""A storm of reloads, while the config is good, bad, half written, or not there at all."""

from __future__ import annotations

import random
import signal
import time

import pytest
from chaos import ROUNDS
from chaos_world import World, sound
from daemon import Daemon, Page

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1200)]

RELOADED = "gpu_exporter_config_last_reload_successful"
GOOD = (0.91, 0.92, 0.93)


def threshold(page: Page) -> float | None:
    """Return what tells one good config from another."""
    return page.value("gpu_rule_threshold", rule="Busy")


def reload(daemon: Daemon) -> None:
    """Send what a reload is."""
    daemon.process.send_signal(signal.SIGHUP)


def put(chaotic: World, what: str, above: float) -> None:
    """Put a config in place, or take it away."""
    text = chaotic.text(above)
    if what == "missing":
        chaotic.config_file.unlink(missing_ok=True)
    elif what == "half":
        chaotic.configure(text[: text.index("clear_below")])
    else:
        chaotic.configure({"good": text, "bad": text + "colectors: {}\n"}[what])


def test_storm_of_reloads(chaotic: World) -> None:
    """It serves all the while by a good config, polls no faster, keeps nothing, and takes the last.

    A config that is not good is never used; the one before goes on.
    """
    chance = random.Random(3)  # noqa: S311  which config comes next
    chaotic.configure(chaotic.text(GOOD[0]))
    with chaotic.daemon() as daemon:
        before, polls, began = daemon.held, daemon.after_polls(1).polls, time.monotonic()
        for number in range(100 * ROUNDS):
            what = chance.choice(("good", "good", "bad", "half", "missing"))
            put(chaotic, what, chance.choice(GOOD))
            reload(daemon)
            if number % 30 == 0:
                assert threshold(sound(daemon)) in GOOD
        page = daemon.after_polls(2)
        assert page.polls - polls <= (time.monotonic() - began) / 0.25 + 2
        put(chaotic, "good", 0.8)
        reload(daemon)
        daemon.until(lambda page: threshold(page) == 0.8 and page.value(RELOADED) == 1)
        for what in ("bad", "half", "missing"):
            put(chaotic, what, 0.7)
            already = len(daemon.messages("error"))
            reload(daemon)
            daemon.eventually(lambda n=already: len(daemon.messages("error")) > n or None)  # type: ignore[misc]
            page = daemon.after_polls(2)
            assert (threshold(page), page.value(RELOADED)) == (0.8, 0), what
        put(chaotic, "good", 0.75)
        reload(daemon)
        daemon.until(lambda page: threshold(page) == 0.75 and page.value(RELOADED) == 1)
        sound(daemon)
        assert daemon.ready() == (200, "ready\n")
        daemon.until(lambda page: page.up() == [1.0] * 2)
        assert daemon.eventually(lambda: _is_no_more(daemon.held, before) or None)
        assert daemon.stop()[0] == 0


def _is_no_more(now: tuple[int, int], before: tuple[int, int]) -> bool:
    """Compare what it holds; a GPU that seemed hung, on a slow machine, leaves a spare thread."""
    (files, threads), (files_before, threads_before) = now, before
    return files <= files_before and threads <= threads_before + 2
