"""Passwords: right, wrong and unknown, what they may cost, and what their time tells."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from web_files import hashed

from exporter.webconfig.passwords import Credentials, Passwords, matches

ALICE = Credentials("alice", b"secret")
WRONG = Credentials("alice", b"guess")
REFUSED = "refused"


class Comparing:
    """Compares at once or when told to, and remembers what."""

    def __init__(self) -> None:
        self.seen: list[tuple[bytes, str]] = []
        self.may = threading.Event()
        self.may.set()

    def __call__(self, password: bytes, hashed: str) -> bool:
        """Find "P" right for the hash "hash of P"."""
        self.may.wait(20)
        self.seen.append((password, hashed))
        return f"hash of {password.decode()}" == hashed


class Rests:
    """Stands in for asyncio.sleep, and remembers how long."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._sleep = asyncio.sleep

    async def __call__(self, seconds: float) -> None:
        """Sleep not at all."""
        if seconds:
            self.seconds.append(seconds)
        await self._sleep(0)


@pytest.fixture
def comparing() -> Comparing:
    """Compare."""
    return Comparing()


@pytest.fixture
def rests(monkeypatch: pytest.MonkeyPatch) -> Rests:
    """Rest."""
    rests = Rests()
    monkeypatch.setattr(asyncio, "sleep", rests)
    return rests


def on_loop(
    comparing: Callable[[bytes, str], bool], test: Callable[[Passwords], Coroutine[Any, Any, None]]
) -> None:
    """Run a test with alice's and bob's passwords."""

    async def run() -> None:
        them = Passwords(comparing)
        them.replace({"alice": "hash of secret", "bob": "hash of hunter2"})
        await test(them)
        them.close()

    asyncio.run(run())


async def answer(them: Passwords, credentials: Credentials, peer: str = "10.0.0.1") -> object:
    """Compare and return what comes of it."""
    later = them.compared(credentials, peer, REFUSED)
    assert later is not None
    return await later


def test_right_once_is_known_from_then_on(comparing: Comparing, rests: Rests) -> None:
    """The right password is compared once; just that one is known, of that user, with no rest."""

    async def test(them: Passwords) -> None:
        assert not them.are_known(ALICE)
        assert await answer(them, ALICE) == "alice"
        assert them.are_known(ALICE)
        others = (WRONG, Credentials("bob", b"secret"), Credentials("carol", b"secret"))
        assert not any(map(them.are_known, others))

    on_loop(comparing, test)
    assert comparing.seen == [(b"secret", "hash of secret")]
    assert rests.seconds == []


def test_wrong_is_never_known(comparing: Comparing, rests: Rests) -> None:
    """A wrong password is compared each time, and each time a rest follows."""

    async def test(them: Passwords) -> None:
        for _ in range(3):
            assert await answer(them, WRONG) == REFUSED
            assert not them.are_known(WRONG)
        assert await answer(them, ALICE) == "alice"

    on_loop(comparing, test)
    assert len(comparing.seen) == 4
    assert len(rests.seconds) == 3
    assert all(seconds > 0 for seconds in rests.seconds)


@pytest.mark.usefixtures("rests")
def test_unknown_user_costs_what_a_user_costs(comparing: Comparing) -> None:
    """A name that nobody has is compared with somebody's hash, always the same, and is wrong."""
    names = [f"user{number}" for number in range(40)]

    async def test(them: Passwords) -> None:
        for name in [*names, *names]:
            for password in (b"secret", b"hunter2"):  # right for whomever it is compared with
                unknown = Credentials(name, password)
                assert await answer(them, unknown) == REFUSED
                assert not them.are_known(unknown)

    on_loop(comparing, test)
    stand_ins = [hashed for _, hashed in comparing.seen]
    assert len(stand_ins) == 160
    assert stand_ins[:80] == stand_ins[80:]
    assert set(stand_ins) == {"hash of secret", "hash of hunter2"}


