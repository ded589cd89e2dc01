"""Small file systems for tests of faults: mounted, filled, changed, and gone in the end."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def mount(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Mount something."""
    command = ["mount", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@contextmanager
def little_disk(path: Path, kibibytes: int = 2048) -> Iterator[None]:
    """Mount a small tmpfs there; skip the test where that may not be."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    path.mkdir(exist_ok=True)
    done = mount("-t", "tmpfs", "-o", f"size={kibibytes}k,mode=755", "tmpfs", path)
    if done.returncode != 0:
        pytest.skip(f"this root may not mount: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(folder: Path) -> Path:
    """Leave not a byte free; return the file that takes them."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096):
                pass
        except OSError:
            return path
    raise AssertionError("unreachable")
