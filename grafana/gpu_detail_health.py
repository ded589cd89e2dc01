"""What can be wrong with a GPU: errors, memory, links; and which board it is."""

from __future__ import annotations

from frame import NO_NODE
from limits import ANY, critical, warning
from panels import About, graph, timeline
from queries import GPU, Query
from tables import Column, rows
from words import RECOVERY, UP, YES_IS_BAD, YES_IS_GOOD

NO_NVLINK = "These GPUs have no NVLink, or the collector `nvlink` is off."

ERRORS = (
    timeline(
        About(
            "State",
            "Whether the GPU answers. When it does not, the panel beside it tells why.",
            NO_NODE,
        ),
        Query("gpu_up{GPU}", GPU),
        words=UP,
        size=(8, 7),
    ),
    timeline(
        About(
            "Faults",
            "Why a GPU gives no readings.",
            "No GPU has a fault.",
            ("GpuLost", "GpuHung", "GpuResetRequired", "GpuFailing", "GpuForbidden"),
        ),
        Query("gpu_fault{GPU} == 1", f"{GPU} {{{{reason}}}}"),
        words={1: ("fault", "red")},
        size=(8, 7),
    ),
    timeline(
        About(
            "Recovery action",
            "What the driver wants done to make the GPU healthy again.",
            "No readings; or the driver does not tell it (before 570).",
            ("GpuRecoveryActionNeeded",),
        ),
        Query("gpu_recovery_action{GPU}", GPU),
        words=RECOVERY,
        size=(8, 7),
    ),
    rows(
        About(
            "XID errors",
            "What the driver reported since the node booted, with NVIDIA's name and action.",
            "No XID error is known on these GPUs.",
            ("GpuXidCritical", "GpuXidApplication", "GpuXidStorm"),
        ),
        Column("instance", "Node"),
        Column("gpu", "GPU"),
        Column("xid", "XID"),
        Column("mnemonic", "Name"),
        Column("class", "Class"),
        Column("action", "Action"),
        Column(
            """max by (instance, gpu, xid, mnemonic, class, action) (
            gpu_xid_last_timestamp_seconds{GPU}) * 1000""",
            "Last",
            "dateTimeFromNow",
        ),
        sort="Last",
        size=(12, 8),
    ),
    graph(
        About(
            "XID errors, 15 m",
            "Errors of whatever kind within 15 minutes.",
            NO_NODE,
        ),
        Query(
            "sum by (cluster, instance, gpu) (increase(gpu_xid_errors_total{GPU}[15m]))",
            GPU,
        ),
        unit="none",
        limits=(critical("GpuXidStorm", 20),),
    ),
    graph(
        About(
            "Uncorrected ECC errors",
            "Since the driver was loaded. One is enough: results may be wrong until a reset.",
            "These boards have no ECC, or it is off.",
        ),
        Query(
            'gpu_ecc_errors_total{GPU, type="uncorrected", counter="volatile"}',
            GPU,
        ),
        unit="none",
        limits=(critical("GpuEccUncorrected", ANY),),
    ),
    graph(
        About(
            "Corrected ECC errors, 1 h",
            "Errors that ECC repaired within an hour.",
            "These boards have no ECC, or it is off.",
            ("GpuEccSramThresholdExceeded",),
        ),
        Query(
            'increase(gpu_ecc_errors_total{GPU, type="corrected", counter="volatile"}[1h])',
            GPU,
        ),
        unit="none",
        limits=(warning("GpuEccCorrectedRateHigh", 100),),
    ),
    timeline(
        About(
            "Row remapping",
            "Failed: no spare row is left, replace the board. Pending: reset the GPU.",
            "No row remapping: boards before Ampere, which retire pages, or without ECC.",
            ("GpuRowRemapFailure", "GpuRowRemapPending"),
        ),
        Query("gpu_row_remap_failure{GPU}", f"{GPU} failed"),
        Query("gpu_row_remap_pending{GPU}", f"{GPU} pending"),
        words=YES_IS_BAD,
        size=(12, 8),
    ),
    graph(
        About(
            "Rows and pages out of use",
            "Rows replaced by spare ones (Ampere and later) and pages retired (before).",
            "These boards have no ECC, or it is off.",
            ("GpuRetiredPagesPending",),
        ),
        Query("gpu_remapped_rows{GPU}", f"{GPU} rows {{{{type}}}}"),
        Query("gpu_retired_pages{GPU}", f"{GPU} pages {{{{cause}}}}"),
        unit="none",
    ),
)

