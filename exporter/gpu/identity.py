"""Who a GPU is: the labels that every dashboard joins through gpu_info."""

from __future__ import annotations

from exporter.frozen import dataclass
from exporter.metric import Kind, MetricVec, Row
from exporter.sampling import Device, Reader, Tier

# nvmlDeviceArchitecture_t. A number that is not here is exported as it stands.
ARCHITECTURES = {
    2: "Kepler",
    3: "Maxwell",
    4: "Pascal",
    5: "Volta",
    6: "Turing",
    7: "Ampere",
    8: "Ada",
    9: "Hopper",
    10: "Blackwell",
    13: "Rubin",
}
UNKNOWN_ARCHITECTURE = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Identity:
    """What does not change while a GPU is there; "" where the board does not say."""

    name: str
    pci_bus_id: str
    architecture: str
    compute_capability: str
    serial: str
    vbios_version: str


def read(device: Device, _previous: Identity | None) -> Identity:
    """Read name, PCI address (sysfs form), architecture, serial number and VBIOS."""
    capability = device.ask("nvmlDeviceGetCudaComputeCapability")
    pci = device.ask("nvmlDeviceGetPciInfo")
    return Identity(
        name=device.ask("nvmlDeviceGetName") or "",
        pci_bus_id="" if pci is None else sysfs_bus_id(pci.busId),
        architecture=_architecture(device.ask("nvmlDeviceGetArchitecture")),
        compute_capability="" if capability is None else f"{capability[0]}.{capability[1]}",
        serial=device.ask("nvmlDeviceGetSerial") or "",
        vbios_version=device.ask("nvmlDeviceGetVbiosVersion") or "",
    )


def sysfs_bus_id(nvml_bus_id: str | bytes) -> str:
    """Return "0000:1a:00.0", as the kernel and lspci write it, for NVML's "00000000:1A:00.0"."""
    text = nvml_bus_id.decode() if isinstance(nvml_bus_id, bytes) else nvml_bus_id
    domain, _, rest = text.lower().partition(":")
    return f"{domain[-4:]}:{rest}"


def _architecture(number: int | None) -> str:
    if number is None or number == UNKNOWN_ARCHITECTURE:
        return ""
    return ARCHITECTURES.get(number, str(number))


READER = Reader("identity", "identity", Tier.STATIC, read)

METRICS: tuple[Row[Identity], ...] = (
    MetricVec(
        "gpu_info",
        "What the GPU is; always 1. Join other series with it on gpu and uuid.",
        (
            "name",
            "pci_bus_id",
            "architecture",
            "compute_capability",
            "serial",
            "vbios_version",
        ),
        lambda i: {
            (
                i.name,
                i.pci_bus_id,
                i.architecture,
                i.compute_capability,
                i.serial,
                i.vbios_version,
            ): 1
        },
        Kind.INFO,
    ),
)
