"""What an HTTP answer means for the next attempt; the same for every receiver."""

from __future__ import annotations

from collections.abc import Collection
from http import HTTPStatus

from exporter.config import Retry
from exporter.scaleout.client import Answer
from exporter.scaleout.clock import Clock
from exporter.scaleout.model import Attempt, Outcome

# Worth another attempt, as is every 5xx.
TRANSIENT = frozenset(
    {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
)
NOT_PERMITTED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
MAX_WAIT_SECONDS = 1e9  # longer than anyone may ask for; deadlines are shorter


def refused_for_now(
    answer: Answer, error: str, retry: Retry, clock: Clock, also: Collection[int] = ()
) -> Attempt | None:
    """Return the attempt to be made again, or None: the answer will not change.

    Args:
        answer: One that is not a success.
        error: What it says, in one line.
        retry: The receiver's.
        clock: For a Retry-After without a Date.
        also: Statuses that pass here, beside those that pass everywhere.
    """
    status = answer.status
    if status in NOT_PERMITTED:  # the secret may be renewed; no need to hurry
        return Attempt(Outcome.RETRY, status, error, retry.max_backoff_seconds)
    if status in TRANSIENT or status in also or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Attempt(Outcome.RETRY, status, error, _retry_after_seconds(answer, clock))
    return None


def answered_at(answer: Answer) -> float | None:
    """Return the header Date, in seconds since the epoch; None where it gives no time."""
    return _date(answer.headers.get("date", ""))


def _retry_after_seconds(answer: Answer, clock: Clock) -> float | None:
    """Return what an answer's Retry-After asks for (RFC 9110, 10.2.3); None if nothing sensible."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_WAIT_SECONDS)
    then = _date(text)
    if then is None:
        return None
    # By the clock of who set the time, where it is known.
    now = answered_at(answer) or clock.wall()
    return min(max(then - now, 0.0), MAX_WAIT_SECONDS)


def _date(text: str) -> float | None:
    from email.utils import parsedate_to_datetime  # noqa: PLC0415  comes with `requests` anyway

    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):  # TypeError in Python 3.10
        return None
