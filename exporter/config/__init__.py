"""What an operator may set: the configuration file as frozen, typed values."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import field
from pathlib import Path
from types import MappingProxyType

from exporter.config.actions import DEFAULT_ACTIONS, Action, FlightRecorder
from exporter.config.client import Authorization, BasicAuth, HttpConfig, Retry, TlsConfig
from exporter.config.groups import ScaleGroup
from exporter.config.inference import InferenceServer
from exporter.config.intake import AlertmanagerReceiver, Route
from exporter.config.poll import Poll
from exporter.config.processes import Processes
from exporter.config.receivers import (
    AlertmanagerConfig,
    KubernetesConfig,
    Receiver,
    ScaleTargetRef,
    WebhookConfig,
)
from exporter.config.rules import DEFAULT_RULES, Aggregate, Condition, Rule
from exporter.frozen import dataclass
from exporter.schema import ConfigError, Place, boolean, key, label_name, plain

__all__ = [
    "DEFAULT_ACTIONS",
    "DEFAULT_RULES",
    "Action",
    "Aggregate",
    "AlertmanagerConfig",
    "AlertmanagerReceiver",
    "Authorization",
    "BasicAuth",
    "Condition",
    "Config",
    "ConfigError",
    "FlightRecorder",
    "Global",
    "HttpConfig",
    "InferenceServer",
    "KubernetesConfig",
    "Poll",
    "Processes",
    "Receiver",
    "Retry",
    "Route",
    "Rule",
    "ScaleGroup",
    "ScaleTargetRef",
    "TlsConfig",
    "WebhookConfig",
    "load",
]


@dataclass(frozen=True, slots=True)
class Global:
    """What holds for the whole node.

    Attributes:
        external_labels: What tells it from nodes elsewhere, such as cluster and scale_group; in
            requests and recordings, not in the metrics.
    """

    external_labels: Mapping[str, str] = field(
        default_factory=lambda: MappingProxyType({}),
        metadata=key("external_labels", plain, keys=label_name),
    )


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file. Without one, every field has its default.

    Attributes:
        global_: What holds for the whole node.
        poll: How often readings are taken.
        collectors: Groups of readings by name, switched on or off; one that is not named keeps
            its own default.
        processes: How much is shown of the processes that use GPUs.
        rules: What is watched.
        actions: What rules and routes set off.
        receivers: Where actions send to.
        scale_groups: GPUs that grow as one. A GPU of none is in the group that the external
            label scale_group names, or "".
        inference_servers: Servers whose own metrics rules may ask for.
        alertmanager_receiver: Where Alertmanager posts to; None: nowhere.
    """

    poll: Poll = field(default_factory=Poll)
    collectors: Mapping[str, bool] = field(
        default_factory=lambda: MappingProxyType({}),
        metadata=key("collectors", boolean, among="collectors"),
    )
    processes: Processes = field(default_factory=Processes)
    global_: Global = field(default_factory=Global, metadata=key("global"))
    rules: tuple[Rule, ...] = field(default=DEFAULT_RULES, metadata=key("rules", unique="alert"))
    actions: tuple[Action, ...] = field(
        default=DEFAULT_ACTIONS, metadata=key("actions", unique="name")
    )
    receivers: tuple[Receiver, ...] = field(default=(), metadata=key("receivers", unique="name"))
    scale_groups: tuple[ScaleGroup, ...] = field(
        default=(), metadata=key("scale_groups", unique="name")
    )
    inference_servers: tuple[InferenceServer, ...] = field(
        default=(), metadata=key("inference_servers", unique="name")
    )
    alertmanager_receiver: AlertmanagerReceiver | None = None

    @property
    def external_labels(self) -> Mapping[str, str]:
        """What tells this node from nodes elsewhere."""
        return self.global_.external_labels

    def check(self) -> Iterator[tuple[Place, str]]:
        """Yield what its sections say against each other."""
        from exporter.config import references  # noqa: PLC0415  only a file needs it

        yield from references.check(self)


def load(path: Path, collectors: Collection[str], metrics: Collection[str]) -> Config:
    """Read a configuration file.

    Args:
        path: The file.
        collectors: Names of all groups of readings.
        metrics: Names of all metrics that a rule may watch.

    Raises:
        ConfigError: all that is wrong with the file.
    """
    from exporter import yamlfile  # noqa: PLC0415  yaml is 1.5 MiB that a daemon without a file saves

    return yamlfile.load(path, Config, {"collectors": collectors, "metrics": metrics})
