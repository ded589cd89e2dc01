"""The routes: negotiation, readiness with its reason, reload, and the page for people."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace

import pytest
from chaos import ROUNDS
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.gpu.power import Power
from exporter.httpd import Request
from exporter.httpd.message import head
from exporter.sampling import DriverInfo, Fault
from exporter.snapshot import Build, Gpu, Reload, Snapshot
from exporter.statuspage import Past, StatusPage
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
        status = StatusPage("node-7", "/metrics", Past(1.0))
        web = Web(
            lambda: self.snapshot,
            lambda: self.reload_problem,
            "/metrics",
            status,
            lambda: self.now,
        )
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


def test_age_of_readings_is_that_of_now_and_not_of_the_poll() -> None:
    """Polls may be a minute apart: a page between two of them says how old its readings are."""
    site = Site(replace(FRESH, stale_after_seconds=70.0))
    for seconds in (0.0, 3.0, 60.0):
        site.now = 100.0 + seconds
        line = f'gpu_exporter_sample_age_seconds{{gpu="0"}} {seconds}'
        assert line in site.get("/metrics")[1].splitlines()


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
    """503 with the reason while readings are missing or old; the page for people says it too."""
    site = Site(snapshot)
    site.now = now
    status, body, _ = site.get("/-/ready")
    assert status == 503
    assert body.startswith(f"not ready: {reason}")
    assert reason[1:] in site.get("/")[1]


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


def test_page_for_people_and_its_json() -> None:
    """`/` is HTML under a strict policy, `/api/v1/status` the same as JSON; nobody stores them."""
    site = Site(FRESH)
    status, page, headers = site.get("/")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; ")
    assert page.startswith("<!doctype html>")
    assert site.get("/", accept_encoding="gzip")[1] == page
    status, text, headers = site.get("/api/v1/status")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert headers["Cache-Control"] == "no-store"
    assert json.loads(text)["gpus"][0]["power_watts"] == 250.0


HEADERS = ("accept", "accept-encoding", "sec-fetch-site", "authorization", "content-type", "host")
VALUES = st.text(st.characters(max_codepoint=255), max_size=40) | st.lists(
    st.sampled_from(
        ["text/plain", "application/openmetrics-text", "gzip", "*", "*/*", ";", ",", "q=", "=", "0",
         "1e999", "version", "1.0.0", " ", "\t", "nan", '"']
    ),
    max_size=12,
).map("".join)  # fmt: skip


@pytest.mark.chaos
@settings(max_examples=100 * ROUNDS, deadline=None)
@given(
    st.sampled_from(sorted(Site(FRESH)._routes)),
    st.dictionaries(st.sampled_from(HEADERS), VALUES),
    VALUES,
    st.sampled_from(["127.0.0.1", "10.0.0.7", "", "fe80::1%eth0", "x"]),
)
def test_any_request_has_an_answer(
    path: str, headers: dict[str, str], query: str, peer: str
) -> None:
    """Whatever a client says of itself, every door answers as it should, in a form that is sent."""
    route = Site(FRESH)._routes[path]
    answer = route.handler(Request(route.methods[0], path, query, headers, b"", peer))
    allowed = {200, 403} if path == "/-/reload" else {200}
    assert answer.status in allowed
    assert head(answer, keep_alive=True)
    if answer.status == 200 and path == "/-/reload":
        assert peer == "127.0.0.1"
