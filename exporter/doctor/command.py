"""`gpu-node-exporter doctor`."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from exporter.catalogue import COLLECTORS, GPU_READERS, RULE_METRICS
from exporter.config import Config, ConfigError, load
from exporter.doctor import bundle, machine, report, simulated, xids
from exporter.doctor.checks import examine, reference
from exporter.doctor.facts import Facts, Machine, Xids
from exporter.doctor.readspeed import measure
from exporter.doctor.report import Report
from exporter.flags import Parser, add_config, add_simulate, add_storage
from exporter.frozen import dataclass
from exporter.host import GROUPS
from exporter.once import sources, watch
from exporter.poll import Sources
from exporter.sampling import DriverGoneError
from exporter.scaleout.clock import system_clock
from exporter.xid import Journal, Kmsg, Store

TICKS = 2  # rates and profiling counters need a second reading
DEV_KMSG = Path("/dev/kmsg")
HUB = Path(".cache/huggingface")  # below the home directory: where models are by default


class DoctorError(Exception):
    """The node cannot be examined; the text says why and what would help."""


@dataclass(frozen=True, slots=True)
class Local:
    """How this host is read."""

    machine: Callable[[], Machine]
    xids: Callable[[], Xids]


def run(arguments: Sequence[str], *, colour: bool) -> tuple[str, bool]:
    """Do what the command line says; return what to print, and whether something is wrong.

    Raises:
        DoctorError: the driver went away meanwhile.
        BundleError: the bundle cannot be written.
    """
    flags = _parser().parse_args(arguments)
    logging.disable()  # what the poller says of the node is in the report
    if flags.findings:
        return reference(), False
    model: Path | None = flags.model
    origin = sources(flags.simulate, lambda: None)

    def host() -> Machine:
        return machine.read(_models(model), flags.storage_path)

    def errors() -> Xids:
        store = Store(flags.storage_path, system_clock().boot)
        return xids.read((partial(Kmsg, DEV_KMSG), Journal), store)

    facts = gather(origin, None if flags.simulate else Local(host, errors), model)
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    found = Report(facts, examine(facts), flags.simulate or "", at)
    if flags.bundle is not None:
        bundle.write(flags.bundle, found, _config(flags.config_file))
    if flags.json:
        return report.as_json(report.as_dict(found)), found.is_wrong
    told = f"{flags.bundle} is for support; look through it first.\n" if flags.bundle else ""
    return report.text(found, colour=colour) + told, found.is_wrong


def gather(
    origin: Sources,
    local: Local | None,
    model: Path | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Facts:
    """Read everything that is judged; takes a second, and up to ten more if a GPU hangs.

    Args:
        origin: Where readings of GPUs come from.
        local: Reads the host; None: it is simulated, like the GPUs.
        model: A file whose read speed is measured.
        sleep: Lets the second between two readings pass.

    Raises:
        DoctorError: the driver went away meanwhile.
    """
    before = local.machine() if local else None
    try:
        snapshot = watch(origin, GPU_READERS, GROUPS if local else (), TICKS, sleep)
    except DriverGoneError as gone:
        raise DoctorError(
            f"the driver went away while it was asked ({gone.error}); run the doctor again"
        ) from None
    after = local.machine() if local else simulated.machine(snapshot)
    return Facts(
        snapshot,
        after,
        swapped_pages=_moved(before, after),
        model_file=None if model is None else measure(model),
        xids=local.xids() if local else Xids({}, is_seen=True),
    )


def _moved(before: Machine | None, after: Machine) -> int | None:
    if before is None or before.swapped_pages is None or after.swapped_pages is None:
        return None
    return max(after.swapped_pages - before.swapped_pages, 0)


def _models(model: Path | None) -> Path:
    """Return where models are: beside the one that was named, or where Hugging Face keeps them."""
    if model is not None:
        return model.absolute().parent
    hub = os.environ.get("HF_HUB_CACHE") or os.environ.get("HF_HOME")
    return Path(hub) if hub else Path(os.environ.get("HOME") or "/") / HUB


def _config(path: Path | None) -> Config | ConfigError:
    if path is None:
        return Config()
    try:
        return load(path, COLLECTORS, RULE_METRICS)
    except ConfigError as bad:
        return bad


def _parser() -> Parser:
    parser = Parser(
        prog="gpu-node-exporter doctor",
        description="Is this node fit for inference? What was found, what is wrong, what to do.",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--model", type=Path, metavar="FILE", help="measure how fast this model file is read"
    )
    parser.add_argument(
        "--bundle", type=Path, metavar="FILE", help="write a redacted tar.gz for support"
    )
    parser.add_argument(
        "--findings", action="store_true", help="print all that may be found, as Markdown"
    )
    add_config(parser)
    add_storage(parser)
    add_simulate(parser)
    return parser
