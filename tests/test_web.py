"""The routes: negotiation, readiness with its reason, reload, and the landing page."""

from __future__ import annotations

import gzip
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from exporter.gpu.identity import Identity
from exporter.gpu.power import Power
from exporter.gpu.recovery import Recovery
from exporter.httpd import Request
from exporter.sampling import DriverInfo, Fault
from exporter.snapshot import Build, Gpu, Reload, Snapshot
from exporter.web import OPENMETRICS, TEXT, Web

PROMETHEUS_ACCEPT = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
DRIVER = DriverInfo("580.95.05", "13.580.95.05", "13.0")
FRESH = Snapshot(
    taken_at=100.0,
    now=100.0,
    stale_after_seconds=4.0,
    build=Build("1.2.3", "3.11", simulated=False),
    reload=Reload(successful=True, success_timestamp_seconds=1.0),
    driver=DRIVER,
    gpus=(Gpu(0, "GPU-a", sampled_at=100.0, power=Power(250.0, 1.0)),),
)


class Site:
    """The routes over a snapshot and a clock of the test's."""

    def __init__(self, snapshot: Snapshot | None) -> None:
        self.snapshot = snapshot
        self.now = 100.0
        self.reload_problem: str | None = None
        web = Web(lambda: self.snapshot, lambda: self.reload_problem, "/metrics", lambda: self.now)
        self._routes = {route.path: route for route in web.routes()}

    def get(
        self, path: str, peer: str = "127.0.0.1", **headers: str
    ) -> tuple[int, str, dict[str, str]]:
        """Return status, body as text, and headers of an answer."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self._routes[path].handler(Request("GET", path, "", named, b"", peer))
        given = {"Content-Type": answer.content_type, **dict(answer.headers)}
        unzipped = given.get("Content-Encoding") == "gzip"
        body = gzip.decompress(answer.body) if unzipped else answer.body
        return answer.status, body.decode(), given


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/html", TEXT),
        ("text/plain;version=0.0.4", TEXT),
        (PROMETHEUS_ACCEPT, OPENMETRICS),
        ("application/openmetrics-text", OPENMETRICS),
        ("application/openmetrics-text; version=2.0.0", OPENMETRICS),
        ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily", TEXT),
        (";;;,,=", TEXT),
    ],
)
def test_format_is_negotiated(accept: str, expected: str) -> None:
    """OpenMetrics for those who ask for it, else text; the content type tells the truth."""
    status, body, headers = Site(FRESH).get("/metrics", accept=accept)
    assert status == 200
    assert headers["Content-Type"] == expected
    assert body.endswith("# EOF\n") == (expected is OPENMETRICS)


@pytest.mark.parametrize(
    ("accepted", "zipped"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("*", True),
        ("", False),
        ("br", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000, deflate", False),
    ],
)
def test_gzip_only_for_those_who_take_it(accepted: str, zipped: bool) -> None:
    """Accept-Encoding decides, with its q=0; both encodings hold the same page."""
    site = Site(FRESH)
    _, body, headers = site.get("/metrics", accept_encoding=accepted)
    assert (headers.get("Content-Encoding") == "gzip") == zipped
    assert body == site.get("/metrics")[1]
    assert "Accept-Encoding" in headers["Vary"]


def test_snapshot_that_is_too_old_shows_no_readings() -> None:
    """When the poller is stuck, the page keeps what is known about it and drops every reading."""
    site = Site(FRESH)
    assert 'gpu_power_watts{gpu="0",uuid="GPU-a"} 250.0' in site.get("/metrics")[1]
    site.now = 104.5
    body = site.get("/metrics")[1]
    assert "gpu_power_watts" not in body
    assert 'gpu_up{gpu="0",uuid="GPU-a"} 0' in body
    assert 'gpu_exporter_sample_age_seconds{gpu="0"} 4.5' in body
    site.now = 107.0
    assert 'gpu_exporter_sample_age_seconds{gpu="0"} 7.0' in site.get("/metrics")[1]
    assert site.get("/-/healthy")[0] == 200


@pytest.mark.parametrize(
    ("snapshot", "now", "reason"),
    [
        (None, 100.0, "the first readings are under way"),
        (FRESH, 105.0, "the last readings are 5.0 s old"),
        (replace(FRESH, driver=None, driver_problem="no library"), 100.0, "no library"),
        (
            replace(FRESH, gpus=(Gpu(0, "a", Fault.LOST), Gpu(1, "b", Fault.HUNG))),
            100.0,
            "no GPU gives readings: hung, lost",
        ),
    ],
)
def test_not_ready_says_why(snapshot: Snapshot | None, now: float, reason: str) -> None:
    """503 with the reason while readings are missing or old; the landing page says it too."""
    site = Site(snapshot)
    site.now = now
    status, body, _ = site.get("/-/ready")
    assert status == 503
    assert body.startswith(f"not ready: {reason}")
    assert reason in site.get("/")[1]


def test_ready_with_one_gpu_lost_and_without_any() -> None:
    """One lost GPU of two, or a node whose driver lists none, is no reason to be unready."""
    lost = (*FRESH.gpus, Gpu(1, "GPU-b", Fault.LOST))
    for gpus in (FRESH.gpus, lost, ()):
        assert Site(replace(FRESH, gpus=gpus)).get("/-/ready")[0] == 200


def test_no_metrics_before_the_first_snapshot() -> None:
    """A scrape that comes too early fails visibly instead of getting an empty page."""
    assert Site(None).get("/metrics")[0] == 503


@pytest.mark.parametrize(
    ("peer", "allowed"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.7", False),
        ("::ffff:10.0.0.7", False),
        ("2001:db8::1", False),
        ("", False),
    ],
)
def test_reload_is_for_this_machine_only(peer: str, allowed: bool) -> None:
    """POST /-/reload works from loopback addresses and is refused from any other."""
    assert Site(FRESH).get("/-/reload", peer)[0] == (200 if allowed else 403)


def test_bad_reload_says_every_mistake() -> None:
    """The answer to a bad reload is 500 and holds what is wrong, as Prometheus does it."""
    site = Site(FRESH)
    site.reload_problem = "config.yml:1:1: one\nconfig.yml:2:1: two"
    status, body, _ = site.get("/-/reload")
    assert status == 500
    assert "config.yml:1:1: one\nconfig.yml:2:1: two" in body


class Tags(HTMLParser):
    """Checks that every tag is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, _attrs: object) -> None:
        """Note an opened tag."""
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Match a closed one."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Keep the text."""
        self.text += data


def test_landing_page_is_whole_and_takes_any_text() -> None:
    """Well-formed HTML, names from the driver as text and not as markup, simulation told."""
    name = '<script>alert("1")</script>&'
    identity = Identity(name, "0000:1a:00.0", "Hopper", "9.0", "", "")
    snapshot = replace(
        FRESH,
        build=replace(FRESH.build, simulated=True),
        gpus=(
            replace(FRESH.gpus[0], identity=identity, recovery=Recovery(4)),
            Gpu(1, "GPU-b", Fault.HUNG),
        ),
    )
    status, body, headers = Site(snapshot).get("/")
    tags = Tags()
    tags.feed(body)
    assert status == 200
    assert tags.open == []
    assert name in tags.text
    assert "simulated" in tags.text
    assert "1 of 2 GPUs answer" in tags.text
    assert "hung" in tags.text
    assert "up, but the driver asks for drain and reset" in tags.text
    assert "script-src" not in headers["Content-Security-Policy"]
    assert "default-src 'none'" in headers["Content-Security-Policy"]
