"""Everything at once: a long random mix of all faults, and after each step a daemon that is well.

The seed is printed, and always the same in the short form. CHAOS_SEED=N repeats a run, as far as
the machine's own timing does.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from chaos import ROUNDS
from chaos_disk import fill, little_disk
from chaos_world import BUSY, CALM, REFUSED, TAKEN, World, sound
from daemon import Daemon
from http_client import connect

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(7200)]

STEPS = 15 * ROUNDS
ANY = 1 if ROUNDS == 1 else random.SystemRandom().randrange(1, 1 << 32)
SEED = int(os.environ.get("CHAOS_SEED", "0")) or ANY
DRIVER_NOT_LOADED, DRIVER_GONE = 9, 18
GPUS = (0, 1)
FOUND = {f"gpu{gpu}.lost": 0 for gpu in GPUS}
MOST_SLEPT_SECONDS = 300.0  # in all: less than the cooldown and the deadline


class Storm:
    """Does one thing after another to a world, and to the daemon in it."""

    def __init__(self, chaotic: World, chance: random.Random) -> None:
        self.daemon: Daemon
        self.done: list[str] = []
        self._world = chaotic
        self._chance = chance
        self._life = ExitStack()
        self._filler: Path | None = None
        self._hung: set[int] = set()
        self._slept_seconds = 0.0
        self._start()

    def step(self) -> None:
        """Do something, and see that the daemon is well."""
        what = self._chance.choice(ACTIONS)
        self.done.append(what.__name__)
        what(self)
        sound(self.daemon)

    def heal(self) -> None:
        """Take every fault back."""
        self._world.configure()
        self.reload()
        self._world.fake.set(FOUND)
        self.release()
        self.room()
        self._world.answer(TAKEN)

    def close(self) -> None:
        """End the daemon."""
        self._life.close()

    def reload(self) -> None:
        """Have the config loaded anew."""
        self.daemon.process.send_signal(signal.SIGHUP)

    def good_config(self) -> None:
        """Put another good config in place."""
        self._world.configure(self._world.text(self._chance.choice((0.9, 0.95))))
        self.reload()

    def bad_config(self) -> None:
        """Put a bad config in place."""
        self._world.configure(self._world.text() + "nonsense: 1\n")
        self.reload()

    def no_config(self) -> None:
        """Take the config away."""
        self._world.config_file.unlink(missing_ok=True)
        self.reload()

    def restart(self) -> None:
        """End it by either signal. What is in memory alone then would be lost, as is promised."""
        if self._is_durable():
            by = self._chance.choice((signal.SIGTERM, signal.SIGKILL))
            self.daemon.process.send_signal(by)
            code = self.daemon.process.wait(30)
            assert code == (0 if by is signal.SIGTERM else -by), self.daemon.log
            self._start()

    def reload_driver(self) -> None:
        """Replace the driver under it: it ends, and the next one waits for a driver."""
        if not self._is_durable() or self._hung:
            return
        self._world.fake.set(
            {**FOUND, "ret": DRIVER_GONE}
        )  # a lost one would say no more than that
        code = self.daemon.process.wait(30)
        assert code == 1, self.daemon.log
        assert "the driver is gone" in self.daemon.log
        self._world.fake.clear("ret")
        self._world.fake.set({"init.ret": DRIVER_NOT_LOADED})
        self._start()
        assert self.daemon.page().value("gpu_exporter_nvml_up") == 0
        self._world.fake.clear("init.ret")
        self.daemon.until(lambda page: page.value("gpu_exporter_nvml_up") == 1)

    def stand_still(self) -> None:
        """Stop the process for up to 3 s."""
        self.daemon.process.send_signal(signal.SIGSTOP)
        time.sleep(self._chance.random() * 3)
        self.daemon.process.send_signal(signal.SIGCONT)

    def set_clock(self) -> None:
        """Set the wall clock by up to two hours."""
        self._world.clocks.jump(self._chance.choice((-1, 1)) * self._chance.random() * 7200)

    def suspend(self) -> None:
        """Suspend the machine for up to a minute."""
        seconds = self._chance.random() * 60
        if self._slept_seconds + seconds < MOST_SLEPT_SECONDS:
            self._slept_seconds += seconds
            self._world.clocks.suspend(seconds)

    def busy(self) -> None:
        """Put load on all GPUs."""
        self._world.fake.set(BUSY)

    def calm(self) -> None:
        """Take it off."""
        self._world.fake.set(CALM)

    def lose(self) -> None:
        """Lose a GPU, or give it back."""
        gpu = self._chance.choice(GPUS)
        self._world.fake.set({f"gpu{gpu}.lost": self._chance.choice((0, 1))})

    def hang(self) -> None:
        """Let a GPU hang in the driver."""
        gpu = self._chance.choice(GPUS)
        if gpu not in self._hung:
            self._hung.add(gpu)
            self._world.fake.hang(gpu)

    def release(self) -> None:
        """Let all of them go on."""
        for gpu in self._hung:
            self._world.fake.release(gpu)
        self._hung.clear()

    def xid(self) -> None:
        """Give a GPU an XID error."""
        self._world.fake.xid(self._chance.choice(GPUS), self._chance.choice((13, 31, 79, 94)))

    def refuse(self) -> None:
        """Have the receiver refuse requests."""
        self._world.answer(REFUSED)

    def take(self) -> None:
        """Have it take them."""
        self._world.answer(TAKEN)

    def fill(self) -> None:
        """Fill the disk."""
        if self._filler is None:
            self._filler = fill(self._world.storage)

    def room(self) -> None:
        """Give it room again."""
        if self._filler is not None:
            self._filler.unlink()
            self._filler = None

    def scrape(self) -> None:
        """Ask for everything, again and again."""
        for _ in range(10):
            with connect(self.daemon.port) as client:
                for path in ("/metrics", "/", "/api/v1/status", "/nothing"):
                    assert client.get(path).status in (200, 404)

    def wait(self) -> None:
        """Let some polls pass."""
        self.daemon.after_polls(self._chance.randrange(1, 12))

    def _is_durable(self) -> bool:
        return self._filler is None and self.daemon.page().value("scaleout_outbox_durable") == 1

    def _start(self) -> None:
        """Start another; it starts by a good config, as a bad one would not let it."""
        self._life.close()
        self._world.configure()
        self.daemon = self._life.enter_context(self._world.daemon())


ACTIONS: tuple[Callable[[Storm], None], ...] = (
    *(Storm.good_config, Storm.bad_config, Storm.no_config, Storm.restart, Storm.reload_driver),
    *(Storm.stand_still, Storm.set_clock, Storm.suspend, Storm.busy, Storm.calm, Storm.lose),
    *(Storm.hang, Storm.release, Storm.xid, Storm.refuse, Storm.take, Storm.fill, Storm.room),
    *(Storm.scrape, Storm.wait, Storm.wait),
)


def test_everything_at_once(chaotic: World, capsys: pytest.CaptureFixture[str]) -> None:
    """After each step the daemon is well; healed, it is as if nothing had been.

    The cooldown has held all the while: there was one request at most, and it has one body.
    """
    with capsys.disabled():
        print(f"\nCHAOS_SEED={SEED}, {STEPS} steps")  # noqa: T201  for who wants to repeat it
    with little_disk(chaotic.storage, 4096):
        storm = Storm(chaotic, random.Random(SEED))  # noqa: S311  what to do next
        try:
            for _ in range(STEPS):
                storm.step()
            storm.heal()
            daemon = storm.daemon
            daemon.until(lambda page: page.up() == [1.0] * 2)
            daemon.until(lambda page: page.value("gpu_exporter_config_last_reload_successful"))
            daemon.until(lambda page: page.value("scaleout_outbox_events", state="pending") == 0)
            daemon.until(lambda page: page.value("scaleout_outbox_durable") == 1)
            assert daemon.ready() == (200, "ready\n")
            sound(daemon)
            assert daemon.descriptors < 40
            assert daemon.threads < 40
            assert daemon.stop()[0] == 0
        except BaseException:
            storm.daemon.process.send_signal(signal.SIGABRT)  # it says where its threads are
            storm.daemon.process.wait(30)
            print(storm.done, storm.daemon.log[-20_000:], sep="\n")  # noqa: T201  what led there
            raise
        finally:
            storm.close()
    bodies = chaotic.requests()
    assert len(bodies) <= 1
    assert all(len(of_one) == 1 for of_one in bodies.values())
