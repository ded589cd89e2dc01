"""Inference servers: what is read of their metrics pages, and what a bad page cannot do."""

from __future__ import annotations

import gzip
import math
import threading
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import astuple, replace
from itertools import repeat
from socket import socket

import pytest
from chaos import ROUNDS
from hypothesis import example, given, settings
from hypothesis import strategies as st
from inference_pages import Asker, page
from rules_feed import EPOCH, engine, node
from scaleout_peers import Reply, read_request, rude, serving, until_closed, wait_until

from exporter.config import (
    Aggregate,
    Authorization,
    Condition,
    HttpConfig,
    InferenceServer,
    Rule,
    ScaleGroup,
)
from exporter.inference import LATE, WAITING, Inference
from exporter.inference.engines import engines, look
from exporter.inference.latency import Latency, quantile
from exporter.inference.page import MAX_LINES, MAX_SERIES, Page, PageError
from exporter.inference_view import InferenceView, Load, Server
from exporter.scaleout.model import EventKind

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"


def said(text: str | bytes, kind: str = "auto") -> tuple[str, Load, set[str]]:
    """Return what a page says that comes in small pieces: whose it is, values, spoiled names."""
    wanted = {name: of for engine in engines(kind) for name, of in engine.wanted().items()}
    parsed = Page(wanted)
    data = text.encode() if isinstance(text, str) else text
    for start in range(0, len(data), 97):
        parsed.feed(data[start : start + 97])
    parsed.end()
    found = look(parsed, engines(kind))
    return found.kind, found.load, parsed.spoiled


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("vllm-v1", "vllm", Load(3, 2, 0.3412)),
        ("vllm-v0", "vllm", Load(3, 2, 0.3412)),
        ("tgi", "tgi", Load(7, 4)),
        ("triton", "triton", Load(None, 14)),
        ("triton-summaries", "triton", Load(None, 14, None, 0.096)),
        ("triton-tensorrt-llm", "triton", Load(8, 7, 0.4)),
    ],
)
def test_levels_of_each_kind(name: str, kind: str, expected: Load) -> None:
    """By its own kind and by auto the same; what a kind does not have is None, never 0."""
    for asked in (kind, "auto"):
        assert said(page(name), asked) == (kind, expected, set())
    for other in {"vllm", "tgi", "triton"} - {kind}:
        assert said(page(name), other) == ("", Load(), set())


def test_engines_of_one_server_are_added_up() -> None:
    """Data-parallel ranks: requests are summed, of the caches the fullest counts."""
    lines = page("vllm-v1").splitlines()
    second = [line.replace('engine="0"', 'engine="1"').replace("0.3412", "0.9") for line in lines]
    both = "\n".join([*lines, *(line for line in second if 'engine="1"' in line)])
    assert said(both)[:2] == ("vllm", Load(6, 4, 0.9))


@pytest.mark.parametrize(
    "line",
    [
        "vllm:num_requests_waiting NaN",
        "vllm:num_requests_waiting +Inf",
        "vllm:num_requests_waiting -1",
        "vllm:num_requests_waiting 1_000",
        "vllm:num_requests_waiting 1e999",
        "vllm:num_requests_waiting ٣",
        "vllm:num_requests_waiting",
        "vllm:num_requests_waiting 1 2 3",
        'vllm:num_requests_waiting{engine="0" 1',
        "vllm:num_requests_waiting{engine=0} 1",
        'vllm:num_requests_waiting{engine="0",model_name="Qwen/Qwen3-0.6B"} 7',
        'vllm:num_requests_waiting{model_name="Qwen/Qwen3-0.6B",engine="0"} 7',
        "# TYPE vllm:num_requests_waiting counter",
    ],
)
def test_one_bad_line_costs_its_name_alone(line: str) -> None:
    """No number, no level, a duplicate, a wrong type: that value is gone, the others stand."""
    kind, load, spoiled = said(f"{page('vllm-v1')}{line}\n")
    assert (kind, load) == ("vllm", Load(3, None, 0.3412))
    assert spoiled == {"vllm:num_requests_waiting"}
    _, load, _ = said(f"{line}\n{page('vllm-v1')}")
    assert load == Load(3, None, 0.3412)


