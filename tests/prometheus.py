"""Debian's Prometheus, scraping what a test wants it to scrape."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from daemon import PATIENCE_SECONDS
from debian import program


class Prometheus:
    """A Prometheus that runs."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log_file: Path) -> None:
        self._process = process
        self._port = port
        self._log_file = log_file

    @property
    def log(self) -> str:
        """What it has logged."""
        return self._log_file.read_text()

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return labels and value of what an expression gives now; [] while it starts."""
        try:
            result = self.ask("query", query=expression)["result"]
        except OSError:
            assert self._process.poll() is None, self.log
            return []
        return [(entry["metric"], float(entry["value"][1])) for entry in result]

    def history(
        self, expression: str, start: float, end: float, step: float = 1
    ) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
        """Return labels, and times with values, of what it gave between two times."""
        asked = self.ask("query_range", query=expression, start=start, end=end, step=step)
        return [
            (entry["metric"], [(float(at), float(value)) for at, value in entry["values"]])
            for entry in asked["result"]
        ]

    def ask(self, path: str, **parameters: object) -> Any:
        """Return the data of an answer of its API.

        Raises:
            OSError: It does not answer, or with an error, such as to a wrong expression.
        """
        query = urllib.parse.urlencode(parameters)
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}?{query}"
        with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:
            return json.load(answer)["data"]

    def of_jobs(self, expression: str) -> dict[str, float]:
        """Return what an expression with one series a job gives now, by job."""
        return {labels["job"]: value for labels, value in self.query(expression)}

    def until(self, expression: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until an expression gives something."""
        deadline = time.monotonic() + seconds
        while not self.query(expression):
            assert time.monotonic() < deadline, f"{expression}: nothing\n{self.log}"
            time.sleep(0.2)


def job(name: str, port: int, interval: str = "1s", more: str = "") -> str:
    """Return a job that scrapes a port of this machine."""
    return (
        f"  - job_name: {name}\n    scrape_interval: {interval}\n    scrape_timeout: {interval}\n"
        f"    static_configs: [{{targets: ['127.0.0.1:{port}']}}]\n{more}"
    )


@contextlib.contextmanager
def prometheus(
    folder: Path, jobs: Iterable[str], *flags: str, head: str = ""
) -> Iterator[Prometheus]:
    """Run Debian's Prometheus on some jobs; its config may have more at its head."""
    config = folder / "prometheus.yml"
    config.write_text(f"{head}scrape_configs:\n{''.join(jobs)}")
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    log_file = folder / "log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                *flags,
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield Prometheus(process, port, log_file)
    finally:
        process.kill()
        process.wait()
