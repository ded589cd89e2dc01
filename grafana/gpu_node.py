"""The dashboard of one node, or of a few side by side."""

from __future__ import annotations

from frame import NO_NODE, Page, Row
from gpu_node_inside import EXPORTER, INFERENCE, PROCESSES
from limits import critical, warning
from links import ROW_TO_GPU, ROW_TO_RUNBOOK, TO_GPU
from panels import About, graph, timeline
from queries import GPU, Query
from tables import Column, rows
from words import RECOVERY, RULE, UP

EACH_GPU = "by (instance, gpu)"

STATE = (
    rows(
        About(
            "GPUs",
            "One line a GPU; a click leads to it. Utilization is absent where MIG is on.",
            NO_NODE,
            ("GpuMissing", "GpuRecoveryActionNeeded"),
        ),
        Column("instance", "Node"),
        Column("gpu", "GPU", link=ROW_TO_GPU),
        Column(
            f"max {EACH_GPU} (gpu_up{{NODE}})",
            "State",
            "none",
            words=UP,
        ),
        Column(
            f"max {EACH_GPU} (rate(gpu_busy_seconds_total{{NODE}}[$__rate_interval]))",
            "Load",
            "percentunit",
        ),
        Column(
            f"max {EACH_GPU} (gpu_memory_used_ratio{{NODE}})",
            "Memory",
            "percentunit",
            (warning("GpuMemoryHigh", 0.8), critical("GpuMemoryExhausted", 0.98)),
        ),
        Column(f"max {EACH_GPU} (gpu_temperature_celsius{{NODE}})", "Core", "celsius"),
        Column(f"max {EACH_GPU} (gpu_memory_temperature_celsius{{NODE}})", "HBM", "celsius"),
        Column(f"max {EACH_GPU} (gpu_power_watts{{NODE}})", "Power", "watt"),
        Column(
            f"max {EACH_GPU} (gpu_recovery_action{{NODE}})",
            "Recovery action",
            "none",
            words=RECOVERY,
        ),
        size=(14, 9),
    ),
    rows(
        About(
            "Alerts that fire here",
            "Those of the node and of inference servers on it that a person is told of. A click "
            "opens the runbook.",
            "No alert fires on this node; or the rules are not loaded, which the fleet shows.",
        ),
        Column("alertname", "Alert", link=ROW_TO_RUNBOOK),
        Column("severity", "Severity"),
        Column("instance", "Instance"),
        Column("gpu", "GPU"),
        Column(
            """max by (alertname, severity, instance, gpu) (
            ALERTS_FOR_STATE
            and ignoring (alertstate) ALERTS{FIRING_HERE, severity!="info"}) * 1000""",
            "Since",
            "dateTimeFromNow",
        ),
        sort="Since",
        size=(10, 9),
    ),
    timeline(
        About(
            "Rules on the node",
            "What the daemon itself watches, once a second: pending while the condition holds, "
            "firing when it has held long enough.",
            NO_NODE,
            ("GpuThresholdDrift",),
        ),
        Query("gpu_rule_state{NODE}", "{{instance}} {{rule}}"),
        words=RULE,
        size=(12, 5),
    ),
    timeline(
        About(
            "Flight recordings",
            "While the node records every second around an event: `gpu-node-exporter recordings "
            "list` on the node shows them.",
            NO_NODE,
            ("GpuRecordingStuck", "GpuRecorderDropping"),
        ),
        Query("gpu_recorder_active{NODE}", "{{instance}}"),
        words={0: ("no", "text"), 1: ("recording", "yellow")},
        size=(12, 5),
    ),
    rows(
        About(
            "XID errors",
            "What the driver reported since the node booted. Those with an address alone are of a "
            "GPU that the driver does not list.",
            "No XID error is known on this node.",
            ("GpuXidUnlisted", "GpuXidUnseen"),
        ),
        Column("instance", "Node"),
        Column("gpu", "GPU"),
        Column("pci_bus_id", "PCI address"),
        Column("xid", "XID"),
        Column("mnemonic", "Name"),
        Column("class", "Class"),
        Column("action", "Action"),
        Column(
            """max by (instance, gpu, pci_bus_id, xid, mnemonic, class, action) (
            gpu_xid_last_timestamp_seconds{NODE}
            or gpu_xid_unlisted_last_timestamp_seconds{NODE}) * 1000""",
            "Last",
            "dateTimeFromNow",
        ),
        sort="Last",
        size=(24, 6),
    ),
)

