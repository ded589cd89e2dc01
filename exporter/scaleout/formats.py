"""The bodies of a webhook: our JSON, a CloudEvent, or a tree that the config gives."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from exporter.config import WebhookConfig
from exporter.config.template import NAMES, VARIABLE, name_of
from exporter.scaleout.clock import rfc3339
from exporter.scaleout.model import Delivery

TYPE = "gpu_node_exporter"
JSON_TYPE = "application/json"
CLOUDEVENT_TYPE = "application/cloudevents+json; charset=utf-8"


def render(config: WebhookConfig, delivery: Delivery) -> tuple[str, bytes]:
    """Return media type and body; the same for every attempt."""
    if config.format == "cloudevents":
        return CLOUDEVENT_TYPE, _json(_cloudevent(delivery))
    envelope = {"type": f"{TYPE}.{delivery.kind}", "timestamp": rfc3339(delivery.created)}
    if config.format == "template":
        values = {**dict.fromkeys(NAMES), **delivery.event, **envelope}
        return JSON_TYPE, _json(fill(config.template, values))
    return JSON_TYPE, _json({**envelope, "data": delivery.event})


def fill(tree: object, values: Mapping[str, object]) -> object:
    """Return a tree with the variables in its texts replaced.

    A text that is nothing but one variable becomes its value, of any type. Values are put into the
    tree and never parsed, so that none can change its structure.
    """
    if isinstance(tree, str):
        whole = VARIABLE.fullmatch(tree)
        if whole and not whole["dollar"]:
            return values[name_of(whole)]
        return VARIABLE.sub(lambda match: _text(match, values), tree)
    if isinstance(tree, Mapping):
        return {key: fill(value, values) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [fill(value, values) for value in tree]
    return tree


def _text(match: re.Match[str], values: Mapping[str, object]) -> str:
    if match["dollar"]:
        return "$"
    value = values[name_of(match)]
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
