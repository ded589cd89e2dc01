"""Debian's programs, as `make setup` unpacked them."""

from pathlib import Path

import pytest

_PROGRAMS = Path(__file__).parents[1] / ".cache/debian/usr/bin"


def program(name: str) -> Path:
    """Returns the path of a program of Debian's Prometheus, Alertmanager or node exporter.

    A test whose program is not there fails: skipped, it would prove nothing and look green.
    """
    path = _PROGRAMS / name
    if not path.is_file():
        pytest.fail(f"{path} is not there: `make setup` unpacks Debian's programs", pytrace=False)
    return path
