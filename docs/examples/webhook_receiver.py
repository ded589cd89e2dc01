#!/usr/bin/env python3
"""Receives the exporter's webhook, and shows all that a receiver has to do. Standard library only.

    python3 webhook_receiver.py --secret-file secret.txt --port 8080

1. Check the signature over the raw body, and that it is from now.
2. Answer 200 to an id that was handled before, without acting again: requests come at least once.
3. Act at most once within a cooldown of your own: several nodes may ask for the same thing.
   `dedupe_key` is the same on all of them, mostly.
4. Answer 2xx once the request is safe with you; 5xx or 429 to have it sent again, 4xx to refuse it.

Each request is printed as a line of JSON. --fail N answers 500 to the first N, to try retries out.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MAX_BODY_BYTES = 1 << 20
TOLERANCE_SECONDS = 300
REMEMBERED = 10_000  # ids


def is_genuine(secret: bytes, headers: Mapping[str, str], body: bytes, now: float) -> bool:
    """Tell whether who sent this knows the secret, and sent it in the last minutes."""
    event_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not timestamp.isdecimal() or abs(now - int(timestamp)) > TOLERANCE_SECONDS:
        return False
    content = b".".join((event_id.encode(), timestamp.encode(), body))
    digest = hmac.new(secret, content, hashlib.sha256).digest()
    right = b"v1," + base64.b64encode(digest)
    # Several while the sender's secret is rotated.
    given = headers.get("webhook-signature", "").split(" ")
    return any(hmac.compare_digest(right, one.encode()) for one in given)


class Receiver(ThreadingHTTPServer):
    """Remembers what it has handled."""

    daemon_threads = True

    def __init__(
        self, address: tuple[str, int], secret: bytes | None, failures: int, cooldown: float
    ) -> None:
        super().__init__(address, Handler)
        self.secret = secret
        self.failures = failures
        self.cooldown = cooldown
        self.lock = threading.Lock()  # a request that is sent twice may come twice at once
        self.handled: OrderedDict[str, None] = OrderedDict()
        self.acted: dict[str, float] = {}  # scale group -> when

    def decide(self, headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
        """Return the status, and in a word what was made of a request."""
        if self.secret is not None and not is_genuine(self.secret, headers, body, time.time()):
            return 401, "not genuine"
        try:
            content = json.loads(body)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            return 400, "no JSON object"
        with self.lock:
            return self.act(headers.get("webhook-id", ""), content)

    def act(self, event_id: str, content: dict[str, Any]) -> tuple[int, str]:
        """Do what is asked for, once."""
        if self.failures > 0:
            self.failures -= 1
            return 500, "made to fail"
        if event_id in self.handled:
            return 200, "handled before"
        self.handled[event_id] = None
        if len(self.handled) > REMEMBERED:
            self.handled.popitem(last=False)
        data = content.get("data", {})
        group = str(data.get("scale_group", ""))
        now = time.monotonic()
        if now < self.acted.get(group, -self.cooldown) + self.cooldown:
            return 200, "too soon after another node's"
        if not data.get("dry_run"):
            self.acted[group] = now  # here is the place to scale out
        return 200, "accepted"


class Handler(BaseHTTPRequestHandler):
    """Answers a POST."""

    server: Receiver
    timeout = 10  # seconds, for a client that says nothing

    def do_POST(self) -> None:
        """Take one webhook."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            self.send_error(413)
            return
        body = self.rfile.read(int(length))
        headers = {name.lower(): value for name, value in self.headers.items()}
        status, verdict = self.server.decide(headers, body)
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()
        said = {"status": status, "verdict": verdict, "id": headers.get("webhook-id")}
        line = json.dumps({**said, "body": body.decode(errors="replace")})
        print(line, flush=True)  # noqa: T201  what it is for

    def log_message(self, *_: object) -> None:
        """Say nothing: do_POST prints."""


def main() -> int:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="Receive the exporter's webhook.")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (default: loopback)")
    parser.add_argument("--port", type=int, default=8080, help="0 for any (default: 8080)")
    parser.add_argument("--secret-file", type=Path, help="whsec_..., as in signing_secret_file")
    parser.add_argument("--fail", type=int, default=0, metavar="N", help="answer 500 to N requests")
    parser.add_argument("--cooldown", type=float, default=0.0, metavar="SECONDS")
    flags = parser.parse_args()
    secret = None
    if flags.secret_file is not None:
        text = flags.secret_file.read_text(encoding="ascii").split()[0]
        secret = base64.b64decode(text.removeprefix("whsec_"))
    address = (flags.host, flags.port)
    with Receiver(address, secret, flags.fail, flags.cooldown) as server:
        print(f"listening on {flags.host}:{server.server_port}", file=sys.stderr, flush=True)  # noqa: T201
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
