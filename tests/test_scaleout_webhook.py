"""The generic webhook as a receiver sees it: signature, formats, retries, and nothing injected."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from scaleout_peers import NOON, FakeClock, Reply, event, serving, webhook
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from exporter.config import Action, WebhookConfig
from exporter.config.template import NAMES
from exporter.scaleout import message, signature
from exporter.scaleout.formats import CLOUDEVENT_TYPE
from exporter.scaleout.model import Delivery, Outcome
from exporter.scaleout.webhook import WebhookReceiver
from exporter.secretfile import SecretError

# Of the specification: github.com/standard-webhooks, libraries/python, test_webhooks.py
VECTOR_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105  published
VECTOR_BODY = b'{"test": 2432232314}'
VECTOR_SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
HOSTILE = '"}, "replicas":99, "x":{"y":"\r\nX-Injected: 1 ${step} {0.__class__} 🙂 \u202e'
ACTION = Action("scale-out", receiver="scaler")
LABELS = {"cluster": "prod-eu1"}


def delivery(
    action: Action = ACTION, labels: Mapping[str, str] = LABELS, **changes: str
) -> Delivery:
    """Return a request as the outbox hands it out."""
    what = replace(event(), **changes)  # type: ignore[arg-type]  # names and reasons are text
    data = message.describe(what, action, labels, "gpu-017")
    named = {"event_id": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "dedupe_key": "llm-a:5f1c9a"}
    return Delivery(
        **named,
        kind="scale_out.requested",
        event=json.loads(json.dumps({**named, **data})),
        created=NOON,
        deadline=NOON + 600,
        attempt=1,
        plan=None,
        remember_plan=lambda _: None,
    )


def sent(
    changes: Mapping[str, object], what: Delivery | None = None
) -> tuple[Any, Mapping[str, str]]:
    """Deliver to a webhook with these settings; return the body as JSON, and the headers."""
    with serving() as peer:
        receiver = WebhookReceiver(
            "scaler/webhook/0", webhook(peer.url, **changes), FakeClock().clock
        )
        assert receiver.deliver(what or delivery()).outcome is Outcome.DELIVERED
        (said,) = peer.said
        return json.loads(said.body), said.headers


def test_published_vector_is_reproduced() -> None:
    """The specification's own secret, body and time give its signature."""
    secret = base64.b64decode(VECTOR_SECRET.removeprefix("whsec_"))
    made = signature.sign([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, VECTOR_BODY)
    assert made == VECTOR_SIGNATURE


def test_reference_library_accepts_the_signature(tmp_path: Path) -> None:
    """What is sent passes Standard Webhooks' own verifier, and fails it with another secret."""
    secrets = tmp_path / "secrets"
    other = "whsec_" + base64.b64encode(b"y" * 24).decode()
    secrets.write_text(f"{VECTOR_SECRET}\n{other}\n")
    secrets.chmod(0o600)
    with serving() as peer:
        config = webhook(peer.url, signing_secret_file=secrets)
        clock = replace(FakeClock().clock, wall=time.time)
        WebhookReceiver("t", config, clock).deliver(delivery())
        (said,) = peer.said
    for secret in (VECTOR_SECRET, other):
        Webhook(secret).verify(said.body, dict(said.headers))
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + base64.b64encode(b"z" * 24).decode()).verify(
            said.body, dict(said.headers)
        )


def headers(**changes: str) -> dict[str, str]:
    """Return good headers of a webhook, with changes."""
    made = signature.sign([b"x" * 24], "id", int(NOON), b"{}")
    good = {signature.ID: "id", signature.TIMESTAMP: str(int(NOON)), signature.SIGNATURE: made}
    return {**good, **{name.replace("_", "-"): value for name, value in changes.items()}}


def test_genuine_webhook_is_accepted() -> None:
    """A signature by any known secret is enough, also among others of other versions."""
    signature.verify([b"y" * 24, b"x" * 24], headers(), b"{}", NOON + 299)
    several = f"v1a,unknown v1,AAAA {headers()[signature.SIGNATURE]}"
    signature.verify([b"x" * 24], headers(webhook_signature=several), b"{}", NOON - 299)