def test_sum_without_one_of_its_parts_is_none() -> None:
    """Requests wait in two places: where one is not believed, the other is not their number."""
    text = page("triton-tensorrt-llm", nv_inference_pending_request_count="NaN")
    assert said(text)[1] == Load(8, None, 0.4)


def test_share_above_one_is_none() -> None:
    """A cache that is said to be fuller than full is not believed."""
    _, load, spoiled = said(page("vllm-v1", kv_cache_usage_perc=34.12))
    assert load == Load(3, 2, None)
    assert "vllm:kv_cache_usage_perc" in spoiled


@pytest.mark.parametrize(
    "text",
    [
        "vllm:num_requests_waiting 5 1700000000000",
        'vllm:num_requests_waiting 5.0 # {trace_id="x"} 1',
        "vllm:num_requests_waiting{} 5\r",
        'vllm:num_requests_waiting{a="b",} 5e0',
        'vllm:num_requests_waiting{a="\\"},{# \\\\", b=""}\t5',
        "# TYPE vllm:num_requests_waiting untyped\nvllm:num_requests_waiting 5",
    ],
)
def test_other_spellings_that_are_right(text: str) -> None:
    """Times, exemplars, escapes, commas and line ends as the format allows them."""
    assert said(text) == ("vllm", Load(None, 5), set())


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (repeat(b"x" * 99 + b"\n"), "8 MiB"),
        (repeat(b"\n" * 65536), f"{MAX_LINES} lines"),
        (repeat(b"x" * 8192), "16 KiB"),
        (
            (b'vllm:num_requests_waiting{engine="%d"} 1\n' % n for n in range(MAX_SERIES + 1)),
            f"{MAX_SERIES} series",
        ),
    ],
)
def test_bounds_of_a_page(data: list[bytes], text: str) -> None:
    """Bytes, lines, the length of a line and series of interest: reading ends at each bound."""
    parsed = Page({"vllm:num_requests_waiting": "gauge"})
    with pytest.raises(PageError, match=text) as caught:
        list(map(parsed.feed, data))
    assert caught.value.error == "too_large"


def test_no_line_is_slow_to_refuse() -> None:
    """Lines that a careless pattern would try in countless ways are refused at once."""
    started = time.process_time()
    for middle in ('{a="b"', '{a="b",', '{a="\\', "{" * 99, " ", "\t1", "1 #", '{a=""'):
        said(f"vllm:num_requests_waiting{middle * (8000 // len(middle))}!\n" * 4)
    assert time.process_time() - started < 5  # seconds; milliseconds in truth


def buckets(text: str, kind: str = "vllm") -> dict[frozenset[tuple[str, str]], float]:
    """Return the buckets of a page."""
    parsed = Page(engines(kind)[0].wanted())
    parsed.feed(text.encode())
    parsed.end()
    found = look(parsed, engines(kind)).buckets
    assert found is not None
    return found


def after(gains: dict[str, int], name: str = "vllm-v1") -> str:
    """Return a page whose buckets from some bounds on have gained requests."""
    lines, gained = [], 0
    for line in page(name).splitlines():
        start, _, value = line.rpartition(" ")
        if "e2e_request_latency_seconds_bucket" in line:
            bound = start.partition('le="')[2].partition('"')[0]
            gained += gains.get(bound, 0)
            lines.append(f"{start} {float(value) + gained}")
        else:
            lines.append(line)
    return "\n".join(lines)


