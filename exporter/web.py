"""What the daemon answers over HTTP: the page, its state, and a way in for people."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from ipaddress import ip_address

from prometheus_client.exposition import choose_encoder

from exporter.exposition import Page
from exporter.httpd import Request, Response, Route
from exporter.snapshot import Gpu, Snapshot

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
VARY = ("Vary", "Accept, Accept-Encoding")
STARTING = "the first readings are under way"

LANDING = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 48rem; margin: 2rem auto;
padding: 0 1rem }} table {{ border-collapse: collapse }} th, td {{ text-align: left;
padding: 0.2rem 1rem 0.2rem 0 }} .note {{ border-left: 0.3rem solid orange; padding-left: 1rem }}
</style>
</head>
<body>
<h1>GPU node exporter</h1>
{notes}
<p>{summary}</p>
{gpus}
<ul>
<li><a href="{telemetry_path}">{telemetry_path}</a>: the metrics, for Prometheus</li>
<li><a href="/-/ready">/-/ready</a>: whether the readings are there and fresh</li>
<li><a href="/-/healthy">/-/healthy</a>: whether the process lives</li>
</ul>
<p>Version {version}</p>
</body>
</html>
"""


class Web:
    """The routes. Runs in the event loop's thread alone."""

    def __init__(
        self,
        latest: Callable[[], Snapshot | None],
        reload: Callable[[], str | None],
        telemetry_path: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take where the latest snapshot is, and what loads the config: it returns what failed."""
        self._latest = latest
        self._reload = reload
        self._telemetry_path = telemetry_path
        self._clock = clock
        self._pages = {False: Page(openmetrics=False), True: Page(openmetrics=True)}
        self._base: Snapshot | None = None
        self._view: Snapshot | None = None

    def routes(self) -> list[Route]:
        """Return all paths there are."""
        return [
            Route(self._telemetry_path, ("GET",), self.metrics),
            Route("/", ("GET",), self.landing),
            Route("/-/healthy", ("GET",), lambda _: Response(HTTPStatus.OK, b"healthy\n")),
            Route("/-/ready", ("GET",), self.ready),
            Route("/-/reload", ("POST",), self.reload),
        ]

    def metrics(self, request: Request) -> Response:
        """Answer with the page, in the format and encoding that the client prefers."""
        snapshot = self._snapshot()
        if snapshot is None:
            return Response(HTTPStatus.SERVICE_UNAVAILABLE, f"{STARTING}\n".encode())
        _, content_type = choose_encoder(request.headers.get("accept", ""))
        openmetrics = content_type.startswith("application/openmetrics-text")
        content_type = OPENMETRICS if openmetrics else TEXT
        page = self._pages[openmetrics]
        if accepts_gzip(request.headers):
            headers = (VARY, ("Content-Encoding", "gzip"))
            return Response(HTTPStatus.OK, page.zipped(snapshot), content_type, headers)
        return Response(HTTPStatus.OK, page.plain(snapshot), content_type, (VARY,))

    def ready(self, _request: Request) -> Response:
        """Answer 200 while readings are there and fresh, else 503 and why not."""
        why = unready(self._snapshot())
        if why is None:
            return Response(HTTPStatus.OK, b"ready\n")
        return Response(HTTPStatus.SERVICE_UNAVAILABLE, f"not ready: {why}\n".encode())

    def reload(self, request: Request) -> Response:
        """Load the config again; the old one goes on if the new one is bad."""
        if not is_local(request.peer):
            return Response(HTTPStatus.FORBIDDEN, b"reload is only for this machine itself\n")
        problem = self._reload()
        if problem is None:
            return Response(HTTPStatus.OK, b"config reloaded\n")
        text = f"config not reloaded, the old one goes on:\n{problem}\n"
        return Response(HTTPStatus.INTERNAL_SERVER_ERROR, text.encode())

    def landing(self, _request: Request) -> Response:
        """Answer with a page for people."""
        snapshot = self._snapshot()
        notes = "" if (why := unready(snapshot)) is None else _note(f"Not ready: {why}.")
        if snapshot is not None and snapshot.build.simulated:
            notes += _note("These GPUs are simulated. Nothing here was measured.")
        body = LANDING.format(
            title="GPU node exporter",
            notes=notes,
            summary=_summary(snapshot),
            gpus=_gpu_table(snapshot),
            telemetry_path=html.escape(self._telemetry_path),
            version=html.escape(snapshot.build.version if snapshot else ""),
        )
        return Response(
            HTTPStatus.OK,
            body.encode(),
            "text/html; charset=utf-8",
            (
                ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'"),
                ("X-Content-Type-Options", "nosniff"),
            ),
        )

    def _snapshot(self) -> Snapshot | None:
        """Return the latest snapshot as it is seen now; one and the same while fresh."""
        base, now = self._latest(), self._clock()
        if base is None:
            return None
        if base is not self._base or now - base.taken_at > base.stale_after_seconds:
            self._base, self._view = base, base.at(now)
        return self._view


def unready(snapshot: Snapshot | None) -> str | None:
    """Return why there are no fresh readings, or None if there are."""
    if snapshot is None:
        return STARTING
    if snapshot.is_stale:
        age = snapshot.now - snapshot.taken_at
        return f"the last readings are {age:.1f} s old, the poller is late or stuck"
    if snapshot.driver is None:
        return snapshot.driver_problem
    faults = [gpu.fault.value for gpu in snapshot.gpus if gpu.fault]
    if faults and len(faults) == len(snapshot.gpus):
        return f"no GPU gives readings: {', '.join(sorted(set(faults)))}"
    return None


def accepts_gzip(headers: Mapping[str, str]) -> bool:
    """Return whether Accept-Encoding names gzip (RFC 9110, section 12.5.3), and not with q=0."""
    for part in headers.get("accept-encoding", "").split(","):
        coding, _, parameters = part.partition(";")
        if coding.strip().lower() in ("gzip", "*"):
            return parameters.replace(" ", "").lower() not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def is_local(peer: str) -> bool:
    """Return whether a client's address is a loopback one."""
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _note(text: str) -> str:
    return f'<p class="note">{html.escape(text)}</p>\n'


def _summary(snapshot: Snapshot | None) -> str:
    if snapshot is None or snapshot.driver is None:
        return "No NVIDIA driver."
    up = sum(gpu.fault is None for gpu in snapshot.gpus)
    versions = f"driver {snapshot.driver.driver_version}, CUDA {snapshot.driver.cuda_version}"
    return html.escape(f"{up} of {len(snapshot.gpus)} GPUs answer; {versions}.")


def _state(gpu: Gpu) -> str:
    if gpu.fault:
        return gpu.fault.value
    wanted = gpu.recovery.word if gpu.recovery and gpu.recovery.action else None
    return "up" if wanted is None else f"up, but the driver asks for {wanted.replace('_', ' ')}"


def _gpu_table(snapshot: Snapshot | None) -> str:
    if snapshot is None or not snapshot.gpus:
        return ""
    rows = "".join(
        f"<tr><td>{gpu.index}</td><td>{html.escape(gpu.identity.name if gpu.identity else '')}</td>"
        f"<td>{html.escape(gpu.uuid)}</td><td>{_state(gpu)}</td></tr>\n"
        for gpu in snapshot.gpus
    )
    head = "<tr><th>GPU</th><th>name</th><th>UUID</th><th>state</th></tr>\n"
    return f"<table>\n{head}{rows}</table>"
