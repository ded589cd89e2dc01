"""What the host's block devices have read and written."""

from pathlib import Path

import psutil

from exporter.frozen import dataclass
from exporter.host.procfs import SYS, names
from exporter.metric import Kind, MetricVec, Row

# Memory, and files that lie on a device which is counted already.
NOT_DISKS = ("loop", "ram", "zram")


@dataclass(frozen=True, slots=True)
class Device:
    """One block device as a whole, never a partition. Bytes since it appeared."""

    name: str
    read_bytes: int
    written_bytes: int


@dataclass(frozen=True, slots=True)
class Disk:
    """The block devices that are there now."""

    devices: tuple[Device, ...]


def read(sys: Path = SYS) -> Disk:
    """Read /proc/diskstats through psutil; a name in /sys/block is a whole device.

    A kernel that shows no block devices, as some sandboxes do, gives none.

    Raises:
        OSError: one of them cannot be read.
        ValueError: diskstats is not in the kernel's format.
    """
    whole = {name for name in names(sys / "block") if not name.startswith(NOT_DISKS)}
    if not whole:
        return Disk(())
    # nowrap would sum across resets, of which a counter's reader must know: a device that came
    # back counts from 0.
    counters = psutil.disk_io_counters(perdisk=True, nowrap=False)
    return Disk(
        tuple(
            Device(name, counter.read_bytes, counter.write_bytes)
            for name, counter in counters.items()
            # sysfs writes a slash in a device's name as "!". The hidden paths of NVMe multipath
            # (nvme0c0n1) stay: before Linux 6.3 they alone count what goes to nvme0n1.
            if name.replace("/", "!") in whole
        )
    )


METRICS: tuple[Row[Disk], ...] = (
    MetricVec(
        "host_disk_read_bytes_total",
        "Bytes read from a whole block device. One that sits on others (dm, md,"
        " NVMe multipath) counts the same bytes again.",
        ("device",),
        lambda d: {device.name: device.read_bytes for device in d.devices},
        Kind.COUNTER,
    ),
    MetricVec(
        "host_disk_written_bytes_total",
        "Bytes written to a whole block device. One that sits on others (dm, md,"
        " NVMe multipath) counts the same bytes again.",
        ("device",),
        lambda d: {device.name: device.written_bytes for device in d.devices},
        Kind.COUNTER,
    ),
)
