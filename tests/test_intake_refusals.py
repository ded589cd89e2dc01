"""Posts of others than Alertmanager: nothing bad gets in, and there is always an answer."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from chaos import ROUNDS
from hypothesis import given, settings
from hypothesis import strategies as st
from posts import (
    FIRING,
    FIXTURES,
    RECORDED,
    Queue,
    Ticking,
    assert_refused,
    changed,
    intake,
    payload,
    post,
    rows,
)

from exporter.scaleout.clock import system_clock

# What is no webhook

DEEP = b'{"version":"4","alerts":' + b"[" * 500_000
MANY_LABELS = {f"label_{n}": "x" for n in range(100_000)}


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 400, b"not JSON"),
        (b"{", 400, b"not JSON"),
        (FIRING[:-5], 400, b"not JSON"),
        (b"\xef\xbb\xbf" + FIRING, 400, b"not JSON"),
        (FIRING.decode().encode("utf-16"), 400, b"not UTF-8"),
        (FIRING.replace(b"FakeCond", b"\xff", 1), 400, b"not UTF-8"),
        (b"[]", 400, b"not a JSON object"),
        (b"null", 400, b"not a JSON object"),
        (b'"x"', 400, b"not a JSON object"),
        (b"{}", 400, b'"version" is not "4"'),
        (b'{"version":4,"alerts":[]}', 400, b'"version" is not "4"'),
        (b'{"version":"4"}', 400, b'"alerts" is not a list'),
        (b'{"version":"4","alerts":{}}', 400, b'"alerts" is not a list'),
        (b'{"version":"4","alerts":[1]}', 400, b"alerts[0] is not an object"),
        (b'{"version":"4","version":"4","alerts":[]}', 400, b"given twice"),
        (b'{"version":"4","alerts":[],"x":{"a":1,"a":1}}', 400, b"given twice"),
        (b'{"version":"4","alerts":[],"truncatedAlerts":NaN}', 400, b"NaN is not JSON"),
        (b'{"version":"4","alerts":[],"x":-Infinity}', 400, b"-Infinity is not JSON"),
        (b'{"version":"4","alerts":[],"truncatedAlerts":-1}', 400, b"truncatedAlerts"),
        (b'{"version":"4","alerts":[],"truncatedAlerts":true}', 400, b"truncatedAlerts"),
        (b'{"version":"4","alerts":[],"truncatedAlerts":1.0}', 400, b"truncatedAlerts"),
        (b'{"version":"4","alerts":[],"x":' + b"9" * 1_000_000 + b"}", 400, b"20 digits"),
        (DEEP, 400, b"nested too deeply"),
        (DEEP.replace(b"[", b'{"a":'), 400, b"nested too deeply"),
        (changed(status="suppressed"), 400, b"alerts[0].status is neither"),
        (changed(status=["firing"]), 400, b"alerts[0].status is neither"),
        (changed(labels=[]), 400, b"alerts[0].labels is not an object"),
        (changed(labels={"a": 1}), 400, b"has a value that is no text"),
        (changed(labels={"a": None}), 400, b"has a value that is no text"),
        (changed(labels={"a": "\ud800"}), 400, b"has a value that is no text"),
        (changed(labels={"a": "x" * 16385}), 400, b"has a value that is no text of up to 16384"),
        (changed(labels={"": "a"}), 400, b"has a name that is no text"),
        (changed(labels={"a" * 257: "a"}), 400, b"has a name that is no text"),
        (changed(labels={"\udfff": "a"}), 400, b"has a name that is no text"),
        (changed(labels=MANY_LABELS), 400, b"has 100000 labels, 100 are taken"),
        (changed(fingerprint=1), 400, b"alerts[0].fingerprint"),
        (changed(fingerprint="a" * 257), 400, b"alerts[0].fingerprint"),
        (changed(startsAt=None), 400, b"alerts[0].startsAt is not a time"),
        (changed(startsAt=1795253513), 400, b"not a time"),
        (changed(startsAt="yesterday"), 400, b"not a time"),
        (changed(startsAt="2026-02-30T00:00:00Z"), 400, b"not a time"),
        (changed(startsAt="2026-11-21T09:31:53"), 400, b"not a time"),
        (changed(startsAt="2026-11-21T09:31:53+99:00"), 400, b"not a time"),
        (changed(startsAt="٢026-11-21T09:31:53Z"), 400, b"not a time"),
        (b'{"version":"4","alerts":[' + b"{}," * 1000 + b"{}]}", 413, b"1001 alerts, 1000 are"),
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_malformed(body: bytes, status: int, reason: bytes) -> None:
    """A body that Alertmanager never sends is refused with its reason, and nothing is queued."""
    queue = Queue()
    answer = intake(queue).handle(post(body))
    assert_refused(answer, status)
    assert reason in answer.body
    assert queue.taken == []


def test_good_alert_beside_a_bad_one() -> None:
    """One bad alert is enough to queue nothing of a body."""
    queue = Queue()
    body = payload("two_firing")
    body["alerts"][1]["startsAt"] = ""
    assert_refused(intake(queue).handle(post(json.dumps(body).encode())), 400)
    assert queue.taken == []


@pytest.mark.parametrize(
    ("media_type", "status"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("application/json;x", 200),
        ("text/json", 415),
        ("application/jsonx", 415),
        ("", 415),
    ],
)
def test_media_type(media_type: str, status: int) -> None:
    """JSON is what is taken, with parameters or without."""
    assert intake(Queue()).handle(post(FIRING, content_type=media_type)).status == status


def test_outbox_full() -> None:
    """What cannot be queued is a 503, so that Alertmanager comes again."""
    queue = Queue()
    handler = intake(queue)
    queue.is_full = True
    assert_refused(handler.handle(post(FIRING)), 503)
    queue.is_full = False
    assert rows(handler.handle(post(FIRING)))[0]["decision"] == "fired"


# Who may post


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """A secret as a person writes it."""
    path = tmp_path / "token"
    path.write_text("s3cret-é\n", encoding="utf-8")
    path.chmod(0o600)
    return path


def on_the_wire(text: str) -> str:
    """Return a header's value as the server gives it to a handler."""
    return text.encode().decode("latin-1")


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "s3cret-é",
        "Basic s3cret-é",
        "Bearer s3cret",
        "Bearer s3cret-é x",
        "Bearer s3cret-\U0001f525",
        "\x00",
        "Bearer " * 1000,
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_unauthorized(token_file: Path, header: str | None) -> None:
    """Without the secret there is a 401, whatever the body is."""
    queue = Queue()
    handler = intake(queue, token_file=token_file)
    headers = {} if header is None else {"authorization": on_the_wire(header)}
    for body in (FIRING, b"nonsense"):
        answer = handler.handle(post(body, **headers))
        assert_refused(answer, 401)
        assert ("WWW-Authenticate", "Bearer") in answer.headers
    assert queue.taken == []


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER "])
def test_authorized(token_file: Path, scheme: str) -> None:
    """With the secret, also one that is not ASCII, the body counts."""
    handler = intake(Queue(), token_file=token_file)
    header = on_the_wire(f"{scheme} s3cret-é")
    assert handler.handle(post(FIRING, authorization=header)).status == 200
    assert handler.handle(post(b"nonsense", authorization=header)).status == 400


