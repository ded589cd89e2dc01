"""The thread that writes recordings: a disk may be slow or hang, the poll never waits for it."""

from __future__ import annotations

import logging
import threading
from queue import Queue

from exporter.recorder.archive import Archive, Command, Status
from exporter.threads import start

log = logging.getLogger(__name__)


class Writer:
    """Has an archive carry out commands in order. The thread begins with the first command."""

    def __init__(self, archive: Archive) -> None:
        """Take the archive over: from now on it belongs to the thread."""
        self._archive = archive
        self._commands: Queue[Command | None] = Queue()
        self._thread: threading.Thread | None = None

    @property
    def status(self) -> Status:
        """What has been done on disk."""
        return self._archive.status

    @property
    def backlog(self) -> int:
        """How many commands wait or are being carried out."""
        return self._commands.unfinished_tasks

    def put(self, command: Command) -> None:
        """Have a command carried out; does not wait.

        Raises:
            NoThreadError: there is no thread to do it.
        """
        if self._thread is None:
            self._thread = start(threading.Thread(target=self._run, name="recorder", daemon=True))
        self._commands.put(command)

    def close(self, timeout_seconds: float) -> None:
        """Wait until all commands are carried out, but not for a disk that hangs."""
        if self._thread is not None:
            self._commands.put(None)
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while (command := self._commands.get()) is not None:
            self._do(command)
            self._commands.task_done()

    def _do(self, command: Command) -> None:
        try:
            self._archive.do(command)
        except Exception as unexpected:
            log.exception("recorder")
            self._archive.fail(f"unexpected {type(unexpected).__name__}")
