"""Threads that begin, or that the machine has no room for."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable

M_ARENA_MAX = -8  # of mallopt(3)

# What is said when one of these ends the process: nothing in it can be trusted to go on.
EXHAUSTED = "out of memory or threads; only a new process can go on"


class NoThreadError(Exception):
    """The system gives us no more threads: only a new process can go on."""


def start(thread: threading.Thread) -> threading.Thread:
    """Start a thread; return it.

    Raises:
        NoThreadError: there is no memory for it, or a limit on tasks is reached.
    """
    try:
        thread.start()
    except RuntimeError as error:
        raise NoThreadError(str(error)) from error
    return thread


def on_exhaustion(end: Callable[[], None]) -> None:
    """Have `end` called in each thread that ends for want of memory or threads, instead of a trace.

    What that thread did, nobody would do any more.
    """

    def hook(fault: threading.ExceptHookArgs) -> None:
        if issubclass(fault.exc_type, (MemoryError, NoThreadError)):
            end()
        else:
            threading.__excepthook__(fault)

    threading.excepthook = hook


def share_heap() -> None:
    """Have all threads allocate from one heap, instead of one each; before the first of them.

    Each heap keeps what was freed in it. With faults day after day that comes to megabytes, and
    under Python's lock two threads hardly ever allocate at once.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # glibc; musl has one heap
        mallopt(M_ARENA_MAX, 1)
