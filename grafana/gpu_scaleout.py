"""The dashboard of scale-out: what was asked for, why, what came of it, and would it help?"""

from __future__ import annotations

from frame import NO_NODE, Page, Row
from limits import ANY, critical, warning
from links import TO_NODE
from nodes import BACKLOG, NO_SERVER, P99, SLOWEST, WAITING, fullest
from panels import About, graph, number, timeline
from queries import Query

NO_RECEIVER = "No receiver is configured: nothing is ever sent."
HOUR = "[1h]"

NOW = (
    number(
        About(
            "Requests, 24 h",
            "Decisions to ask for more replicas within the last day: sent, or logged only (dry "
            "run).",
            NO_NODE,
        ),
        Query('sum(increase(scaleout_events_total{NODE, result="fired"}[24h]))', "sent"),
        Query('sum(increase(scaleout_events_total{NODE, result="dry_run"}[24h]))', "dry run"),
        size=(4, 4),
    ),
    number(
        About("Lost, 24 h", "Requests that were refused (dead) or came too late.", NO_RECEIVER),
        Query('sum(increase(scaleout_deliveries_total{NODE, result=~"dead|expired"}[24h]))'),
        limits=(critical("GpuScaleOutFailed", ANY),),
    ),
    number(
        About("Waiting", "Requests in outboxes that are not delivered yet.", NO_RECEIVER),
        Query('sum(scaleout_outbox_events{NODE, state="pending"})'),
        limits=(warning("GpuScaleOutStuck", ANY),),
    ),
    number(
        About(
            "Last delivery",
            "Time since any receiver took a request.",
            "No request was delivered yet.",
        ),
        Query("time() - max(scaleout_last_delivery_timestamp_seconds{NODE})"),
        unit="s",
    ),
    number(
        About(
            "Longest cooldown",
            "Time until the last of the actions may fire again.",
            NO_NODE,
        ),
        Query("max(scaleout_cooldown_remaining_seconds{NODE})"),
        unit="s",
    ),
    number(
        About(
            "Nodes that cannot ask",
            "Paused: held back by a person. Not durable: requests are in memory alone, and lost "
            "if the exporter ends.",
            NO_NODE,
            ("GpuScaleOutPaused", "GpuScaleOutNotDurable"),
        ),
        Query("sum(scaleout_paused{NODE})", "paused"),
        Query("sum(1 - scaleout_outbox_durable{NODE})", "not durable"),
        size=(5, 4),
    ),
    number(
        About(
            "Held back, 1 h",
            "Requests over max_per_hour of the action or max_replicas of the target: load wants "
            "more than the configuration allows.",
            NO_NODE,
        ),
        Query(
            f"""sum(increase(scaleout_events_total{{NODE, result="rate_limited"}}{HOUR}))
            + (sum(increase(scaleout_deliveries_total{{NODE, result="suppressed"}}{HOUR}))
            or vector(0))"""
        ),
        limits=(warning("GpuScaleOutAtCap", ANY),),
    ),
)

DECISIONS = (
    graph(
        About(
            "What was decided",
            "Each event that asked for an action, by what became of it.",
            NO_NODE,
            ("GpuScaleOutOutboxFull",),
        ),
        Query(
            """sum by (result) (increase(scaleout_events_total{NODE}[$__rate_interval]))""",
            "{{result}}",
        ),
        unit="none",
        bars=True,
        stacked=True,
    ),
    graph(
        About("How deliveries ended", "Attempts, by how they ended.", NO_RECEIVER),
        Query(
            """sum by (receiver, result) (
            increase(scaleout_deliveries_total{NODE}[$__rate_interval]))""",
            "{{receiver}} {{result}}",
        ),
        unit="none",
        bars=True,
        stacked=True,
    ),
    graph(
        About("Outbox", "Requests by state.", NO_RECEIVER),
        Query("sum by (state) (scaleout_outbox_events{NODE})", "{{state}}"),
        unit="none",
    ),
    graph(
        About("Cooldown", "Time until an action may fire again. The 20 longest.", NO_NODE),
        Query("topk(20, scaleout_cooldown_remaining_seconds{NODE})", "{{instance}} {{action}}"),
        unit="s",
        link=TO_NODE,
    ),
    timeline(
        About(
            "Nodes that cannot ask",
            "Paused: a person holds requests back. In memory: they are lost if the exporter ends.",
            "Every node can ask.",
            ("GpuScaleOutPaused", "GpuScaleOutNotDurable"),
        ),
        Query("scaleout_paused{NODE} == 1 or scaleout_outbox_durable{NODE} == 0", "{{instance}}"),
        words={1: ("paused", "orange"), 0: ("in memory", "red")},
        size=(24, 5),
    ),
)

