"""What the NVIDIA driver writes of XID errors into the kernel log, read strictly.

The shapes are those of nvErrorLog and osHandleGpuLost in NVIDIA's open kernel modules:

    NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.
    NVRM: Xid (0000:03:00): 14, Channel 00000001
    NVRM: GPU 0000:3b:00.0: GPU has fallen off the bus.

Only the beginning of a message counts: what follows holds names of processes, which may say
anything.
"""

from __future__ import annotations

import re

from exporter.frozen import dataclass

LOOKS_LIKE = "NVRM: Xid"
OFF_THE_BUS = 79

_ADDRESS = r"([0-9a-f]{4,8}):([0-9a-f]{2}):([01][0-9a-f])"
_XID = re.compile(
    rf"NVRM: Xid \((?:PCI:)?{_ADDRESS}(?:\.[0-7])?\): "
    r"(\d{1,5})(?:, pid=([^,\s]{1,32}))?(?=[,\s]|$)",
    re.IGNORECASE | re.ASCII,
)
_LOST = re.compile(
    rf"NVRM: (?:The NVIDIA )?GPU {_ADDRESS}\.[0-7](?:: GPU has|\s.{{0,200}}\shas\s+(?:NVRM: )?)"
    r"\s?fallen off the bus",
    re.IGNORECASE | re.ASCII | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Told:
    """What one message tells.

    Attributes:
        pci_bus_id: The GPU, as "0000:3b:00.0".
        xid: The number.
        pid: Whose work it was, in the driver's words; "" if not said.
        is_implied: The message has no number: the driver says that the GPU is gone, which mostly
            follows a line with XID 79, and stands alone where the GPU was never there.
    """

    pci_bus_id: str
    xid: int
    pid: str = ""
    is_implied: bool = False


class MalformedError(ValueError):
    """The message looks like that of an XID, and is none."""


def parse(message: str) -> Told | None:
    """Return what a message of the kernel tells of XIDs, or None: nothing.

    Raises:
        MalformedError: it looks like an XID without address or number.
    """
    found = _XID.match(message)
    if found:
        number = int(found[4])
        if number:
            return Told(_bus_id(found), number, found[5] or "")
    if message.startswith(LOOKS_LIKE):
        raise MalformedError(message)
    lost = _LOST.match(message)
    return Told(_bus_id(lost), OFF_THE_BUS, is_implied=True) if lost else None


def _bus_id(found: re.Match[str]) -> str:
    return f"{int(found[1], 16):04x}:{found[2]}:{found[3]}.0".lower()
