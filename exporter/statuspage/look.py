"""A snapshot and its past -> what the status page says."""

from __future__ import annotations

import re
import time
from calendar import timegm
from collections.abc import Iterator, Mapping
from typing import TypeVar

from exporter.inference_view import Load, Server
from exporter.recorder.store import NAME
from exporter.recorder_view import RecorderView, Stored
from exporter.rules_view import FIRING, INACTIVE, PENDING, RuleStatus
from exporter.scaleout_view import AuditEntry, ScaleoutView
from exporter.snapshot import Gpu, Host, Snapshot
from exporter.statuspage.ailments import CRITICAL
from exporter.statuspage.past import GPU_COLUMNS, HOST_COLUMNS, Band, Column, Seen, key_of
from exporter.statuspage.problems import Key, Problem, find, unready
from exporter.statuspage.tenants import mig_devices, processes, xids
from exporter.statuspage.view import (
    VERSION,
    Decision,
    DriverStatus,
    GpuRule,
    GpuStatus,
    HostStatus,
    InferenceServerStatus,
    Issue,
    Recordings,
    RecordingSummary,
    RuleSummary,
    ScaleOut,
    Status,
)

T = TypeVar("T")

STATES = {INACTIVE: "inactive", PENDING: "pending", FIRING: "firing"}
URL = re.compile(r"""(\b\w+://)([^\s/?#]*@)?([^\s?#"'<>]*)([?#][^\s"'<>]*)?""", re.ASCII)
STAMP_LETTERS = len("20260102T030405Z")


def look(snapshot: Snapshot | None, seen: Seen, node: str) -> Status:
    """Return what there is to say; without a snapshot, that it will come."""
    if snapshot is None:
        starting = Issue(CRITICAL, "starting", str(unready(None)), None, None, is_from_start=True)
        return Status(
            version=VERSION,
            node=node,
            simulated=False,
            exporter_version="",
            timestamp_seconds=None,
            age_seconds=None,
            not_ready=unready(None),
            driver=None,
            problems=(starting,),
            gpus=(),
            mig_devices=(),
            processes=None,
            host=None,
            rules=(),
            recordings=None,
            scale_out=None,
            inference_servers=(),
            history_step_seconds=seen.step_seconds,
            history_until_timestamp_seconds=None,
        )
    driver, rules = snapshot.driver, snapshot.rules.rules if snapshot.rules else ()
    why, now = unready(snapshot), seen.wall_offset + snapshot.now
    return Status(
        version=VERSION,
        node=node,
        simulated=snapshot.build.simulated,
        exporter_version=snapshot.build.version,
        timestamp_seconds=seen.wall_offset + snapshot.taken_at,
        age_seconds=snapshot.now - snapshot.taken_at,
        not_ready=None if why is None else plain(why),
        driver=DriverStatus(driver.driver_version, driver.nvml_version, driver.cuda_version)
        if driver
        else None,
        problems=tuple(_issues(snapshot, seen, now)),
        gpus=tuple(_gpu(gpu, snapshot, rules, seen) for gpu in snapshot.gpus),
        mig_devices=tuple(mig_devices(snapshot)),
        processes=processes(snapshot),
        host=None if snapshot.host is None else _host(snapshot.host, seen),
        rules=tuple(_rule(rule) for rule in rules),
        recordings=_recordings(snapshot.recorder),
        scale_out=_scale_out(snapshot.scaleout),
        inference_servers=tuple(map(_server, snapshot.inference.servers))
        if snapshot.inference
        else (),
        history_step_seconds=seen.step_seconds,
        history_until_timestamp_seconds=seen.wall_offset + seen.until,
    )


def plain(text: str) -> str:
    """Return text without what URLs in it may hold of secrets: user, password, query."""
    return URL.sub(r"\1\3", text)


def _issues(snapshot: Snapshot, seen: Seen, now: float) -> Iterator[Issue]:
    """Yield the problems, those first that are critical."""
    for problem in sorted(find(snapshot, now), key=lambda one: one.severity != CRITICAL):
        yield _issue(problem, snapshot, seen)


def _issue(problem: Problem, snapshot: Snapshot, seen: Seen) -> Issue:
    since, is_from_start = problem.since, False
    if problem.key == Key("stale"):
        since = seen.wall_offset + snapshot.taken_at
    elif since is None and problem.key in seen.since:
        since = seen.since[problem.key].at
        is_from_start = seen.since[problem.key].is_from_start
    return Issue(
        problem.severity,
        problem.key.what,
        plain(problem.text),
        problem.gpu,
        since,
        is_from_start,
    )


