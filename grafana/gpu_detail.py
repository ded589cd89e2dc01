"""The dashboard of single GPUs: load and heat. Their health stands in gpu_detail_health.py."""

from __future__ import annotations

from frame import NO_NODE, Page, Row
from gpu_detail_health import ERRORS, IDENTITY, LINKS
from limits import warning
from panels import About, graph, timeline
from queries import GPU, HEAT, Query

NO_UTILIZATION = "No readings; or MIG is on, and the GPU has no utilization of its own."
NO_PROFILING = "No profiling counters: boards before Hopper, or the collector `profiling` is off."
NO_MIG = "No MIG device on these GPUs, or the collector `mig` is off."
MIG = f"{GPU} {{{{mig_uuid}}}}"

LOAD = (
    graph(
        About(
            "Utilization",
            "Share of the moment before each scrape with a kernel running. Short bursts fall "
            "between two scrapes: the graph beside it has them.",
            NO_UTILIZATION,
        ),
        Query("gpu_utilization_ratio{GPU}", GPU),
        unit="percentunit",
        top=1,
    ),
    graph(
        About(
            "Sustained load",
            "Load that the GPU did not fall below for 10 s: now, and the highest such within the "
            "last minute. The dashed line is the threshold of the node.",
            NO_UTILIZATION,
            ("GpuSustainedLoad", "GpuSamplerCoverageLow"),
        ),
        Query('gpu_utilization_window_min_ratio{GPU, window="10s"}', f"{GPU} 10 s minimum"),
        Query('gpu_utilization_window_min_peak_ratio{GPU, window="10s"}', f"{GPU} peak of 60 s"),
        Query("instance:gpu_sustained_load_threshold:ratio{NODE}", "threshold {{instance}}"),
        unit="percentunit",
        top=1,
    ),
    graph(
        About(
            "Work inside the GPU",
            "Streaming multiprocessors with work and their warps, tensor cores, memory bandwidth. "
            "High utilization with little of this is one small kernel after the other.",
            NO_PROFILING,
        ),
        Query("gpu_sm_active_ratio{GPU}", f"{GPU} SMs"),
        Query("gpu_sm_occupancy_ratio{GPU}", f"{GPU} occupancy"),
        Query("gpu_tensor_active_ratio{GPU}", f"{GPU} tensor cores"),
        Query("gpu_dram_active_ratio{GPU}", f"{GPU} memory"),
        unit="percentunit",
        top=1,
    ),
    graph(
        About(
            "Engines",
            "Encoder, decoder, JPEG and optical flow engine.",
            "No readings; or the board has none of these engines.",
        ),
        Query("gpu_engine_utilization_ratio{GPU}", f"{GPU} {{{{engine}}}}"),
        unit="percentunit",
        top=1,
    ),
)

MEMORY = (
    graph(
        About(
            "Memory",
            "Used share, and the threshold of the node.",
            "No readings; or the board shares the host's memory.",
            ("GpuMemoryHigh", "GpuMemoryExhausted"),
        ),
        Query("gpu_memory_used_ratio{GPU}", GPU),
        Query("instance:gpu_memory_high_threshold:ratio{NODE}", "threshold {{instance}}"),
        unit="percentunit",
        top=1,
    ),
    graph(
        About(
            "Memory by process",
            "What each process has of the GPU, and what the driver keeps for itself.",
            "No process uses these GPUs, or the collector `processes` is off.",
        ),
        Query("gpu_process_memory_used_bytes{GPU}", f"{GPU} {{{{process}}}} {{{{pid}}}}"),
        Query("gpu_memory_reserved_bytes{GPU}", f"{GPU} driver"),
        unit="bytes",
        stacked=True,
    ),
    graph(
        About("Memory traffic", "Share of time in which memory was read or written.", NO_NODE),
        Query("gpu_memory_activity_ratio{GPU}", GPU),
        unit="percentunit",
        top=1,
    ),
    graph(
        About("BAR1", "Window through which the host sees the memory, mapped share.", NO_NODE),
        Query("gpu_bar1_memory_used_bytes{GPU} / gpu_bar1_memory_total_bytes{GPU}", GPU),
        unit="percentunit",
        top=1,
    ),
)

