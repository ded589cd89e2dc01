"""Python processes that talk to the fake library through pynvml, as the exporter does."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from fake_nvml import FakeNvml, build

_PRELUDE = """
import ctypes, json, os, sys, threading, time
import pynvml as N

lib = ctypes.CDLL("libnvidia-ml.so.1")

def put(*lines):
    'Changes the scenario at once, over what the file says.'
    assert lib.fakenvml_set("\\n".join(lines).encode()) == 0, lines

def rc(function, *args):
    'The code that a pynvml function raises, or 0.'
    try:
        function(*args)
    except N.NVMLError as error:
        return error.value
    return 0

def gpu(index):
    return N.nvmlDeviceGetHandleByIndex(index)

def field(handle, number, scope=0):
    'Code, type and the 64 bits of one field.'
    value = N.nvmlDeviceGetFieldValues(handle, [(number, scope)])[0]
    return value.nvmlReturn, value.valueType, value.value.ullVal

def number(handle, field_id, scope=0):
    'Value of one field that must be there.'
    code, kind, bits = field(handle, field_id, scope)
    assert code == 0, (field_id, code)
    return bits & 0xFFFFFFFF if kind == N.NVML_VALUE_TYPE_UNSIGNED_INT else bits
"""


def library(config: pytest.Config) -> Path:
    """Folder of the fake library, built once for each content of its sources."""
    return build(config.rootpath / ".cache" / "fakenvml")


def start(fake: FakeNvml, code: str) -> subprocess.Popen[str]:
    """Starts a child with pipes; the caller waits for it."""
    return subprocess.Popen(
        [sys.executable, "-c", _PRELUDE + textwrap.dedent(code)],
        env=fake.env(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ask(fake: FakeNvml, code: str) -> Any:
    """Runs `code` with NVML initialised and returns what it left in `answer`, as JSON knows it."""
    body = "N.nvmlInit()\n" + textwrap.dedent(code) + "\nprint(json.dumps(answer))\n"
    with start(fake, body) as child:
        out, _ = child.communicate(timeout=60)
    assert child.returncode == 0, out
    return json.loads(out)
