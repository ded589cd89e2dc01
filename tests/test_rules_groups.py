"""Rules over several series: GPUs alone, scale groups, a second condition, smoothing, the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from rules_feed import EPOCH, SUSTAINED, Load, engine, node

from exporter.config import Aggregate, Condition, Rule, ScaleGroup
from exporter.rules import Engine
from exporter.sampling import Fault
from exporter.scaleout.model import EventKind, RuleEvent

FIRST, SECOND = "gpu_utilization_ratio", "gpu_memory_used_ratio"
IDLE = replace(
    SUSTAINED, above=None, below=0.05, clear_below=None, clear_above=0.15, alert="GpuIdle"
)
TWO_GROUPS = (ScaleGroup("chat", ("0-1", "GPU-4")), ScaleGroup("batch", ("2", "3")))
Stretches = list[tuple[int, Sequence[Load]]]
Heard = list[tuple[float, str, str, list[str]]]


def over(rule: Rule, kind: str, quorum: int | None = None) -> Rule:
    """Return the rule with another aggregate."""
    return replace(rule, aggregate=Aggregate(kind, quorum))


def feed(watcher: Engine, *stretches: tuple[int, Sequence[Load]], since: int = 0) -> Heard:
    """Feed (how many samples, loads of all GPUs) at 1 Hz; return (time, kind, group, GPUs)."""
    rows = [loads for count, loads in stretches for _ in range(count)]
    return [
        (float(at), event.kind.value, event.scale_group, [series.gpu for series in event.series])
        for at, loads in enumerate(rows, since)
        for event in watcher.observe(node(float(at), loads), EPOCH + at)
    ]


def fires(rule: Rule, loads: Sequence[Load]) -> bool:
    """Tell whether 11 samples of these loads make the rule fire at the last one."""
    return any(at == 10 for at, *_ in feed(engine(rule), (11, loads)))


ONE_HOT = [1.0] + [0.1] * 7
SEVEN_HOT = [1.0] * 7 + [0.9]


@pytest.mark.parametrize(
    ("kind", "quorum", "loads", "fired"),
    [
        ("any", None, ONE_HOT, True),
        ("all", None, ONE_HOT, False),
        ("mean", None, ONE_HOT, False),
        ("max", None, ONE_HOT, True),
        ("quorum", 1, ONE_HOT, True),
        ("quorum", 2, ONE_HOT, False),
        ("all", None, SEVEN_HOT, False),
        ("all", None, [0.95] * 8, True),
        ("mean", None, SEVEN_HOT, True),
        ("mean", None, [0.95] * 3, True),
        ("mean", None, [0.9, 0.95, 1.0], True),
        ("mean", None, [0.9, 0.94, 1.0], False),
        ("quorum", 7, SEVEN_HOT, True),
        ("quorum", 8, SEVEN_HOT, False),
        ("max", None, [0.94] * 8, False),
        ("all", None, [1.0, 1.0, None, None], True),
        ("all", None, [1.0, None, None], False),
        ("mean", None, [1.0, Fault.LOST, Fault.LOST], False),
        ("max", None, [1.0, Fault.LOST, None], False),
        ("quorum", 1, [1.0, Fault.LOST, Fault.LOST], False),
        ("quorum", 2, [1.0, 1.0, None, Fault.LOST], True),
        ("all", None, [Fault.LOST] * 8, False),
        ("all", None, [None] * 8, False),
        ("any", None, [Fault.LOST] * 8, False),
        ("any", None, [], False),
        ("all", None, [], False),
    ],
)
def test_aggregate(kind: str, quorum: int | None, loads: list[Load], *, fired: bool) -> None:
    """Which loads, held for 10 s, make a rule of each aggregate fire."""
    assert fires(over(SUSTAINED, kind, quorum), loads) == fired


@pytest.mark.parametrize(
    ("kind", "quorum", "loads", "fired"),
    [
        ("any", None, [0.0, 1.0], True),
        ("all", None, [0.0, 1.0], False),
        ("all", None, [0.0, 0.05], True),
        ("max", None, [0.0, 1.0], False),
        ("max", None, [0.0, 0.05], True),
        ("mean", None, [0.0, 0.1], True),
        ("mean", None, [0.0, 0.2], False),
        ("quorum", 2, [0.0, 0.0, 1.0], True),
    ],
)
def test_aggregate_below(kind: str, quorum: int | None, loads: list[Load], *, fired: bool) -> None:
    """Rules with `below` are mirrored; max stays the highest value, not the most extreme."""
    assert fires(over(IDLE, kind, quorum), loads) == fired


@pytest.mark.parametrize(
    ("kind", "quorum", "loads", "reasons"),
    [
        ("all", None, [1.0, 1.0, 0.84], ["cleared"]),
        ("all", None, [1.0, 1.0, 0.9], []),
        ("mean", None, [0.84, 0.84, 0.84], ["cleared"]),
        ("mean", None, [1.0, 1.0, 0.7], []),
        ("max", None, [0.84, 0.84, 0.84], ["cleared"]),
        ("max", None, [0.84, 0.84, 0.85], []),
        ("quorum", 2, [1.0, 0.84, 0.84], ["cleared"]),
        ("quorum", 2, [1.0, 0.84, 0.9], []),
        ("quorum", 2, [0.9, 0.84, None], []),
        ("quorum", 2, [1.0, 0.84, None], ["absent"]),
        ("quorum", 3, [1.0, 0.84, None], ["cleared"]),
    ],
)
def test_aggregate_ends(
    kind: str, quorum: int | None, loads: list[Load], reasons: list[str]
) -> None:
    """Which loads, held for 30 s, end what fired; absent where a missing GPU would decide."""
    watcher = engine(over(SUSTAINED, kind, quorum))
    assert feed(watcher, (11, [1.0] * 3)) == [(10, "firing", "llm", ["0", "1", "2"])]
    events = [e for at in range(11, 42) for e in watcher.observe(node(at, loads), EPOCH)]
    assert [event.reason for event in events if event.kind is EventKind.RESOLVED] == reasons


def test_each_gpu_waits_for_itself() -> None:
    """With `any`, two GPUs that take turns never fire, and one that stays hot does."""
    turns = [(1, [1.0, 0.1, 1.0]), (1, [0.1, 1.0, 1.0])] * 6
    assert feed(engine(), *turns) == [(10, "firing", "llm", ["2"])]


def test_gpus_that_fire_together_come_in_one_event() -> None:
    """One event names all GPUs of a scale group that fire at a tick; later ones have their own."""
    heard = feed(engine(), (3, [1.0, 1.0, 0.0]), (12, [1.0] * 3))
    assert heard == [(10, "firing", "llm", ["0", "1"]), (13, "firing", "llm", ["2"])]


def test_the_end_comes_when_the_last_gpu_clears() -> None:
    """A rule goes on in a scale group while any of its GPUs fires; counters count each GPU."""
    watcher = engine()
    heard = feed(watcher, (11, [1.0, 1.0]), (35, [0.1, 0.9]), (31, [0.1, 0.1]))
    assert heard == [(10, "firing", "llm", ["0", "1"]), (76, "resolved", "llm", ["1"])]
    assert watcher.view.rules[0].firings == 2


def test_the_end_of_several_says_since_when_the_first_fired() -> None:
    """GPUs that end at the same tick end in one event, with the times of the first to fire."""
    watcher = engine()
    rows = [[1.0, 0.0]] * 3 + [[1.0, 1.0]] * 11 + [[0.0, 0.0]] * 31
    events = [
        event
        for at, loads in enumerate(rows)
        for event in watcher.observe(node(float(at), loads), EPOCH + at)
    ]
    assert events[-1].kind is EventKind.RESOLVED
    assert [series.gpu for series in events[-1].series] == ["0", "1"]
    assert (events[-1].started_at - EPOCH, events[-1].fired_at - EPOCH) == (0, 10)


def test_state_is_the_highest_over_all_series() -> None:
    """gpu_rule_state is 2 while one GPU fires and others are pending or inactive."""
    watcher = engine()
    feed(watcher, (8, [1.0, 0.0, 0.0]), (3, [1.0, 1.0, 0.0]))
    assert watcher.view.rules[0].state == 2
    assert list(watcher.firing) == [("GpuSustainedLoad", "GPU-0")]
    assert watcher.episodes == {("GpuSustainedLoad", "llm")}


def test_condition_seconds_count_shared_time_once() -> None:
    """Time in which the condition holds on several GPUs at once counts once."""
    watcher = engine()
    feed(watcher, (6, [1.0, 1.0]), (5, [1.0, 0.0]), (1, [0.0, 0.0]))
    assert watcher.view.rules[0].condition_seconds == pytest.approx(10.0)


def test_scale_groups_part_a_node() -> None:
    """GPUs belong to groups by index, range and UUID; those of none to the node's group."""
    watcher = engine(groups=TWO_GROUPS)
    assert feed(watcher, (11, [1.0] * 6)) == [
        (10, "firing", "chat", ["0", "1", "4"]),
        (10, "firing", "batch", ["2", "3"]),
        (10, "firing", "llm", ["5"]),
    ]


