"""What the command line decides, and what is read by it and the config together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter import config as configuration
from exporter import host
from exporter.board import Plan
from exporter.catalogue import COLLECTORS, GPU_READERS, RULE_METRICS, UTILIZATION_SAMPLES
from exporter.config import Config
from exporter.frozen import dataclass
from exporter.gpu.identity import READER as IDENTITY
from exporter.gpu.utilization import RATES_READER
from exporter.gpu.utilization import READER as UTILIZATION
from exporter.host import Group
from exporter.processes_view import Limits

if TYPE_CHECKING:
    from exporter.simulate import PlantedXid  # real nodes never need it


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line decides."""

    config_file: Path | None
    web_config_file: Path | None
    listen_addresses: tuple[str, ...]
    listen_descriptors: tuple[int, ...]  # of sockets that systemd has opened
    telemetry_path: str
    dcgm_path: str | None  # of a second page, in the names of dcgm-exporter
    storage_path: Path  # of recordings and requests
    simulate: str | None  # a profile's name
    simulated_xids: tuple[PlantedXid, ...]
    kmsg_path: Path | None  # None: where the kernel has it, or the journal
    collectors: Mapping[str, bool]  # stronger than the config file's


def load(options: Options) -> Config:
    """Read the config file, if there is one.

    Raises:
        ConfigError: all that is wrong with it.
    """
    path = options.config_file
    return Config() if path is None else configuration.load(path, COLLECTORS, RULE_METRICS)


def switched_off(options: Options, config: Config) -> set[str]:
    """Return the collectors that are switched off, by config and command line."""
    switches = {**config.collectors, **options.collectors}
    return {name for name, on in switches.items() if not on}


def plans(options: Options, config: Config) -> tuple[Plan, tuple[Group[Any], ...]]:
    """Return what is read, by config and command line."""
    off = switched_off(options, config)
    poll = config.poll
    readers = [r for r in GPU_READERS if r is IDENTITY or r.collector not in off]
    if UTILIZATION_SAMPLES in off:
        readers = [RATES_READER if r is UTILIZATION else r for r in readers]
    plan = Plan(
        readers=tuple(readers),
        fast_seconds=poll.fast_seconds,
        slow_seconds=poll.slow_seconds,
        blocking_seconds=poll.pcie_seconds,
        deadline_seconds=poll.deadline_seconds or poll.fast_seconds / 2,
        mig_seconds=poll.mig_seconds,
        limits=Limits(config.processes.max_per_gpu, config.processes.max_workloads),
    )
    return plan, tuple(group for group in host.GROUPS if group.name not in off)
