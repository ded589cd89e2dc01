"""The page of --compat.dcgm: dcgm-exporter's default counters, from our readings."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import pytest
from daemon import Page, running
from http_client import connect, get
from prometheus import job, prometheus
from prometheus_client.parser import text_string_to_metric_families
from test_golden import GOLDEN, observe
from web_files import WebFiles, basic, users

from exporter.dcgm import DcgmPage
from exporter.gpu.memory import Memory
from exporter.gpu.mig import Instance, Mig
from exporter.gpu.nvlink import NvLink
from exporter.gpu.power import Power
from exporter.gpu.profiling import Profiling
from exporter.gpu.utilization import Utilization
from exporter.gpu.vgpu import VgpuLicense
from exporter.sampling import Fault
from exporter.snapshot import Gpu, Snapshot
from exporter.xid import XidView
from exporter.xid.ledger import Source
from exporter.xid.view import GpuXids

PATH = "/metrics/dcgm"
FLAG = "--compat.dcgm"
PROFILING = {
    *("DCGM_FI_PROF_GR_ENGINE_ACTIVE", "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE"),
    "DCGM_FI_PROF_DRAM_ACTIVE",
}
REMAPPING = {
    *("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS"),
    "DCGM_FI_DEV_ROW_REMAP_FAILURE",
}
UTILIZATION = {
    *("DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_MEM_COPY_UTIL"),
    *("DCGM_FI_DEV_ENC_UTIL", "DCGM_FI_DEV_DEC_UTIL"),
}
MEMORY = {"DCGM_FI_DEV_FB_FREE", "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_RESERVED"}
COUNTERS = {
    *("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "DCGM_FI_DEV_PCIE_REPLAY_COUNTER"),
    "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL",
    *("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS"),
}
# All that dcgm-exporter has on by default; the license is a vGPU's alone.
ALL = {
    *("DCGM_FI_DEV_SM_CLOCK", "DCGM_FI_DEV_MEM_CLOCK"),
    *("DCGM_FI_DEV_MEMORY_TEMP", "DCGM_FI_DEV_GPU_TEMP"),
    *("DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_XID_ERRORS"),
    *("DCGM_FI_PROF_PCIE_TX_BYTES", "DCGM_FI_PROF_PCIE_RX_BYTES"),
    *PROFILING,
    *UTILIZATION,
    *MEMORY,
    *REMAPPING,
    *COUNTERS,
}
LICENSE = "DCGM_FI_DEV_VGPU_LICENSE_STATUS"


def watched(snapshot: Snapshot, **last: dict[int, float]) -> Snapshot:
    """Return a snapshot whose XID errors are known: by index ("gpu3"), number and time."""
    gpus = {gpu.uuid: GpuXids({}, last.get(f"gpu{gpu.index}", {})) for gpu in snapshot.gpus}
    return replace(snapshot, xids=XidView(gpus, sources={Source.NVML: True}))


def text_of(snapshot: Snapshot) -> str:
    """Return the page of a snapshot as it is served."""
    return DcgmPage("node-7").plain(snapshot).decode()


def page(snapshot: Snapshot) -> Page:
    """Return the page of a snapshot, without types: a parser adds _total to a counter's name."""
    lines = text_of(snapshot).splitlines(keepends=True)
    return Page("".join(line for line in lines if not line.startswith("#")))


def of(gpu: Gpu) -> Page:
    """Return the page of a node with one GPU."""
    return page(watched(replace(observe("none", {}), gpus=(gpu,))))


