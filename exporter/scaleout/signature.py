"""Signatures of webhooks, by Standard Webhooks 1.0.0 (github.com/standard-webhooks)."""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path

from exporter.secretfile import SecretError, read_secret

PREFIX = "whsec_"
MIN_SECRET_BYTES = 24
TOLERANCE_SECONDS = 300.0
ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"


class SignatureError(Exception):
    """A webhook that is not from who knows the secret, or not from now."""


def read_secrets(path: Path) -> tuple[bytes, ...]:
    """Return the secrets of a file, one a line: several while they are rotated.

    Raises:
        SecretError: The file cannot be used.
    """
    secrets = []
    for number, line in enumerate(read_secret(path).splitlines(), start=1):
        try:
            secret = b64decode(line.strip().removeprefix(PREFIX), validate=True)
        except ValueError:
            secret = b""
        if not line.strip().startswith(PREFIX) or len(secret) < MIN_SECRET_BYTES:
            raise SecretError(
                f"{path}:{number} is no secret; write {PREFIX} and what "
                f"`openssl rand -base64 {MIN_SECRET_BYTES}` prints"
            )
        secrets.append(secret)
    return tuple(secrets)


def sign(secrets: Sequence[bytes], event_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of the header `webhook-signature`: a signature by each secret."""
    content = b"%s.%d.%s" % (event_id.encode(), timestamp, body)
    digests = (hmac.digest(secret, content, hashlib.sha256) for secret in secrets)
    return " ".join(f"v1,{b64encode(digest).decode()}" for digest in digests)


def verify(secrets: Sequence[bytes], headers: Mapping[str, str], body: bytes, now: float) -> None:
    """Check who signed a webhook, and when.

    Args:
        secrets: One of them must have signed.
        headers: Names in lower case.
        body: As it came.
        now: Seconds since the epoch.

    Raises:
        SignatureError: It is not to be trusted.
    """
    event_id, stamp = headers.get(ID, ""), headers.get(TIMESTAMP, "")
    if not event_id or not re.fullmatch("[0-9]{1,12}", stamp):
        raise SignatureError(f"{ID} or {TIMESTAMP} is missing or malformed")
    timestamp = int(stamp)
    if abs(now - timestamp) > TOLERANCE_SECONDS:
        raise SignatureError(f"{TIMESTAMP} is more than {TOLERANCE_SECONDS:.0f} s from now")
    expected = [one.encode() for one in sign(secrets, event_id, timestamp, body).split()]
    # In bytes: compare_digest refuses text beyond ASCII.
    given = [one.encode(errors="replace") for one in headers.get(SIGNATURE, "").split(" ")]
    matches = [hmac.compare_digest(right, one) for right in expected for one in given]
    if not any(matches):
        raise SignatureError(f"{SIGNATURE} does not match")