WHY = (
    timeline(
        About(
            "Sustained load",
            "Nodes whose rule waits or fires: it is what asks for replicas.",
            "No node is under sustained load.",
        ),
        Query('gpu_rule_state{NODE, rule="GpuSustainedLoad"} > 0', "{{instance}}"),
        words={1: ("pending", "yellow"), 2: ("firing", "red")},
        size=(12, 8),
    ),
    graph(
        About(
            "Load that was sustained",
            "Load that the busiest GPU of a node did not fall below for 10 s, the highest such "
            "within the last minute; and the lowest threshold of a node. The 20 busiest nodes.",
            "No readings; or MIG is on, and a GPU has no utilization of its own.",
            ("GpuSustainedLoad",),
        ),
        Query(
            """topk(20, max by (cluster, instance) (
            gpu_utilization_window_min_peak_ratio{NODE, window="10s"}))""",
            "{{instance}}",
        ),
        Query(
            "min by (cluster) (instance:gpu_sustained_load_threshold:ratio{NODE})",
            "threshold {{cluster}}",
        ),
        unit="percentunit",
        top=1,
        link=TO_NODE,
    ),
    graph(
        About(
            "Time over the threshold",
            "Share of time in which the rule's condition held on any GPU. The 20 highest.",
            NO_NODE,
        ),
        Query(
            """topk(20, rate(gpu_rule_condition_seconds_total{NODE,
            rule="GpuSustainedLoad"}[$__rate_interval]))""",
            "{{instance}}",
        ),
        unit="percentunit",
        top=1,
        link=TO_NODE,
    ),
    graph(
        About(
            "Episodes an hour and GPU",
            "How often sustained load began. Many episodes are replicas that come and go. The 20 "
            "highest.",
            NO_NODE,
        ),
        Query(
            """topk(20, sum by (cluster, instance) (
            increase(gpu_rule_firings_total{NODE, rule="GpuSustainedLoad"}[1h]))
            / count by (cluster, instance) (gpu_up{NODE}))""",
            "{{instance}}",
        ),
        unit="none",
        limits=(warning("GpuScaleOutFlapping", 6),),
        link=TO_NODE,
    ),
)

HELP = (
    graph(
        About(
            "Requests that wait",
            "Queues of the cluster's inference servers. Busy GPUs without a queue need no replica.",
            NO_SERVER,
        ),
        WAITING,
        unit="none",
        limits=BACKLOG,
    ),
    graph(
        About("P99 latency", "Of the cluster's inference servers, the 20 slowest.", NO_SERVER),
        SLOWEST,
        unit="s",
        limits=P99,
    ),
    graph(
        About(
            "Work inside the GPUs",
            "Mean share of streaming multiprocessors with work, by node. Utilization of 100 % with "
            "little of this is one small request at a time.",
            "These GPUs have no profiling counters (before Hopper), or the collector is off.",
        ),
        Query("topk(20, avg by (cluster, instance) (gpu_sm_active_ratio{NODE}))", "{{instance}}"),
        unit="percentunit",
        top=1,
        link=TO_NODE,
    ),
    fullest(),
)

SCALEOUT = Page(
    uid="gpu-scaleout",
    title="GPU scale-out",
    text="Requests for more replicas: what was asked for, why, what came of it, would it help?",
    rows=(
        Row("Now", NOW),
        Row("What was decided", DECISIONS),
        Row("Why", WHY),
        Row("Would more replicas help?", HELP),
    ),
)
