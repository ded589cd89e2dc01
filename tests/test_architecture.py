"""The structure that a reader may rely on."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "exporter").rglob("*.py"))

# Who alone may import what.
OWNERS = {
    "pynvml": {
        *(
            "nvml.py",
            "nvml_events.py",
            "device.py",
            "partitions.py",
            "batches.py",
            "lists.py",
            "load_samples.py",
            "returns.py",
            "structs.py",
        ),
    },
    "apscheduler": {"ticking.py"},
    "psutil": {"host"},
    "h11": {"httpd", "inference"},
    "yaml": {"yamlfile.py", "decode.py"},
    "prometheus_client": {"app.py", "web.py"},
    "bcrypt": {"webconfig"},
    "requests": {"scaleout"},
    "sqlite3": {"scaleout"},
}


def imported(tree: ast.AST) -> set[str]:
    """Return the top-level names that a file imports."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("library", OWNERS)
def test_library_is_used_behind_one_door(library: str) -> None:
    """A library is imported only by the files that own it, and by those indeed."""
    users = {
        path.relative_to(ROOT / "exporter").parts[0]
        for path in SOURCES
        if library in imported(ast.parse(path.read_text()))
    }
    assert users == OWNERS[library]


def test_only_the_command_line_prints() -> None:
    """No file but cli.py calls print."""
    printing = {
        path.name
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
    }
    assert printing == {"cli.py"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_stay_rooms(path: Path) -> None:
    """No source file has grown past 300 lines."""
    assert len(path.read_text().splitlines()) <= 300


def test_frozen_classes_are_made_in_one_way() -> None:
    """The standard library's slow frozen dataclass is used only for order, which ours has not."""
    slow = {
        (path.name, text)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        for text in map(ast.unparse, node.decorator_list)
        if text.startswith("dataclasses.dataclass") and "frozen" in text
    }
    assert slow == {("decode.py", "dataclasses.dataclass(frozen=True, slots=True, order=True)")}
    importing = {
        path.name
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "dataclasses"
        if "dataclass" in {alias.name for alias in node.names}
    }
    assert importing == {"frozen.py"}


def test_import_layers_hold() -> None:
    """Imports point one way: the layers in pyproject.toml, checked by import-linter."""
    linter = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run(
        [linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_what_is_not_used_is_not_imported() -> None:
    """Loading the daemon loads not what the first delivery, recording or config file needs."""
    program = "import sys, exporter.app, exporter.cli; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert {"apscheduler", "prometheus_client", "psutil", "pynvml", "h11"} <= loaded
    assert (
        not {
            "requests",
            "yaml",
            "bcrypt",
            "exporter.simulate",
            "exporter.webconfig",
            "exporter.dcgm",
            "exporter.recorder.tape",
        }
        & loaded
    )
