"""The node that is measured: 8 H100 of a fake libnvidia-ml.so.1, and processes that use them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from client import BenchError

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from fake_nvml import BuildError, FakeNvml, build, nvml_header

__all__ = ["GPUS", "PROCESSES", "ROOT", "FakeNvml", "Node", "node", "nvml_header"]

ROOT = Path(__file__).resolve().parents[1]
GPUS = 8
PROCESSES = 50
ENOUGH_SECONDS = 3600  # for a run; no process outlives that, even if nobody ends it


@dataclass(frozen=True, slots=True)
class Node:
    """The library's folder, and what the library is told, as its scenario's keys."""

    library: Path
    scenario: Mapping[str, str]


@contextmanager
def node() -> Iterator[Node]:
    """Give a node whose processes run until the end.

    Raises:
        BenchError: the library cannot be built here.
    """
    try:
        library = build(ROOT / ".cache/fakenvml")
    except BuildError as error:
        raise BenchError(str(error)) from None
    sleeping: list[subprocess.Popen[bytes]] = []
    try:
        while len(sleeping) < PROCESSES:
            sleeping.append(subprocess.Popen(["/bin/sleep", str(ENOUGH_SECONDS)]))
        yield Node(library, _processes([one.pid for one in sleeping]))
    finally:
        for one in sleeping:
            one.kill()
        for one in sleeping:
            one.wait()


def _processes(pids: list[int]) -> Mapping[str, str]:
    """Spread the processes over the GPUs: 1 to 13 GiB for each, 1 to 20 % of its GPU's SMs."""
    return {
        f"gpu{place % GPUS}.process.{pid}": f"{(place + 4) << 28},c,{place % 20 + 1}"
        for place, pid in enumerate(pids)
    }