def test_aggregate_is_taken_over_each_group() -> None:
    """`all` needs all GPUs of one group, not of the node."""
    watcher = engine(over(SUSTAINED, "all"), groups=TWO_GROUPS)
    loads = [1.0, 1.0, 1.0, 0.1, 1.0]
    assert feed(watcher, (11, loads)) == [(10, "firing", "chat", ["0", "1", "4"])]


@pytest.mark.parametrize("kind", ["all", "mean", "max"])
def test_group_waits_anew_when_a_gpu_is_lost(kind: str) -> None:
    """The loss of an idle GPU lifts the mean: that counts from then on, and after a full `for`."""
    heard = feed(engine(over(SUSTAINED, kind)), (5, [1.0, 1.0, 1.0]), (11, [1.0, 1.0, Fault.LOST]))
    assert heard == [(15, "firing", "llm", ["0", "1"])]


def test_missing_sample_does_not_break_a_quorum() -> None:
    """Where a GPU without a sample would decide, the group has none: the wait goes on."""
    rule = over(SUSTAINED, "quorum", 3)
    stretches: Stretches = [(4, [1.0] * 3), (1, [1.0, 1.0, None]), (6, [1.0] * 3)]
    assert feed(engine(rule), *stretches) == [(10, "firing", "llm", ["0", "1", "2"])]
    dip: Stretches = [(4, [1.0] * 3), (1, [1.0, 0.5, None]), (6, [1.0] * 3)]
    assert feed(engine(rule), *dip) == []


