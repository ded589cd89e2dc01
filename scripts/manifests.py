#!/usr/bin/env python3
"""Writes alerts/ as a PrometheusRule of the Prometheus Operator: docs/examples/kubernetes."""

from __future__ import annotations

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "examples" / "kubernetes" / "prometheusrule.yaml"


def main() -> None:
    """Write it anew."""
    files = sorted((ROOT / "alerts").glob("*.rules.yml"))
    groups = [g for file in files for g in yaml.safe_load(file.read_text("utf-8"))["groups"]]
    manifest = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "gpu-node-exporter"},
        "spec": {"groups": groups},
    }
    text = yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True, width=120)
    TARGET.write_text(f"# `make docs` writes this from alerts/.\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main()
