"""Inference servers whose own metrics rules may ask for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field

from exporter.config.client import HttpConfig
from exporter.config.groups import gpu
from exporter.config.urls import is_exposed, url
from exporter.frozen import dataclass
from exporter.schema import Place, as_duration, choice, duration, identifier, key

KINDS = ("auto", "vllm", "tgi", "triton")
MAX_SERVERS = 16


@dataclass(frozen=True, slots=True)
class InferenceServer:
    """A server of models whose metrics page is read.

    Attributes:
        name: What it is called here.
        url: Its metrics page.
        kind: vllm, tgi or triton; auto looks for the names of all three.
        gpus: NVML indexes, ranges of them and UUIDs of the GPUs that it uses; () for all.
        interval_seconds: Between two readings.
        timeout_seconds: For one reading as a whole.
        http_config: How it is asked.
    """

    name: str = field(metadata=key("name", identifier))
    url: str = field(metadata=key("url", url))
    kind: str = field(default="auto", metadata=key("kind", choice(*KINDS)))
    gpus: tuple[str, ...] = field(default=(), metadata=key("gpus", gpu))
    interval_seconds: float = field(
        default=2.0, metadata=key("interval", duration, at_least="500ms", at_most="10s")
    )
    timeout_seconds: float = field(
        default=1.0, metadata=key("timeout", duration, at_least="100ms", at_most="10s")
    )
    http_config: HttpConfig = field(default_factory=HttpConfig)

    @property
    def valid_seconds(self) -> float:
        """How long a reading holds: until the next one must have come."""
        return self.interval_seconds + self.timeout_seconds

    def check(self) -> Iterator[tuple[Place, str]]:
        """Yield another host without TLS, and a timeout beyond the interval."""
        if is_exposed(self.url) and not self.http_config.allow_http:
            right = "write https://, or http_config: {allow_http: true}"
            yield ("url",), f"is read in clear from another host; {right}"
        if self.timeout_seconds > self.interval_seconds:
            right = f"write {as_duration(self.interval_seconds)} or shorter"
            yield ("timeout",), f"is longer than interval; {right}"
