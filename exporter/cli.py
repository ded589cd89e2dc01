"""The command line: commands and flags, the only print and exit code."""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from exporter import logs, systemd
from exporter.catalogue import COLLECTORS, RULE_METRICS, reference
from exporter.config import ConfigError, load
from exporter.flags import DEFAULT_ADDRESS, USAGE, Parser, run_parser
from exporter.httpd import ListenError, parse_address
from exporter.threads import EXHAUSTED, NoThreadError

if TYPE_CHECKING:
    from exporter.simulate import PlantedXid  # real nodes never need it

TELEMETRY_PATH = re.compile(r"(?!/-/|/api/)(/[\w.~-]+)+", re.ASCII)
OK, BAD = 0, 1


def run(arguments: Sequence[str]) -> int:
    """Do what the command line says; return the exit code.

    0: done. 1: the thing asked about is bad. 2: wrong usage.
    """
    if arguments and arguments[0] in COMMANDS:
        command, rest = arguments[0], arguments[1:]
    else:
        command, rest = "run", arguments
    try:
        return COMMANDS[command](rest)
    except SystemExit as done:  # argparse: --help, --version, wrong usage
        return _print("") or (done.code if isinstance(done.code, int) else USAGE)


def _serve(arguments: Sequence[str]) -> int:
    parser = run_parser(tuple(COMMANDS))
    flags = parser.parse_args(arguments)
    descriptors = systemd.listen_descriptors()
    addresses = tuple(flags.addresses or (() if descriptors else [DEFAULT_ADDRESS]))
    try:
        for address in addresses:
            parse_address(address)
    except ListenError as bad:
        parser.error(f"--web.listen-address: {bad}")
    if not TELEMETRY_PATH.fullmatch(flags.telemetry_path):
        parser.error(
            f'--web.telemetry-path: "{flags.telemetry_path}" is no path like /metrics; '
            "/-/ and /api/ are the daemon's own"
        )
    if flags.telemetry_path == flags.dcgm_path:
        parser.error(f"--web.telemetry-path: {flags.dcgm_path} is the page of --compat.dcgm")
    if flags.simulate is not None:
        flags.simulated_xids = _simulated_xids(flags, parser)
    elif flags.simulated_xids:
        parser.error("--simulate.xid: only simulated GPUs can be given errors; add --simulate")
    if flags.check:
        return _check(flags.config_file, flags.web_config_file)
    logs.configure(flags.log_level, flags.log_format)
    return _daemon(flags, addresses, descriptors)


def _simulated_xids(flags: argparse.Namespace, parser: Parser) -> list[PlantedXid]:
    from exporter.simulate import PROFILES, planted_xid  # noqa: PLC0415  real nodes never need it

    try:
        gpus = len(PROFILES[flags.simulate].boards)
        return [planted_xid(text, gpus) for text in flags.simulated_xids]
    except ValueError as bad:
        parser.error(f"--simulate.xid: {bad}")


def _daemon(
    flags: argparse.Namespace, addresses: tuple[str, ...], descriptors: tuple[int, ...]
) -> int:
    # Late: the other commands need no scheduler, driver or server.
    from exporter.app import Daemon  # noqa: PLC0415
    from exporter.options import Options  # noqa: PLC0415

    given = {name: vars(flags)[f"collector.{name}"] for name in COLLECTORS}
    options = Options(
        config_file=flags.config_file,
        web_config_file=flags.web_config_file,
        listen_addresses=addresses,
        listen_descriptors=descriptors,
        telemetry_path=flags.telemetry_path,
        dcgm_path=flags.dcgm_path,
        storage_path=flags.storage_path,
        simulate=flags.simulate,
        simulated_xids=tuple(flags.simulated_xids),
        kmsg_path=flags.kmsg_path,
        collectors={name: on for name, on in given.items() if on is not None},
    )

    # Stacks of all threads when a driver's library crashes, or systemd's watchdog ends us.
    faulthandler.enable()

    async def serve() -> int:
        return await Daemon(options).run()

    try:
        return asyncio.run(serve())
    except (ConfigError, ListenError) as bad:
        return _say(str(bad))
    except (MemoryError, NoThreadError):
        return _say(EXHAUSTED)


def _check_config(arguments: Sequence[str]) -> int:
    parser = Parser(
        prog="gpu-node-exporter check-config",
        description="Check a config file: every mistake at once, as file:line:col.",
    )
    parser.add_argument("file", type=Path, metavar="FILE")
    return _check(parser.parse_args(arguments).file, None)


def _check_web_config(arguments: Sequence[str]) -> int:
    parser = Parser(
        prog="gpu-node-exporter check-web-config",
        description="Check a web config file, and the certificates and keys that it names.",
    )
    parser.add_argument("file", type=Path, metavar="FILE")
    return _check(None, parser.parse_args(arguments).file)


