"""A Kubernetes API server of one namespace: scales, leases and autoscalers, and no more.

What it answers is held against recordings of a real one by test_kubernetes.py.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from exporter.scaleout.clock import rfc3339

Object = dict[str, Any]

AUTOSCALERS = "/apis/autoscaling/v2/namespaces/llm/horizontalpodautoscalers"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/llm/leases"
SCALE = re.compile(r"/apis/(?P<group>[^/]+)/v1/namespaces/llm/(?P<plural>\w+)/(?P<name>\w+)/scale")
GO_TIME = "2006-01-02T15:04:05.000000Z07:00"
MODIFIED = (
    "the object has been modified; please apply your changes to the latest version and try again"
)


class RefusedError(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, reason: str, message: str, details: object = None) -> None:
        super().__init__(message)
        self.status = status
        self.body: Object = {"kind": "Status", "apiVersion": "v1"}
        self.body |= {"metadata": {}, "status": "Failure"}
        self.body |= {"message": message, "reason": reason}
        if details is not None:
            self.body["details"] = details
        self.body["code"] = status


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came."""

    method: str
    path: str
    query: Mapping[str, str]
    content_type: str
    body: Any


@dataclass(slots=True)
class Fault:
    """What the next request of a method to a path that ends so gets instead of its answer.

    Without a status the server acts, and closes the connection with no answer.
    """

    method: str
    path_end: str
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(slots=True)
class FakeKubernetes:
    """The state. `now` is its clock; `before` is called ahead of each request, to meddle."""

    now: float = 1_800_000_000.0
    version: int = 209
    token: str = "good"  # noqa: S105  of a fake
    may_scale: str | None = None  # the one name that the token's role has
    scales: dict[str, Object] = field(default_factory=dict)  # by path
    leases: dict[str, Object] = field(default_factory=dict)  # by path
    autoscalers: list[Object] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    before: Callable[[Request], None] = lambda _: None
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""

    def next_version(self) -> str:
        """Count up."""
        self.version += 1
        return str(self.version)

    def add_scale(self, path: str, replicas: int) -> None:
        """Have an object with so many replicas; 0 is left out, as in Go's JSON."""
        name = path.split("/")[-2]
        self.scales[path] = {
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": {"name": name, "namespace": "llm", "resourceVersion": self.next_version()},
            "spec": {"replicas": replicas} if replicas else {},
            "status": {"replicas": 0, "selector": "a=b"},
        }

    def answer(self, request: Request, token: str) -> tuple[int, Object]:
        """Act, and return status and body."""
        if token != f"Bearer {self.token}":
            raise RefusedError(401, "Unauthorized", "Unauthorized")
        if request.path == AUTOSCALERS:
            return 200, self._autoscalers(request)
        if request.path.startswith(LEASES):
            return self._lease(request)
        return 200, self._scale(request)

    def _autoscalers(self, request: Request) -> Object:
        start, limit = int(request.query.get("continue", "0")), int(request.query["limit"])
        rest = str(start + limit) if start + limit < len(self.autoscalers) else ""
        metadata = {"resourceVersion": str(self.version), "continue": rest}
        return {"metadata": metadata, "items": self.autoscalers[start : start + limit]}

    def _scale(self, request: Request) -> Object:
        scale, parts = self.scales.get(request.path), SCALE.fullmatch(request.path)
        if parts is None or parts["plural"] == "daemonsets":
            raise RefusedError(
                404, "NotFound", "the server could not find the requested resource", {}
            )
        kind, name, group = f"{parts['plural']}.{parts['group']}", parts["name"], parts["group"]
        details = {"name": name, "group": group, "kind": parts["plural"]}
        if self.may_scale not in (None, name):
            who = 'User "system:serviceaccount:llm:gpumon"'
            what = f'{request.method.lower()} resource "{parts["plural"]}/scale"'
            where = f'in API group "{group}" in the namespace "llm"'
            text = f'{kind} "{name}" is forbidden: {who} cannot {what} {where}'
            raise RefusedError(403, "Forbidden", text, details)
        is_patch = request.method == "PATCH"
        if is_patch and request.content_type != "application/merge-patch+json":
            raise RefusedError(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})
        if scale is None:
            raise RefusedError(404, "NotFound", f'{kind} "{name}" not found', details)
        if not is_patch:
            return scale
        wanted = request.body["spec"]["replicas"]
        if wanted < 0:
            raise _negative(name, wanted)
        self._check_version(request, scale, f'{kind} "{name}"', details)
        changed = {**scale, "spec": {"replicas": wanted}}
        if changed["spec"] == scale["spec"] or request.query.get("dryRun") == "All":
            return changed
        changed["metadata"] = {**scale["metadata"], "resourceVersion": self.next_version()}
        self.scales[request.path] = changed
        return changed

    def _lease(self, request: Request) -> tuple[int, Object]:
        is_new = request.method == "POST"
        name = request.body["metadata"]["name"] if is_new else request.path.rpartition("/")[2]
        path, what = f"{LEASES}/{name}", f'leases.coordination.k8s.io "{name}"'
        details = {"name": name, "group": "coordination.k8s.io", "kind": "leases"}
        lease = self.leases.get(path)
        if request.method != "GET":
            _check_times(request.body["spec"])
        if is_new and lease is not None:
            raise RefusedError(409, "AlreadyExists", f"{what} already exists", details)
        if not is_new and lease is None:
            raise RefusedError(404, "NotFound", f"{what} not found", details)
        if request.method == "GET":
            return 200, lease or {}
        created = rfc3339(self.now)[:19] + "Z"
        metadata = {"name": name, "namespace": "llm", "creationTimestamp": created}
        if lease is not None:
            self._check_version(request, lease, what, details)
            metadata = lease["metadata"]
        metadata = {**metadata, "resourceVersion": self.next_version()}
        made = {"kind": "Lease", "apiVersion": "coordination.k8s.io/v1", "metadata": metadata}
        made["spec"] = request.body["spec"]
        if request.query.get("dryRun") != "All":
            self.leases[path] = made
        return 201 if is_new else 200, made

    def _check_version(self, request: Request, found: Object, what: str, details: Object) -> None:
        known = request.body.get("metadata", {}).get("resourceVersion")
        if known not in (None, found["metadata"]["resourceVersion"]):
            text = f"Operation cannot be fulfilled on {what}: {MODIFIED}"
            raise RefusedError(409, "Conflict", text, details)


