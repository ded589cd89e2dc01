"""NVML field values by name; their numbers depend on the driver's version.

Source: nvml.h (NVML_FI_*), compared over drivers 418 to 615. Three counters moved twice, and the
number that one driver gives to "thermal slowdown" means "power smoothing" to the next.
"""

from __future__ import annotations

import re
from enum import Enum

ALL_LINKS = 0xFFFFFFFF  # scope of 138..141: the sum over all links


class Field(Enum):
    """A field value: name, and NVML_FI number (None: see _MOVED)."""

    ECC_MODE_CURRENT = 1
    ECC_MODE_PENDING = 2
    ECC_CORRECTED_VOLATILE = 3
    ECC_UNCORRECTED_VOLATILE = 4
    ECC_CORRECTED_AGGREGATE = 5
    ECC_UNCORRECTED_AGGREGATE = 6
    RETIRED_PAGES_SINGLE_BIT = 29
    RETIRED_PAGES_DOUBLE_BIT = 30
    RETIRED_PAGES_PENDING = 31
    REMAPPED_ROWS_CORRECTABLE = 142
    REMAPPED_ROWS_UNCORRECTABLE = 143
    ROW_REMAP_PENDING = 144
    ROW_REMAP_FAILURE = 145
    REMAPPED_ROWS_CORRECTABLE_INACTIVE = 301
    REMAPPED_ROWS_UNCORRECTABLE_INACTIVE = 302
    RECOVERY_ACTION = 230
    MEMORY_TEMPERATURE = 82
    MARGIN_SHUTDOWN = 193
    MARGIN_SLOWDOWN = 194
    MARGIN_MEMORY_MAX = 195
    MARGIN_GPU_MAX = 196
    ENERGY = 83
    PCIE_REPLAYS = 94
    PCIE_LINK_RECOVERIES = 169
    PCIE_CORRECTABLE_ERRORS = 173
    PCIE_NAKS_RECEIVED = 174
    PCIE_RECEIVER_ERRORS = 175
    PCIE_BAD_TLPS = 176
    PCIE_NAKS_SENT = 177
    PCIE_BAD_DLLPS = 178
    PCIE_NON_FATAL_ERRORS = 179
    PCIE_FATAL_ERRORS = 180
    PCIE_UNSUPPORTED_REQUESTS = 181
    PCIE_LCRC_ERRORS = 182
    TIME_SW_POWER_CAP = 74
    TIME_THERMAL = 75
    TIME_SYNC_BOOST = 76
    TIME_BOARD_LIMIT = 77
    TIME_LOW_UTILIZATION = 78
    TIME_RELIABILITY = 79
    TIME_SW_THERMAL = "sw_thermal"
    TIME_HW_THERMAL = "hw_thermal"
    TIME_HW_POWER_BRAKE = "hw_power_brake"
    NVLINK_DATA_CRC_ERRORS = 45
    NVLINK_DATA_ECC_ERRORS = 160
    NVLINK_DATA_TRANSMIT = 138
    NVLINK_DATA_RECEIVE = 139
    NVLINK_REPLAY_ERRORS = 161
    NVLINK_RECOVERY_ERRORS = 162
    NVLINK_CRC_ERRORS = 163
    NVLINK_SPEED = 164
    NVLINK_STATE = 165
    NVLINK_VERSION = 166
    NVLINK5_TRANSMIT_BYTES = 202
    NVLINK5_RECEIVE_BYTES = 204
    NVLINK5_MALFORMED_PACKETS = 206
    NVLINK5_BUFFER_OVERRUNS = 207
    NVLINK5_RECEIVE_ERRORS = 208
    NVLINK5_REMOTE_ERRORS = 209
    NVLINK5_GENERAL_ERRORS = 210
    NVLINK5_LOCAL_INTEGRITY = 211
    NVLINK5_TRANSMIT_DISCARDS = 212
    NVLINK5_RECOVERIES_SUCCESSFUL = 213
    NVLINK5_RECOVERIES_FAILED = 214
    NVLINK5_EFFECTIVE_ERRORS = 219
    NVLINK5_EFFECTIVE_BIT_ERROR_RATE = 220
    NVLINK5_SYMBOL_ERRORS = 221
    NVLINK5_SYMBOL_BIT_ERROR_RATE = 222
    POWER_LIMIT_MIN = 187
    POWER_LIMIT_MAX = 188
    POWER_LIMIT_DEFAULT = 189
    POWER_LIMIT_CURRENT = 190
    POWER_LIMIT_REQUESTED = 192

    __hash__ = object.__hash__  # Enum's own is in Python, and asked for hundreds of times a tick


# From this driver on, the three counters have these numbers; newest first.
_MOVED: tuple[tuple[tuple[int, int], dict[Field, int]], ...] = (
    (
        (580, 82),
        {
            Field.TIME_SW_THERMAL: 269,
            Field.TIME_HW_THERMAL: 270,
            Field.TIME_HW_POWER_BRAKE: 271,
        },
    ),
    (
        (575, 0),
        {
            Field.TIME_SW_THERMAL: 251,
            Field.TIME_HW_THERMAL: 252,
            Field.TIME_HW_POWER_BRAKE: 253,
        },
    ),
)


def field_id(field: Field, driver_version: str) -> int | None:
    """Return the NVML_FI number of `field` for this driver, or None where it has none.

    Args:
        field: what to read.
        driver_version: as nvmlSystemGetDriverVersion gives it, e.g. "580.95.05". One that cannot
            be read counts as older than every row of the table: a missing series is better than
            one that means something else.
    """
    number = field.value
    if isinstance(number, int):
        return number
    match = re.match(r"(\d+)(?:\.(\d+))?", driver_version)
    version = (int(match[1]), int(match[2] or 0)) if match else (0, 0)
    return next((ids[field] for since, ids in _MOVED if version >= since), None)