def test_quorum_that_cannot_be_reached_is_absent() -> None:
    """With too few GPUs left for the quorum there is no telling: absent, not cleared."""
    watcher = engine(over(SUSTAINED, "quorum", 3))
    loads: list[Load] = [1.0, 1.0, 1.0]
    ends: list[RuleEvent] = []
    for at in range(50):
        if at == 11:
            loads = [1.0, 1.0, Fault.LOST]
        ends += watcher.observe(node(float(at), loads), EPOCH + at)
    assert [(end.kind.value, end.reason) for end in ends][1:] == [("resolved", "absent")]


AND = replace(SUSTAINED, and_=Condition(SECOND, above=0.8))


def with_second(rule: Rule, *stretches: tuple[int, Load, float | None]) -> list[tuple[int, str]]:
    """Feed (how many, utilization, memory used) of one GPU; return what came when."""
    watcher = engine(rule)
    rows = [(load, memory) for count, load, memory in stretches for _ in range(count)]
    return [
        (at, event.kind.value)
        for at, (load, memory) in enumerate(rows)
        for event in watcher.observe(node(float(at), [load], memory), EPOCH + at)
    ]


def test_second_condition_must_hold_at_every_sample() -> None:
    """`and` is judged on the same GPU at the same sample; without its sample there is none."""
    assert with_second(AND, (11, 1.0, 0.8)) == [(10, "firing")]
    assert with_second(AND, (30, 1.0, 0.79)) == []
    assert with_second(AND, (5, 1.0, 0.8), (1, 1.0, 0.7), (11, 1.0, 0.8)) == [(16, "firing")]
    assert with_second(AND, (4, 1.0, 0.8), (2, 1.0, None), (5, 1.0, 0.8)) == [(10, "firing")]
    assert with_second(AND, (30, 1.0, None)) == []
    ended = with_second(AND, (11, 1.0, 0.8), (31, 1.0, 0.7))
    assert ended == [(10, "firing"), (41, "resolved")]