GPUS = (
    graph(
        About(
            "Sustained load",
            "Load that a GPU did not fall below for 10 s, the highest such within the last minute. "
            "The dashed line is the threshold of the node.",
            "No readings; or MIG is on, and a GPU has no utilization of its own.",
            ("GpuSustainedLoad",),
        ),
        Query('gpu_utilization_window_min_peak_ratio{NODE, window="10s"}', GPU),
        Query("instance:gpu_sustained_load_threshold:ratio{NODE}", "threshold {{instance}}"),
        unit="percentunit",
        top=1,
        link=TO_GPU,
    ),
    graph(
        About(
            "GPU memory",
            "Used share. The dashed line is the threshold of the node.",
            NO_NODE,
            ("GpuMemoryHigh", "GpuMemoryExhausted"),
        ),
        Query("gpu_memory_used_ratio{NODE}", GPU),
        Query("instance:gpu_memory_high_threshold:ratio{NODE}", "threshold {{instance}}"),
        unit="percentunit",
        top=1,
        link=TO_GPU,
    ),
    graph(
        About(
            "Temperature",
            "Of each GPU's core. The dashed line is where the first of them slows down.",
            NO_NODE,
            ("GpuTemperatureNearSlowdown",),
        ),
        Query("gpu_temperature_celsius{NODE}", GPU),
        Query(
            """min by (cluster, instance) (
            gpu_temperature_threshold_celsius{NODE, threshold="slowdown"})""",
            "threshold {{instance}}",
        ),
        unit="celsius",
        link=TO_GPU,
    ),
    graph(
        About("Power", "What each GPU draws.", NO_NODE, ("GpuPowerBrake",)),
        Query("gpu_power_watts{NODE}", GPU),
        unit="watt",
        link=TO_GPU,
    ),
)

HOST = (
    graph(
        About("Host memory", "Share that programs cannot get without swapping.", NO_NODE),
        Query("host_memory_used_ratio{NODE}", "{{instance}}"),
        unit="percentunit",
        limits=(warning("HostMemoryHigh", 0.85), critical("HostMemoryCritical", 0.95)),
        top=1,
    ),
    graph(
        About(
            "Swapping",
            "Memory read back from swap and written to it.",
            NO_NODE,
            ("HostSwapInUse",),
        ),
        Query("rate(host_swap_in_bytes_total{NODE}[$__rate_interval])", "{{instance}} in"),
        Query("rate(host_swap_out_bytes_total{NODE}[$__rate_interval])", "{{instance}} out"),
        unit="Bps",
        limits=(warning("HostSwapping", 1048576),),
    ),
    graph(
        About("CPU", "Share of all CPUs' time, by what it went to; without idle time.", NO_NODE),
        Query(
            """sum by (cluster, instance, mode) (
            rate(host_cpu_seconds_total{NODE, mode!~"idle|iowait"}[$__rate_interval]))
            / ignoring (mode) group_left ()
            sum by (cluster, instance) (rate(host_cpu_seconds_total{NODE}[$__rate_interval]))""",
            "{{instance}} {{mode}}",
        ),
        unit="percentunit",
        stacked=True,
        top=1,
    ),
    graph(
        About(
            "Waiting for resources",
            "Share of time in which some task that could run waited (pressure).",
            "No readings; or the kernel does not tell pressure.",
            ("HostOomKill",),
        ),
        Query(
            'rate(host_pressure_seconds_total{NODE, kind="some"}[$__rate_interval])',
            "{{instance}} {{resource}}",
        ),
        unit="percentunit",
    ),
    graph(
        About("Load average", "Tasks that run, wait to run, or cannot be woken.", NO_NODE),
        Query("host_load{NODE}", "{{instance}} {{window}}"),
        unit="none",
    ),
    graph(
        About("Disks", "Bytes read and written.", "No readings; or no block device is seen."),
        Query(
            "rate(host_disk_read_bytes_total{NODE}[$__rate_interval])",
            "{{instance}} {{device}} read",
        ),
        Query(
            "rate(host_disk_written_bytes_total{NODE}[$__rate_interval])",
            "{{instance}} {{device}} written",
        ),
        unit="Bps",
    ),
)

NODE = Page(
    uid="gpu-node",
    title="GPU node",
    text="One node: its GPUs side by side, the host, processes, inference servers, the exporter.",
    rows=(
        Row("State", STATE),
        Row("GPUs side by side", GPUS),
        Row("Inference servers", INFERENCE),
        Row("Processes", PROCESSES),
        Row("Host", HOST),
        Row("Exporter", EXPORTER),
    ),
    many=False,
    host=True,
)
