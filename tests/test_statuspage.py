"""The status page's parts: units, graphs, the past, what is wrong, and what is said of it."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rules_feed import EPOCH, SUSTAINED, Load, engine, node
from status_site import NODE, Site, sites

from exporter.cgroup import Attribution
from exporter.gpu.clocks import Clocks
from exporter.gpu.ecc import Ecc, EccSram
from exporter.gpu.fabric import Fabric
from exporter.gpu.identity import Identity
from exporter.gpu.memory import Memory
from exporter.gpu.mig import Instance, Mig
from exporter.gpu.nvlink import NvLink
from exporter.gpu.nvlinks import NvLinks
from exporter.gpu.pcie import PcieLink, PcieThroughput
from exporter.gpu.power import Power
from exporter.gpu.processes import Activity, GpuProcess
from exporter.gpu.profiling import Profiling
from exporter.gpu.recovery import Recovery
from exporter.gpu.row_remap import RemappedRows
from exporter.gpu.temperature import Temperature
from exporter.gpu.utilization import Utilization
from exporter.inference_view import InferenceView, Server
from exporter.inference_view import Load as ServerLoad
from exporter.processes_view import OnGpu, OnHost, ProcessesView, Workloads
from exporter.procs import HostProcess
from exporter.recorder_view import RecorderView, Stored
from exporter.rules_view import FIRING, RuleSeries, RuleStatus, RulesView
from exporter.sampling import DriverInfo, Fault
from exporter.scaleout_view import AuditEntry, ScaleoutView
from exporter.snapshot import Gpu, Snapshot
from exporter.statuspage import Past, StatusPage, spark, units
from exporter.statuspage.look import plain
from exporter.statuspage.past import SPANS, Band
from exporter.statuspage.problems import find
from exporter.statuspage.spark import HEIGHT, Scale
from exporter.xid.ledger import Count, Source
from exporter.xid.view import GpuXids, XidView

DRIVER = DriverInfo("580.95.05", "13.580.95.05", "13.0")
MOST_BYTES = 100 * 1024
DOWN = InferenceView((Server("llm", "auto", (), None, "it answers 500"),))
HOSTILE = "</script><img src=x onerror=alert(1)>\"'&\x00\u202e"


class Tags(HTMLParser):
    """Checks that every tag is closed in order; keeps text, identifiers and attributes."""

    VOID = frozenset({"meta", "link", "br", "path", "rect", "use"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an opened tag."""
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag that closes itself."""
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """Match a closed one."""
        assert self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data: str) -> None:
        """Keep the text."""
        self.text += data


def page_of(snapshot: Snapshot | None, past: Past | None = None) -> str:
    """Return the page of a snapshot."""
    return StatusPage(NODE, "/metrics", past or Past(1.0)).of(snapshot).page.decode()


def json_of(snapshot: Snapshot | None, past: Past | None = None) -> Any:
    """Return the JSON of a snapshot."""
    return json.loads(StatusPage(NODE, "/metrics", past or Past(1.0)).of(snapshot).json)


def healthy(at: float = 100.0, gpus: int = 1) -> Snapshot:
    """Return a node on which nothing is wrong."""
    return replace(node(at, [0.5] * gpus), driver=DRIVER, pci_gpus=gpus)


def whats(snapshot: Snapshot) -> list[tuple[str, int | None]]:
    """Return what is wrong, and of which GPU."""
    return [(problem.key.what, problem.gpu) for problem in find(snapshot, EPOCH)]


@pytest.fixture(name="site")
def _site(tmp_path: Path) -> Iterator[Site]:
    with sites(tmp_path) as site:
        yield site


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (units.percent(0.954), "95 %"),
        (units.percent(None), "–"),
        (units.celsius(71.4), "71 °C"),
        (units.watts(0.0), "0 W"),
        (units.hertz(1.98e9), "1980 MHz"),
        (units.size(0), "0 B"),
        (units.size(1023), "1023 B"),
        (units.size(1536), "1.5 KiB"),
        (units.size(1 << 60), "1024 PiB"),
        (units.rate(1.234e9), "1.2 GB/s"),
        (units.rate(12.34e9), "12 GB/s"),
        (units.rate(999e9), "999 GB/s"),
        (units.of_total(60.4 * 2**30, 79.6 * 2**30), "60.4 of 79.6 GiB"),
        (units.of_total(811 * 2**30, 2015 * 2**30), "811 of 2015 GiB"),
        (units.of_total(5, 0), ""),
        (units.of_total(None, 7), ""),
        (units.duration(-3), "0 s"),
        (units.duration(59.9), "59 s"),
        (units.duration(60), "1 min"),
        (units.duration(252), "4 min 12 s"),
        (units.duration(7260), "2 h 1 min"),
        (units.duration(90_000), "1 d 1 h"),
        (units.of_metric("gpu_utilization_ratio", 0.95), "95 %"),
        (units.of_metric("gpu_power_watts", 700), "700 W"),
        (units.of_metric("gpu_pcie_transmit_bytes_per_second", 1e9), "1.0 GB/s"),
        (units.of_metric("gpu_performance_state", 2), "2"),
    ],
)
def test_numbers_have_their_unit(text: str, expected: str) -> None:
    """A number stands with its unit, joined by a space that does not break."""
    assert text.replace("\u00a0", " ") == expected


def test_band_is_drawn_around_the_range_of_each_span() -> None:
    """Lowest and highest of each span, whole units, clamped to the axis; a gap parts two shapes."""
    scale = Scale(0.0, HEIGHT)
    low: list[float | None] = [0.0, 1.0, 1.0, None, -99.0]
    high: list[float | None] = [2.0, 2.0, 4.0, None, 99.0]
    path = spark.band(Band(tuple(low), tuple(high)), scale)
    assert path == f"M0 {HEIGHT - 2}h1l1-2v3h-1l-1 1zM4 0h1v{HEIGHT}h-1z"
    falling = spark.band(Band((1.0, 3.0, 0.0), (9.0, 9.0, 9.0)), scale)
    assert falling == "M0 17h2v9l-1-3-1 2z"
    assert spark.line([None, 3.0, 3.0, 1.0, None, 5.0], scale) == "M1 23h1l1 2M5 21h1"
    assert spark.band(Band((None,), (None,)), scale) == ""


def test_past_keeps_the_range_of_each_span() -> None:
    """Six seconds a span; absent spans are None, also while a GPU is lost; old ones go."""
    past = Past(1.0)
    for at in range(1002, 1012):
        past.add(node(at, [0.1 * (at - 1002), Fault.LOST]), EPOCH + at)
    first = past.seen().gpus["GPU-0"][0]
    assert first.lowest[-2:] == pytest.approx((0.0, 0.6))
    assert first.highest[-2:] == pytest.approx((0.5, 0.9))
    assert set(first.lowest[:-2]) == {None}
    assert len(first.lowest) == SPANS
    assert set(past.seen().gpus["GPU-1"][0].highest) == {None}
    past.add(node(1033, [0.3]), EPOCH)
    assert past.seen().gpus["GPU-0"][0].highest[-5:] == pytest.approx((0.9, None, None, None, 0.3))
    assert "GPU-1" not in past.seen().gpus
    past.add(node(9000, [0.7]), EPOCH)
    kept = past.seen().gpus["GPU-0"][0].highest
    assert kept[-1] == pytest.approx(0.7)
    assert set(kept[:-1]) == {None}


def test_spans_hold_two_polls_or_more() -> None:
    """A node that is polled each 10 s gets spans of 20 s, so that a late poll leaves no gap."""
    past = Past(1.0)
    past.add(node(100, [0.5]), EPOCH)
    past.configure(2.0)
    assert past.seen().gpus  # spans of 6 s still do
    past.configure(10.0)
    assert (past.seen().step_seconds, past.seen().gpus) == (20.0, {})


def test_problem_has_its_beginning() -> None:
    """Since the poll that first saw it; what was there at the start may be older, and says so."""
    past = Past(1.0)
    for at in range(100, 160):
        loads: list[Load] = [0.5, Fault.LOST, Fault.HUNG if at >= 150 else 0.5]
        snapshot = replace(node(at, loads), driver=DRIVER)
        past.add(snapshot, EPOCH + at)
    lost, hung = json_of(snapshot, past)["problems"]
    assert (lost["gpu"], lost["since_timestamp_seconds"], lost["is_from_start"]) == (
        1,
        EPOCH + 100,
        True,
    )
    assert (hung["gpu"], hung["since_timestamp_seconds"], hung["is_from_start"]) == (
        2,
        EPOCH + 150,
        False,
    )
    assert page_of(snapshot, past).count("at least ") == 1
    past.add(replace(node(160, [0.5] * 3), driver=DRIVER), EPOCH + 160)
    assert past.seen().since == {}


def test_healthy_node_has_no_problem() -> None:
    """Nothing is wrong: no problem, and the page says so."""
    assert whats(healthy()) == []
    assert "Nothing is wrong" in page_of(healthy())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"driver": None, "driver_problem": "no library", "gpus": ()}, ("driver", None)),
        ({"pci_gpus": 2}, ("gpus_missing", None)),
        ({"gpus": (healthy().gpus[0], Gpu(7, "7", Fault.RESET_REQUIRED))}, ("gpu_fault", 7)),
        ({"gpus": (healthy().gpus[0], Gpu(7, "7", Fault.HUNG))}, ("gpu_fault", 7)),
        ({"now": 105.0}, ("stale", None)),
        ({"inference": DOWN}, ("inference_server", None)),
        ({"scaleout": ScaleoutView(durable=False)}, ("scale_out_not_durable", None)),
        ({"scaleout": ScaleoutView(paused=True)}, ("scale_out_paused", None)),
        ({"scaleout": ScaleoutView(outbox={"dead": 1, "expired": 1})}, ("scale_out_lost", None)),
        ({"reload": replace(healthy().reload, successful=False)}, ("config", None)),
    ],
)
def test_what_is_wrong_is_told(change: dict[str, Any], expected: tuple[str, int | None]) -> None:
    """Each fault of the node, of a GPU, or of ours is one problem."""
    snapshot = replace(healthy(), **change)
    assert whats(snapshot) == [expected]
    assert json_of(snapshot)["problems"][0]["text"] in Tags(page_of(snapshot)).text


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"clocks": Clocks({}, {"hw_thermal_slowdown": 1, "sw_thermal_slowdown": 1}, {})},
            ["slowdown"],
        ),
        ({"clocks": Clocks({}, {"sw_power_cap": 1, "gpu_idle": 1}, {})}, []),
        ({"pcie_link": PcieLink({}, {"current": 8, "max": 16}, 0, {})}, ["pcie_width"]),
        ({"pcie_link": PcieLink({"current": 1, "max": 5}, {"current": 16, "max": 16}, 0, {})}, []),
        ({"nvlinks": NvLinks({"0": 1, "1": 0}, *[{}] * 6)}, ["nvlink_down"]),
        ({"recovery": Recovery(4)}, ["recovery_action"]),
        ({"recovery": Recovery(0)}, []),
        ({"remapped_rows": RemappedRows({}, {}, 1, 1)}, ["row_remap_failure", "reset_wanted"]),
        ({"ecc_sram": EccSram({}, {}, 1)}, ["sram_errors"]),
        ({"fabric": Fabric(registered=0)}, ["fabric"]),
        ({"fabric": Fabric(registered=1)}, []),
        ({"ecc": Ecc({("uncorrected", "volatile"): 2})}, ["ecc_uncorrected"]),
        ({"ecc": Ecc({("corrected", "volatile"): 9, ("uncorrected", "aggregate"): 1})}, []),
        ({"nvlinks": NvLinks({"0": 0, "1": 0}, *[{}] * 6)}, []),
    ],
)
def test_what_a_gpu_suffers_is_told(change: dict[str, Any], expected: list[str]) -> None:
    """Heat, memory, lost lanes and links; a power cap, an idle link, no links are no problem."""
    snapshot = healthy()
    snapshot = replace(snapshot, gpus=(replace(snapshot.gpus[0], **change),))
    assert whats(snapshot) == [(what, 0) for what in expected]


def test_rule_that_fires_stands_at_the_top_with_its_gpus() -> None:
    """Which rule, on which GPUs, since it fired; thresholds drawn are those of the rules."""
    watcher, past = engine(replace(SUSTAINED, above=0.7, clear_below=0.5)), Past(1.0)
    for at in range(100, 130):
        snapshot = replace(node(at, [0.8, 0.2, 0.9]), driver=DRIVER)
        watcher.observe(snapshot, EPOCH + at)
        snapshot = replace(snapshot, rules=watcher.view)
        past.add(snapshot, EPOCH + at)
    told = json_of(snapshot, past)
    (problem,) = told["problems"]
    assert problem["text"].startswith("GpuSustainedLoad fires on GPU 0, 2: gpu_utilization_ratio")
    assert problem["since_timestamp_seconds"] == EPOCH + 110
    assert [gpu["rules"] for gpu in told["gpus"]] == [
        [{"rule": "GpuSustainedLoad", "state": "firing", "since_timestamp_seconds": EPOCH + 110}],
        [],
        [{"rule": "GpuSustainedLoad", "state": "firing", "since_timestamp_seconds": EPOCH + 110}],
    ]
    page = page_of(snapshot, past)
    assert "line: 70\u00a0%" in page
    assert "95\u00a0%" not in page
    assert "80\u00a0%</small>" not in page  # no rule on memory, no line


def test_stale_and_starting_pages_show_no_reading(site: Site) -> None:
    """Before the first poll, and once readings are old, there is the reason and no number."""
    assert "the first readings are under way" in page_of(None)
    assert json_of(None)["not_ready"] == "the first readings are under way"
    site.run(30)
    snapshot = site.pipeline.latest
    assert snapshot is not None
    told = json_of(snapshot.at(snapshot.taken_at + 60), site.past)
    (problem,) = told["problems"]
    assert problem["what"] == "stale"
    assert problem["since_timestamp_seconds"] == told["timestamp_seconds"]
    for gpu in told["gpus"]:
        assert gpu["utilization_ratio"] is None
        assert gpu["history"] == {}
    assert told["host"] is None


def test_lost_gpu_keeps_its_name_and_no_reading(site: Site) -> None:
    """Who it is, since when it is lost, and its last minutes until then; no number of now."""
    site.run(60)
    site.faults[5] = Fault.LOST
    site.run(20)
    told = json_of(site.pipeline.latest, site.past)
    gpu = told["gpus"][5]
    assert (gpu["up"], gpu["fault"]) == (False, "lost")
    assert gpu["name"] == "NVIDIA H100 80GB HBM3"
    assert gpu["utilization_ratio"] is gpu["power_watts"] is None
    assert gpu["history"]["power_watts"]["highest"][-3:] == [None] * 3
    assert gpu["history"]["power_watts"]["highest"][-8] > 100
    (problem,) = (p for p in told["problems"] if p["what"] == "gpu_fault")
    assert not problem["is_from_start"]


def test_hostile_text_is_only_text() -> None:
    """Names from driver, config and files are text: no markup, no script, no control letters."""
    snapshot = healthy()
    gpu = replace(snapshot.gpus[0], identity=Identity(HOSTILE, HOSTILE, "", "", "", ""))
    mig = Instance(1, 0, HOSTILE, Memory(), Profiling())
    gpu = replace(gpu, mig=Mig({HOSTILE: mig}))
    other = replace(gpu, index=1, uuid=HOSTILE, identity=Identity("B", "", "", "", "", ""))
    series = (RuleSeries(0, "", FIRING, EPOCH, EPOCH),)
    rule = RuleStatus(HOSTILE, HOSTILE, HOSTILE, FIRING, 1, 0.0, 0.5, 0.6, series, HOSTILE)
    entry = AuditEntry(EPOCH, *[HOSTILE] * 8)
    ours = HostProcess(7, HOSTILE, HOSTILE, 0.0, 1, 0.0, Attribution(HOSTILE, HOSTILE, HOSTILE))
    process = OnGpu({("7", HOSTILE): GpuProcess(7, 1, None)}, 0, 0)
    decision = replace(entry, what="decision")
    snapshot = replace(
        snapshot,
        gpus=(gpu, other),
        driver=DriverInfo(HOSTILE, HOSTILE, HOSTILE),
        rules=RulesView((rule,)),
        processes=ProcessesView({0: process}, OnHost((ours,)), Workloads()),
        recorder=RecorderView(True, {}, 1, 1, (Stored(HOSTILE, 1, True),)),
        inference=InferenceView(
            (
                Server(HOSTILE, HOSTILE, (), None, HOSTILE),
                Server(HOSTILE, HOSTILE, (), ServerLoad(1, 2, 0.5, 0.25), ""),
            )
        ),
        scaleout=ScaleoutView(
            newest=(entry, decision),
            outbox={HOSTILE: 1},
            cooldown_remaining_seconds={HOSTILE: 1.0},
        ),
    )
    page = StatusPage(HOSTILE, f"/{HOSTILE}", Past(1.0)).of(snapshot).page.decode()
    tags = Tags(page)
    assert not {tag for tag, _ in tags.seen} & {"img", "iframe", "object"}
    assert sum(tag == "script" for tag, _ in tags.seen) == 1
    assert not {"\x00", "\u202e"} & set(page)
    for _, attributes in tags.seen:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]


def test_secrets_in_urls_are_not_told() -> None:
    """User, password and query of a URL in any text go; what tells where it was stays."""
    text = (
        'POST https://me:s3cret@host.example:8443/a?token=s3cret#x refused by "http://b/?k=s3cret"'
    )
    assert plain(text) == 'POST https://host.example:8443/a refused by "http://b/"'
    entry = AuditEntry(EPOCH, "attempt", detail="to https://u:s3cret@h/p?key=s3cret: 500")
    snapshot = replace(
        healthy(),
        driver=None,
        driver_problem="http://s3cret@x/",
        scaleout=ScaleoutView(newest=(entry,)),
    )
    built = StatusPage(NODE, "/metrics", Past(1.0)).of(snapshot)
    assert b"s3cret" not in built.page + built.json


@pytest.mark.parametrize(
    "profile", ["h100x8", "b200x8", "a100-mig", "t4", "geforce", "gb10", "none"]
)
def test_every_node_has_a_page(profile: str, tmp_path: Path) -> None:
    """Well-formed whatever the boards lack; identifiers are unique; no NaN; JSON says the same."""
    with sites(tmp_path, profile) as site:
        site.run(3)
        built = StatusPage(NODE, "/metrics", site.past).of(site.pipeline.latest)
    tags = Tags(built.page.decode())
    names = [attributes["id"] for _, attributes in tags.seen if "id" in attributes]
    assert len(names) == len(set(names))
    labels = {a["aria-labelledby"] for _, a in tags.seen if "aria-labelledby" in a}
    assert labels <= set(names)
    assert "nan" not in tags.text.lower().split()
    assert "These GPUs are simulated" in tags.text
    told = json.loads(built.json)
    assert told["simulated"] is True
    assert len(told["gpus"]) == len(site.pipeline.latest.gpus if site.pipeline.latest else ())


def test_page_of_sixteen_gpus_is_small() -> None:
    """With readings that fill every graph as badly as can be, the page stays under 100 KiB."""
    past, chance = Past(1.0), random.Random(7)  # noqa: S311  no secret
    several = GpuProcess(1_000_000, 1 << 30, Activity(0.5, 0.1, {}))
    names: dict[tuple[str, ...], GpuProcess] = {
        (str(pid), "VLLM::Worker_TP0"): several for pid in range(20)
    }
    entry = AuditEntry(EPOCH, "decision", "rate_limited", "a" * 40, "r" * 40, detail="d" * 200)
    with_rules = engine()
    for at in range(1000, 1320):
        snapshot = replace(
            node(at, [chance.random() for _ in range(16)], memory=0.9), driver=DRIVER
        )
        gpus = tuple(noisy(gpu, chance) for gpu in snapshot.gpus)
        snapshot = replace(snapshot, gpus=gpus)
        with_rules.observe(snapshot, EPOCH + at)
        snapshot = replace(snapshot, rules=with_rules.view)
        past.add(snapshot, EPOCH + at)
    errors = GpuXids({13: 1, 31: 1, 43: 1}, dict.fromkeys((13, 31, 43), EPOCH + at))
    snapshot = replace(
        snapshot,
        xids=XidView({gpu.uuid: errors for gpu in snapshot.gpus}),
        processes=ProcessesView({0: OnGpu(names, 9, 0)}, OnHost(()), Workloads()),
        recorder=RecorderView(True, {}, 1, 1, (Stored("r" * 80, 1, False),) * 8),
        scaleout=ScaleoutView(newest=(entry,) * 12),
    )
    page = page_of(snapshot, past).encode()
    assert page.count(b"XID ") > 16
    assert len(page) <= MOST_BYTES, len(page)


def noisy(gpu: Gpu, chance: random.Random) -> Gpu:
    """Return a GPU whose every reading is chance."""
    one = chance.random
    return replace(
        gpu,
        identity=Identity("NVIDIA H100 80GB HBM3", "0000:1b:00.0", "Hopper", "9.0", "", ""),
        utilization=Utilization(0.0, one()),
        memory=Memory(80 << 30, int((80 << 30) * one()), 0, 0),
        temperature=Temperature(20 + 70 * one(), 60),
        power=Power(700 * one()),
        pcie_throughput=PcieThroughput(6e10 * one(), 6e10 * one()),
        nvlink=NvLink(0.0, 1, 1, 4e11 * one(), 4e11 * one()),
    )


def test_page_is_built_once_a_snapshot_and_only_when_asked() -> None:
    """However many ask, there is one build; a stale snapshot is built anew once a second."""
    page = StatusPage(NODE, "/metrics", Past(1.0))
    first = page.of(healthy())
    assert page.of(healthy()) is first
    assert first.zipped_page is first.zipped_page
    later = healthy(101.0)
    assert page.of(later) is not first
    stale = page.of(replace(later, now=110.2))
    assert page.of(replace(later, now=110.9)) is stale
    assert page.of(replace(later, now=111.0)) is not stale


def test_json_names_are_those_that_are_documented(site: Site) -> None:
    """Every field of the JSON stands in docs/status-page.md, and no value is NaN."""
    site.inference = DOWN
    site.run(130)
    snapshot = site.pipeline.latest
    assert snapshot is not None
    text = (Path(__file__).parents[1] / "docs/status-page.md").read_text(encoding="utf-8")
    told = json_of(snapshot, site.past)
    missing = {name for name in names_in(told) if f"`{name}`" not in text}
    assert missing == set()


def names_in(value: Any) -> Iterator[str]:
    """Yield the names of all fields; what maps names of the config or of states is no field."""
    if isinstance(value, list):
        for one in value:
            yield from names_in(one)
    elif isinstance(value, dict):
        for name, one in value.items():
            yield name
            if name not in {"outbox", "cooldown_remaining_seconds"}:
                yield from names_in(one)
    elif isinstance(value, float):
        assert math.isfinite(value)


def test_xid_errors_are_told_while_they_are_news() -> None:
    """Critical ones first; informational ones are no problem; all stay with their GPU."""
    gpus = {"GPU-0": GpuXids({79: 1, 43: 2, 13: 1}, {79: EPOCH - 10, 43: EPOCH - 5, 13: EPOCH})}
    unlisted = {("0000:3b:00.0", 79): Count(1, EPOCH - 20)}
    snapshot = replace(healthy(), xids=XidView(gpus, unlisted, {Source.NVML: True}))
    past = Past(1.0)
    past.add(snapshot, EPOCH)
    told = json_of(snapshot, past)
    assert [(p["severity"], p["gpu"], p["since_timestamp_seconds"]) for p in told["problems"]] == [
        ("critical", 0, EPOCH - 10),
        ("critical", None, EPOCH - 20),
        ("warning", 0, EPOCH),
    ]
    assert told["problems"][0]["text"].endswith("_OFF_THE_BUS; NVIDIA's advice: RESTART_BM")
    assert "The GPU at 0000:3b:00.0, which the driver does not list" in told["problems"][1]["text"]
    assert [(x["xid"], x["errors_total"]) for x in told["gpus"][0]["xids"]] == [
        (13, 1),
        (43, 2),
        (79, 1),
    ]
    assert list(find(snapshot, EPOCH + 900)) == []


def test_blind_watch_for_xid_errors_is_told() -> None:
    """With no source that works, XIDs go unseen; with one of two, they do not."""
    for source, expected in ((False, ["xid_unseen"]), (True, [])):
        sources = {Source.NVML: source, Source.KERNEL_LOG: False}
        snapshot = replace(healthy(), xids=XidView(sources=sources))
        assert [what for what, _ in whats(snapshot)] == expected


def test_processes_are_summed_up_over_their_gpus(site: Site) -> None:
    """Heaviest first, with who runs them; what the host does not tell is not known."""
    site.run(65)
    told = json_of(site.pipeline.latest, site.past)["processes"]
    heaviest = told["heaviest"]
    assert [one["memory_used_bytes"] for one in heaviest] == sorted(
        (one["memory_used_bytes"] for one in heaviest), reverse=True
    )
    assert {"user", "workload", "gpus", "resident_memory_bytes"} <= heaviest[0].keys()
    one = GpuProcess(7, 1 << 30, Activity(0.5, 0.1, {}))
    other = GpuProcess(7, 2 << 30, None)
    on_gpu = {gpu: OnGpu({("7", "a"): process}, 1, 0) for gpu, process in ((3, one), (4, other))}
    view = ProcessesView(on_gpu, OnHost(()), Workloads())
    (summed,) = (told := json_of(replace(healthy(), processes=view))["processes"])["heaviest"]
    assert (summed["gpus"], summed["memory_used_bytes"]) == ([3, 4], 3 << 30)
    assert (summed["sm_utilization_ratio"], summed["resident_memory_bytes"]) == (0.5, None)
    assert told["left_out"] == 2
    assert "3–4" in page_of(replace(healthy(), processes=view))


def test_mig_devices_have_a_panel(tmp_path: Path) -> None:
    """Each MIG device with its GPU, profile and memory; no panel on a node without."""
    with sites(tmp_path, "h100-mig") as mig:
        mig.run(65)
        told = json_of(mig.pipeline.latest, mig.past)
        page = page_of(mig.pipeline.latest, mig.past)
    assert told["mig_devices"]
    for device in told["mig_devices"]:
        assert device["mig_uuid"] in page
        assert 0 <= device["memory_used_bytes"] <= device["memory_total_bytes"]
    assert "MIG devices" not in page_of(healthy())


def test_many_problems_stay_few_lines() -> None:
    """A node on which everything is wrong has a page that still fits; the JSON has all of it."""
    gpus = tuple(Gpu(index, f"GPU-{index}", Fault.LOST) for index in range(60))
    snapshot = replace(healthy(), gpus=gpus, pci_gpus=60)
    assert len(json_of(snapshot)["problems"]) == 61
    assert page_of(snapshot).count('<li class="critical">') == 24
    assert "37 more: see the JSON" in page_of(snapshot)
