"""An inference server as Prometheus sees it: a page of vLLM's metrics, whose counters grow."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

EDGES = ("0.1", "0.25", "0.5", "0.75", "1.0", "2.5", "+Inf")
# Shares of requests at or below each edge, while few wait and while many do.
TIMES = {
    "time_to_first_token": (
        (0.3, 0.8, 0.97, 0.998, 1.0, 1.0, 1.0),
        (0.1, 0.3, 0.6, 0.9, 0.97, 1.0, 1.0),
    ),
    "e2e_request_latency": (
        (0.0, 0.02, 0.2, 0.6, 0.9, 1.0, 1.0),
        (0.0, 0.0, 0.05, 0.3, 0.6, 0.98, 1.0),
    ),
}
WAVE_SECONDS = 120
TOKENS_A_REQUEST = 300


class Load:
    """What it has served: more in waves, and slower on their crest."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._served = {name: [0.0] * len(EDGES) for name in TIMES}
        self._lock = threading.Lock()

    def page(self) -> str:
        """Return the page as it is now."""
        with self._lock:
            now = time.monotonic()
            wave = (1 - math.cos(2 * math.pi * now / WAVE_SECONDS)) / 2
            requests = (2 + 10 * wave) * (now - self._at)
            self._at = now
            for name, (calm, busy) in TIMES.items():
                for place, (few, many) in enumerate(zip(calm, busy, strict=True)):
                    self._served[name][place] += requests * (few + (many - few) * wave**2)
            return "".join(self._lines(wave))

    def _lines(self, wave: float) -> Iterator[str]:
        labels = 'model_name="llama-3.1-70b",engine="0"'
        values = {
            "num_requests_running": 8 + round(40 * wave),
            "num_requests_waiting": round(14 * wave**3),
            "generation_tokens_total": self._served["e2e_request_latency"][-1] * TOKENS_A_REQUEST,
            "prompt_tokens_total": self._served["e2e_request_latency"][-1] * TOKENS_A_REQUEST,
        }
        for name, value in values.items():
            yield f"vllm:{name}{{{labels}}} {value}\n"
        for name, served in self._served.items():
            for edge, count in zip(EDGES, served, strict=True):
                yield f'vllm:{name}_seconds_bucket{{{labels},le="{edge}"}} {count}\n'
            yield f"vllm:{name}_seconds_count{{{labels}}} {served[-1]}\n"


@contextlib.contextmanager
def inference_server() -> Iterator[int]:
    """Serve the page, and give the port."""
    load = Load()

    class Handler(BaseHTTPRequestHandler):
        """Answers every request with the page."""

        def do_GET(self) -> None:
            """Answer."""
            page = load.page().encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
