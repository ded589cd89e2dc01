"""Names of users. A directory service that does not answer holds nobody up for long."""

from __future__ import annotations

import pwd

from exporter.crew import Crew, Job

WAIT_SECONDS = 0.1
MOST_NAMES = 1000


class Users:
    """Looks users up, each once. Used from one thread; looks on a thread of its own."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._crew = Crew("users")
        self._job: Job[str] | None = None

    def name(self, uid: int) -> str:
        """Return the name of a user: by getpwuid(3), so LDAP and the like count as well.

        The number stands for a user without a name, and for one that is not found in time; nobody
        else is looked up while that one is.
        """
        if uid in self._names:
            return self._names[uid]
        if self._job is not None and not self._job.done:
            return str(uid)
        self._job = job = Job(lambda: _name(uid))
        self._crew.start([job], split=False)
        self._crew.wait(WAIT_SECONDS)
        if job.result is None:
            return str(uid)
        if len(self._names) >= MOST_NAMES:
            self._names.clear()
        self._names[uid] = job.result
        return job.result


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OSError):
        return str(uid)
