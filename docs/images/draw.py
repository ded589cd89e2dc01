# noqa: INP001  a script, in no package
"""Draws docs/images/node.png: a simulated node of eight H100s, as a real Prometheus scraped it.

It needs `make setup` (the exporter in .venv, Debian's Prometheus in .cache), and matplotlib, which
is no part of the project (Pillow comes with it):

    python3 -m venv /tmp/draw
    /tmp/draw/bin/pip install matplotlib
    /tmp/draw/bin/python docs/images/draw.py /tmp/node.json

The first run takes eight minutes: it scrapes the simulated node each second and keeps Prometheus's
answers in the file. A run that finds the file only draws.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from PIL import Image

ROOT = Path(__file__).parents[2]
PICTURE = Path(__file__).with_name("node.png")
SECONDS = 440  # the node's first two surges of requests
SETTLE_SECONDS = 20  # scrapes before the first that is drawn
HIGHLIGHTED = "3"  # sits where the air is warm
COLOURS = 48  # a third of the bytes of all of them

# Query, title, unit, ends of the axis, factor to that unit; then a line: query or number, and its
# name.
PANELS = (
    ("gpu_utilization_ratio", "GPU utilization", "%", (0, 107), 100, 0.95, "95 %"),
    ("gpu_memory_used_ratio", "GPU memory used", "%", (50, 100), 100, 0.80, "80 %"),
    (
        "gpu_power_watts",
        "Power",
        "W",
        (0, 780),
        1,
        'max(gpu_power_limit_watts{limit="enforced"})',
        "enforced limit",
    ),
    (
        "gpu_temperature_celsius",
        "Temperature",
        "°C",
        (40, 92),
        1,
        'max(gpu_temperature_threshold_celsius{threshold="gpu_max"})',
        "maximum in operation",
    ),
)
GREY, ACCENT, LIMIT, INK = "#8fa3b8", "#0b6e4f", "#c8553d", "#22303c"


def record() -> dict[str, Any]:
    """Scrapes a simulated node with a Prometheus for SECONDS; returns its answer to each query."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        node, prometheus = free_port(), free_port()
        config = folder / "prometheus.yml"
        config.write_text(
            f"""
            global: {{scrape_interval: 1s, scrape_timeout: 1s}}
            scrape_configs:
              - {{job_name: gpu-node, static_configs: [{{targets: ["127.0.0.1:{node}"]}}]}}
            """,
            encoding="utf-8",
        )
        for command in (
            [
                ROOT / ".venv/bin/gpu-node-exporter",
                "--simulate",
                f"--web.listen-address=127.0.0.1:{node}",
            ],
            [
                ROOT / ".cache/debian/usr/bin/prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{prometheus}",
            ],
        ):
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # noqa: S603  written here
            stack.callback(process.wait)
            stack.callback(process.terminate)
        time.sleep(SECONDS)
        end = int(time.time()) - 1
        window = {"start": end - SECONDS + SETTLE_SECONDS, "end": end, "step": 1}
        queries = [query for panel in PANELS for query in (panel[0], panel[5])]
        return {
            query: ask(f"http://127.0.0.1:{prometheus}/api/v1/query_range", query=query, **window)
            for query in queries
            if isinstance(query, str)
        }


def free_port() -> int:
    """Returns a port that nothing listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def ask(url: str, **parameters: object) -> list[Any]:
    """Returns the series that Prometheus answers a range query with."""
    with urlopen(f"{url}?{urlencode(parameters)}") as answer:  # noqa: S310  a local Prometheus
        series: list[Any] = json.load(answer)["data"]["result"]
    return series


def draw(answers: dict[str, Any]) -> None:
    """Draws the panels, 1200 pixels wide."""
    mpl.rcParams.update(
        {"font.size": 10, "text.color": INK, "axes.labelcolor": INK, "font.family": "DejaVu Sans"}
    )
    figure, grid = plt.subplots(2, 2, figsize=(12, 6.4), dpi=100, sharex=True)
    for axes, panel in zip(grid.flat, PANELS, strict=True):
        draw_panel(axes, answers, *panel)
    for axes in grid[1]:
        axes.set_xlabel("minutes")
    figure.text(0.012, 0.962, "Eight simulated H100s, scraped once a second", fontsize=11)
    lines = (
        Line2D([], [], color=ACCENT, linewidth=2.5, label=f"GPU {HIGHLIGHTED}"),
        Line2D([], [], color=GREY, linewidth=1.5, label="the other seven"),
    )
    figure.legend(handles=lines, loc="upper right", ncols=2, frameon=False, fontsize=11)
    figure.tight_layout(h_pad=1.6, w_pad=2.2, rect=(0, 0, 1, 0.95))
    pixels = BytesIO()
    figure.savefig(pixels, facecolor="white")
    few_colours = Image.open(pixels).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    few_colours.save(PICTURE, optimize=True)


def draw_panel(
    axes: Axes,
    answers: dict[str, Any],
    query: str,
    title: str,
    unit: str,
    ends: tuple[float, float],
    factor: float,
    limit: str | float,
    limit_name: str,
) -> None:
    """Draws a line for each GPU, one of them in front, and the limit."""
    for series in sorted(answers[query], key=lambda s: s["metric"]["gpu"] == HIGHLIGHTED):
        is_front = series["metric"]["gpu"] == HIGHLIGHTED
        start = series["values"][0][0]
        axes.plot(
            [(float(at) - start) / 60 for at, _ in series["values"]],
            [factor * float(value) for _, value in series["values"]],
            color=ACCENT if is_front else GREY,
            linewidth=1.5 if is_front else 0.7,
            alpha=1.0 if is_front else 0.75,
        )
    level = limit if isinstance(limit, float) else float(answers[limit][0]["values"][-1][1])
    axes.axhline(factor * level, color=LIMIT, linewidth=1.1, linestyle=(0, (5, 3)))
    axes.set_title(f"{title}, {unit}", loc="left", fontsize=12, fontweight="bold")
    axes.set_title(limit_name, loc="right", color=LIMIT)
    axes.set_ylim(*ends)
    axes.margins(x=0)
    axes.grid(color="#e3e8ed", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=INK)
    for side in axes.spines.values():
        side.set_visible(False)


def main(path: Path) -> None:
    """Records unless the file is there; then draws."""
    if not path.exists():
        path.write_text(json.dumps(record()), encoding="utf-8")
    draw(json.loads(path.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
