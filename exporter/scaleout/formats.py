"""The bodies of a webhook: our JSON, a CloudEvent, or a tree that the config gives."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from exporter.config import WebhookConfig
from exporter.scaleout.clock import rfc3339
from exporter.scaleout.model import Delivery

TYPE = "gpu_node_exporter"
JSON_TYPE = "application/json"
CLOUDEVENT_TYPE = "application/cloudevents+json; charset=utf-8"

# What `$name` in a template may be: the fields of the event, and what surrounds them.
NAMES = frozenset(
    {
        *("type", "timestamp", "event_id", "dedupe_key", "dry_run", "reason", "scale_group"),
        *("cluster", "node", "action", "step", "rule", "repeat", "started_at", "fired_at"),
        *("series", "cooldown_s", "resolves"),
    }
)
_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<braced>\w+)\}|(?P<named>\w+)|)", re.ASCII)


class TemplateError(Exception):
    """A template with a variable that there is not."""


def render(config: WebhookConfig, delivery: Delivery) -> tuple[str, bytes]:
    """Return media type and body; the same for every attempt.

    Raises:
        TemplateError: The template is wrong.
    """
    if config.format == "cloudevents":
        return CLOUDEVENT_TYPE, _json(_cloudevent(delivery))
    envelope = {"type": f"{TYPE}.{delivery.kind}", "timestamp": rfc3339(delivery.created)}
    if config.format == "template":
        values = {**dict.fromkeys(NAMES), **delivery.event, **envelope}
        return JSON_TYPE, _json(fill(config.template, values))
    return JSON_TYPE, _json({**envelope, "data": delivery.event})


def unknown_names(tree: object) -> Iterator[str]:
    """Yield what a template's variables say that is not one of NAMES; "" for a lone `$`."""
    if isinstance(tree, str):
        for match in _VARIABLE.finditer(tree):
            name = match["braced"] or match["named"] or ""
            if not match["dollar"] and name not in NAMES:
                yield name
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from unknown_names(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from unknown_names(value)


def fill(tree: object, values: Mapping[str, object]) -> object:
    """Return a tree with the variables in its texts replaced.

    A text that is nothing but one variable becomes its value, of any type. Values are put into the
    tree and never parsed, so that none can change its structure.

    Raises:
        TemplateError: There is no such variable.
    """
    if isinstance(tree, str):
        whole = _VARIABLE.fullmatch(tree)
        if whole and not whole["dollar"]:
            return _value(whole, values)
        return _VARIABLE.sub(lambda match: _text(match, values), tree)
    if isinstance(tree, Mapping):
        return {key: fill(value, values) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [fill(value, values) for value in tree]
    return tree


def _value(match: re.Match[str], values: Mapping[str, object]) -> object:
    name = match["braced"] or match["named"] or ""
    if name not in values:
        known = ", ".join(sorted(NAMES))
        raise TemplateError(f'"{match[0]}" is no variable; known: {known}; write $$ for a dollar')
    return values[name]


def _text(match: re.Match[str], values: Mapping[str, object]) -> str:
    if match["dollar"]:
        return "$"
    value = _value(match, values)
    return value if isinstance(value, str) else json.dumps(value)


def _cloudevent(delivery: Delivery) -> dict[str, Any]:
    """Return a structured CloudEvent 1.0."""
    event = delivery.event
    cluster, node = (quote(str(event[name]), safe="") for name in ("cluster", "node"))
    subject = {"subject": event["scale_group"]} if event["scale_group"] else {}
    return {
        "specversion": "1.0",
        "id": delivery.event_id,
        "source": f"/clusters/{cluster}/nodes/{node}",
        "type": f"dev.gpu-node-exporter.{delivery.kind.replace('_', '')}.v1",
        **subject,
        "time": rfc3339(delivery.created),
        "datacontenttype": JSON_TYPE,
        "dedupekey": delivery.dedupe_key,
        "data": event,
    }


def _json(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
