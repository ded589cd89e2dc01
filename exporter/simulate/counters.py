"""What the simulated driver answers to field values and profiling counters, in NVML's units.

None stands for NVML_ERROR_NOT_SUPPORTED.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from exporter.fields import ALL_LINKS, Field
from exporter.simulate import health
from exporter.simulate.look import (
    PCIE_TRANSMIT_SHARE,
    Look,
    default_milliwatts,
    has_link,
    link_state,
    max_milliwatts,
    min_milliwatts,
    pcie_rate,
    pcie_replays,
)
from exporter.simulate.scenario import AMBIENT_CELSIUS

KIB, MIB = 1 << 10, 1 << 20
NVLINK_5 = 5
NVLINK_RECEIVE_SHARE = 0.97  # of what the GPU sends
NVLINK_VERSIONS = {3: 4, 4: 6, 5: 7}  # nvmlNvlinkVersion_t
NO_BIT_ERRORS, FEW_BIT_ERRORS, MANY_BIT_ERRORS = 0xFFF, 0x30F, 0x207  # 15e-255, 3e-15, 2e-7


def _memory_celsius(look: Look) -> int | None:
    if not look.board.cooling.has_memory_sensor:
        return None
    return round(AMBIENT_CELSIUS + 4 + 1.06 * (look.moment.core_celsius - AMBIENT_CELSIUS))


def _nvlink_kib(look: Look, scope: int, share: float) -> int | None:
    """Answer with the payload of one link, or of all of them."""
    nvlinks = look.board.nvlinks
    if nvlinks is None or (scope != ALL_LINKS and not has_link(look, scope)):
        return None
    links = nvlinks.count - len(look.ails.links_down) if scope == ALL_LINKS else 1
    sent = look.moment.nvlink_share_seconds * nvlinks.link_bytes_per_second * links
    return int(share * sent / KIB)


def _nvlink5_bytes(look: Look, link: int, share: float) -> int | None:
    """Answer with the payload of one link, which drivers count in bytes from NVLink 5 on."""
    kib = _nvlink_kib(look, link, share)
    nvlinks = look.board.nvlinks
    return kib * KIB if kib is not None and nvlinks and nvlinks.version >= NVLINK_5 else None


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def _never(_look: Look, _scope: int) -> int:
    return 0


def _pcie_errors(look: Look, _scope: int) -> int | None:
    return look.ails.pcie_errors if look.board.pcie_lanes > 1 else None  # without a slot, none


def _no_pcie_errors(look: Look, _scope: int) -> int | None:
    return None if _pcie_errors(look, 0) is None else 0


def _packets_sent_again(look: Look, _scope: int) -> int | None:
    """Answer that each of them was told of by a NAK, and corrected what went wrong."""
    errors = _pcie_errors(look, 0)
    return None if errors is None else errors + pcie_replays(look)


def _link_speed(look: Look, link: int) -> int | None:
    """Answer in MB/s."""
    nvlinks = look.board.nvlinks if has_link(look, link) else None
    return int(nvlinks.link_bytes_per_second / 1e6) if nvlinks else None


def _link_version(look: Look, link: int) -> int | None:
    nvlinks = look.board.nvlinks if has_link(look, link) else None
    return NVLINK_VERSIONS[nvlinks.version] if nvlinks else None


def _data_errors(look: Look, _scope: int) -> int | None:
    """Answer for all links: what came through broken was sent again."""
    nvlinks = look.board.nvlinks
    return 0 if nvlinks and nvlinks.version < NVLINK_5 else None


def _bit_errors(look: Look, link: int, packed: int) -> int | None:
    errors = _late_link_errors(look, link)
    return None if errors is None else MANY_BIT_ERRORS if errors else packed


def _early_link_errors(look: Look, link: int) -> int | None:
    """Answer with the errors of a link; from NVLink 5 on, the driver counts others."""
    nvlinks = look.board.nvlinks if has_link(look, link) else None
    return look.ails.link_errors.get(link, 0) if nvlinks and nvlinks.version < NVLINK_5 else None


def _late_link_errors(look: Look, link: int) -> int | None:
    nvlinks = look.board.nvlinks if has_link(look, link) else None
    return look.ails.link_errors.get(link, 0) if nvlinks and nvlinks.version >= NVLINK_5 else None


# By field, with its scope: the link of a per-link field.
FIELDS: Mapping[Field, Callable[[Look, int], float | None]] = MappingProxyType(
    {
        **health.FIELDS,
        Field.MEMORY_TEMPERATURE: lambda look, _: _memory_celsius(look),
        Field.ENERGY: lambda look, _: int(1000 * look.moment.energy_joules),
        Field.PCIE_REPLAYS: lambda look, _: pcie_replays(look),
        Field.PCIE_LINK_RECOVERIES: _pcie_errors,
        Field.PCIE_CORRECTABLE_ERRORS: _packets_sent_again,
        Field.PCIE_NAKS_RECEIVED: _packets_sent_again,
        Field.PCIE_RECEIVER_ERRORS: _pcie_errors,
        Field.PCIE_BAD_TLPS: _pcie_errors,
        Field.PCIE_NAKS_SENT: _no_pcie_errors,
        Field.PCIE_BAD_DLLPS: _no_pcie_errors,
        Field.PCIE_NON_FATAL_ERRORS: _no_pcie_errors,
        Field.PCIE_FATAL_ERRORS: _no_pcie_errors,
        Field.PCIE_UNSUPPORTED_REQUESTS: _no_pcie_errors,
        Field.PCIE_LCRC_ERRORS: _no_pcie_errors,
        Field.TIME_SW_POWER_CAP: lambda look, _: _nanoseconds(look.moment.power_cap_seconds),
        Field.TIME_THERMAL: lambda look, _: _nanoseconds(look.moment.thermal_seconds),
        Field.TIME_SYNC_BOOST: _never,
        Field.TIME_BOARD_LIMIT: _never,
        Field.TIME_LOW_UTILIZATION: lambda look, _: _nanoseconds(look.moment.idle_seconds),
        Field.TIME_RELIABILITY: _never,
        Field.TIME_SW_THERMAL: lambda look, _: _nanoseconds(look.moment.thermal_seconds),
        Field.TIME_HW_THERMAL: _never,
        Field.TIME_HW_POWER_BRAKE: _never,
        Field.NVLINK_DATA_TRANSMIT: lambda look, scope: _nvlink_kib(look, scope, 1.0),
        Field.NVLINK_DATA_RECEIVE: lambda look, scope: _nvlink_kib(
            look, scope, NVLINK_RECEIVE_SHARE
        ),
        Field.NVLINK_STATE: link_state,
        Field.NVLINK_SPEED: _link_speed,
        Field.NVLINK_VERSION: _link_version,
        Field.NVLINK_DATA_CRC_ERRORS: _data_errors,
        Field.NVLINK_DATA_ECC_ERRORS: _data_errors,
        Field.NVLINK_REPLAY_ERRORS: _early_link_errors,
        Field.NVLINK_RECOVERY_ERRORS: _early_link_errors,
        Field.NVLINK_CRC_ERRORS: _early_link_errors,
        Field.NVLINK5_TRANSMIT_BYTES: lambda look, link: _nvlink5_bytes(look, link, 1.0),
        Field.NVLINK5_RECEIVE_BYTES: lambda look, link: _nvlink5_bytes(
            look, link, NVLINK_RECEIVE_SHARE
        ),
        Field.NVLINK5_MALFORMED_PACKETS: _late_link_errors,
        Field.NVLINK5_BUFFER_OVERRUNS: _late_link_errors,
        Field.NVLINK5_RECEIVE_ERRORS: _late_link_errors,
        Field.NVLINK5_REMOTE_ERRORS: _late_link_errors,
        Field.NVLINK5_GENERAL_ERRORS: _late_link_errors,
        Field.NVLINK5_LOCAL_INTEGRITY: _late_link_errors,
        Field.NVLINK5_TRANSMIT_DISCARDS: _late_link_errors,
        Field.NVLINK5_RECOVERIES_SUCCESSFUL: _late_link_errors,
        Field.NVLINK5_RECOVERIES_FAILED: _late_link_errors,
        Field.NVLINK5_EFFECTIVE_ERRORS: _late_link_errors,
        Field.NVLINK5_EFFECTIVE_BIT_ERROR_RATE: lambda look, link: _bit_errors(
            look, link, NO_BIT_ERRORS
        ),
        Field.NVLINK5_SYMBOL_BIT_ERROR_RATE: lambda look, link: _bit_errors(
            look, link, FEW_BIT_ERRORS
        ),
        Field.NVLINK5_SYMBOL_ERRORS: _late_link_errors,
        Field.POWER_LIMIT_MIN: lambda look, _: min_milliwatts(look),
        Field.POWER_LIMIT_MAX: lambda look, _: max_milliwatts(look),
        Field.POWER_LIMIT_DEFAULT: lambda look, _: default_milliwatts(look),
        Field.POWER_LIMIT_REQUESTED: lambda look, _: default_milliwatts(look),
        Field.POWER_LIMIT_CURRENT: lambda look, _: default_milliwatts(look),
    }
)


def _pcie_mib_per_second(look: Look, before: Look, share: float) -> float:
    """Return the mean between two looks."""
    moved = look.moment.pcie_share_seconds - before.moment.pcie_share_seconds
    elapsed = look.moment.seconds - before.moment.seconds
    return pcie_rate(look, share * moved / elapsed) / MIB


# How much of each kind of work a busy GPU does, by GPM metric id: text, in half precision.
_WORK = {1: 1.0, 2: 0.86, 3: 0.42, 4: 0.18, 5: 0.55, 7: 0.52, 9: 0.03, 10: 0.6, 11: 0.0}
_WORK |= {12: 0.27, 13: 0.09}


def _percent(look: Look, before: Look, share: float) -> float:
    """Return how busy a part of the GPU was between two looks."""
    return 50 * share * (before.moment.load_ratio + look.moment.load_ratio)


# By GPM metric id, over the time between two looks.
PROFILING: Mapping[int, Callable[[Look, Look], float]] = MappingProxyType(
    {
        20: lambda look, before: _pcie_mib_per_second(look, before, PCIE_TRANSMIT_SHARE),
        21: lambda look, before: _pcie_mib_per_second(look, before, 1.0),
        **{metric: partial(_percent, share=share) for metric, share in _WORK.items()},
    }
)