def test_second_condition_in_a_group() -> None:
    """A GPU that fails `and` fails in all, max and quorum; mean takes the mean of both."""
    for kind, quorum in (("all", None), ("max", None), ("mean", None), ("quorum", 1)):
        rule = over(AND, kind, quorum)
        assert with_second(rule, (11, 1.0, 0.8)) == [(10, "firing")]
        assert with_second(rule, (30, 1.0, 0.7)) == []


def test_second_condition_of_the_host() -> None:
    """A GPU's rule may ask for the host's state too, and the other way round."""
    gpu_first = replace(SUSTAINED, and_=Condition("host_memory_used_ratio", below=0.5))
    host_first = replace(
        SUSTAINED,
        metric="host_memory_used_ratio",
        above=0.3,
        clear_below=None,
        and_=Condition(FIRST, above=0.9),
    )
    for rule in (gpu_first, host_first):
        for host, fired in ((0.4, ["1"]), (0.6 if rule is gpu_first else 0.2, None)):
            watcher = engine(rule)
            came = [
                [series.gpu for series in event.series]
                for at in range(11)
                for event in watcher.observe(node(float(at), [0.1, 1.0], host=host), EPOCH + at)
            ]
            assert came == ([fired] if fired else [])


def test_rule_about_the_host() -> None:
    """A host metric is one series without a GPU, of the node's scale group."""
    rule = Rule("HostMemoryHigh", "host_memory_used_ratio", above=0.9, for_seconds=2.0)
    watcher = engine(rule, groups=TWO_GROUPS)
    (event,) = [
        event
        for at in (0, 1, 1, 2, 3)  # a snapshot that is seen twice counts once
        for event in watcher.observe(node(float(at), [Fault.LOST], host=0.95), EPOCH + at)
    ]
    assert (event.kind.value, event.scale_group) == ("firing", "llm")
    (series,) = event.series
    assert (series.gpu, series.uuid, series.samples, series.expected) == ("", "", 3, 3)


def test_smoothing_forgives_a_dip() -> None:
    """With a mean over 3 s, a dip that the mean outlasts does not start the wait anew."""
    loads: Stretches = [(5, [1.0]), (1, [0.9]), (5, [1.0])]
    assert feed(engine(SUSTAINED), *loads) == []
    smoothed = replace(SUSTAINED, smooth_seconds=3.0)
    assert feed(engine(smoothed), *loads) == [(10, "firing", "llm", ["0"])]
    deep: Stretches = [(5, [1.0]), (1, [0.8]), (5, [1.0])]
    assert feed(engine(smoothed), *deep) == []


def test_smoothing_bridges_neither_hole_nor_fault() -> None:
    """The mean starts anew after a hole and after a fault: old samples do not speak for now."""
    smoothed = replace(SUSTAINED, for_seconds=0.0, smooth_seconds=30.0)
    for hole in (None, Fault.LOST):
        heard = feed(engine(smoothed), (5, [0.0]), (3, [hole]), (1, [1.0]))
        assert heard == [(8, "firing", "llm", ["0"])]
    assert feed(engine(smoothed), (5, [0.0]), (2, [None]), (1, [1.0])) == []
    heard = feed(engine(smoothed), (5, [0.0]), (1, [Fault.HUNG]), (1, [1.0]))
    assert heard == [(6, "firing", "llm", ["0"])]


def test_smoothing_of_a_constant_is_that_constant() -> None:
    """Rounding of the mean does not hide a load of exactly the threshold."""
    smoothed = replace(SUSTAINED, smooth_seconds=7.0)
    assert feed(engine(smoothed), (11, [0.95])) == [(10, "firing", "llm", ["0"])]


def test_condition_in_words() -> None:
    """An event says what was watched for, with everything that shapes it."""
    rule = replace(over(AND, "quorum", 2), smooth_seconds=3.0, for_seconds=0.0)
    loads = [1.0, 1.0]
    (event,) = engine(rule).observe(node(0.0, loads, 0.9), EPOCH)
    assert event.reason == (
        "2 GPUs: 3s mean of gpu_utilization_ratio >= 0.95 and gpu_memory_used_ratio >= 0.8"
    )
    (event,) = engine(replace(over(IDLE, "mean"), for_seconds=0.0)).observe(node(0.0, [0.0]), EPOCH)
    assert event.reason == "mean GPUs: gpu_utilization_ratio <= 0.05"