def test_p99_is_that_of_the_last_minute() -> None:
    """Nothing at first, then of what was gained; interpolated; after a minute it is forgotten."""
    latency = Latency()
    assert latency.add(0, buckets(page("vllm-v1"))) is None
    assert latency.add(2, buckets(page("vllm-v1"))) is None  # no request has ended
    first = {"0.5": 98, "0.8": 2}
    assert latency.add(4, buckets(after(first))) == pytest.approx(0.65)
    # 100 more, all slow: 99 of 200 are in the bucket that ends at 5 s.
    second = {**first, "5.0": 100}
    expected = 2.5 + 2.5 * (198 - 100) / 100
    assert latency.add(6, buckets(after(second))) == pytest.approx(expected)
    for at in range(8, 64, 2):
        assert latency.add(at, buckets(after(second))) == pytest.approx(expected)
    assert latency.add(64, buckets(after(second))) == pytest.approx(2.5 + 2.5 * 0.99)
    assert latency.add(66, buckets(after(second))) is None


def test_counters_that_go_back_begin_anew() -> None:
    """A server that was restarted has no P99 until requests end again."""
    latency = Latency()
    latency.add(0, buckets(page("vllm-v1")))
    assert latency.add(2, buckets(after({"0.5": 100}))) is not None
    assert latency.add(4, buckets(after({"0.5": 90}))) is None
    assert latency.add(6, buckets(after({"0.5": 90}))) is None
    latency.add(7, buckets(page("vllm-v1")))
    assert latency.add(8, buckets(after({"20.0": 10}))) == pytest.approx(19.95)


def test_series_that_are_new_count_from_then_on() -> None:
    """A model that has had no request before adds what it gains after it was first seen."""
    latency = Latency()
    latency.add(0, {})
    assert latency.add(2, buckets(page("vllm-v1"))) is None
    assert latency.add(4, buckets(after({"1.0": 1}))) is not None


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({}, None),
        ({math.inf: 5.0}, None),
        ({1.0: 0.0, math.inf: 0.0}, None),
        ({1.0: 5.0, 2.0: 3.0, math.inf: 5.0}, None),  # not cumulative
        ({1.0: 5.0, 2.0: 5.0}, None),  # no end
        ({1.0: 100.0, math.inf: 100.0}, 0.99),
        ({1.0: 0.0, 2.0: 100.0, math.inf: 100.0}, 1.99),
        ({1.0: 10.0, 2.0: 20.0, math.inf: 100.0}, 2.0),  # beyond: the highest finite bound
    ],
)
def test_quantile_is_that_of_promql(counts: dict[float, float], expected: float | None) -> None:
    """As histogram_quantile, and None where that is NaN or where it is no histogram."""
    assert quantile(counts) == (None if expected is None else pytest.approx(expected))


def test_page_is_asked_for_and_read() -> None:
    """A GET of path and query without compression; the second reading has a P99."""
    replies = [Reply(200, {}, page("vllm-v1").encode()), Reply(200, {}, after({"2.0": 9}).encode())]
    with serving(*replies) as peer:
        asker = Asker(f"http://127.0.0.1:{peer.port}/metrics?x=1")
        assert asker.read(0.0).load == Load(3, 2, 0.3412)
        state = asker.read(2.0)
    assert state.load is not None
    assert state.load.latency_p99_seconds == pytest.approx(1.995)
    assert (state.kind, state.problem, asker.errors) == ("vllm", "", {})
    assert [one.path for one in peer.said] == ["/metrics?x=1"] * 2
    assert peer.said[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(500, {}, b"no"), "status"),
        (Reply(404), "status"),
        (Reply(302, {"Location": "http://127.0.0.1:1/"}), "redirect"),
        (Reply(200, {"Content-Encoding": "gzip"}, gzip.compress(b"vllm:x 1\n")), "encoding"),
        (Reply(200, {}, b"\x1f\x8b" + bytes(100)), "unknown"),
        (Reply(200, {}, b""), "unknown"),
        (Reply(200, {}, b"node_load1 5\n"), "unknown"),
        (Reply(200, {}, b"vllm:num_requests_waiting NaN\n"), "unknown"),
        (Reply(200, {}, b"<html>\n"), "unknown"),
    ],
)
def test_answers_that_are_no_page(reply: Reply, error: str) -> None:
    """Each is one error with a word and a line for people; no redirect is followed."""
    with serving(reply) as peer:
        asker = Asker(f"http://127.0.0.1:{peer.port}/metrics")
        state = asker.read()
        assert len(peer.said) == 1
    assert state.load is None
    assert state.problem
    assert "\n" not in state.problem
    assert error in asker.errors