def _negative(name: str, wanted: int) -> RefusedError:
    text = f"Invalid value: {wanted}: must be greater than or equal to 0"
    cause = {"reason": "FieldValueInvalid", "message": text, "field": "spec.replicas"}
    details = {"name": name, "group": "autoscaling", "kind": "Scale", "causes": [cause]}
    message = f'Scale.autoscaling "{name}" is invalid: spec.replicas: {text}'
    return RefusedError(422, "Invalid", message, details)


def _check_times(spec: Object) -> None:
    for text in (spec["acquireTime"], spec["renewTime"]):
        found = re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6}Z$)?", text)
        if found is None or found[1] is None:
            rest, wanted = (text, "2006") if found is None else (text[found.end() :], ".000000")
            parsing = f'parsing time "{text}" as "{GO_TIME}": cannot parse "{rest}" as "{wanted}"'
            message = f'Lease in version "v1" cannot be handled as a Lease: {parsing}'
            raise RefusedError(400, "BadRequest", message)


def _handler(fake: FakeKubernetes) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def handle_request(self) -> None:
            url = urlsplit(self.path)
            content = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            request = Request(
                method=self.command,
                path=url.path,
                query={name: values[0] for name, values in parse_qs(url.query).items()},
                content_type=self.headers.get("Content-Type", ""),
                body=json.loads(content) if content else None,
            )
            with fake.lock:
                fake.requests.append(request)
                fake.before(request)
                fault = next((f for f in fake.faults if _strikes(f, request)), None)
                if fault is not None:
                    fake.faults.remove(fault)
                if fault is not None and fault.status is not None:
                    self.reply(fault.status, fault.body, fault.headers)
                    return
                try:
                    status, body = fake.answer(request, self.headers.get("Authorization", ""))
                except RefusedError as error:
                    status, body = error.status, error.body
            if fault is None:
                self.reply(status, json.dumps(body).encode(), {})

        do_GET = do_POST = do_PUT = do_PATCH = handle_request  # noqa: N815  names of http.server

        def reply(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string(fake.now if timestamp is None else timestamp)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _strikes(fault: Fault, request: Request) -> bool:
    return fault.method == request.method and request.path.endswith(fault.path_end)


class _Server(ThreadingHTTPServer):
    request_queue_size = 256  # a hundred nodes come at once


@contextlib.contextmanager
def running() -> Iterator[FakeKubernetes]:
    """Serve one on the loopback while the context lasts."""
    fake = FakeKubernetes()
    with _Server(("127.0.0.1", 0), _handler(fake)) as server:
        fake.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()
