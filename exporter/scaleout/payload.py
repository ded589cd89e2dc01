"""What Alertmanager's webhook says, read strictly: format 4 of Alertmanager's notify/webhook."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from http import HTTPStatus
from typing import Any

from exporter.frozen import dataclass

VERSION = "4"
MAX_BODY_BYTES = 1 << 20
MAX_ALERTS = 1000
MAX_LABELS = 100  # of one alert
MAX_NAME = 256  # characters of a label's name, or of a fingerprint
MAX_VALUE = 16 * 1024  # characters of a label's value
MAX_DIGITS = 20  # of an integer; Python's int() takes the square of their number

_TIME = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII
)


class PayloadError(Exception):
    """A body that is refused: the status, and in one line what is wrong."""

    def __init__(self, text: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert. `starts_at` is in seconds since the epoch, and stays while the alert lasts."""

    firing: bool
    labels: Mapping[str, str]
    starts_at: float
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Notification:
    """One webhook. With `truncated` alerts left off, nothing can be said of what is resolved."""

    alerts: tuple[Alert, ...]
    truncated: int


def parse(body: bytes) -> Notification:
    """Read a body. Unknown keys are skipped: every version of Alertmanager adds some.

    Raises:
        PayloadError: It is not what Alertmanager sends, or larger than this module's bounds.
    """
    try:
        data = json.loads(
            body.decode(),
            object_pairs_hook=_object,
            parse_constant=_no_number,
            parse_int=_integer,
        )
    except UnicodeDecodeError as error:
        raise PayloadError(f"byte {error.start} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise PayloadError(f"not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise PayloadError("nested too deeply") from None
    if not isinstance(data, dict):
        raise PayloadError("not a JSON object")
    if data.get("version") != VERSION:
        raise PayloadError(f'"version" is not "{VERSION}", which Alertmanager sends')
    truncated = data.get("truncatedAlerts", 0)
    if type(truncated) is not int or truncated < 0:
        raise PayloadError('"truncatedAlerts" is not a number of alerts')
    alerts = data.get("alerts")
    if not isinstance(alerts, list):
        raise PayloadError('"alerts" is not a list')
    if len(alerts) > MAX_ALERTS:
        text = f"{len(alerts)} alerts, {MAX_ALERTS} are taken; set max_alerts in Alertmanager"
        raise PayloadError(text, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    return Notification(tuple(_alert(a, f"alerts[{i}]") for i, a in enumerate(alerts)), truncated)


def _alert(data: object, where: str) -> Alert:
    if not isinstance(data, dict):
        raise PayloadError(f"{where} is not an object")
    status = data.get("status")
    if status not in ("firing", "resolved"):
        raise PayloadError(f'{where}.status is neither "firing" nor "resolved"')
    labels = _labels(data.get("labels"), f"{where}.labels")
    fingerprint = data.get("fingerprint", "")
    if not _is_text(fingerprint, MAX_NAME):
        raise PayloadError(f"{where}.fingerprint is not a text of up to {MAX_NAME} characters")
    return Alert(
        firing=status == "firing",
        labels=labels,
        starts_at=_time(data.get("startsAt"), f"{where}.startsAt"),
        fingerprint=fingerprint or _fingerprint(labels),
    )


def _labels(data: object, where: str) -> dict[str, str]:
    if not isinstance(data, dict):
        raise PayloadError(f"{where} is not an object")
    if len(data) > MAX_LABELS:
        raise PayloadError(f"{where} has {len(data)} labels, {MAX_LABELS} are taken")
    for name, value in data.items():
        if not name or not _is_text(name, MAX_NAME):
            raise PayloadError(f"{where} has a name that is no text of 1 to {MAX_NAME} letters")
        if not _is_text(value, MAX_VALUE):
            raise PayloadError(f"{where} has a value that is no text of up to {MAX_VALUE} letters")
    return data


def _is_text(value: object, longest: int) -> bool:
    r"""Return whether a value is a string that can be written down: "\ud800" alone cannot."""
    if not isinstance(value, str) or len(value) > longest:
        return False
    return value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value)


def _time(text: object, where: str) -> float:
    """Read RFC 3339, which Go writes with 0 to 9 digits of a fraction."""
    found = _TIME.fullmatch(text) if isinstance(text, str) else None
    error = PayloadError(f"{where} is not a time as in RFC 3339")
    if found is None:
        raise error
    seconds, fraction, sign, hours, minutes = found.groups()
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    try:
        zone = timezone(-offset if sign == "-" else offset)
        moment = datetime.fromisoformat(seconds).replace(tzinfo=zone)
        return moment.timestamp() + float(f"0.{fraction or 0}")
    except (ValueError, OverflowError):
        raise error from None


def _fingerprint(labels: Mapping[str, str]) -> str:
    """Return what names an alert whose sender gave it no fingerprint."""
    return sha256(json.dumps(sorted(labels.items())).encode()).hexdigest()[:16]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise PayloadError("a key is given twice in one object")
    return found


def _no_number(text: str) -> float:
    raise PayloadError(f"{text} is not JSON")


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise PayloadError(f"a number of more than {MAX_DIGITS} digits")
    return int(digits)