THERMAL = (
    graph(
        About("Temperature", "Core, and memory on HBM boards.", NO_NODE),
        Query("gpu_temperature_celsius{GPU}", f"{GPU} core"),
        Query("gpu_memory_temperature_celsius{GPU}", f"{GPU} memory"),
        unit="celsius",
    ),
    graph(
        About(
            "Degrees until it slows down",
            "Core: slowdown temperature less its own. The alert fires below the line.",
            "No readings; or the driver tells no slowdown temperature (a margin, since Ada).",
        ),
        Query(
            """gpu_temperature_threshold_celsius{GPU, threshold="slowdown"}
            - ignoring (threshold) gpu_temperature_celsius{GPU}""",
            GPU,
        ),
        unit="celsius",
        limits=(warning("GpuTemperatureNearSlowdown", 5, below=True),),
        size=(6, 8),
    ),
    graph(
        About(
            "Degrees until memory is too hot",
            "Highest temperature of the memory less its own. The alert fires below the line.",
            "No readings; or the board has no sensor in its memory.",
        ),
        Query(
            """gpu_temperature_threshold_celsius{GPU, threshold="memory_max"}
            - ignoring (threshold) gpu_memory_temperature_celsius{GPU}""",
            GPU,
        ),
        unit="celsius",
        limits=(warning("GpuMemoryTemperatureNearLimit", 3, below=True),),
        size=(6, 8),
    ),
    graph(
        About("Power", "Power drawn, and the lowest limit in force.", NO_NODE),
        Query("gpu_power_watts{GPU}", GPU),
        Query('gpu_power_limit_watts{GPU, limit="enforced"}', f"threshold {GPU}"),
        unit="watt",
    ),
    graph(
        About("Clocks", "Streaming multiprocessors and memory.", NO_NODE),
        Query('gpu_clock_hertz{GPU, domain=~"sm|memory"}', f"{GPU} {{{{domain}}}}"),
        unit="hertz",
    ),
    graph(
        About(
            "Held down by heat",
            "Share of time in which heat held the clocks down, as the driver counted it.",
            "No readings; or the driver does not count reasons (before 535).",
        ),
        Query(
            f"max by (cluster, instance, gpu) (rate(gpu_clock_event_seconds_total"
            f"{{GPU, {HEAT}}}[5m]))",
            GPU,
        ),
        unit="percentunit",
        limits=(warning("GpuThermalThrottling", 0.1),),
    ),
    graph(
        About(
            "Held down, by reason",
            "Share of time that each reason held the clocks down. A software power cap is normal "
            "under load.",
            "No readings; or the driver does not count reasons (before 535).",
            ("GpuPowerBrake",),
        ),
        Query(
            "rate(gpu_clock_event_seconds_total{GPU}[$__rate_interval]) > 0",
            f"{GPU} {{{{reason}}}}",
        ),
        unit="percentunit",
    ),
    timeline(
        About("What holds the clocks down", "Reasons that were active at each scrape.", NO_NODE),
        Query(
            'gpu_clock_event_active{GPU, reason!~"gpu_idle|applications_clocks_setting"} == 1',
            f"{GPU} {{{{reason}}}}",
        ),
        words={1: ("active", "orange")},
        size=(12, 8),
    ),
    graph(
        About(
            "Fans",
            "Intended speed of each fan.",
            "These boards have no fans of their own: the chassis cools them.",
            ("GpuFanFailed",),
        ),
        Query("gpu_fan_speed_ratio{GPU}", f"{GPU} fan {{{{fan}}}}"),
        unit="percentunit",
        top=1,
    ),
)

MIG_DEVICES = (
    graph(
        About("Memory of MIG devices", "Used share of each instance.", NO_MIG),
        Query("gpu_mig_memory_used_ratio{GPU}", MIG),
        unit="percentunit",
        top=1,
    ),
    graph(
        About(
            "Work inside MIG devices",
            "Streaming multiprocessors with work, Hopper and later.",
            f"{NO_MIG} Before Hopper there is no activity to show.",
        ),
        Query("gpu_mig_sm_active_ratio{GPU}", MIG),
        unit="percentunit",
        top=1,
    ),
)

DETAIL = Page(
    uid="gpu-detail",
    title="GPU detail and health",
    text="Single GPUs: load, memory, heat and power, errors, links, identity.",
    rows=(
        Row("Load", LOAD),
        Row("Errors", ERRORS),
        Row("Memory", MEMORY),
        Row("Heat and power", THERMAL),
        Row("Links", LINKS),
        Row("MIG", MIG_DEVICES),
        Row("Identity", IDENTITY),
    ),
    many=False,
    gpu=True,
)
