"""Whether a vGPU, the GPU of a virtual machine, has its license: without one it is throttled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from exporter.frozen import dataclass
from exporter.metric import MetricVec, Row
from exporter.sampling import Device, Reader, Tier

VGPU_GUEST = 2  # nvmlGpuVirtualizationMode_t


@dataclass(frozen=True, slots=True)
class VgpuLicense:
    """1 or 0 by the product's name, for each product that is in use."""

    is_vgpu: bool
    licensed: Mapping[str, int] = field(default_factory=dict)


def read(device: Device, previous: VgpuLicense | None) -> VgpuLicense:
    """Read nvmlDeviceGetGridLicensableFeatures; only a vGPU is asked, and what is none stays so."""
    if previous is not None and not previous.is_vgpu:
        return previous
    if device.ask("nvmlDeviceGetVirtualizationMode") != VGPU_GUEST:
        return VgpuLicense(is_vgpu=False)
    answer = device.ask("nvmlDeviceGetGridLicensableFeatures")
    if answer is None or not answer.isGridLicenseSupported:
        return VgpuLicense(is_vgpu=True)
    features = answer.gridLicensableFeatures[: answer.licensableFeaturesCount]
    return VgpuLicense(
        is_vgpu=True,
        licensed={f.productName: int(f.featureState != 0) for f in features if f.featureEnabled},
    )


READER = Reader("vgpu_license", "vgpu", Tier.SLOW, read)

METRICS: tuple[Row[VgpuLicense], ...] = (
    MetricVec(
        "gpu_vgpu_licensed",
        "In a virtual machine: 1 if the vGPU has its license, by product; 0: it is throttled.",
        ("product",),
        lambda v: v.licensed,
    ),
)