def endless(connection: socket) -> None:
    """Send a good page that never ends."""
    read_request(connection)
    connection.sendall(HEAD + b"\r\n" + page("vllm-v1").encode())
    filler = b"# HELP x y\n" * 10_000
    while True:
        connection.sendall(filler)


def chunked_dust(connection: socket) -> None:
    """Send a byte a chunk, for ever."""
    read_request(connection)
    connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"1\r\n#\r\n" * 1000)


def drip(connection: socket) -> None:
    """Send a byte now and then."""
    read_request(connection)
    for byte in HEAD + b"\r\n" + page("vllm-v1").encode():
        connection.sendall(bytes([byte]))
        time.sleep(0.02)


def hang(connection: socket) -> None:
    """Take the request, and never answer."""
    read_request(connection)
    connection.recv(1)


def endless_head(connection: socket) -> None:
    """Send headers for ever."""
    read_request(connection)
    connection.sendall(HEAD)
    while True:
        connection.sendall(b"X: " + b"y" * 1000 + b"\r\n")


def cut(connection: socket) -> None:
    """End in the middle of a page."""
    read_request(connection)
    connection.sendall(HEAD + b"Content-Length: 99999\r\n\r\n" + page("vllm-v1").encode())
    until_closed(connection)


def nonsense(connection: socket) -> None:
    """Speak something else."""
    read_request(connection)
    connection.sendall(b"+PONG\r\n\r\n")
    until_closed(connection)


def blanks_in_head(connection: socket) -> None:
    """Send what h11 would look at for a second, with the interpreter held."""
    read_request(connection)
    connection.sendall(HEAD + b"X:" + b" \t" * 8000 + b"\x00\r\n\r\n")
    until_closed(connection)


def blanks_in_trailers(connection: socket) -> None:
    """The same behind the page."""
    read_request(connection)
    connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX:")
    connection.sendall(b" " * 16000 + b"\x00\r\n\r\n")
    until_closed(connection)


@pytest.mark.parametrize(
    ("behave", "error"),
    [
        (endless, {"too_large", "timeout"}),
        (chunked_dust, {"too_large", "timeout"}),
        (drip, {"timeout"}),
        (hang, {"timeout"}),
        (endless_head, {"protocol"}),
        (cut, {"protocol"}),
        (nonsense, {"protocol"}),
        (blanks_in_head, {"too_large"}),
        (blanks_in_trailers, {"too_large"}),
        (until_closed, {"protocol"}),
    ],
)
def test_rude_servers_are_bounded(behave: Callable[[socket], None], error: set[str]) -> None:
    """Whatever it does, the reading ends by its deadline, in little memory, as one error."""
    with rude(behave) as port:
        asker = Asker(f"http://127.0.0.1:{port}/metrics", timeout_seconds=1.0)
        tracemalloc.start()
        state = asker.read()
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert state.load is None
    assert state.seconds < 10  # the deadline is 1 s; the rest is for a busy machine
    assert peak_bytes < 4 << 20
    assert sum(asker.errors.values()) == 1
    assert set(asker.errors) <= error


def test_server_that_is_not_there() -> None:
    """A closed port, and a name that nobody knows."""
    with serving(200) as peer:
        port = peer.port
    for url, error in (
        (f"http://127.0.0.1:{port}/", "connect"),
        ("http://nobody.invalid/", "dns"),
    ):
        asker = Asker(url)
        assert asker.read().load is None
        assert set(asker.errors) == {error}


def server(name: str, url: str, **changes: object) -> InferenceServer:
    """Return a server's config, read twice a second."""
    fields: dict[str, object] = {"interval_seconds": 0.5, "timeout_seconds": 0.5, **changes}
    return InferenceServer(name, url, **fields)  # type: ignore[arg-type]  # each test gives what fits