@pytest.mark.usefixtures("rests")
def test_clients_take_turns(comparing: Comparing) -> None:
    """Two of a client's passwords may wait, 32 of all; who sends many waits for the others."""
    comparing.may.clear()

    async def test(them: Passwords) -> None:
        def send(peer: str, password: bytes) -> asyncio.Future[Any] | None:
            return them.compared(Credentials("bob", password), peer, REFUSED)

        running = send("10.0.0.1", b"first")
        await asyncio.sleep(0)
        sent = [send("10.0.0.1", password) for password in (b"1a", b"1b", b"1c", b"1d")]
        sent += [send("10.0.0.2", b"2a"), send("2001:db8::1", b"3a"), send("2001:db8::2", b"3b")]
        assert [later is not None for later in sent] == [True, True, False, False, True, True, True]
        assert send("2001:db8::3", b"3c") is None  # a host has a whole /64
        assert send("2001:db8:0:1::3", b"4a") is not None
        many = [send(f"10.0.1.{host}", b"5") for host in range(40)]
        assert sum(later is not None for later in many) == 32 - 6
        comparing.may.set()
        await asyncio.gather(*(later for later in (running, *sent, *many) if later is not None))

    on_loop(comparing, test)
    order = [password.decode() for password, _ in comparing.seen]
    assert order[:4] == ["first", "1a", "2a", "3a"]
    assert order.index("1b") > order.index("5")
    assert len(order) == 33


def test_client_that_went_away_costs_nothing(comparing: Comparing) -> None:
    """What is not waited for any more is not compared."""
    comparing.may.clear()

    async def test(them: Passwords) -> None:
        running = them.compared(ALICE, "10.0.0.1", REFUSED)
        gone = them.compared(WRONG, "10.0.0.2", REFUSED)
        assert running is not None
        assert gone is not None
        gone.cancel()
        comparing.may.set()
        assert await running == "alice"
        assert await answer(them, Credentials("bob", b"hunter2")) == "bob"

    on_loop(comparing, test)
    assert [password for password, _ in comparing.seen] == [b"secret", b"hunter2"]


@pytest.mark.usefixtures("rests")
def test_replaced_users(comparing: Comparing) -> None:
    """Who is removed, or has another password, is not known any more; the others still are."""

    async def test(them: Passwords) -> None:
        bob = Credentials("bob", b"hunter2")
        assert [await answer(them, one) for one in (ALICE, bob)] == ["alice", "bob"]
        them.replace({"alice": "hash of other", "bob": "hash of hunter2"})
        assert (them.are_known(ALICE), them.are_known(bob)) == (False, True)
        assert await answer(them, ALICE) == REFUSED
        comparing.may.clear()
        later = them.compared(Credentials("alice", b"other"), "10.0.0.1", REFUSED)
        assert later is not None
        await asyncio.sleep(0)
        them.replace({"bob": "hash of hunter2"})  # while alice's is being compared
        comparing.may.set()
        assert await later == REFUSED

    on_loop(comparing, test)


def test_fault_costs_one_answer(rests: Rests, caplog: pytest.LogCaptureFixture) -> None:
    """A comparison that fails is a wrong password and a line in the log; the next is compared."""
    faults = [ValueError("no salt")]

    def compare(password: bytes, hashed: str) -> bool:
        if faults:
            raise faults.pop()
        return f"hash of {password.decode()}" == hashed

    async def test(them: Passwords) -> None:
        assert await answer(them, ALICE) == REFUSED
        assert await answer(them, ALICE) == "alice"

    on_loop(compare, test)
    assert "cannot compare a password: ValueError('no salt')" in caplog.text
    assert len(rests.seconds) == 1


@pytest.mark.usefixtures("rests")
def test_wrong_passwords_are_logged_once_a_minute(
    comparing: Comparing, caplog: pytest.LogCaptureFixture
) -> None:
    """One line tells of wrong passwords, without them and without names."""

    async def test(them: Passwords) -> None:
        for _ in range(5):
            await answer(them, WRONG)

    with caplog.at_level(logging.WARNING):
        on_loop(comparing, test)
    assert caplog.messages == ["wrong user or password: 1 times, last by 10.0.0.1"]


@pytest.mark.parametrize("prefix", ["$2a$", "$2b$", "$2y$"])
def test_bcrypt(prefix: str) -> None:
    """The real bcrypt: every prefix, and no more than the 72 bytes that it looks at."""
    text = prefix + hashed("p" * 72)[4:]
    assert matches(b"p" * 72, text)
    assert matches(b"p" * 100, text)
    assert not matches(b"p" * 71, text)
    assert not matches(b"", text)
    assert not matches(b"p\0" * 50, text)