def _check(config_file: Path | None, web_config_file: Path | None) -> int:
    """Print what is to be said of config files; return the exit code."""
    mistakes: list[str] = []
    told: list[str] = []
    for path, check in ((config_file, _of_config), (web_config_file, _of_web_config)):
        if path is None:
            continue
        try:
            told += [f"{path}: warning: {warning}\n" for warning in check(path)]
        except ConfigError as bad:
            mistakes += bad.mistakes
        else:
            told.append(f"{path}: good\n")
    return _print("".join(told)) or (_say("\n".join(mistakes)) if mistakes else OK)


def _of_config(path: Path) -> Sequence[str]:
    """Return what is seldom meant in a config.

    Raises:
        ConfigError: all that is wrong with it.
    """
    # Where systemd puts the service's credentials; outside of it there is no such variable.
    os.environ.setdefault("CREDENTIALS_DIRECTORY", "/run/credentials/gpu-node-exporter.service")
    config = load(path, COLLECTORS, RULE_METRICS)
    from exporter.config.advice import warnings  # noqa: PLC0415  only commands give advice

    return warnings(config)


def _of_web_config(path: Path) -> Sequence[str]:
    """Return the same for a web config."""
    from exporter import webconfig  # noqa: PLC0415  only a web config needs it

    return webconfig.warnings(path, webconfig.load(path).config)


def _metrics(arguments: Sequence[str]) -> int:
    parser = Parser(
        prog="gpu-node-exporter metrics",
        description="Print the metrics reference as Markdown.",
    )
    parser.parse_args(arguments)
    return _print(reference())


def _recordings(arguments: Sequence[str]) -> int:
    from exporter.recorder.model import RecordingError  # noqa: PLC0415  the daemon needs no tools
    from exporter.tools import recordings  # noqa: PLC0415

    return _tell(recordings(arguments), RecordingError)


def _scale_out(arguments: Sequence[str]) -> int:
    from exporter.scaleout.commands import CommandError  # noqa: PLC0415  the daemon needs no tools
    from exporter.tools import scale_out  # noqa: PLC0415

    return _tell(scale_out(arguments), CommandError, ConfigError)


def _nvml(arguments: Sequence[str]) -> int:
    from exporter.nvml_pause import NvmlPauseError  # noqa: PLC0415  the daemon needs no tools
    from exporter.tools import nvml  # noqa: PLC0415

    return _tell(nvml(arguments), NvmlPauseError)


def _fit(arguments: Sequence[str]) -> int:
    from exporter.fit.command import run as fit  # noqa: PLC0415  the daemon needs no tools
    from exporter.fit.model import ModelError  # noqa: PLC0415

    logs.configure("error", None)  # what the poller says of the driver is in the answer
    try:
        text, fits = fit(arguments)
    except ModelError as problem:
        return _say(f"gpu-node-exporter fit: {problem}")
    return _print(text) or (OK if fits else BAD)


def _doctor(arguments: Sequence[str]) -> int:
    from exporter.doctor.bundle import BundleError  # noqa: PLC0415  the daemon needs no tools
    from exporter.doctor.command import DoctorError  # noqa: PLC0415
    from exporter.doctor.command import run as doctor  # noqa: PLC0415

    try:
        text, is_wrong = doctor(arguments, colour=_has_colours())
    except (BundleError, DoctorError) as problem:
        return _say(f"gpu-node-exporter doctor: {problem}")
    return _print(text) or (BAD if is_wrong else OK)


def _has_colours() -> bool:
    """Return whether stdout shows colours, and may: https://no-color.org."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb"
    return not plain and sys.stdout.isatty()


def _tell(texts: Iterable[str], *problems: type[Exception]) -> int:
    try:
        for text in texts:
            if _print(text) == BAD:
                return BAD
    except problems as problem:
        return _say(str(problem))
    return OK


def _print(text: str) -> int:
    """Print a text and return the exit code; a reader that has gone had what it wanted."""
    try:
        print(text, end="", flush=True)  # noqa: T201  the command line speaks here
    except BrokenPipeError:
        return OK
    except OSError as error:
        return _say(f"cannot write: {error.strerror}")
    return OK


def _say(problem: str) -> int:
    print(problem, file=sys.stderr)  # noqa: T201  the command line speaks here
    return BAD


COMMANDS: Mapping[str, Callable[[Sequence[str]], int]] = {
    "run": _serve,
    "check-config": _check_config,
    "check-web-config": _check_web_config,
    "metrics": _metrics,
    "recordings": _recordings,
    "scale-out": _scale_out,
    "nvml": _nvml,
    "fit": _fit,
    "doctor": _doctor,
}
