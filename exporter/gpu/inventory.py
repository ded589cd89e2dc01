"""What a person replaces, and where it stands: part number, firmware, place in the rack."""

from __future__ import annotations

from exporter.frozen import dataclass
from exporter.metric import Kind, MetricVec, Row
from exporter.sampling import Device, Reader, Tier

# nvmlBrandType_t. A number that is not here is exported as it stands; 0: unknown.
BRANDS = {
    1: "Quadro",
    2: "Tesla",
    3: "NVS",
    4: "GRID",
    5: "GeForce",
    6: "Titan",
    7: "NVIDIA vApps",
    8: "NVIDIA vPC",
    9: "NVIDIA vCS",
    10: "NVIDIA RTX vWS",
    11: "NVIDIA Cloud Gaming",
    12: "Quadro RTX",
    13: "NVIDIA RTX",
    14: "NVIDIA",
    15: "GeForce RTX",
    16: "Titan RTX",
}
# nvmlGpuVirtualizationMode_t
VIRTUALIZATIONS = {0: "none", 1: "passthrough", 2: "vgpu_guest", 3: "vgpu_host", 4: "vsga_host"}


@dataclass(frozen=True, slots=True)
class BoardInfo:
    """What does not change while a board is in its place; "" where it does not say."""

    brand: str
    part_number: str
    inforom_version: str
    gsp_firmware_version: str
    module_id: str
    minor_number: str
    virtualization: str


def read(device: Device, _previous: BoardInfo | None) -> BoardInfo:
    """Read brand, part number, InfoROM, GSP firmware, module, minor number, virtualization."""
    brand = device.ask("nvmlDeviceGetBrand")
    virtualization = device.ask("nvmlDeviceGetVirtualizationMode")
    return BoardInfo(
        brand=BRANDS.get(brand, str(brand)) if brand else "",
        part_number=_text(device.ask("nvmlDeviceGetBoardPartNumber")),
        inforom_version=_text(device.ask("nvmlDeviceGetInforomImageVersion")),
        gsp_firmware_version=_text(device.ask("nvmlDeviceGetGspFirmwareVersion")),
        module_id=_text(device.ask("nvmlDeviceGetModuleId")),
        minor_number=_text(device.ask("nvmlDeviceGetMinorNumber")),
        virtualization=VIRTUALIZATIONS.get(virtualization, _text(virtualization)),
    )


@dataclass(frozen=True, slots=True)
class Platform:
    """Where in a rack the GPU is; all None for one that does not know of racks."""

    chassis_serial: str | None = None
    slot: int | None = None
    tray: int | None = None
    host: int | None = None
    module_id: int | None = None
    peer_type: int | None = None


def read_platform(device: Device, _previous: Platform | None) -> Platform:
    """Read nvmlDeviceGetPlatformInfo (570, Blackwell and later)."""
    info = device.ask("nvmlDeviceGetPlatformInfo")
    if info is None:
        return Platform()
    return Platform(
        chassis_serial=_text(info.chassisSerialNumber),
        slot=info.slotNumber,
        tray=info.trayIndex,
        host=info.hostId,
        module_id=info.moduleId,
        peer_type=info.peerType,
    )


def _text(answer: str | bytes | int | None) -> str:
    if answer is None:
        return ""
    return answer.decode(errors="replace") if isinstance(answer, bytes) else str(answer)


READER = Reader("board_info", "identity", Tier.STATIC, read)
PLATFORM_READER = Reader("platform", "identity", Tier.STATIC, read_platform)

METRICS: tuple[Row[BoardInfo], ...] = (
    MetricVec(
        "gpu_board_info",
        "What a person needs to order, replace or find the board; always 1.",
        (
            "brand",
            "part_number",
            "inforom_version",
            "gsp_firmware_version",
            "module_id",
            "minor_number",
            "virtualization",
        ),
        lambda b: {
            (
                b.brand,
                b.part_number,
                b.inforom_version,
                b.gsp_firmware_version,
                b.module_id,
                b.minor_number,
                b.virtualization,
            ): 1
        },
        Kind.INFO,
    ),
)
PLATFORM_METRICS: tuple[Row[Platform], ...] = (
    MetricVec(
        "gpu_platform_info",
        "Where in a rack the GPU is; always 1 (Blackwell and later).",
        ("chassis_serial", "slot", "tray", "host", "module_id", "peer_type"),
        lambda p: (
            {}
            if p.chassis_serial is None
            else {
                (
                    p.chassis_serial,
                    str(p.slot),
                    str(p.tray),
                    str(p.host),
                    str(p.module_id),
                    str(p.peer_type),
                ): 1
            }
        ),
        Kind.INFO,
    ),
)
