"""The operator's commands: what was recorded, and what became of requests to scale out."""

from __future__ import annotations

import argparse
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

from exporter import nvml_pause
from exporter.catalogue import COLLECTORS, RULE_METRICS
from exporter.config import Config, load
from exporter.flags import Parser, add_config, add_storage
from exporter.recorder import commands as recorder
from exporter.scaleout import commands as scaleout
from exporter.scaleout.clock import system_clock
from exporter.scaleout.receivers import Place
from exporter.schema import duration


def recordings(arguments: Sequence[str]) -> Iterator[str]:
    """Do `recordings list|show|export`; yield what is to be printed.

    Raises:
        RecordingError: what was asked for is not there, or cannot be read or written.
    """
    parser = Parser(
        prog="gpu-node-exporter recordings",
        description="Flight recordings: what the node did around an event.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="list|show|export")
    for verb, text in (
        ("list", "list all recordings"),
        ("show", "draw one as a picture (SVG)"),
        ("export", "write one as a table"),
    ):
        sub = verbs.add_parser(verb, help=text, description=text)
        add_storage(sub)
        if verb != "list":
            sub.add_argument("name", metavar="NAME", help="of the recording, or latest")
            sub.add_argument("--output", type=Path, metavar="FILE", help="(default: stdout)")
        if verb == "export":
            sub.add_argument("--format", choices=recorder.FORMATS, default="csv")
    flags = parser.parse_args(arguments)
    if flags.verb == "list":
        yield recorder.list_text(flags.storage_path) + "\n"
        return
    lines = (
        recorder.show(flags.storage_path, flags.name, flags.output)
        if flags.verb == "show"
        else recorder.export(flags.storage_path, flags.name, flags.format, flags.output)
    )
    for line in lines:
        yield line + "\n"


def scale_out(arguments: Sequence[str]) -> Iterator[str]:
    """Do `scale-out status|pause|resume|retry|purge|test`; yield what is to be printed.

    Raises:
        CommandError: it was not done, and why.
        ConfigError: the config that `test` needs is bad.
    """
    flags = _scale_out_parser().parse_args(arguments)
    clock = system_clock()
    if flags.verb == "status":
        yield scaleout.status(flags.storage_path, clock)
    elif flags.verb == "pause":
        seconds, reason = flags.seconds, flags.reason
        yield scaleout.pause(flags.storage_path, clock, seconds=seconds, reason=reason)
    elif flags.verb == "resume":
        yield scaleout.resume(flags.storage_path, clock)
    elif flags.verb == "retry":
        event_id = None if flags.event_id == "all" else flags.event_id
        yield scaleout.retry(flags.storage_path, clock, event_id)
    elif flags.verb == "purge":
        yield scaleout.purge(flags.storage_path, clock)
    else:
        path = flags.config_file
        config = Config() if path is None else load(path, COLLECTORS, RULE_METRICS)
        node = socket.gethostname()
        place = Place(config.external_labels, node, f"http://{node}/")
        yield scaleout.test(config, flags.receiver, place, clock, dry_run=flags.dry_run)


def nvml(arguments: Sequence[str]) -> Iterator[str]:
    """Do `nvml status|pause|resume`; yield what is to be printed.

    Raises:
        NvmlPauseError: it was not done, and why.
    """
    parser = Parser(
        prog="gpu-node-exporter nvml",
        description="Have the daemon let go of the driver: for its upgrade, a reset, a MIG change.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="status|pause|resume")
    status = verbs.add_parser("status", help="whether it is paused, for how long, and why")
    pause = verbs.add_parser("pause", help="let go of the driver for a while")
    pause.add_argument("--for", dest="seconds", type=_duration, required=True, metavar="DURATION")
    pause.add_argument("--reason", required=True, metavar="TEXT")
    resume = verbs.add_parser("resume", help="take the driver up again")
    for sub in (status, pause, resume):
        add_storage(sub)
    flags = parser.parse_args(arguments)
    clock = system_clock()
    if flags.verb == "status":
        yield nvml_pause.status(flags.storage_path, clock)
    elif flags.verb == "pause":
        seconds, reason = flags.seconds, flags.reason
        yield nvml_pause.pause(flags.storage_path, clock, seconds=seconds, reason=reason)
    else:
        yield nvml_pause.resume(flags.storage_path)


def _scale_out_parser() -> Parser:
    parser = Parser(
        prog="gpu-node-exporter scale-out",
        description="Requests to scale out: how they stand, and their switches.",
    )
    verbs = parser.add_subparsers(
        dest="verb", required=True, metavar="status|pause|resume|retry|purge|test"
    )
    status = verbs.add_parser("status", help="pause, cooldowns, pending and dead requests")
    pause = verbs.add_parser("pause", help="decide on, but send nothing new for a while")
    pause.add_argument("--for", dest="seconds", type=_duration, required=True, metavar="DURATION")
    pause.add_argument("--reason", required=True, metavar="TEXT")
    resume = verbs.add_parser("resume", help="end a pause")
    retry = verbs.add_parser("retry", help="try dead and expired requests again")
    retry.add_argument("event_id", metavar="ID", help="of the request, or all")
    purge = verbs.add_parser("purge", help="forget dead and expired requests")
    for sub in (status, pause, resume, retry, purge):
        add_storage(sub)
    test = verbs.add_parser("test", help="send a made-up request to a receiver, past the outbox")
    test.add_argument("--receiver", required=True, metavar="NAME")
    test.add_argument("--dry-run", action="store_true", help="marked as a rehearsal")
    add_config(test)
    return parser


def _duration(text: str) -> float:
    try:
        return duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f'"{text}" {error}') from None
