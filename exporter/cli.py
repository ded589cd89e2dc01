"""The command line: commands and flags, the only print and exit code."""

from __future__ import annotations

import argparse
import asyncio
import difflib
import platform
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from exporter import __version__, logs
from exporter.catalogue import COLLECTORS, reference
from exporter.config import ConfigError, load
from exporter.httpd import ListenError, parse_address

DEFAULT_CONFIG = Path("/etc/gpu-node-exporter/config.yml")
DEFAULT_ADDRESS = ":9836"
DEFAULT_PROFILE = "h100x8"
TELEMETRY_PATH = re.compile(r"(?!/-/|/api/)(/[\w.~-]+)+", re.ASCII)
OK, BAD, USAGE = 0, 1, 2


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


class _Parser(argparse.ArgumentParser):
    """Errors are one line that says what would be right, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            word = next(iter(unknown.split()), '""')
            known = [option for action in self._actions for option in action.option_strings]
            near = difflib.get_close_matches(word.split("=")[0], [*known, *COMMANDS], 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            message = f"there is no {word}{hint}"
        self.exit(USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _run_parser() -> _Parser:
    parser = _Parser(
        prog="gpu-node-exporter",
        description="Prometheus exporter for NVIDIA inference nodes.",
        epilog="Other commands: check-config FILE, metrics.",
        allow_abbrev=False,
        usage="%(prog)s [run] [flags]",
    )
    parser.add_argument(
        "--config.file",
        dest="config_file",
        type=Path,
        metavar="FILE",
        help=f"config (default: {DEFAULT_CONFIG}, if it is there)",
    )
    parser.add_argument(
        "--web.listen-address",
        dest="addresses",
        action="append",
        metavar="ADDRESS",
        help=f"where to listen, as [HOST]:PORT; may be repeated (default: {DEFAULT_ADDRESS})",
    )
    parser.add_argument(
        "--web.telemetry-path",
        dest="telemetry_path",
        default="/metrics",
        metavar="PATH",
        help="where the metrics are (default: %(default)s)",
    )
    parser.add_argument(
        "--simulate",
        nargs="?",
        const=DEFAULT_PROFILE,
        metavar="PROFILE",
        help=f"simulate a node (default: {DEFAULT_PROFILE})",
    )
    parser.add_argument(
        "--log.level", dest="log_level", default="info", choices=logs.LEVELS, help="(default: info)"
    )
    parser.add_argument(
        "--log.format",
        dest="log_format",
        default="logfmt",
        choices=logs.FORMATS,
        help="(default: logfmt)",
    )
    parser.add_argument("--version", action="version", version=_version())
    collectors = parser.add_argument_group("collectors", "--no-collector.NAME switches one off")
    for name in COLLECTORS:
        collectors.add_argument(
            f"--collector.{name}", dest=f"collector.{name}", action="store_true", default=None
        )
        collectors.add_argument(
            f"--no-collector.{name}",
            dest=f"collector.{name}",
            action="store_false",
            help=argparse.SUPPRESS,
        )
    return parser


def _serve(arguments: Sequence[str]) -> int:
    parser = _run_parser()
    flags = parser.parse_args(arguments)
    addresses = tuple(flags.addresses or [DEFAULT_ADDRESS])
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
    if flags.simulate is not None:
        from exporter.simulate import PROFILES  # noqa: PLC0415  real nodes never need it

        if flags.simulate not in PROFILES:
            parser.error(f"--simulate: no profile {flags.simulate}; there is {', '.join(PROFILES)}")
    logs.configure(flags.log_level, flags.log_format)
    return _daemon(flags, addresses)


def _daemon(flags: argparse.Namespace, addresses: tuple[str, ...]) -> int:
    # Late: the other commands need no scheduler, driver or server.
    from exporter.app import Daemon, Options  # noqa: PLC0415

    config_file = flags.config_file
    if config_file is None and DEFAULT_CONFIG.exists():
        config_file = DEFAULT_CONFIG
    given = {name: vars(flags)[f"collector.{name}"] for name in COLLECTORS}
    options = Options(
        config_file=config_file,
        listen_addresses=addresses,
        telemetry_path=flags.telemetry_path,
        simulate=flags.simulate,
        collectors={name: on for name, on in given.items() if on is not None},
    )

    async def serve() -> int:
        return await Daemon(options).run()

    try:
        return asyncio.run(serve())
    except (ConfigError, ListenError) as bad:
        return _say(str(bad))


def _check_config(arguments: Sequence[str]) -> int:
    parser = _Parser(
        prog="gpu-node-exporter check-config",
        description="Check a config file: every mistake at once, as file:line:col.",
    )
    parser.add_argument("file", type=Path, metavar="FILE")
    path = parser.parse_args(arguments).file
    try:
        load(path, COLLECTORS)
    except ConfigError as bad:
        return _say(str(bad))
    return _print(f"{path}: good\n")


def _metrics(arguments: Sequence[str]) -> int:
    parser = _Parser(
        prog="gpu-node-exporter metrics",
        description="Print the metrics reference as Markdown.",
    )
    parser.parse_args(arguments)
    return _print(reference())


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


def _version() -> str:
    return f"gpu-node-exporter {__version__} (Python {platform.python_version()})"


COMMANDS: Mapping[str, Callable[[Sequence[str]], int]] = {
    "run": _serve,
    "check-config": _check_config,
    "metrics": _metrics,
}
