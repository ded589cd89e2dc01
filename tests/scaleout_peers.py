"""What scale-out is tested with: clocks to be set, events, configs, and servers good and bad."""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_WR, create_server, socket

from exporter.config import Action, Config, HttpConfig, Receiver, Retry, WebhookConfig
from exporter.scaleout.clock import Clock
from exporter.scaleout.model import EventKind, RuleEvent, SeriesSummary

PATIENCE_SECONDS = 30.0  # far beyond what is waited for: who waits so long has failed
NOON = 1_800_000_000.0
QUICK = Retry(min_backoff_seconds=0.01, max_backoff_seconds=0.02, deadline_seconds=600.0)


class FakeClock:
    """Clocks that stand still until they are told otherwise."""

    def __init__(
        self, wall: float = NOON, since_boot: float = 1000.0, boot: str = "boot-1"
    ) -> None:
        self.now = wall
        self.up = since_boot
        self.boot = boot

    @property
    def clock(self) -> Clock:
        """The clock as a program that starts now sees it."""
        return Clock(lambda: self.now, lambda: self.up, self.boot)

    def passes(self, seconds: float) -> None:
        """Let time pass, on both."""
        self.now += seconds
        self.up += seconds

    def jumps(self, seconds: float) -> None:
        """Set the wall clock forwards or back."""
        self.now += seconds

    def reboots(self, seconds: float = 60.0) -> None:
        """Start the machine anew, which takes some time."""
        self.now += seconds
        self.up = 5.0
        self.boot += "+"


def event(
    kind: EventKind = EventKind.FIRING,
    *,
    rule: str = "GpuSustainedLoad",
    group: str = "llm-a",
    actions: tuple[str, ...] = ("scale-out",),
    gpus: Sequence[str] = ("0",),
    reason: str = "gpu_utilization_ratio >= 0.95 for 10s",
) -> RuleEvent:
    """Return an event as the rules tell it."""
    series = tuple(SeriesSummary(gpu, f"GPU-{gpu}", 1.0, 0.97, 0.995, 11, 11) for gpu in gpus)
    return RuleEvent(rule, kind, reason, group, NOON - 10, NOON, series, actions)


def config(*webhooks: WebhookConfig, **changes: object) -> Config:
    """Return a config whose action scale-out sends to these webhooks."""
    fields: dict[str, object] = {"receiver": "scaler", "cooldown_seconds": 300.0, **changes}
    action = Action("scale-out", **fields)  # type: ignore[arg-type]  # each test gives what fits
    return Config(actions=(action,), receivers=(Receiver("scaler", webhook_configs=webhooks),))


def wait_until(condition: Callable[[], object]) -> None:
    """Return when the condition holds, fail if it never does."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@dataclass(frozen=True, slots=True)
class Said:
    """A request as it came; names of headers in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float


@dataclass(frozen=True, slots=True)
class Reply:
    """What to answer."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Peer:
    """An HTTP server that answers as it is told: the replies in their order, the last for ever."""

    def __init__(self, replies: Sequence[Reply | int], tls: ssl.SSLContext | None) -> None:
        self.replies = [Reply(one) if isinstance(one, int) else one for one in replies or (200,)]
        self.said: list[Said] = []
        self.before: Callable[[], object] = lambda: None  # called before each answer
        self.server = QuietServer(("127.0.0.1", 0), self._handler())
        self.port = self.server.server_port
        scheme = "http"
        if tls is not None:
            scheme = "https"
            self.server.socket = tls.wrap_socket(
                self.server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.url = f"{scheme}://localhost:{self.port}/v1/scale-out"

    def ids(self) -> list[str]:
        """Return the ids of the webhooks that came."""
        return [said.headers["webhook-id"] for said in self.said]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        peer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                body = self.rfile.read(length)
                if len(body) < length:  # its client has died over it
                    return
                headers = {name.lower(): value for name, value in self.headers.items()}
                said = Said(self.command, self.path, headers, body, time.monotonic())
                peer.said.append(said)
                peer.before()
                reply = peer.replies.pop(0) if len(peer.replies) > 1 else peer.replies[0]
                self.send_response_only(reply.status)
                own = {"Content-Length": str(len(reply.body))}
                for name, value in {**own, **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(reply.body)

            do_GET = do_POST = do_PUT = do_PATCH = answer  # noqa: N815  as http.server wants it

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        return Handler


class QuietServer(ThreadingHTTPServer):
    """Says nothing of clients that go away: they are what is tested."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Keep quiet."""


@contextlib.contextmanager
def serving(*replies: Reply | int, tls: ssl.SSLContext | None = None) -> Iterator[Peer]:
    """Serve while the context lasts."""
    peer = Peer(replies, tls)
    thread = threading.Thread(target=peer.server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield peer
    finally:
        peer.server.shutdown()
        peer.server.server_close()
        thread.join()


@contextlib.contextmanager
def rude(behave: Callable[[socket], None]) -> Iterator[int]:
    """Serve TCP on the yielded port; each connection is left to a function, in a thread."""
    ended = threading.Event()
    threads = []
    with create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.02)

        def serve(connection: socket) -> None:
            with connection, contextlib.suppress(OSError):
                behave(connection)

        def accept() -> None:
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    connection, _ = listener.accept()
                    connection.settimeout(PATIENCE_SECONDS)
                    threads.append(threading.Thread(target=serve, args=(connection,)))
                    threads[-1].start()

        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield listener.getsockname()[1]
        finally:
            ended.set()
            acceptor.join()
            for thread in threads:
                thread.join()


def read_request(connection: socket) -> bytes:
    """Read until the end of a request with a length."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def until_closed(connection: socket) -> None:
    """Wait until the client has closed the connection."""
    with contextlib.suppress(OSError):
        connection.shutdown(SHUT_WR)
        while connection.recv(65536):
            pass


def webhook(url: str, **changes: object) -> WebhookConfig:
    """Return a webhook that is tried again within milliseconds."""
    fields: dict[str, object] = {"url": url, "retry": QUICK, "http_config": HttpConfig(), **changes}
    return WebhookConfig(**fields)  # type: ignore[arg-type]  # each test gives what fits
