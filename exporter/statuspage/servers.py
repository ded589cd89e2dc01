"""The panel of the inference servers, where the config has any."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.recorder.svg import safe
from exporter.statuspage import units
from exporter.statuspage.panels import begin, cell, table
from exporter.statuspage.view import InferenceServerStatus, Status


def servers(status: Status) -> Iterator[str]:
    """Yield each server, and what it says of its requests."""
    if not status.inference_servers:
        return
    yield begin("servers", "Inference servers", "by their own metrics")
    yield table("servers", "Server", "Running", "Waiting", "KV cache", "P99")
    for server in status.inference_servers:
        yield _server(server)
    yield "</tbody></table></section>"


def _server(server: InferenceServerStatus) -> str:
    about = f"<br><small>{safe(server.problem or server.kind)}</small>"
    cells = (
        f'<th scope="row" role="rowheader">{safe(server.name)}{about}</th>',
        cell(units.count(server.requests_running), "n", "running"),
        cell(units.count(server.requests_waiting), "n", "waiting"),
        cell(units.percent(server.kv_cache_used_ratio), "n", "KV cache"),
        cell(units.seconds(server.latency_p99_seconds), "n", "P99"),
    )
    return f'<tr role="row" class="{"calm" if server.up else "warning"}">{"".join(cells)}</tr>'
