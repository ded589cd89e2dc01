"""The fake libnvidia-ml.so.1 that the tests build: a node of 8 H100 that answers at once."""

from __future__ import annotations

import sys
from pathlib import Path

from client import BenchError
from daemons import ROOT

sys.path.append(str(ROOT / "tests"))

from fake_nvml import BuildError, FakeNvml, build, nvml_header

__all__ = ["FakeNvml", "library", "nvml_header"]


def library() -> Path:
    """Build the library where that was not done yet; return its folder.

    Raises:
        BenchError: it cannot be built here.
    """
    try:
        return build(ROOT / ".cache/fakenvml")
    except BuildError as error:
        raise BenchError(str(error)) from None