def loads(view: InferenceView | None) -> dict[str, Load | None]:
    """Return what is known, by server."""
    return {} if view is None else {one.name: one.load for one in view.servers}


def test_readers_go_on_across_reloads_and_end() -> None:
    """What is configured as before keeps its thread; others begin or end; without any: no view."""
    inference = Inference()
    assert inference.view(0.0) is None
    with serving(Reply(200, {}, page("tgi").encode())) as peer:
        url = f"http://127.0.0.1:{peer.port}/metrics"
        first, second = server("a", url), server("b", url, gpus=("0-1",))
        inference.configure((first,))
        wait_until(lambda: loads(inference.view(time.monotonic()))["a"])
        threads = {thread for thread in threading.enumerate() if thread.name == "inference-a"}
        inference.configure((first, second))
        wait_until(lambda: loads(inference.view(time.monotonic()))["b"])
        assert threads == {t for t in threading.enumerate() if t.name == "inference-a"}
        inference.stop()
        wait_until(lambda: "inference-" not in str(threading.enumerate()))
    assert inference.view(0.0) is None


def test_old_readings_vanish_and_hanging_servers_cost_no_other() -> None:
    """A reading holds for interval and timeout; one server that hangs leaves the others alone."""
    good = Reply(200, {}, page("tgi").encode())
    with rude(hang) as port, serving(good) as peer:
        inference = Inference()
        hanging = server("hangs", f"http://127.0.0.1:{port}/", timeout_seconds=0.2)
        inference.configure((hanging, server("good", f"http://127.0.0.1:{peer.port}/")))
        view = inference.view(time.monotonic())
        assert view is not None
        assert view.servers[0] == Server("hangs", "auto", frozenset(), None, WAITING)
        wait_until(lambda: loads(inference.view(time.monotonic()))["good"])
        wait_until(lambda: (seen := inference.view(time.monotonic())) and seen.errors)
        view = inference.view(time.monotonic())
        assert view is not None
        assert view.errors.keys() == {"timeout"}
        assert view.servers[0].problem == "no whole answer in time"
        later = inference.view(time.monotonic() + 1.5)
        assert later is not None
        assert later.servers[1].load is None
        assert later.servers[1].problem == LATE
        inference.stop()


def test_gpu_has_the_highest_of_its_servers() -> None:
    """Servers that name a GPU by index or UUID, and those that name none; nothing of the others."""
    view = InferenceView(
        (
            Server("a", "vllm", frozenset({"0", "1"}), Load(1, 5, 0.5), ""),
            Server("b", "vllm", frozenset({"GPU-1"}), Load(2, 0, None), ""),
            Server("down", "vllm", frozenset(), None, "down"),
        )
    )
    assert view.of_gpu(0, "GPU-0") == Load(1, 5, 0.5)
    assert view.of_gpu(1, "GPU-1") == Load(2, 5, 0.5)
    assert view.of_gpu(7, "GPU-7") == Load()
    everywhere = InferenceView((Server("c", "tgi", frozenset(), Load(3), ""),))
    assert everywhere.of_gpu(7, "GPU-7") == Load(3)


def test_rules_see_each_gpu_with_its_own_servers() -> None:
    """`and` and aggregates take the queue of the GPU's own server; without a value: no sample."""
    queue = Condition("inference_requests_waiting", above=1)
    busy = Rule("Busy", "gpu_utilization_ratio", above=0.9, and_=queue)
    waiting = Rule("Waiting", "inference_requests_waiting", above=1, aggregate=Aggregate("all"))
    groups = (ScaleGroup("a", ("0",)), ScaleGroup("b", ("1-2",)))
    watcher = engine(busy, waiting, groups=groups)

    def observe(at: float, a: Load | None, b: Load | None) -> list[tuple[str, str, list[str]]]:
        servers = (
            Server("a", "vllm", frozenset({"0"}), a, ""),
            Server("b", "vllm", frozenset({"1", "GPU-2"}), b, ""),
        )
        snapshot = replace(node(at, [1.0, 1.0, 0.5]), inference=InferenceView(servers))
        return [
            (event.rule, event.scale_group, [one.gpu for one in event.series])
            for event in watcher.observe(snapshot, EPOCH + at)
            if event.kind is EventKind.FIRING
        ]

    assert observe(1, None, None) == []
    assert observe(2, Load(requests_waiting=0), Load(requests_running=9)) == []
    fired = observe(3, Load(requests_waiting=0), Load(requests_waiting=1))
    assert fired == [("Busy", "b", ["1"]), ("Waiting", "b", ["1", "2"])]
    fired = observe(4, Load(requests_waiting=2), None)
    assert fired == [("Busy", "a", ["0"]), ("Waiting", "a", ["0"])]