LINKS = (
    graph(
        About("NVLink traffic", "Payload over all links: sent, and received.", NO_NVLINK),
        Query("gpu_nvlink_transmit_bytes_per_second{GPU}", f"{GPU} sent"),
        Query("gpu_nvlink_receive_bytes_per_second{GPU}", f"{GPU} received"),
        unit="Bps",
    ),
    graph(
        About(
            "NVLink errors, 15 m",
            "The ten links with most errors, without the bit errors that a link corrects.",
            NO_NVLINK,
        ),
        Query(
            """topk(10, sum by (cluster, instance, gpu, link) (increase(
            gpu_nvlink_errors_total{GPU, type!~"effective|symbol"}[15m])))""",
            f"{GPU} link {{{{link}}}}",
        ),
        unit="none",
        limits=(warning("GpuNvlinkErrors", 10),),
    ),
    graph(
        About(
            "NVLinks up",
            "Links of each GPU that are up.",
            NO_NVLINK,
            ("GpuNvlinkDown",),
        ),
        Query("sum by (cluster, instance, gpu) (gpu_nvlink_active{GPU})", GPU),
        unit="none",
        size=(8, 7),
    ),
    timeline(
        About(
            "On the fabric",
            "Whether the GPU has joined its NVLink fabric. CUDA does not start where it has not.",
            "These GPUs are on no NVSwitch.",
            ("GpuFabricManagerUnhealthy",),
        ),
        Query("gpu_fabric_registered{GPU}", GPU),
        words=YES_IS_GOOD,
        size=(8, 7),
    ),
    timeline(
        About(
            "Fabric healthy",
            "Whether the fabric has its full capacity for this GPU.",
            "These GPUs are on no NVSwitch, or the driver does not tell its health.",
            ("GpuFabricUnhealthy",),
        ),
        Query("gpu_fabric_healthy{GPU}", GPU),
        words=YES_IS_GOOD,
        size=(8, 7),
    ),
    graph(
        About("PCIe traffic", "Bytes from the GPU and to it.", NO_NODE),
        Query("gpu_pcie_transmit_bytes_per_second{GPU}", f"{GPU} sent"),
        Query("gpu_pcie_receive_bytes_per_second{GPU}", f"{GPU} received"),
        unit="Bps",
    ),
    graph(
        About(
            "PCIe lanes",
            "In use, and those that GPU and slot can.",
            NO_NODE,
            ("GpuPcieWidthDegraded",),
        ),
        Query('gpu_pcie_link_width{GPU, kind="current"}', f"{GPU} in use"),
        Query('gpu_pcie_link_width{GPU, kind="max"}', f"{GPU} possible"),
        unit="none",
        size=(6, 8),
    ),
    graph(
        About(
            "PCIe generation",
            "In use, and what GPU and slot can. An idle link drops to generation 1 by design.",
            NO_NODE,
            ("GpuPcieGenerationDegraded",),
        ),
        Query('gpu_pcie_link_generation{GPU, kind="current"}', f"{GPU} in use"),
        Query('gpu_pcie_link_generation{GPU, kind="max"}', f"{GPU} possible"),
        unit="none",
        size=(6, 8),
    ),
    graph(
        About("PCIe replays a minute", "Packets that had to be sent again.", NO_NODE),
        Query("rate(gpu_pcie_replays_total{GPU}[15m]) * 60", GPU),
        unit="none",
        limits=(warning("GpuPcieReplaysHigh", 8),),
    ),
    graph(
        About(
            "PCIe errors a minute",
            "As the PCIe bus counts them, by how grave they are.",
            "No readings; or the driver does not tell them (a container without the right to).",
        ),
        Query(
            """rate(gpu_pcie_errors_total{GPU, type=~"correctable|non_fatal|fatal"}[15m]) * 60""",
            f"{GPU} {{{{type}}}}",
        ),
        unit="none",
    ),
)

IDENTITY = (
    rows(
        About("Boards", "What a person needs to find, order or replace the board.", NO_NODE),
        Column("instance", "Node"),
        Column("gpu", "GPU"),
        Column("name", "Name"),
        Column("serial", "Serial"),
        Column("pci_bus_id", "PCI address"),
        Column("architecture", "Architecture"),
        Column("vbios_version", "VBIOS"),
        Column("uuid", "UUID"),
        among="""max by (instance, gpu, name, serial, pci_bus_id, architecture, vbios_version, uuid)
        (gpu_info{GPU})""",
        size=(14, 8),
    ),
    rows(
        About("Driver", "Versions of driver and exporter on the node.", NO_NODE),
        Column("instance", "Node"),
        Column("driver_version", "Driver"),
        Column("cuda_version", "CUDA"),
        Column("version", "Exporter"),
        among="""max by (instance, driver_version, cuda_version, version) (
        gpu_driver_info{NODE} * on (cluster, job, instance) group_left (version)
        gpu_exporter_build_info{NODE})""",
        size=(10, 8),
    ),
    timeline(
        About(
            "vGPU license",
            "Whether the vGPU of a virtual machine has its license. Without one it is throttled.",
            "These GPUs are no vGPUs.",
            ("GpuVgpuUnlicensed",),
        ),
        Query("gpu_vgpu_licensed{GPU}", f"{GPU} {{{{product}}}}"),
        words=YES_IS_GOOD,
        size=(24, 4),
    ),
)