def test_header_beyond_latin_1(token_file: Path) -> None:
    """A header that no server would give us is refused as well, rather than failed on."""
    handler = intake(Queue(), token_file=token_file)
    assert handler.handle(post(FIRING, authorization="Bearer \u20ac")).status == 401


def test_rotation(token_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A new secret counts at once; without one it is a 503, which Alertmanager repeats."""
    handler = intake(Queue(), token_file=token_file)
    token_file.write_text("new")
    assert handler.handle(post(FIRING, authorization="Bearer new")).status == 200
    assert handler.handle(post(FIRING, authorization=on_the_wire("Bearer s3cret-é"))).status == 401
    for damage in (lambda: token_file.write_text(" \n"), token_file.unlink):
        damage()
        for _ in range(3):
            assert_refused(handler.handle(post(FIRING, authorization="Bearer ")), 503)
            assert_refused(handler.handle(post(FIRING, authorization="Bearer new")), 503)
    errors = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
    assert errors == [
        f"nobody may post: {token_file} is empty",
        f"nobody may post: cannot read {token_file}: No such file or directory",
    ]
    token_file.write_text("back")
    token_file.chmod(0o600)
    assert handler.handle(post(FIRING, authorization="Bearer back")).status == 200


# Too much


def test_rate() -> None:
    """A client has 120 requests a minute; who has more gets a 503, and the others get answers."""
    ticking = Ticking()
    handler = intake(Queue(), clock=ticking.clock())
    statuses = [handler.handle(post(FIRING)).status for _ in range(122)]
    assert statuses == [200] * 120 + [503] * 2
    assert handler.handle(post(FIRING, peer="::1")).status == 200
    ticking.now += 1.0
    assert [handler.handle(post(FIRING)).status for _ in range(3)] == [200, 200, 503]
    ticking.now += 3600.0
    assert [handler.handle(post(FIRING)).status for _ in range(121)] == [200] * 120 + [503]


def test_rate_of_refusals(token_file: Path) -> None:
    """Who guesses the secret is slowed down as well."""
    handler = intake(Queue(), token_file=token_file)
    statuses = [handler.handle(post(FIRING, authorization="Bearer x")).status for _ in range(121)]
    assert statuses == [401] * 120 + [503]


def test_rate_is_bounded() -> None:
    """The clients that are kept in mind are bounded, and the busy ones stay."""
    handler = intake(Queue())
    for _ in range(119):
        handler.handle(post(b"", peer="10.0.0.1"))
    for n in range(5000):
        handler.handle(post(b"", peer=f"2001:db8::{n:x}"))
        if n == 1000:
            assert handler.handle(post(b"", peer="10.0.0.1")).status == 400
        if n == 2000:
            assert handler.handle(post(b"", peer="10.0.0.1")).status == 503
    assert len(handler._bucket._buckets) == 1024


# Hostile values

HOSTILE = [
    '"}, "replicas": 99, "x": "',
    "\r\nX-Injected: 1",
    "${HOME} $(id) `id`",
    "{0.__class__} %s %(x)s",
    "x" * 10_000,
    "\N{FIRE}\x1b[31m\x00",
]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: ascii(value)[:60])
def test_hostile_labels(value: str, caplog: pytest.LogCaptureFixture) -> None:
    """Values are only ever data: exact in the event, in no answer, header or log."""
    caplog.set_level(logging.DEBUG)
    queue = Queue()
    labels = {"alertname": value, "scale_group": value, value[:256]: value}
    answer = intake(queue).handle(post(changed(labels=labels)))
    assert rows(answer)[0]["decision"] == "fired"
    assert queue.taken[0].labels == labels
    assert (queue.taken[0].event.rule, queue.taken[0].event.scale_group) == (value, value)
    assert (answer.headers, caplog.text) == ((), "")
    refused = intake(queue).handle(post(changed(labels=labels, status=value)))
    assert_refused(refused, 400)
    assert value.encode() not in refused.body
    [record] = caplog.records
    assert record.getMessage() == (
        'refused a webhook of 127.0.0.1: alerts[0].status is neither "firing" nor "resolved"'
    )


def test_hostile_fingerprint() -> None:
    """What an answer repeats is JSON in ASCII."""
    answer = intake(Queue()).handle(post(changed(fingerprint="\r\n\u2028\N{FIRE}")))
    assert rows(answer)[0]["fingerprint"] == "\r\n\u2028\N{FIRE}"
    assert answer.body.isascii()
    assert answer.body.count(b"\n") == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def assert_sound(body: bytes, headers: Mapping[str, str]) -> None:
    """Prove that there is an answer, and that nothing is queued by what is refused."""
    queue = Queue()
    answer = intake(queue, clock=system_clock()).handle(post(body, **headers))
    assert answer.status in (200, 400, 413, 415)
    if answer.status == 200:
        assert len(rows(answer)) == len(json.loads(body)["alerts"])
    else:
        assert_refused(answer, answer.status)
        assert queue.taken == []


@pytest.mark.chaos
@settings(max_examples=200 * ROUNDS, deadline=None)
@given(st.binary(), st.dictionaries(st.sampled_from(["content_type", "authorization"]), st.text()))
def test_any_bytes(body: bytes, headers: dict[str, str]) -> None:
    """Whatever arrives, there is an answer."""
    assert_sound(body, headers)


@pytest.mark.chaos
@settings(max_examples=300 * ROUNDS, deadline=None)
@given(
    st.sampled_from(RECORDED),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(max_size=3)), max_size=4),
)
def test_damaged_bytes(name: str, damage: list[tuple[int, bytes]]) -> None:
    """A recorded body with damage anywhere has an answer."""
    body = (FIXTURES / f"{name}.json").read_bytes()
    for position, piece in damage:
        at = position % len(body)
        body = body[:at] + piece + body[at + 1 :]
    assert_sound(body, {})


@pytest.mark.chaos
@settings(max_examples=300 * ROUNDS, deadline=None)
@given(st.sampled_from(RECORDED), st.data())
def test_odd_values(name: str, data: st.DataObject) -> None:
    """A recorded body with anything in place of one of its values has an answer."""
    body = deepcopy(payload(name))
    place: Any = body
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        inner = place[key]
        if not (isinstance(inner, (dict, list)) and inner) or data.draw(st.booleans()):
            break
        place = inner
    place[key] = data.draw(JSON)
    assert_sound(json.dumps(body).encode(), {})
