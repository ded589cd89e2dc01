"""Passwords against bcrypt hashes: what that costs is bounded, and its time tells nothing.

A comparison takes a processor for a tenth of a second, by design. So it is done off the event
loop, one at a time, and a wrong one is followed by a rest three times as long: whoever sends
passwords can take a quarter of one processor. Clients take turns, so that one that tries many
keeps no other from being heard. What was found right is known again by a keyed hash of it.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from exporter.frozen import dataclass
from exporter.httpd import Verdict
from exporter.httpd.message import client_of

log = logging.getLogger(__name__)

MOST_OF_CLIENT = 2  # comparisons that wait for one client
MOST_WAITING = 32
REST_FACTOR = 3.0  # a rest after a wrong password, in the time that it took
LONGEST_PASSWORD_BYTES = 72  # all that bcrypt looks at
WARNING_SECONDS = 60.0  # between two log lines about wrong passwords
NOBODY = bytes(32)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client has sent."""

    user: str
    password: bytes


@dataclass(frozen=True, slots=True)
class _Attempt:
    credentials: Credentials
    peer: str
    wrong: Verdict
    answer: asyncio.Future[Verdict]


def matches(password: bytes, hashed: str) -> bool:
    """Return whether a password is the one of a bcrypt hash."""
    import bcrypt  # noqa: PLC0415  only a web config with users needs it

    return bcrypt.checkpw(password[:LONGEST_PASSWORD_BYTES], hashed.encode())


class Passwords:
    """The users of a web config. Belongs to the event loop's thread; only `compare` leaves it."""

    def __init__(self, compare: Callable[[bytes, str], bool] = matches) -> None:
        self._compare = compare
        self._hashes: Mapping[str, str] = {}
        self._ordered: tuple[str, ...] = ()
        self._key = secrets.token_bytes(32)
        self._right: dict[str, bytes] = {}  # digest of what each user was let in with
        self._waiting: OrderedDict[str, deque[_Attempt]] = OrderedDict()  # by client
        self._thread = ThreadPoolExecutor(1, "passwords")
        self._worker: asyncio.Task[None] | None = None
        self._wrong_count = 0
        self._warned_at = -WARNING_SECONDS

    def close(self) -> None:
        """Compare nothing any more."""
        if self._worker is not None:
            self._worker.cancel()
        self._thread.shutdown(wait=False)

    def replace(self, hashes: Mapping[str, str]) -> None:
        """Take other users, or other hashes of theirs."""
        self._hashes = hashes
        self._ordered = tuple(hashes.values())
        self._right = {user: known for user, known in self._right.items() if user in hashes}

    def are_known(self, credentials: Credentials) -> bool:
        """Return whether just these were found right before."""
        # Both are computed for a user there is not, too.
        known = self._right.get(credentials.user, NOBODY)
        return hmac.compare_digest(known, self._digest(credentials))

    def compared(
        self, credentials: Credentials, peer: str, wrong: Verdict
    ) -> asyncio.Future[Verdict] | None:
        """Return the user's name, or `wrong`, later; or None: too many wait already."""
        client = client_of(peer)
        mine = self._waiting.get(client, ())
        if len(mine) >= MOST_OF_CLIENT or sum(map(len, self._waiting.values())) >= MOST_WAITING:
            return None
        answer: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        attempt = _Attempt(credentials, peer, wrong, answer)
        self._waiting.setdefault(client, deque()).append(attempt)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.get_running_loop().create_task(self._work())
        return answer

    def _digest(self, credentials: Credentials) -> bytes:
        """Return what tells user, password and hash from any others, and tells none of them."""
        password = credentials.password[:LONGEST_PASSWORD_BYTES]
        parts = (credentials.user.encode(), self._hash_for(credentials.user).encode(), password)
        framed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.digest(self._key, framed, "sha256")

    def _hash_for(self, user: str) -> str:
        """Return the user's hash; for a name that nobody has, always the same one of somebody.

        So it takes as long as for a user, whatever the costs of their hashes are.
        """
        digest = hmac.digest(self._key, user.encode(), "sha256")
        somebody = self._ordered[int.from_bytes(digest[:8], "big") % len(self._ordered)]
        return self._hashes.get(user, somebody)

    async def _work(self) -> None:
        while self._waiting:
            client, attempts = self._waiting.popitem(last=False)
            attempt = attempts.popleft()
            if attempts:
                self._waiting[client] = attempts  # behind all others
            if attempt.answer.done():  # the client has gone
                continue
            started = time.monotonic()
            is_right = await self._is_right(attempt.credentials)
            seconds = time.monotonic() - started
            if not attempt.answer.done():
                attempt.answer.set_result(attempt.credentials.user if is_right else attempt.wrong)
            if not is_right:
                self._warn(attempt.peer)
                await asyncio.sleep(seconds * REST_FACTOR)

    async def _is_right(self, credentials: Credentials) -> bool:
        hashed, digest = self._hash_for(credentials.user), self._digest(credentials)
        loop = asyncio.get_running_loop()
        try:
            is_same = await loop.run_in_executor(
                self._thread, self._compare, credentials.password, hashed
            )
        except Exception as error:  # noqa: BLE001  a fault there costs only its own answer
            log.error("cannot compare a password: %r", error)
            return False
        # A name that nobody has is wrong in any case. And meanwhile there may be other users.
        if not (is_same and self._hashes.get(credentials.user) == hashed):
            return False
        self._right[credentials.user] = digest
        return True

    def _warn(self, peer: str) -> None:
        self._wrong_count += 1
        now = time.monotonic()
        if now - self._warned_at >= WARNING_SECONDS:
            self._warned_at = now
            log.warning("wrong user or password: %d times, last by %s", self._wrong_count, peer)
            self._wrong_count = 0
