"""The command line as a user types it: exit codes, one-line errors, what goes to which stream."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import pytest
from daemon import COMMAND, running

from exporter.catalogue import reference

CONFIGS = Path(__file__).parent / "configs"
OK, BAD, USAGE = 0, 1, 2


def run(
    *arguments: str | Path, stdout: int | IO[str] = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    """Run a command that is to end by itself."""
    # Unbuffered output would hide what comes of a reader that has gone.
    env: Mapping[str, str] = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    return subprocess.run(
        [COMMAND, *arguments],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--web.listen-adress=:1", "no --web.listen-adress=:1; did you mean --web.listen-address?"),
        ("--no-collector.powr", "no --no-collector.powr; did you mean --no-collector.power?"),
        ("--collector.utilisation", "did you mean --collector.utilization?"),
        ("chek-config file", "there is no chek-config; did you mean check-config?"),
        ("run fast", "there is no fast"),
        ("", 'there is no ""'),
        ("--simulate=h100", "no profile h100; there is h100x8, "),
        ("--log.level=loud", "invalid choice: 'loud' (choose from 'debug', 'info'"),
        ("--config.file", "--config.file: expected one argument"),
        ("--web.listen-address=localhost", "'localhost' is not HOST:PORT; right would be ':9836'"),
        ("--web.listen-address=:70000", "':70000' is not HOST:PORT"),
        ("--web.telemetry-path=metrics", '"metrics" is no path like /metrics'),
        ("--web.telemetry-path=/", '"/" is no path like /metrics'),
        ("--web.telemetry-path=/-/ready", "/-/ and /api/ are the daemon's own"),
        (
            "--compat.dcgm --web.telemetry-path=/metrics/dcgm",
            "/metrics/dcgm is the page of --compat.dcgm",
        ),
        ("--web.conf=x", "there is no --web.conf=x"),
        ("check-config", "the following arguments are required: FILE"),
        ("metrics all", "there is no all"),
    ],
)
def test_wrong_usage_is_one_line_that_helps(arguments: str, said: str) -> None:
    """Exit code 2; stderr has one line that says what would be right, stdout nothing."""
    ended = run(*arguments.split(" "))
    assert (ended.returncode, ended.stdout) == (USAGE, "")
    (line,) = ended.stderr.splitlines()
    assert said in line
    assert line.startswith("gpu-node-exporter")
    assert re.search(r"\(see gpu-node-exporter.* --help\)$", line)


def test_port_in_use_is_one_line() -> None:
    """A second daemon on the port ends with 1 and says which address, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = run("--simulate=t4", f"--web.listen-address={address}")
    assert ended.returncode == BAD
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"cannot listen on '{address}': Address already in use; ")


def test_config_that_cannot_be_read_ends_the_daemon(tmp_path: Path) -> None:
    """No file and a folder: exit code 1, one line with the name; the daemon does not start."""
    for path, why in (
        (tmp_path / "missing.yml", "No such file or directory"),
        (tmp_path, "Is a directory"),
    ):
        for command in (["check-config", path], [f"--config.file={path}", "--simulate=t4"]):
            ended = run(*command)
            assert (ended.returncode, ended.stdout) == (BAD, "")
            assert ended.stderr == f"{path}: cannot be read: {why}\n"


def test_bad_config_ends_the_daemon_with_every_mistake() -> None:
    """The daemon refuses what check-config refuses, in the same words: file:line:col, each."""
    path = CONFIGS / "bad-keys.yml"
    checked = run("check-config", path)
    started = run(f"--config.file={path}", "--simulate=t4")
    assert (checked.returncode, started.returncode) == (BAD, BAD)
    assert checked.stderr == started.stderr
    lines = checked.stderr.splitlines()
    assert len(lines) > 1
    assert all(re.match(rf"{re.escape(str(path))}:\d+:\d+: ", line) for line in lines)


def test_good_config_is_called_good() -> None:
    """check-config of a good file: exit code 0, one line on stdout."""
    path = CONFIGS / "good-least.yml"
    ended = run("check-config", path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (OK, f"{path}: good\n", "")


def test_check_tells_of_all_files_that_the_flags_name(tmp_path: Path) -> None:
    """The command line of the daemon with --check: the words of both commands, and no daemon."""
    good, bad = CONFIGS / "good-least.yml", CONFIGS / "bad-keys.yml"
    web = tmp_path / "web.yml"
    web.write_text("{}\n")
    flags = ("--web.listen-address=127.0.0.1:0", "--no-collector.power", "--check")
    ended = run(f"--config.file={good}", f"--web.config.file={web}", *flags)
    assert (ended.returncode, ended.stdout) == (OK, f"{good}: good\n{web}: good\n")
    web.write_text("nonsense: 1\n")
    of_web = run("check-web-config", web)
    ended = run(f"--config.file={good}", f"--web.config.file={web}", *flags)
    assert (ended.returncode, ended.stderr) == (BAD, of_web.stderr)
    ended = run(f"--config.file={bad}", f"--web.config.file={web}", *flags)
    assert (ended.returncode, ended.stdout) == (BAD, "")
    assert ended.stderr == run("check-config", bad).stderr + of_web.stderr
    assert run("--no-such-flag", "--check").returncode == USAGE


def test_metrics_prints_the_reference() -> None:
    """Its output is the catalogue's reference."""
    ended = run("metrics")
    assert (ended.returncode, ended.stdout, ended.stderr) == (OK, reference(), "")


@pytest.mark.parametrize("command", ["metrics", "--version", "--help"])
def test_reader_that_went_away_is_no_error(command: str) -> None:
    """Piped into head, a command ends with 0 and without a word."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = run(command, stdout=writing)
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (OK, "")


def test_output_that_cannot_be_written_is_one_line() -> None:
    """A full disk: exit code 1 and the reason."""
    with Path("/dev/full").open("w") as full:
        ended = run("metrics", stdout=full)
    assert (ended.returncode, ended.stderr) == (BAD, "cannot write: No space left on device\n")


@pytest.mark.parametrize("command", ["--help", "check-config --help", "metrics --help"])
def test_help_goes_to_stdout(command: str) -> None:
    """Asked for, help is output: exit code 0; the first one names every flag that is promised."""
    ended = run(*command.split())
    assert (ended.returncode, ended.stderr) == (OK, "")
    assert ended.stdout.startswith("usage: gpu-node-exporter")
    if command == "--help":
        flags = "config.file web.listen-address web.telemetry-path simulate log.level log.format"
        assert all(f"--{flag}" in ended.stdout for flag in flags.split())


def test_log_in_json_has_one_object_a_line() -> None:
    """Each line of the log is an object with the same four fields, first to last."""
    with running("--simulate=t4", "--log.format=json") as daemon:
        daemon.config_file.write_text('nonsense: "1"\n')
        daemon.get("/-/reload", "POST")
        daemon.stop()
        entries = [json.loads(line) for line in daemon.log.splitlines()]
    assert {tuple(entry) for entry in entries} == {("ts", "level", "source", "msg")}
    assert {entry["level"] for entry in entries} == {"info", "error"}
    assert entries[-1]["msg"] == "stopping"


def test_only_loading_goes_without_garbage_collection() -> None:
    """What a command does is collected as ever; what was loaded before is not looked through."""
    code = (
        "import gc, os, sys, exporter.__main__ as program\n"
        "os._exit = lambda _: print(gc.isenabled(), gc.get_freeze_count() > 1000)\n"
        "sys.argv = ['gpu-node-exporter', '--version']\n"
        "program.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.splitlines()[-1] == "True True"