@pytest.mark.parametrize(
    ("changes", "body", "now"),
    [
        ({"webhook_signature": ""}, b"{}", NOON),
        ({"webhook_signature": "v1,"}, b"{}", NOON),
        ({"webhook_signature": "v1"}, b"{}", NOON),
        ({"webhook_signature": "v1,\u00e9\ud800"}, b"{}", NOON),
        ({"webhook_signature": headers()[signature.SIGNATURE].replace("v1,", "v2,")}, b"{}", NOON),
        ({"webhook_id": "other"}, b"{}", NOON),
        ({"webhook_id": ""}, b"{}", NOON),
        ({"webhook_timestamp": str(int(NOON) + 1)}, b"{}", NOON),
        ({"webhook_timestamp": "soon"}, b"{}", NOON),
        ({"webhook_timestamp": ""}, b"{}", NOON),
        ({"webhook_timestamp": "-1"}, b"{}", NOON),
        ({"webhook_timestamp": "9" * 5000}, b"{}", NOON),
        ({}, b"{} ", NOON),
        ({}, b"{}", NOON + 301),
        ({}, b"{}", NOON - 301),
    ],
)
def test_forged_webhook_is_refused(changes: dict[str, str], body: bytes, now: float) -> None:
    """Another body, id, time, version or no signature: refused, whatever the header holds."""
    with pytest.raises(signature.SignatureError):
        signature.verify([b"x" * 24], headers(**changes), body, now)


def test_webhook_without_an_id_is_refused() -> None:
    """A signature over no id proves nothing of which request it is."""
    made = signature.sign([b"x" * 24], "", int(NOON), b"{}")
    with pytest.raises(signature.SignatureError):
        signature.verify([b"x" * 24], headers(webhook_id="", webhook_signature=made), b"{}", NOON)


