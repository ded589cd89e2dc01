"""What runs on a node: inference servers, processes on GPUs, and the exporter itself."""

from __future__ import annotations

from frame import NO_NODE
from limits import critical, warning
from panels import About, graph, heat, number, timeline
from queries import GPU, Query
from tables import Column, rows
from words import UP

NO_SERVER = (
    "No inference server of this node is scraped: its target needs the node's name as instance, "
    "with any port. Or the rules of alerts/ are not loaded."
)
NOT_READ = "The daemon's configuration names no inference server (`inference_servers`)."
NO_PROCESS = "No process uses a GPU of this node, or the collector `processes` is off."
SERVER = "{{instance}} {{server}}"
PROCESS = "{{instance}} {{process}} {{pid}}"

INFERENCE = (
    graph(
        About(
            "P99 latency",
            "Time to the first token, and of whole requests. A hung server has none: look at the "
            "progress too.",
            NO_SERVER,
            ("InferenceLatencyUnknown",),
        ),
        Query("inference:latency_seconds:p99{HOST} >= 0", f"{SERVER} {{{{latency}}}}"),
        unit="s",
        limits=(warning("InferenceLatencyP99High", 0.8),),
    ),
    heat(
        About(
            "Time to the first token (vLLM)",
            "How many requests took how long: two bands are two kinds of requests, which a "
            "quantile hides.",
            "No vLLM server of this node is scraped.",
        ),
        Query(
            """sum by (le) (
            increase(vllm:time_to_first_token_seconds_bucket{HOST}[$__rate_interval]))""",
            "{{le}}",
        ),
        unit="s",
    ),
    graph(
        About(
            "Slow requests",
            "Share of requests whose first token took over 0.75 s, in 5 minutes and in 1 hour. "
            "The objective is 1 %.",
            NO_SERVER,
        ),
        Query("inference:slow_requests:ratio_rate5m{HOST}", f"{SERVER} 5m"),
        Query("inference:slow_requests:ratio_rate1h{HOST}", f"{SERVER} 1h"),
        unit="percentunit",
        limits=(critical("InferenceLatencyBudgetBurn", 0.144),),
    ),
    graph(
        About("Requests", "Requests running, and requests that wait.", NO_SERVER),
        Query("inference:requests_running{HOST}", f"{SERVER} running"),
        Query("inference:requests_waiting{HOST}", f"{SERVER} waiting"),
        unit="none",
        limits=(warning("InferenceQueueBacklog", 10),),
    ),
    graph(
        About("Throughput", "Requests answered.", NO_SERVER, ("InferenceServerDown",)),
        Query("inference:requests:rate5m{HOST}", SERVER),
        unit="reqps",
    ),
    graph(
        About(
            "Progress",
            "What the server computes: tokens a second (vLLM), else batches. 0 while requests run: "
            "it hangs.",
            NO_SERVER,
            ("InferenceStalled",),
        ),
        Query("inference:work:rate5m{HOST}", SERVER),
        unit="cps",
    ),
    timeline(
        About(
            "Read by the daemon",
            "Whether the daemon can read the servers of its configuration, on whose queues its "
            "rules may depend. Prometheus reads them by itself.",
            NOT_READ,
            ("GpuExporterInferenceUnread",),
        ),
        Query("gpu_exporter_inference_server_up{NODE}", SERVER),
        words=UP,
    ),
    graph(
        About(
            "Failed readings by the daemon",
            "Why it cannot read them: refused, slow, or a page that cannot be.",
            NOT_READ,
            ("GpuExporterInferenceUnread",),
        ),
        Query(
            """sum by (cluster, instance, error) (
            rate(gpu_exporter_read_errors_total{NODE, group="inference"}[$__rate_interval]))""",
            "{{instance}} {{error}}",
        ),
        unit="cps",
        size=(12, 7),
    ),
)

PROCESSES = (
    graph(
        About("GPU memory by process", "Memory of all GPUs that a process has.", NO_PROCESS),
        Query(
            """sum by (cluster, instance, pid, process) (gpu_process_memory_used_bytes{NODE})""",
            PROCESS,
        ),
        unit="bytes",
        stacked=True,
    ),
    graph(
        About(
            "Growth of host memory, 5 m",
            "Growth of each process's host memory within five minutes. The alert also wants "
            "256 MiB, and a process older than 15 minutes.",
            f"{NO_PROCESS} Or it is younger than five minutes.",
        ),
        Query(
            """gpu_process_resident_memory_bytes{NODE}
            / gpu_process_resident_memory_bytes{NODE} offset 5m - 1""",
            PROCESS,
        ),
        unit="percentunit",
        limits=(warning("ProcessMemoryGrowth", 0.15),),
    ),
    graph(
        About("Host memory by process", "Resident memory of processes on GPUs.", NO_PROCESS),
        Query("gpu_process_resident_memory_bytes{NODE}", PROCESS),
        unit="bytes",
    ),
    graph(
        About(
            "Busy GPUs by workload",
            "GPUs that each pod, container, job or unit kept busy.",
            NO_PROCESS,
        ),
        Query(
            "rate(gpu_workload_busy_seconds_total{NODE}[$__rate_interval])",
            "{{instance}} {{workload}}",
        ),
        unit="none",
        stacked=True,
    ),
    rows(
        About("Who uses the GPUs", "Each process, and who runs it.", NO_PROCESS),
        Column("instance", "Node"),
        Column("pid", "PID"),
        Column("process", "Process"),
        Column("user", "User"),
        Column("workload", "Workload"),
        Column("systemd_unit", "Unit"),
        Column("pod_uid", "Pod"),
        Column("slurm_job_id", "Slurm job"),
        among="""max by (instance, pid, process, user, workload, systemd_unit, pod_uid,
        slurm_job_id) (gpu_process_info{NODE})""",
        size=(24, 8),
    ),
)

