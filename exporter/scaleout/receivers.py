"""From the config's receivers to the targets that requests are delivered to."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from exporter.config import AlertmanagerConfig, KubernetesConfig, Receiver, WebhookConfig
from exporter.frozen import dataclass
from exporter.scaleout import model
from exporter.scaleout.clock import Clock
from exporter.scaleout.records import Episode


@dataclass(frozen=True, slots=True)
class Place:
    """What receivers may say of this node; `page_url` is the absolute URL of its page."""

    labels: Mapping[str, str]
    node: str
    page_url: str


@runtime_checkable
class Watcher(Protocol):
    """A receiver that has to know what fires, beyond the requests."""

    def update(self, firing: Collection[Episode]) -> None:
        """Take all that fires now."""

    def close(self) -> None:
        """End what goes on by itself."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where one of a receiver's configs sends to.

    Attributes:
        receiver_name: The config's name for the receiver that it is one of.
        receiver: What delivers.
        config: What it was made from.
        rehearses: Whether it takes dry runs itself; if not, it is never asked for one.
    """

    receiver_name: str
    receiver: model.Receiver
    config: WebhookConfig | AlertmanagerConfig | KubernetesConfig
    rehearses: bool


def targets(
    receivers: Sequence[Receiver], place: Place, clock: Clock, old: Sequence[Target] = ()
) -> list[Target]:
    """Return all targets; their names are `<receiver>/<sort>/<position from 0>`.

    Those of `old` that would be made again just so are kept, with what they remember.
    """
    known = {(target.receiver.target, target.receiver_name): target for target in old}
    made = [target for receiver in receivers for target in _targets(receiver, place, clock)]
    kept = [(target, known.get((target.receiver.target, target.receiver_name))) for target in made]
    return [was if was is not None and was.config == is_.config else is_ for is_, was in kept]


def _targets(receiver: Receiver, place: Place, clock: Clock) -> Iterator[Target]:
    name = receiver.name
    for position, webhook in enumerate(receiver.webhook_configs):
        made = _webhook(f"{name}/webhook/{position}", webhook, clock)
        yield Target(name, made, webhook, rehearses=True)
    for position, alertmanager in enumerate(receiver.alertmanager_configs):
        made = _alertmanager(f"{name}/alertmanager/{position}", alertmanager, place, clock)
        yield Target(name, made, alertmanager, rehearses=False)
    for position, kubernetes in enumerate(receiver.kubernetes_configs):
        made = _kubernetes(f"{name}/kubernetes/{position}", kubernetes, clock)
        yield Target(name, made, kubernetes, rehearses=True)


# Each is imported only where there is one.


def _webhook(target: str, config: WebhookConfig, clock: Clock) -> model.Receiver:
    from exporter.scaleout.webhook import WebhookReceiver  # noqa: PLC0415  see above

    return WebhookReceiver(target, config, clock)


def _alertmanager(
    target: str, config: AlertmanagerConfig, place: Place, clock: Clock
) -> model.Receiver:
    from exporter.scaleout.alertmanager import AlertmanagerPush  # noqa: PLC0415  see above

    return AlertmanagerPush(
        target,
        config,
        external_labels=place.labels,
        node=place.node,
        page_url=place.page_url,
        clock=clock,
    )


def _kubernetes(target: str, config: KubernetesConfig, clock: Clock) -> model.Receiver:
    from exporter.scaleout.kubernetes import KubernetesReceiver  # noqa: PLC0415  see above

    return KubernetesReceiver(target, config, clock)
