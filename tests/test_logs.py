"""Log lines that machines can take apart again."""

from __future__ import annotations

import json
import logging
import re
import sys

import pytest

from exporter.facts import facts
from exporter.logs import JsonFormatter, LogfmtFormatter

NASTY = 'GPU "0"\nlevel=error msg="forged" \\ \t é'


def record(text: str) -> logging.LogRecord:
    """Return a record of ours with this text."""
    return logging.LogRecord("exporter.poll", logging.WARNING, "", 0, "%s", (text,), None)


def test_logfmt_line_keeps_its_shape_whatever_is_logged() -> None:
    """Text from a driver cannot forge a field or a line; plain words stay unquoted."""
    line = LogfmtFormatter().format(record(NASTY))
    assert "\n" not in line
    fields = re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|[^ "]+)', line)
    assert [key for key, _ in fields] == ["ts", "level", "source", "msg"]
    assert dict(fields)["level"] == "warning"
    assert dict(fields)["source"] == "poll"
    assert LogfmtFormatter().format(record("stopping")).endswith("msg=stopping")


def test_json_line_is_one_object() -> None:
    """The message survives JSON whole."""
    parsed = json.loads(JsonFormatter().format(record(NASTY)))
    assert parsed["msg"] == NASTY
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", parsed["ts"])


def test_what_a_line_is_about_follows_its_text() -> None:
    """A fact is a key of its own in both formats, quoted like any other text."""
    about = record("it is hot")
    about.__dict__.update(facts(gpu=3, rule="a b", uuid=""))
    assert LogfmtFormatter().format(about).endswith('msg="it is hot" gpu=3 rule="a b"')
    assert json.loads(JsonFormatter().format(about)).items() >= {"gpu": "3", "rule": "a b"}.items()


@pytest.mark.parametrize("formatter", [LogfmtFormatter(), JsonFormatter()])
def test_traceback_is_kept(formatter: logging.Formatter) -> None:
    """An unexpected error is logged with its traceback."""
    try:
        dict[str, int]()["planted"]
    except KeyError:
        broken = record("it broke")
        broken.exc_info = sys.exc_info()
    assert "KeyError: 'planted'" in formatter.format(broken)
