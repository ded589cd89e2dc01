"""docs/configuration.md: examples that are good files, and tables that have every key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from config_writer import key_of, written

from exporter.catalogue import COLLECTORS, RULE_METRICS
from exporter.config import (
    Action,
    Aggregate,
    AlertmanagerConfig,
    AlertmanagerReceiver,
    Authorization,
    BasicAuth,
    Condition,
    Config,
    FlightRecorder,
    Global,
    HttpConfig,
    InferenceServer,
    KubernetesConfig,
    Poll,
    Processes,
    Receiver,
    Retry,
    Route,
    Rule,
    ScaleGroup,
    ScaleTargetRef,
    TlsConfig,
    WebhookConfig,
    load,
)

DOCS = Path(__file__).parents[1] / "docs"
DOCUMENTATION = (DOCS / "configuration.md").read_text()


def yaml_in(text: str) -> list[str]:
    """Return the examples in YAML of a page."""
    return re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)


EXAMPLES = yaml_in(DOCUMENTATION)
# Alertmanager's own config, and a Role of Kubernetes.
OTHERS = ("route:", "apiVersion:")
# In the order of their tables.
SECTIONS = [
    Poll,
    Processes,
    Global,
    Rule,
    Aggregate,
    Condition,
    Action,
    FlightRecorder,
    Receiver,
    WebhookConfig,
    AlertmanagerConfig,
    KubernetesConfig,
    ScaleTargetRef,
    HttpConfig,
    Authorization,
    BasicAuth,
    TlsConfig,
    Retry,
    ScaleGroup,
    InferenceServer,
    AlertmanagerReceiver,
    Route,
]


REQUIRED_BY_CHECK = {(Aggregate, "quorum"), (AlertmanagerReceiver, "routes")}


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what systemd sets."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/gpu-node-exporter.service")


def loaded(text: str, folder: Path) -> Config:
    """Return what a text says as a file."""
    path = folder / "config.yml"
    path.write_text(text)
    return load(path, COLLECTORS, RULE_METRICS)


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_are_right(example: str, tmp_path: Path) -> None:
    """Each example is a good file; only the one of the default rules says no more than these."""
    is_of_defaults = "GpuMemoryHigh" in example
    assert (loaded(example, tmp_path) == Config()) == is_of_defaults


@pytest.mark.parametrize(
    "example",
    [e for e in yaml_in((DOCS / "scale-out.md").read_text()) if not e.startswith(OTHERS)],
)
def test_examples_of_scale_out_are_right(example: str, tmp_path: Path) -> None:
    """Each configuration on the page about scale-out is a good file, and says something."""
    assert loaded(example, tmp_path) != Config()


def test_every_collector_is_documented() -> None:
    """Every collector is named."""
    assert [name for name in COLLECTORS if f"`{name}`" not in DOCUMENTATION] == []


def test_every_key_is_documented() -> None:
    """The tables have every key, in order, with its default and bounds; examples have it too."""
    tables = re.findall(r"^\| key \|.*\n\|---.*\n((?:\|.*\n)+)", DOCUMENTATION, re.MULTILINE)
    assert len(tables) == len(SECTIONS)
    examples = "".join(EXAMPLES)
    for section, table in zip(SECTIONS, tables, strict=True):
        rows = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in table.split("\n")]
        documented = {row[0].strip("`"): row for row in rows if len(row) > 1}
        assert list(documented) == [key_of(section, field.name).name for field in keys(section)]
        for field in keys(section):
            spec = key_of(section, field.name)
            _, default, allowed, _ = documented[spec.name]
            assert default.startswith(defaults(section, field)), (section, spec.name)
            for bound in filter(None, [spec.at_least, spec.at_most]):
                assert f"`{bound}`" in allowed, (section, spec.name)
            assert re.search(rf"\b{spec.name}:", examples), (section, spec.name)


def keys(section: Any) -> Iterator[Field[Any]]:
    """Yield the fields of a dataclass that a file can say."""
    return (field for field in fields(section) if key_of(section, field.name).name)


def defaults(section: Any, field: Field[Any]) -> tuple[str, ...]:
    """Return how the documentation may write a default."""
    default: Any = field.default
    if field.default_factory is not MISSING:
        default = field.default_factory()
    if default is MISSING or (section, field.name) in REQUIRED_BY_CHECK:
        return ("required",)
    if default is None:
        return ("none", "half of")
    if is_dataclass(default) and not isinstance(default, Aggregate):
        return ("see below",)
    spelled = written(default, key_of(section, field.name))
    if isinstance(spelled, list):
        spelled = f"[{', '.join(spelled)}]"
    return (f"`{str(spelled).lower() if isinstance(spelled, bool) else spelled}`",)
