"""Log lines: logfmt as Prometheus writes it, JSON, and journald's own fields."""

from __future__ import annotations

import logging
import time

from exporter import journal

FORMATS = ("logfmt", "json")
LEVELS = ("debug", "info", "warning", "error")
QUOTED = frozenset(' ="\n\r\t\\')


class LogfmtFormatter(logging.Formatter):
    """`ts=… level=… source=… msg=…` and what it is about; a traceback follows on its own lines."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as one line of logfmt."""
        line = " ".join(f"{key}={_quoted(value)}" for key, value in _fields(record))
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line; a traceback is its field `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as one JSON object."""
        import json  # noqa: PLC0415  only who asks for JSON pays for it

        fields = dict(_fields(record))
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


def configure(level: str, form: str | None) -> None:
    """Send log lines of `level` and above to stderr, in one of FORMATS.

    Without a format: to the journal with its own fields if stderr goes there, else as logfmt.
    """
    handler: logging.Handler
    if form is None and journal.is_stderr():
        handler = journal.JournalHandler()
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(JsonFormatter() if form == "json" else LogfmtFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # The scheduler tells of every job it starts, and of every tick it skips; we count those.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)


def _fields(record: logging.LogRecord) -> list[tuple[str, str]]:
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return [
        ("ts", f"{moment}.{int(record.msecs):03d}Z"),
        ("level", record.levelname.lower()),
        ("source", record.name.removeprefix("exporter.")),
        ("msg", record.getMessage()),
        *getattr(record, "facts", {}).items(),
    ]


def _quoted(text: str) -> str:
    if text and not QUOTED.intersection(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