def _gpu(gpu: Gpu, snapshot: Snapshot, rules: tuple[RuleStatus, ...], seen: Seen) -> GpuStatus:
    clocks, link, links = gpu.clocks, gpu.pcie_link, gpu.nvlinks
    memory, temperature, pcie, nvlink = gpu.memory, gpu.temperature, gpu.pcie, gpu.nvlink
    identity = gpu.identity or seen.identities.get(key_of(gpu))
    age = None if gpu.sampled_at is None else snapshot.now - gpu.sampled_at
    return GpuStatus(
        gpu=gpu.index,
        uuid=gpu.uuid,
        name=identity.name if identity else "",
        pci_bus_id=identity.pci_bus_id if identity else "",
        up=gpu.fault is None,
        fault=gpu.fault.value if gpu.fault else None,
        sample_age_seconds=None if age is None else max(age, 0.0),
        utilization_ratio=gpu.utilization.gpu_ratio if gpu.utilization else None,
        memory_used_bytes=memory.used_bytes if memory else None,
        memory_total_bytes=memory.total_bytes if memory else None,
        memory_used_ratio=memory.used_ratio if memory else None,
        temperature_celsius=temperature.core_celsius if temperature else None,
        memory_temperature_celsius=temperature.memory_celsius if temperature else None,
        temperature_slowdown_celsius=gpu.thresholds.celsius.get("slowdown")
        if gpu.thresholds
        else None,
        power_watts=gpu.power.draw_watts if gpu.power else None,
        power_limit_watts=gpu.power_limits.watts.get("enforced") if gpu.power_limits else None,
        sm_clock_hertz=clocks.hertz.get("sm") if clocks else None,
        clock_events=tuple(reason for reason, on in clocks.active.items() if on) if clocks else (),
        pcie_transmit_bytes_per_second=pcie.transmit_bytes_per_second if pcie else None,
        pcie_receive_bytes_per_second=pcie.receive_bytes_per_second if pcie else None,
        pcie_link_generation=link.generation.get("current") if link else None,
        pcie_link_width=link.width_lanes.get("current") if link else None,
        nvlink_transmit_bytes_per_second=nvlink.transmit_bytes_per_second if nvlink else None,
        nvlink_receive_bytes_per_second=nvlink.receive_bytes_per_second if nvlink else None,
        nvlinks=len(links.active) or None if links else None,
        nvlinks_active=int(sum(links.active.values())) if links and links.active else None,
        ecc_corrected_errors=gpu.ecc.errors.get(("corrected", "volatile")) if gpu.ecc else None,
        ecc_uncorrected_errors=gpu.ecc.errors.get(("uncorrected", "volatile")) if gpu.ecc else None,
        recovery_action=gpu.recovery.word if gpu.recovery else None,
        xids=tuple(xids(gpu, snapshot)),
        rules=tuple(_rules_of(gpu.index, rules)),
        history={} if snapshot.is_stale else _history(GPU_COLUMNS, seen.gpus.get(key_of(gpu), ())),
    )


def _rules_of(gpu: int, rules: tuple[RuleStatus, ...]) -> Iterator[GpuRule]:
    for rule in rules:
        for one in rule.series:
            if one.gpu == gpu:
                since = one.since if one.fired_at is None else one.fired_at
                yield GpuRule(rule.alert, STATES[one.state], since)


def _history(columns: tuple[Column[T], ...], bands: tuple[Band, ...]) -> dict[str, Band]:
    return {column.name: band for column, band in zip(columns, bands, strict=False)}


def _host(host: Host, seen: Seen) -> HostStatus:
    memory, swap = host.memory, host.swap
    return HostStatus(
        memory_total_bytes=memory.total_bytes if memory else None,
        memory_used_bytes=memory.used_bytes if memory else None,
        memory_used_ratio=memory.used_ratio if memory else None,
        swap_total_bytes=swap.total_bytes if swap else None,
        swap_used_bytes=swap.used_bytes if swap else None,
        history=_history(HOST_COLUMNS, seen.host),
    )


def _rule(rule: RuleStatus) -> RuleSummary:
    own = [one for one in rule.series if one.state == rule.state]
    starts = [one.since if one.fired_at is None else one.fired_at for one in own]
    return RuleSummary(
        rule=rule.alert,
        condition=rule.condition,
        ending=rule.ending,
        metric=rule.metric,
        threshold=rule.threshold,
        value=rule.value,
        state=STATES[rule.state],
        since_timestamp_seconds=min(starts, default=None),
        gpus=tuple(sorted({one.gpu for one in own if one.gpu is not None})),
        firings_total=rule.firings,
    )


def _server(server: Server) -> InferenceServerStatus:
    load = server.load or Load()
    return InferenceServerStatus(
        name=server.name,
        kind=server.kind,
        up=server.load is not None,
        problem=plain(server.problem),
        requests_running=load.requests_running,
        requests_waiting=load.requests_waiting,
        kv_cache_used_ratio=load.kv_cache_used_ratio,
        latency_p99_seconds=load.latency_p99_seconds,
    )


def _recordings(view: RecorderView | None) -> Recordings | None:
    if view is None:
        return None
    newest = tuple(_recording(one) for one in view.newest)
    return Recordings(view.active, view.stored_bytes, view.dropped, newest)


def _recording(stored: Stored) -> RecordingSummary:
    """Read a recording's name: when it was begun, and for what (recorder.store.create)."""
    stamp, rule = stored.name[:STAMP_LETTERS], stored.name[STAMP_LETTERS + 1 :]
    at: float | None = None
    if NAME.fullmatch(stored.name):
        rule = rule.partition(".")[0]
        try:
            at = float(timegm(time.strptime(stamp, "%Y%m%dT%H%M%SZ")))
        except ValueError:
            at = None
    return RecordingSummary(stored.name, rule, at, stored.size_bytes, stored.active)


def _scale_out(view: ScaleoutView | None) -> ScaleOut | None:
    if view is None:
        return None
    cooldowns: Mapping[str, float] = view.cooldown_remaining_seconds
    return ScaleOut(
        durable=view.durable,
        paused=view.paused,
        cooldown_remaining_seconds={action: max(left, 0.0) for action, left in cooldowns.items()},
        outbox=view.outbox,
        newest=tuple(_decision(entry) for entry in view.newest),
    )


def _decision(entry: AuditEntry) -> Decision:
    return Decision(
        timestamp_seconds=entry.at,
        what=entry.what,
        result=entry.result,
        action=entry.action,
        rule=entry.rule,
        kind=entry.kind,
        target=entry.target,
        event_id=entry.event_id,
        detail=plain(entry.detail),
    )