def test_token_is_sent(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A token from a file goes with the request."""
    secret = tmp_path_factory.mktemp("secret") / "token"
    secret.write_text("s3cret\n")
    secret.chmod(0o600)
    config = HttpConfig(authorization=Authorization(secret))
    with serving(Reply(200, {}, page("tgi").encode())) as peer:
        inference = Inference()
        url = f"http://127.0.0.1:{peer.port}/"
        inference.configure((server("a", url, http_config=config),))
        wait_until(lambda: loads(inference.view(time.monotonic()))["a"])
        inference.stop()
        assert peer.said[0].headers["authorization"] == "Bearer s3cret"


WORDS = st.sampled_from(
    ["vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:gpu_cache_usage_perc",
     "vllm:e2e_request_latency_seconds_bucket", "nv_inference_pending_request_count", "# TYPE ",
     "tgi_queue_size", '{le="', '"}', '{model_name="', "+Inf", " ", "\t", "\n", "\r", "1", "-1",
     "1e999", "NaN", "gauge", "histogram", "summary", " # {} 1", "\\", '"', ",", "{}", "{", "\x00",
     "é", " " * 300]
)  # fmt: skip
NAMES = sorted({name for engine in engines("auto") for name in engine.wanted()})
SAMPLES = st.builds(
    "{}{} {}\n".format,
    st.sampled_from(NAMES),
    st.sampled_from(
        ["", '{a="b"}', '{a="c"}', '{quantile="0.99"}', '{le="1"}', '{le="+Inf"}', '{le="nan"}',
         '{request_type="waiting"}', '{kv_cache_block_type="fraction"}']
    ),
    st.sampled_from(["1", "0.5", "-1", "1.7e308", "1e999", "NaN", "-Inf", "0x1", ""])
    | st.floats().map(str),
)  # fmt: skip
LINES = st.lists(WORDS | SAMPLES, max_size=60).map("".join)


@pytest.mark.chaos
@settings(max_examples=150 * ROUNDS, deadline=None)
@given(st.binary() | LINES.map(str.encode), st.sampled_from(["auto", "vllm", "tgi", "triton"]))
@example(b'tgi_queue_size{a="b"} 1.7e308\ntgi_queue_size{a="c"} 1.7e308\n', "auto")
def test_any_page_is_read(data: bytes, kind: str) -> None:
    """Whatever a page holds, what is told of it is finite and not negative, or not there."""
    _, load, _ = said(data, kind)
    for value in astuple(load):
        assert value is None or (math.isfinite(value) and value >= 0)


@pytest.mark.chaos
@settings(max_examples=100 * ROUNDS, deadline=None)
@given(
    st.dictionaries(st.floats(allow_nan=False), st.none(), min_size=1, max_size=6),
    st.lists(st.floats(min_value=0, allow_nan=False), min_size=7, max_size=7),
)
@example({1.0: None}, [math.inf] * 7)
@example({-5.0: None}, [1.0] * 7)
def test_any_histogram_gives_a_time(bounds: dict[float, None], values: list[float]) -> None:
    """Of counts of any size under any bounds: a time that there can be, or none."""
    counts = dict(zip(sorted({*bounds, math.inf}), sorted(values), strict=False))
    latency = quantile(counts)
    assert latency is None or (math.isfinite(latency) and latency >= 0)
