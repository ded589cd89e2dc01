"""Receivers: where requests to scale out go."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from pathlib import Path

from exporter.config.client import HttpConfig, Retry
from exporter.config.template import mistakes
from exporter.config.urls import base_url, is_exposed, url
from exporter.frozen import dataclass
from exporter.schema import Key, Place, boolean, choice, count, duration, file_path, identifier, key

FORMATS = ("json", "cloudevents", "template")


def kubernetes(pattern: str, right: str) -> Callable[[str], str]:
    """Return a notation of Kubernetes' names, which become parts of a URL's path."""

    def read(text: str) -> str:
        if re.fullmatch(pattern, text):
            return text
        raise ValueError(f"is not what Kubernetes takes here; write {right}")

    return read


namespace = kubernetes(
    "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", 'lower-case letters, digits and "-", such as llm'
)
object_name = kubernetes(
    r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*",
    'lower-case letters, digits, "-" and ".", such as vllm',
)
api_version = kubernetes(
    r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?v[0-9]+((alpha|beta)[0-9]+)?", "one such as apps/v1"
)
kind = kubernetes("[A-Z][A-Za-z0-9]{0,62}", "one such as Deployment")


def _timeout() -> Mapping[str, Key]:
    return key("timeout", duration, at_least="100ms", at_most="1m")


def _exposed(place: str, target: str | None, http: HttpConfig) -> Iterator[tuple[Place, str]]:
    if target is not None and is_exposed(target) and not http.allow_http:
        yield (place,), "is sent in clear; write https://, or http_config: {allow_http: true}"


@dataclass(frozen=True, slots=True)
class WebhookConfig:
    """A POST to a URL.

    Attributes:
        url: Where to. Exactly one of `url` and `url_file` is given.
        url_file: A file that holds the URL, for one that is a secret.
        format: json, cloudevents or template.
        template: Of format template: the body, `$name` in its texts standing for a value of the
            event. Plain dicts, lists, text, numbers, booleans and None; not to be changed.
        signing_secret_file: A file of Standard Webhooks secrets (whsec_...), one a line.
        http_config: How to send.
        timeout_seconds: For one attempt as a whole.
        retry: How often to try.
    """

    url: str | None = field(default=None, metadata=key("url", url))
    url_file: Path | None = field(default=None, metadata=key("url_file", file_path))
    format: str = field(default="json", metadata=key("format", choice(*FORMATS)))
    template: object | None = None
    signing_secret_file: Path | None = field(
        default=None, metadata=key("signing_secret_file", file_path)
    )
    http_config: HttpConfig = field(default_factory=HttpConfig)
    timeout_seconds: float = field(default=5.0, metadata=_timeout())
    retry: Retry = field(default_factory=Retry)

    def check(self) -> Iterator[tuple[Place, str]]:
        """Yield a wrong number of URLs, one in clear, and a template too many, too few or wrong."""
        if self.url is not None and self.url_file is not None:
            yield ("url_file",), "stands beside url; keep one of them"
        if self.url is None and self.url_file is None:
            yield (), "goes nowhere; add url or url_file"
        yield from _exposed("url", self.url, self.http_config)
        if self.template is not None and self.format != "template":
            yield ("template",), f"does not go with format {self.format}; write format: template"
        if self.template is None and self.format == "template":
            yield ("format",), "needs the body; add template"
        yield from mistakes(self.template, ("template",))


@dataclass(frozen=True, slots=True)
class AlertmanagerConfig:
    """An Alertmanager that the alert is pushed to, one of these for each of a cluster.

    Attributes:
        api_url: Its URL, without /api/v2/alerts.
        resend_delay_seconds: Between two pushes of an alert that goes on firing.
        http_config: How to send.
        timeout_seconds: For one attempt as a whole.
        retry: How often to try.
    """

    api_url: str = field(metadata=key("api_url", base_url))
    resend_delay_seconds: float = field(
        default=15.0, metadata=key("resend_delay", duration, at_least="1s", at_most="10m")
    )
    http_config: HttpConfig = field(default_factory=HttpConfig)
    timeout_seconds: float = field(default=5.0, metadata=_timeout())
    retry: Retry = field(default_factory=Retry)

    def check(self) -> Iterator[tuple[Place, str]]:
        """Yield a URL in clear."""
        yield from _exposed("api_url", self.api_url, self.http_config)


@dataclass(frozen=True, slots=True)
class ScaleTargetRef:
    """A Kubernetes object with a scale subresource, in the words of an autoscaler's object."""

    api_version: str = field(metadata=key("apiVersion", api_version))
    kind: str = field(metadata=key("kind", kind))
    name: str = field(metadata=key("name", object_name))


@dataclass(frozen=True, slots=True)
class KubernetesConfig:
    """A Kubernetes object whose replicas are raised.

    Attributes:
        api_server: URL of the API server.
        namespace: Where the object, its lease and its autoscalers are.
        scale_target_ref: The object.
        max_replicas: Never raised over this.
        step: By how many; None: by the action's.
        lease: Name of the coordination.k8s.io/v1 Lease that holds the cooldown of all nodes.
        single_writer: Whether this node alone asks, so that no lease is needed.
        refuse_if_hpa: Whether to leave the object alone when an autoscaler has it.
        allow_from_zero: Whether to raise it from 0.
        http_config: How to send.
        timeout_seconds: For one attempt as a whole.
        retry: How often to try.
    """

    api_server: str = field(metadata=key("api_server", base_url))
    namespace: str = field(metadata=key("namespace", namespace))
    scale_target_ref: ScaleTargetRef
    max_replicas: int = field(metadata=key("max_replicas", count, at_least="1"))
    step: int | None = field(default=None, metadata=key("step", count, at_least="1"))
    lease: str | None = field(default=None, metadata=key("lease", object_name))
    single_writer: bool = field(default=False, metadata=key("single_writer", boolean))
    refuse_if_hpa: bool = field(default=True, metadata=key("refuse_if_hpa", boolean))
    allow_from_zero: bool = field(default=False, metadata=key("allow_from_zero", boolean))
    http_config: HttpConfig = field(default_factory=HttpConfig)
    timeout_seconds: float = field(default=5.0, metadata=_timeout())
    retry: Retry = field(default_factory=Retry)

    def check(self) -> Iterator[tuple[Place, str]]:
        """Yield a URL in clear, and nodes that would each add their replica."""
        yield from _exposed("api_server", self.api_server, self.http_config)
        if self.lease is None and not self.single_writer:
            right = "add lease, or single_writer: true if no other node does"
            yield (), f"lets each node that fires add a replica; {right}"


@dataclass(frozen=True, slots=True)
class Receiver:
    """One name for one or more targets, each of which gets every request."""

    name: str = field(metadata=key("name", identifier))
    webhook_configs: tuple[WebhookConfig, ...] = ()
    alertmanager_configs: tuple[AlertmanagerConfig, ...] = ()
    kubernetes_configs: tuple[KubernetesConfig, ...] = ()

    def check(self) -> Iterator[tuple[Place, str]]:
        """Yield that it goes nowhere."""
        if not (self.webhook_configs or self.alertmanager_configs or self.kubernetes_configs):
            right = "add webhook_configs, alertmanager_configs or kubernetes_configs"
            yield (), f"goes nowhere; {right}"
