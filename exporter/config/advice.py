"""What is not wrong in a configuration, and still seldom meant."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.config import Action, Config
from exporter.config.groups import indexes
from exporter.schema import as_duration

SHORT_COOLDOWN_SECONDS = 60.0


def warnings(config: Config) -> tuple[str, ...]:
    """Return a line for each thing that its operator should know."""
    checks = (_unused, _cooldowns, _alone, _any, _open, _loop)
    return tuple(line for check in checks for line in check(config))


def _scaling(config: Config) -> dict[str, Action]:
    """Return the actions that send something, by name."""
    return {action.name: action for action in config.actions if action.receiver is not None}


def _unused(config: Config) -> Iterator[str]:
    used = {action.receiver for action in config.actions}
    for receiver in config.receivers:
        if receiver.name not in used:
            yield f'receiver "{receiver.name}": no action names it, so nothing is sent to it'


def _cooldowns(config: Config) -> Iterator[str]:
    for action in _scaling(config).values():
        if action.cooldown_seconds < SHORT_COOLDOWN_SECONDS:
            cooldown = as_duration(action.cooldown_seconds)
            yield (
                f'action "{action.name}": cooldown {cooldown} is shorter than a new replica needs '
                "to become useful, so that it asks for too many; write 1m or longer"
            )


def _alone(config: Config) -> Iterator[str]:
    by_rules = {name for rule in config.rules for name in rule.actions}
    used = {action.receiver for name, action in _scaling(config).items() if name in by_rules}
    for receiver in config.receivers:
        leases = [target.lease for target in receiver.kubernetes_configs if target.lease]
        if receiver.name in used and not receiver.alertmanager_configs and not leases:
            yield (
                f'receiver "{receiver.name}": nodes share no cooldown, so that each one that fires '
                "asks for itself; send through alertmanager_configs, or use a Kubernetes lease"
            )


def _any(config: Config) -> Iterator[str]:
    sizes = [sum(len(indexes(gpus)) or 1 for gpus in g.gpus) for g in config.scale_groups]
    if sizes and max(sizes) == 1:
        return
    scaling = _scaling(config)
    for rule in config.rules:
        if rule.aggregate.kind == "any" and scaling.keys() & set(rule.actions):
            yield (
                f'rule "{rule.alert}": with aggregate any, one GPU of several is enough to ask for '
                "more; write all, mean or {quorum: N} where GPUs work together"
            )


def _open(config: Config) -> Iterator[str]:
    intake = config.alertmanager_receiver
    scaling = _scaling(config)
    if intake is None or intake.authorization is not None:
        return
    if any(route.action in scaling for route in intake.routes):
        yield (
            "alertmanager_receiver: without authorization, whoever reaches the port can ask for "
            "more; add authorization"
        )


def _loop(config: Config) -> Iterator[str]:
    intake = config.alertmanager_receiver
    pushing = {receiver.name for receiver in config.receivers if receiver.alertmanager_configs}
    scaling = _scaling(config)
    for name in dict.fromkeys(route.action for route in intake.routes) if intake else ():
        if name in scaling and scaling[name].receiver in pushing:
            yield (
                f'action "{name}": tells an Alertmanager what an Alertmanager told; where that is '
                "the same one, it goes round for ever; name an action with another receiver"
            )
