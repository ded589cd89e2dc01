"""The command line's flags: names in Prometheus's style, errors in one line."""

from __future__ import annotations

import argparse
import os
import platform
from pathlib import Path
from typing import NoReturn

from exporter import __version__, logs
from exporter.catalogue import COLLECTORS

DEFAULT_CONFIG = Path("/etc/gpu-node-exporter/config.yml")
DEFAULT_STORAGE = Path("/var/lib/gpu-node-exporter")
DEFAULT_ADDRESS = ":9836"
DCGM_PATH = "/metrics/dcgm"
DEFAULT_PROFILE = "h100x8"
USAGE = 2  # exit code of wrong usage


class Parser(argparse.ArgumentParser):
    """Errors are one line that says what would be right, without the usage before it."""

    commands: tuple[str, ...] = ()

    def error(self, message: str) -> NoReturn:
        """Say in one line what is wrong, and end with the exit code of wrong usage."""
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            import difflib  # noqa: PLC0415  only a mistake needs it

            word = next(iter(unknown.split()), '""')
            known = [option for action in self._actions for option in action.option_strings]
            near = difflib.get_close_matches(word.split("=")[0], [*known, *self.commands], 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            message = f"there is no {word}{hint}"
        self.exit(USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


def run_parser(commands: tuple[str, ...]) -> Parser:
    """Return the parser of the daemon's flags; `commands` are the words that might be meant."""
    parser = Parser(
        prog="gpu-node-exporter",
        description="Prometheus exporter for NVIDIA inference nodes.",
        epilog=f"Other commands: {', '.join(commands)}.",
        allow_abbrev=False,
        usage="%(prog)s [run] [flags]",
    )
    parser.commands = commands
    add_config(parser)
    parser.add_argument(
        "--web.listen-address",
        dest="addresses",
        action="append",
        metavar="ADDRESS",
        help=f"where to listen, as [HOST]:PORT; may be repeated (default: {DEFAULT_ADDRESS}, or the"
        " sockets that systemd hands over)",
    )
    parser.add_argument(
        "--web.config.file",
        dest="web_config_file",
        type=Path,
        metavar="FILE",
        help="TLS, client certificates and users, in exporter-toolkit's format (default: none)",
    )
    parser.add_argument(
        "--web.telemetry-path",
        dest="telemetry_path",
        default="/metrics",
        metavar="PATH",
        help="where the metrics are (default: %(default)s)",
    )
    parser.add_argument(
        "--compat.dcgm",
        dest="dcgm_path",
        action="store_const",
        const=DCGM_PATH,
        help=f"serve {DCGM_PATH} too: the default counters of dcgm-exporter under its names",
    )
    add_storage(parser)
    add_simulate(parser)
    parser.add_argument(
        "--simulate.xid",
        dest="simulated_xids",
        action="append",
        default=[],
        metavar="SECONDS:GPU:XID",
        help="let a simulated GPU have an XID error so long after the start; may be repeated",
    )
    parser.add_argument(
        "--path.kmsg",
        dest="kmsg_path",
        type=Path,
        metavar="FILE",
        help="the kernel log (default: /dev/kmsg; the journal, where that cannot be read)",
    )
    parser.add_argument(
        "--log.level", dest="log_level", default="info", choices=logs.LEVELS, help="(default: info)"
    )
    parser.add_argument(
        "--log.format",
        dest="log_format",
        choices=logs.FORMATS,
        help="(default: logfmt; in a systemd service, the journal's own fields)",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="check the config files that the other flags name, and end: for ExecReload=",
    )
    parser.add_argument("--version", action="version", version=version())
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


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add --config.file."""
    parser.add_argument(
        "--config.file",
        dest="config_file",
        type=Path,
        default=DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None,
        metavar="FILE",
        help=f"config (default: {DEFAULT_CONFIG}, if it is there)",
    )


def add_storage(parser: argparse.ArgumentParser) -> None:
    """Add --storage.path."""
    parser.add_argument(
        "--storage.path",
        dest="storage_path",
        type=Path,
        default=Path(os.environ.get("STATE_DIRECTORY") or DEFAULT_STORAGE),
        metavar="DIR",
        help="where recordings and requests are kept (default: %(default)s)",
    )


def add_simulate(parser: argparse._ActionsContainer) -> None:
    """Add --simulate to a parser, or to a group of its flags."""
    parser.add_argument(
        "--simulate",
        type=_profile,
        nargs="?",
        const=DEFAULT_PROFILE,
        metavar="PROFILE",
        help=f"simulate a node (default: {DEFAULT_PROFILE})",
    )


def _profile(text: str) -> str:
    from exporter.simulate import PROFILES  # noqa: PLC0415  real nodes never need it

    if text not in PROFILES:
        raise argparse.ArgumentTypeError(f"no profile {text}; there is {', '.join(PROFILES)}")
    return text


def version() -> str:
    """Return what --version prints."""
    return f"gpu-node-exporter {__version__} (Python {platform.python_version()})"
