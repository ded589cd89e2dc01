"""How fast a model file can be read: some hundred MiB of it, past the page cache."""

from __future__ import annotations

import mmap
import os
import stat
import time
from contextlib import closing
from pathlib import Path

from exporter.crew import Crew, Job
from exporter.doctor.facts import ReadSpeed

MOST_BYTES = 512 << 20
MOST_SECONDS = 10.0
DEADLINE_SECONDS = 30.0  # a share that hangs cannot be interrupted, only left
CHUNK_BYTES = 16 << 20


def measure(path: Path, most_bytes: int = MOST_BYTES) -> ReadSpeed:
    """Read the file's first part, at most 512 MiB and 10 s. Never raises; may take 30 s."""
    crew = Crew("model-file")
    job = Job(lambda: _measured(path, most_bytes))
    crew.start([job], split=False)
    crew.wait(DEADLINE_SECONDS)
    if job.result is None:
        return ReadSpeed(str(path), 0, 0.0, direct=False, problem="does not answer")
    return job.result


def _measured(path: Path, most_bytes: int) -> ReadSpeed:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return _failed(path, "is no file; name a file such as model.safetensors")
        try:
            return _read(path, os.O_DIRECT, most_bytes)
        except OSError:  # tmpfs and some network shares have no such reads
            return _read(path, 0, most_bytes)
    except OSError as error:
        return _failed(path, error.strerror or "cannot be read")


def _read(path: Path, flag: int, most_bytes: int) -> ReadSpeed:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flag)
    try:
        if not flag:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        with closing(
            mmap.mmap(-1, CHUNK_BYTES)
        ) as chunk:  # on a page's boundary, as direct reads ask
            done, started = 0, time.monotonic()
            while done < most_bytes and time.monotonic() - started < MOST_SECONDS:
                count = os.preadv(descriptor, [chunk], done)
                done += count
                if count < CHUNK_BYTES:
                    break
            seconds = time.monotonic() - started
    finally:
        os.close(descriptor)
    return ReadSpeed(str(path), done, seconds, direct=bool(flag))


def _failed(path: Path, problem: str) -> ReadSpeed:
    return ReadSpeed(str(path), 0, 0.0, direct=False, problem=problem)
