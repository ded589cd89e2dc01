"""What the sections of a configuration must hold together."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.config import DEFAULT_RULES, Config
from exporter.config.groups import indexes
from exporter.config.inference import MAX_SERVERS
from exporter.schema import Place, as_duration, nearest

INFERENCE = "inference_"  # how the metrics of inference servers begin
LEAST_SAMPLES = 3  # that `for` must span: with fewer, one late reading decides


def check(config: Config) -> Iterator[tuple[Place, str]]:
    """Yield each disagreement: where, and what is wrong and would be right."""
    if config.rules is DEFAULT_RULES:
        yield from _defaults(config)
    else:
        yield from _rules(config)
    yield from _names(config)
    yield from _groups(config)
    yield from _servers(config)


def _defaults(config: Config) -> Iterator[tuple[Place, str]]:
    longest = min(rule.max_gap_seconds for rule in DEFAULT_RULES)  # `for` would bear more
    if config.poll.fast_seconds > longest:
        right = (
            f"write {as_duration(longest)} or shorter, or rules of your own (rules: [] for none)"
        )
        yield ("poll", "fast"), f"is too long for the default rules; {right}"
    known = [action.name for action in config.actions]
    needed = dict.fromkeys(name for rule in DEFAULT_RULES for name in rule.actions)
    for name in needed:
        if name not in known:
            right = "add it, or write rules of your own"
            yield ("actions",), f'lack "{name}", which the default rules name; {right}'


def _rules(config: Config) -> Iterator[tuple[Place, str]]:
    fast, least = config.poll.fast_seconds, round(LEAST_SAMPLES * config.poll.fast_seconds, 3)
    known = [action.name for action in config.actions]
    for position, rule in enumerate(config.rules):
        if 0 < rule.for_seconds < least:
            right = f"write {as_duration(least)} or longer, or 0s"
            yield ("rules", position, "for"), f"is shorter than three times poll.fast; {right}"
        if rule.max_gap_seconds < fast:
            right = f"write {as_duration(fast)} or longer"
            yield ("rules", position, "max_gap"), f"is shorter than poll.fast; {right}"
        for number, name in enumerate(rule.actions):
            if name not in known:
                place = ("rules", position, "actions", number)
                yield place, f"is no action; {nearest(name, known)}"


def _names(config: Config) -> Iterator[tuple[Place, str]]:
    receivers = [receiver.name for receiver in config.receivers]
    for position, action in enumerate(config.actions):
        if action.receiver is not None and action.receiver not in receivers:
            message = f"is no receiver; {nearest(action.receiver, receivers)}"
            yield ("actions", position, "receiver"), message
    actions = [action.name for action in config.actions]
    routes = () if config.alertmanager_receiver is None else config.alertmanager_receiver.routes
    for position, route in enumerate(routes):
        if route.action not in actions:
            place = ("alertmanager_receiver", "routes", position, "action")
            yield place, f"is no action; {nearest(route.action, actions)}"


def _groups(config: Config) -> Iterator[tuple[Place, str]]:
    owners: dict[int | str, str] = {}
    for position, group in enumerate(config.scale_groups):
        for number, gpus in enumerate(group.gpus):
            for gpu in indexes(gpus) or [gpus]:
                if gpu in owners:
                    which = gpu if isinstance(gpu, str) else f"GPU {gpu}"
                    message = f'names {which}, which is in "{owners[gpu]}"; keep it in one place'
                    yield ("scale_groups", position, "gpus", number), message
                    break
                owners[gpu] = group.name


def _servers(config: Config) -> Iterator[tuple[Place, str]]:
    if len(config.inference_servers) > MAX_SERVERS:
        yield ("inference_servers",), f"are more than {MAX_SERVERS}; write fewer"
    if config.inference_servers:
        return
    for position, rule in enumerate(config.rules):
        places: list[tuple[Place, str]] = [(("metric",), rule.metric)]
        if rule.and_ is not None:
            places.append((("and", "metric"), rule.and_.metric))
        for place, metric in places:
            if metric.startswith(INFERENCE):
                message = "is read from nowhere; add inference_servers"
                yield ("rules", position, *place), message
