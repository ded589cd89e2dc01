"""The wall clock of one process, set by the test: a library of ours that is preloaded into it."""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

SOURCE = Path(__file__).parent / "wallclock" / "wall_clock.c"
FLAGS = ("-std=gnu11", "-O2", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror")
BOTH = struct.Struct("=qq")
NANOSECONDS = 1_000_000_000


def build(cache: Path) -> Path:
    """Compile the library, once for each content of its source; return where it is."""
    digest = hashlib.sha256(SOURCE.read_bytes() + repr(FLAGS).encode()).hexdigest()[:20]
    library = cache / f"wall_clock-{digest}.so"
    if not library.exists():
        compiler = shutil.which("cc")
        assert compiler is not None, "no C compiler: make setup installs one"
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            made = Path(scratch) / library.name
            subprocess.run([compiler, *FLAGS, "-o", made, SOURCE, "-ldl"], check=True)
            made.replace(library)  # whole, also beside another build of the same
    return library


class WallClock:
    """Steers the clocks of all processes that were started with `env()`.

    Attributes:
        ahead_seconds: How far their wall clock is ahead of this process's.
    """

    def __init__(self, library: Path, folder: Path) -> None:
        self.ahead_seconds = 0.0
        self._slept_seconds = 0.0
        self._library = library
        self._file = folder / "clocks"
        self._file.write_bytes(bytes(BOTH.size))
        with self._file.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), BOTH.size)

    def env(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return an environment with the library preloaded."""
        preloaded = [str(self._library), base.get("LD_PRELOAD", "")]
        return {
            **base,
            "LD_PRELOAD": os.pathsep.join(filter(None, preloaded)),
            "FAKE_CLOCKS": str(self._file),
        }

    def jump(self, seconds: float) -> None:
        """Set the wall clock forwards or back."""
        self.ahead_seconds += seconds
        self._write()

    def suspend(self, seconds: float) -> None:
        """Suspend the machine for so long: the monotonic clock alone does not see it."""
        self._slept_seconds += seconds
        self.jump(seconds)

    def _write(self) -> None:
        moved = (self.ahead_seconds, self._slept_seconds)
        self._shared[:] = BOTH.pack(*(round(seconds * NANOSECONDS) for seconds in moved))