@pytest.mark.parametrize(
    "text", ["", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_!!!", "whsec_c2hvcnQ=", "whsec_"]
)
def test_bad_signing_secret_is_named_by_line(tmp_path: Path, text: str) -> None:
    """A line that is no secret is named by file and number, and not quoted."""
    path = tmp_path / "secrets"
    path.write_text(f"{VECTOR_SECRET}\n{text}\n{VECTOR_SECRET}")
    path.chmod(0o600)
    with pytest.raises(SecretError, match=r"secrets:2 is no secret; write whsec_") as refused:
        signature.read_secrets(path)
    assert not text or text not in str(refused.value).replace("write whsec_ and", "")


def test_body_is_the_documented_one() -> None:
    """The JSON body has exactly the documented fields."""
    body, heads = sent({})
    assert body == {
        "type": "gpu_node_exporter.scale_out.requested",
        "timestamp": "2027-01-15T08:00:00.000Z",
        "data": {
            "event_id": "01ARZ3NDEKTSV4RRFFQ69G5FAV",
            "dedupe_key": "llm-a:5f1c9a",
            "dry_run": False,
            "reason": "gpu_utilization_ratio >= 0.95 for 10s",
            "scale_group": "llm-a",
            "cluster": "prod-eu1",
            "node": "gpu-017",
            "action": "scale-out",
            "step": 1,
            "rule": "GpuSustainedLoad",
            "repeat": False,
            "started_at": "2027-01-15T07:59:50.000Z",
            "fired_at": "2027-01-15T08:00:00.000Z",
            "series": [
                {
                    "gpu": "0",
                    "uuid": "GPU-0",
                    "value": 1.0,
                    "min": 0.97,
                    "mean": 0.995,
                    "samples": 11,
                    "expected": 11,
                }
            ],
            "cooldown_s": 300.0,
        },
    }
    assert heads["content-type"] == "application/json"
    assert heads["webhook-id"] == heads["idempotency-key"] == "01ARZ3NDEKTSV4RRFFQ69G5FAV"
    assert "webhook-signature" not in heads


def test_cloudevent_is_structured() -> None:
    """A CloudEvent 1.0 has its required attributes, in the right alphabet, and our data."""
    node = delivery(labels={"cluster": "prod/eu 1"})
    body, heads = sent({"format": "cloudevents"}, node)
    data = body.pop("data")
    assert data["event_id"] == body["id"]
    assert body == {
        "specversion": "1.0",
        "id": "01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "source": "/clusters/prod%2Feu%201/nodes/gpu-017",
        "type": "dev.gpu-node-exporter.scaleout.requested.v1",
        "subject": "llm-a",
        "time": "2027-01-15T08:00:00.000Z",
        "datacontenttype": "application/json",
        "dedupekey": "llm-a:5f1c9a",
    }
    assert all(name.isalnum() and name.islower() for name in body)
    assert heads["content-type"] == CLOUDEVENT_TYPE
    assert "subject" not in sent({"format": "cloudevents"}, delivery(scale_group=""))[0]


def test_template_is_filled_structurally() -> None:
    """Variables become values of their own type when alone, and text within text."""
    template = {
        "replicas": "+$step",
        "by": "$step",
        "why": "${rule} on $node: $reason, $$5",
        "gpus": "$series",
        "dry": "$dry_run",
        "text": "dry: $dry_run, ends: $resolves",
        "ends": "$resolves",
        "kind": ["$type", 7, None, True, {"$rule": "keys stay"}],
    }
    body, _ = sent({"format": "template", "template": template})
    assert body == {
        "replicas": "+1",
        "by": 1,
        "why": "GpuSustainedLoad on gpu-017: gpu_utilization_ratio >= 0.95 for 10s, $5",
        "gpus": delivery().event["series"],
        "dry": False,
        "text": "dry: false, ends: null",
        "ends": None,
        "kind": [
            "gpu_node_exporter.scale_out.requested",
            7,
            None,
            True,
            {"$rule": "keys stay"},
        ],
    }


def test_variables_are_the_fields_there_are() -> None:
    """What a template may use is what the event has, no more and no less."""
    assert set(delivery().event) | {"type", "timestamp", "resolves"} == NAMES


@pytest.mark.parametrize("form", ["json", "cloudevents", "template"])
def test_hostile_labels_stay_inert(form: str) -> None:
    """Labels that try to break out stay text: in the body, in headers, in the dry run's log."""
    what = delivery(
        labels={"cluster": HOSTILE}, rule=HOSTILE, scale_group=HOSTILE, reason=HOSTILE * 200
    )
    template = {"replicas": 1, "node": "$cluster", "text": "on $rule", "all": "$series"}
    settings = {"format": form, "template": template if form == "template" else None}
    body, heads = sent(settings, what)
    assert "x-injected" not in heads
    if form == "template":
        assert body == {
            "replicas": 1,
            "node": HOSTILE,
            "text": f"on {HOSTILE}",
            "all": what.event["series"],
        }
    else:
        assert body["data"]["rule"] == HOSTILE
        assert len(body["data"]["reason"]) == message.MAX_REASON


def test_long_labels_are_cut_to_something_unique() -> None:
    """Labels of many kilobytes are cut, and two that begin alike still differ."""
    one, two = message.short("x" * 10_000 + "1"), message.short("x" * 10_000 + "2")
    assert len(one) == len(two) == message.MAX_LABEL
    assert one != two
    assert one.endswith(hashlib.sha256(b"x" * 10_000 + b"1").hexdigest()[:16])
    assert message.short("\ud800") == "?"


def test_dry_run_sends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A dry run ends before the network; the log shows the body, and no path of the URL."""
    with serving() as peer, caplog.at_level(logging.INFO):
        receiver = WebhookReceiver("t", webhook(peer.url + "/s3cret"), FakeClock().clock)
        attempt = receiver.deliver(delivery(replace(ACTION, dry_run=True)))
        assert (attempt.outcome, peer.said) == (Outcome.DRY_RUN, [])
    assert "GpuSustainedLoad" in caplog.text
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        *((status, Outcome.DELIVERED) for status in (200, 201, 202, 204, 299)),
        *((status, Outcome.RETRY) for status in (401, 403, 408, 425, 429, 500, 501, 503, 599)),
        *((status, Outcome.DEAD) for status in (300, 301, 307, 400, 404, 409, 410, 418, 422)),
    ],
)
def test_status_decides(status: int, outcome: Outcome) -> None:
    """2xx is delivered; 401, 403, 408, 425, 429 and 5xx are tried again; all else is dead."""
    with serving(Reply(status, {}, b"" if status == 204 else b"echo of a s3cret")) as peer:
        receiver = WebhookReceiver("t", webhook(peer.url), FakeClock().clock)
        attempt = receiver.deliver(delivery())
        assert (attempt.outcome, attempt.status) == (outcome, status)
        assert "s3cret" not in attempt.error
        assert (str(status) in attempt.error) == (outcome is not Outcome.DELIVERED)


def test_gone_is_not_asked_again() -> None:
    """After 410 Gone the target hears nothing more until a reload makes another receiver."""
    with serving(410) as peer:
        receiver = WebhookReceiver("t", webhook(peer.url), FakeClock().clock)
        attempts = [receiver.deliver(delivery()) for _ in range(3)]
        assert [attempt.outcome for attempt in attempts] == [Outcome.DEAD] * 3
        assert len(peer.said) == 1


@pytest.mark.parametrize(
    ("heads", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": formatdate(NOON + 90, usegmt=True)}, 90.0),
        ({"Retry-After": formatdate(NOON - 90, usegmt=True)}, 0.0),
        # The server's clock is an hour ahead: what counts is what it means.
        (
            {
                "Retry-After": formatdate(NOON + 3690, usegmt=True),
                "Date": formatdate(NOON + 3600, usegmt=True),
            },
            90.0,
        ),
        ({"Retry-After": "99999999999999999999"}, 1e9),
        ({"Retry-After": "9" * 400}, 1e9),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "1.5"}, None),
        ({"Retry-After": "²"}, None),
        ({"Retry-After": ""}, None),
        ({}, None),
    ],
)
def test_retry_after_is_understood(heads: dict[str, str], seconds: float | None) -> None:
    """Seconds and HTTP dates are understood, nonsense is no wish."""
    encoded = {name: value.encode().decode("latin-1") for name, value in heads.items()}
    date = {"Date": formatdate(NOON, usegmt=True)}
    with serving(Reply(429, {**date, **encoded})) as peer:
        receiver = WebhookReceiver("t", webhook(peer.url), FakeClock().clock)
        wait = receiver.deliver(delivery()).retry_after_seconds
    assert wait == seconds


def test_missing_permission_is_tried_slowly() -> None:
    """401 and 403 wait for the longest backoff: a secret is renewed in minutes, not in seconds."""
    for status in (401, 403):
        with serving(status) as peer:
            config = webhook(peer.url)
            attempt = WebhookReceiver("t", config, FakeClock().clock).deliver(delivery())
            assert attempt.retry_after_seconds == config.retry.max_backoff_seconds


def test_url_from_a_file_stays_secret(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A URL that is a secret is read for each attempt, and appears in no error and no log."""
    path = tmp_path / "url"
    config = WebhookConfig(url_file=path)
    receiver = WebhookReceiver("t", config, FakeClock().clock)
    missing = receiver.deliver(delivery())
    assert missing.outcome is Outcome.RETRY
    assert str(path) in missing.error
    path.touch(0o600)
    for text in ("https://127.0.0.1:1/s3cret", "https://s3cret@host/", "s3cret", "http://h/s3cret"):
        path.write_text(text + "\n")
        attempt = receiver.deliver(delivery())
        assert attempt.outcome is Outcome.RETRY
        assert "s3cret" not in attempt.error
    with serving() as peer:
        path.write_text(peer.url)
        assert receiver.deliver(delivery()).outcome is Outcome.DELIVERED
    assert "s3cret" not in caplog.text


def test_numbers_that_json_lacks_are_null() -> None:
    """NaN and infinity, which no JSON parser has to take, are sent as null."""
    (series,) = event().series
    broken = replace(series, value=math.nan, minimum=-math.inf)
    body, _ = sent({}, delivery(series=(broken,)))  # type: ignore[arg-type]  # the one that is no text
    assert (body["data"]["series"][0]["value"], body["data"]["series"][0]["min"]) == (None, None)


def test_ids_sort_by_time() -> None:
    """Event ids are 26 letters without dots, each another, and later ones sort later."""
    ids = [message.event_id(NOON + n) for n in range(100)]
    assert ids == sorted(ids)
    assert len({message.event_id(NOON) for _ in range(1000)}) == 1000
    assert all(len(one) == 26 and one.isalnum() and one.isupper() for one in ids)
    assert message.event_id(-1e12) < message.event_id(0.5) < message.event_id(1e10)


def test_dedupe_key_is_the_same_on_every_node() -> None:
    """Nodes agree on the key within a window, whatever rule fired; groups and windows differ."""
    group = {"cluster": "a", "scale_group": "llm"}
    start = 300.0 * 6_000_000
    key = message.dedupe_key(ACTION, group, start)
    assert key.startswith("llm:")
    assert message.dedupe_key(ACTION, dict(reversed(group.items())), start + 299) == key
    assert message.dedupe_key(ACTION, group, start + 300) != key
    assert message.dedupe_key(ACTION, {**group, "cluster": "b"}, start) != key
    assert message.dedupe_key(replace(ACTION, name="other"), group, start) != key