EXPORTER = (
    graph(
        About(
            "Age of readings",
            "Time since each GPU last gave readings, by the exporter's own clock. The alert looks "
            "at the freshest GPU of a node.",
            NO_NODE,
        ),
        Query("gpu_exporter_sample_age_seconds{NODE}", GPU),
        unit="s",
        limits=(critical("GpuExporterSampleStale", 30),),
        size=(8, 7),
    ),
    graph(
        About(
            "Samples taken",
            "Valid samples of utilization over expected ones in the last minute. Below the line, "
            "the rules on sustained load do not fire.",
            "No readings; or MIG is on, and a GPU has no utilization of its own.",
        ),
        Query("gpu_sampler_coverage_ratio{NODE}", GPU),
        unit="percentunit",
        limits=(warning("GpuSamplerCoverageLow", 0.9, below=True),),
        top=1,
        size=(8, 7),
    ),
    graph(
        About("Polls skipped", "Share of polls left out because the last was late.", NO_NODE),
        Query(
            """sum by (cluster, instance) (
            rate(gpu_exporter_polls_total{NODE, result="skipped"}[10m]))
            / sum by (cluster, instance) (rate(gpu_exporter_polls_total{NODE}[10m]))""",
            "{{instance}}",
        ),
        unit="percentunit",
        limits=(warning("GpuExporterCollectionSlow", 0.1),),
        size=(8, 7),
    ),
    graph(
        About(
            "Longest readings",
            "Time that the last reading of a group took, over all GPUs. The ten longest.",
            NO_NODE,
        ),
        Query("topk(10, gpu_exporter_read_duration_seconds{NODE})", "{{instance}} {{group}}"),
        unit="s",
        size=(8, 7),
    ),
    graph(
        About("Time to scrape", "What Prometheus waited for the page.", "No target of this job."),
        Query("scrape_duration_seconds{NODE}", "{{instance}}"),
        unit="s",
        size=(8, 7),
    ),
    graph(
        About(
            "Readings that failed",
            "By group and by the driver's word for the error. Empty while nothing fails.",
            "No reading has failed since the exporter started.",
            ("GpuExporterCollectionFailing",),
        ),
        Query(
            """sum by (cluster, instance, group, error) (
            rate(gpu_exporter_read_errors_total{NODE}[$__rate_interval]))""",
            "{{instance}} {{group}} {{error}}",
        ),
        unit="cps",
        size=(8, 7),
    ),
    number(
        About("Starts, 30 m", "How often the exporter was started within 30 minutes.", NO_NODE),
        Query("sum(changes(process_start_time_seconds{NODE}[30m]))"),
        limits=(warning("GpuExporterRestarting", 2),),
        size=(4, 4),
    ),
    number(
        About(
            "Configuration",
            "Whether the file on disk is the one that runs, on the worst of the nodes.",
            NO_NODE,
            ("GpuExporterConfigReloadFailed",),
        ),
        Query("min(gpu_exporter_config_last_reload_successful{NODE})"),
        words={1: ("as on disk", "green"), 0: ("reload failed", "red")},
        size=(4, 4),
    ),
    number(
        About(
            "Driver",
            "Whether NVML can be used, on the worst of the nodes. Paused: let go of by order.",
            NO_NODE,
            ("GpuDriverDown", "GpuExporterPaused"),
        ),
        Query("min(gpu_exporter_nvml_up{NODE} + 2 * gpu_exporter_nvml_paused{NODE})"),
        words={**UP, 2: ("paused", "orange")},
        size=(4, 4),
    ),
    number(
        About("Memory", "Resident memory of the exporter.", NO_NODE),
        Query("max(process_resident_memory_bytes{NODE})"),
        unit="bytes",
        size=(4, 4),
    ),
    number(
        About("CPU", "CPU time of the exporter, in CPUs.", NO_NODE),
        Query("max(rate(process_cpu_seconds_total{NODE}[$__rate_interval]))"),
        unit="percentunit",
        size=(4, 4),
    ),
    number(
        About("Recordings", "Size of all flight recordings on disk.", NO_NODE),
        Query("max(gpu_recorder_stored_bytes{NODE})"),
        unit="bytes",
        size=(4, 4),
    ),
)