@pytest.mark.parametrize("machine", ["h100x8", "a100-mig", "h100-mig"])
def test_page_of_a_known_machine(machine: str, request: pytest.FixtureRequest) -> None:
    """The page of this machine is exactly the one that was reviewed."""
    text = text_of(watched(observe(machine, {}), gpu1={31: 1.7e9}))
    golden: Path = GOLDEN / "dcgm" / f"{machine}.prom"
    if request.config.getoption("--update"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_every_default_counter_has_its_type_and_labels() -> None:
    """On an H100, all that dcgm-exporter has by default, as prometheus_client reads it."""
    text = text_of(watched(observe("h100x8", {})))
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert set(families) == ALL
    for family in families.values():
        assert family.type == ("counter" if family.name in COUNTERS else "gauge")
        assert family.documentation
        assert len(family.samples) == 8
        for sample in family.samples:
            own = {"err_code", "err_msg"} if family.name == "DCGM_FI_DEV_XID_ERRORS" else set()
            assert set(sample.labels) - own == {
                *("gpu", "UUID", "pci_bus_id", "device", "modelName"),
                *("Hostname", "DCGM_FI_DRIVER_VERSION"),
            }
    first = families["DCGM_FI_DEV_GPU_TEMP"].samples[0].labels
    assert first["pci_bus_id"] == "00000000:1B:00.0"
    assert (first["gpu"], first["device"], first["Hostname"]) == ("0", "nvidia0", "node-7")


def test_units_are_those_of_dcgm() -> None:
    """Percent, MiB, mJ, and NVLink in KiB/s by 1000, both directions together."""
    gib = 1 << 30
    got = of(
        Gpu(
            0,
            "GPU-a",
            power=Power(250.5, 12.345),
            memory=Memory(80 * gib, 3 * gib + 5, 77 * gib - 5, 512 << 20),
            utilization=Utilization(1.0, 0.29, 0.57),
            nvlink=NvLink(1.0, 0, 0, 3 * 1024_000.0, 4 * 1024_000.0),
            vgpu_license=VgpuLicense(is_vgpu=True, licensed={"vWS": 1}),
        )
    )
    assert {name: got.value(name) for name in got.names()} == {
        "DCGM_FI_DEV_POWER_USAGE": 250.5,
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": 12345.0,
        "DCGM_FI_DEV_FB_USED": 3072,
        "DCGM_FI_DEV_FB_FREE": 77 * 1024 - 1,
        "DCGM_FI_DEV_FB_RESERVED": 512,
        "DCGM_FI_DEV_GPU_UTIL": 29.0,
        "DCGM_FI_DEV_MEM_COPY_UTIL": 57.0,
        "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL": 7.0,
        "DCGM_FI_DEV_XID_ERRORS": 0,
        LICENSE: 1,
    }


@pytest.mark.parametrize(
    ("machine", "absent"),
    [
        ("l40s", {*PROFILING, "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL", "DCGM_FI_DEV_MEMORY_TEMP"}),
        ("a100-mig", PROFILING),
        ("none", ALL),
    ],
)
def test_what_a_board_lacks_is_absent(machine: str, absent: set[str]) -> None:
    """No series where the board has no such reading; never a 0."""
    names = page(watched(observe(machine, {}))).names()
    assert not names & absent
    assert machine == "none" or {"DCGM_FI_DEV_POWER_USAGE", *MEMORY} <= names


def test_gpu_instances_stand_for_a_gpu_with_mig() -> None:
    """One row a GPU instance, however many compute instances it has; memory is its own."""
    parts = {
        "MIG-a": Instance(2, 0, "1c.3g.40gb", Memory(0, 7 << 20, 0, 0), Profiling(0.25)),
        "MIG-b": Instance(2, 1, "2c.3g.40gb", Memory(0, 7 << 20, 0, 0), Profiling(0.25)),
        "MIG-c": Instance(9, 0, "1g.10gb+me", Memory(0, 3 << 20, 0, 0), Profiling()),
    }
    got = of(Gpu(0, "GPU-a", power=Power(300.0), mig=Mig(parts), profiling=Profiling(0.9)))
    used = [
        (labels["GPU_I_ID"], labels["GPU_I_PROFILE"], value)
        for labels, value in got.all("DCGM_FI_DEV_FB_USED")
    ]
    assert used == [("2", "3g.40gb", 7), ("9", "1g.10gb+me", 3)]
    assert [value for _, value in got.all("DCGM_FI_DEV_POWER_USAGE")] == [300.0, 300.0]
    assert got.value("DCGM_FI_PROF_GR_ENGINE_ACTIVE", GPU_I_ID="2") == 0.25
    assert got.value("DCGM_FI_PROF_GR_ENGINE_ACTIVE", GPU_I_ID="9") is None


def test_last_xid_is_shown_with_its_name() -> None:
    """The latest of several, not the highest; 0 before the first one."""
    got = page(watched(observe("h100x8", {}), gpu3={79: 10.0, 31: 20.0}))
    name = "DCGM_FI_DEV_XID_ERRORS"
    assert [value for _, value in got.all(name)] == [0, 0, 0, 31, 0, 0, 0, 0]
    ((labels, _),) = got.all(name, gpu="3")
    assert (labels["err_code"], labels["err_msg"]) == (
        "31",
        "ROBUST_CHANNEL_FIFO_ERROR_MMU_ERR_FLT",
    )
    ((labels, _),) = got.all(name, gpu="0")
    assert (labels["err_code"], labels["err_msg"]) == ("0", "No Error")


def test_no_xid_is_claimed_where_nobody_looks() -> None:
    """Without a source that is read, "no error" is not known: no series, but errors seen stay."""
    seen = watched(observe("h100x8", {}), gpu3={79: 10.0})
    assert seen.xids is not None
    blind = replace(seen, xids=replace(seen.xids, sources={Source.NVML: False}))
    found = page(blind).all("DCGM_FI_DEV_XID_ERRORS")
    assert [(labels["gpu"], value) for labels, value in found] == [("3", 79)]


def test_lost_gpu_keeps_its_last_xid_alone() -> None:
    """Its readings end with it; the XID that tells why stays, so that a rule on it still fires."""
    got = page(watched(observe("h100x8", {3: Fault.LOST}), gpu3={79: 10.0}))
    assert got.names(gpu="3") == {"DCGM_FI_DEV_XID_ERRORS"}
    assert got.names(gpu="2") == ALL


def test_stale_readings_are_gone() -> None:
    """When the poller is stuck, nothing on the page may pass for the present."""
    snapshot = watched(observe("h100x8", {}))
    assert page(snapshot.at(snapshot.taken_at + 60.0)).names() == {"DCGM_FI_DEV_XID_ERRORS"}


def test_page_is_there_with_the_flag_alone() -> None:
    """404 without it; with it a page of its own, in text and gzip; the main one stays as it is.

    The status page links to it where it is.
    """
    link = f'<a href="{PATH}">'.encode()
    with running("--simulate=t4") as daemon:
        assert daemon.get(PATH).status == 404
        assert link not in daemon.get("/").body
    with running("--simulate=t4", FLAG) as daemon:
        answer = daemon.get(PATH)
        assert answer.status == 200
        assert "DCGM_FI_DEV_GPU_TEMP" in Page(answer.body.decode()).names()
        assert "DCGM_" not in daemon.page().text
        assert link in daemon.get("/").body
        with connect(daemon.port) as client:
            client.send(get(PATH, "Accept-Encoding: gzip", "Accept: application/openmetrics-text"))
            zipped = client.answer()
        assert zipped.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert b"DCGM_FI_DEV_GPU_TEMP" in gzip.decompress(zipped.body)


def test_page_is_guarded_as_the_main_one_is(tmp_path: Path) -> None:
    """With users in the web config: 401 without a password, the page with it."""
    config = WebFiles(tmp_path).write(users(alice="secret"))
    alice = basic("alice", "secret")
    flags = ("--simulate=t4", FLAG, f"--web.config.file={config}")
    with running(*flags, headers=[alice]) as daemon:
        assert daemon.get(PATH).status == 200
        with connect(daemon.port) as client:
            client.send(get(PATH))
            assert client.answer().status == 401


# What NVIDIA's dashboard for dcgm-exporter asks of these counters, panels and variables.
QUERIES = {
    'DCGM_FI_DEV_GPU_TEMP{instance=~".+", gpu=~"0|1|2|3|4|5|6|7"}': 8,
    'avg(DCGM_FI_DEV_GPU_TEMP{instance=~".+", gpu=~".+"})': 1,
    'DCGM_FI_DEV_POWER_USAGE{instance=~".+", gpu=~".+"}': 8,
    'sum(DCGM_FI_DEV_POWER_USAGE{instance=~".+", gpu=~".+"})': 1,
    'DCGM_FI_DEV_SM_CLOCK{instance=~".+", gpu=~".+"} * 1000000': 8,
    'DCGM_FI_DEV_GPU_UTIL{instance=~".+", gpu=~".+"}': 8,
    'DCGM_FI_DEV_FB_USED{instance=~".+", gpu=~".+"}': 8,
    'DCGM_FI_PROF_PIPE_TENSOR_ACTIVE{instance=~".+", gpu=~".+"}': 8,
    "count by (instance, gpu) (DCGM_FI_DEV_GPU_TEMP)": 8,
}


def test_dashboard_of_dcgm_exporter_has_data(tmp_path: Path) -> None:
    """Every query of NVIDIA's dashboard gives data from a Prometheus that scrapes this page."""
    with running("--simulate", FLAG) as daemon:
        jobs = [job("dcgm", daemon.port, more=f"    metrics_path: {PATH}\n")]
        with prometheus(tmp_path, jobs) as server:
            server.until("count(DCGM_FI_PROF_PIPE_TENSOR_ACTIVE) == 8")
            found = {query: len(server.query(query)) for query in QUERIES}
            assert found == QUERIES
            assert server.of_jobs("min_over_time(up[1m])") == {"dcgm": 1.0}
