"""Threads that begin, or that the machine has no room for."""

from __future__ import annotations

import threading

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
