"""What becomes a request: cooldown, rate limit, pause, dry run; over restarts and clock jumps."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scaleout_peers import NOON, FakeClock, event

from exporter.config import Action
from exporter.scaleout import audit, pausing, rows, verdict
from exporter.scaleout.audit import Audit
from exporter.scaleout.decision import Setup
from exporter.scaleout.model import EventKind
from exporter.scaleout.outbox import Outbox, OutboxUnavailableError, Recorded
from exporter.scaleout.pausing import PauseFile
from exporter.scaleout.policy import Policy
from exporter.scaleout.records import Firing, Pause, Row

COOLDOWN, MOST = 300.0, 4
ACTION = Action("scale-out", receiver="scaler", cooldown_seconds=COOLDOWN, max_per_hour=MOST)
TARGETS = {"scaler": {"scaler/webhook/0": 600.0, "scaler/webhook/1": 60.0}}
REPEAT, RESOLVED = EventKind.REPEAT, EventKind.RESOLVED


class Bench:
    """A policy on an outbox, in a folder, with a clock; and what it woke."""

    def __init__(
        self, folder: Path | None, *actions: Action, clock: FakeClock | None = None
    ) -> None:
        self.folder = folder
        self.time = clock or FakeClock()
        self.woken: list[str] = []
        self.setup = Setup(
            actions={action.name: action for action in actions or (ACTION,)},
            targets=TARGETS,
            labels={"cluster": "eu1", "rack": "r7"},
            node="gpu-017",
        )
        self.start()

    def start(self) -> None:
        """Begin as the daemon does."""
        clock = self.time.clock
        self.outbox = Outbox(self.folder, clock)
        self.policy = Policy(self.setup, self.outbox, Audit(self.folder, clock), self._wake, clock)

    def close(self) -> None:
        """End as if killed: nothing more is written."""
        self.outbox.close()

    def restart(self) -> None:
        """End and begin again."""
        self.close()
        self.start()

    def say(self, kind: EventKind = EventKind.FIRING, **changes: Any) -> str:
        """Tell of an event of one action; return the result."""
        wall = self.time.now
        (said,) = self.policy.decide(event(kind, **changes), wall).verdicts
        return said.result

    def audited(self) -> list[dict[str, Any]]:
        """Return what the audit's file holds."""
        assert self.folder is not None
        lines = (self.folder / audit.FILE).read_text().splitlines()
        return [json.loads(line) for line in lines]

    def pending(self) -> list[Row]:
        """Return what is pending on disk."""
        none: list[Row] = []
        return self.outbox.ask(lambda db: rows.in_state(db, "pending"), none)

    def bodies(self) -> list[dict[str, Any]]:
        """Return the JSON of all that is pending."""
        return [json.loads(row.body) for row in self.pending()]

    def firing(self) -> Firing | None:
        """Return what fired when that was last written."""
        return self.outbox.ask(rows.firing, None)

    def _wake(self, targets: Collection[str]) -> None:
        self.woken.extend(targets)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Return a policy with one action."""
    with closing(Bench(tmp_path)) as made:
        yield made


def test_event_becomes_a_request_to_each_target(bench: Bench) -> None:
    """A firing is committed for every target with the target's deadline, and they are woken."""
    decision = bench.policy.decide(event(), NOON)
    assert decision.recorded is Recorded.DISK
    assert bench.woken == list(TARGETS["scaler"])
    pending = bench.pending()
    assert [row.deadline - bench.time.up for row in pending] == [600.0, 60.0]
    assert {row.event_id for row in pending} == {decision.verdicts[0].event_id}
    (first, second) = bench.bodies()
    assert first == second
    assert first["event_id"] == decision.verdicts[0].event_id
    assert (first["cluster"], first["node"], first["scale_group"]) == ("eu1", "gpu-017", "llm-a")
    assert first["dedupe_key"].startswith("llm-a:")


def test_constant_load_for_22_minutes(bench: Bench) -> None:
    """At constant load requests come once per cooldown, then the hourly limit holds them back."""
    fired = {}
    for seconds in range(10, 22 * 60 + 1, 10):
        kind = EventKind.FIRING if seconds == 10 else REPEAT
        result = bench.say(kind)
        if result != "cooldown":
            fired[seconds] = result
        bench.time.passes(10)
    assert fired == {
        10: "fired",
        310: "fired",
        610: "fired",
        910: "fired",
        **dict.fromkeys(range(1210, 1321, 10), "rate_limited"),
    }
    assert bench.policy.counts()["scale-out", "fired"] == 4
    bench.time.passes(10 + 3600 - 1330 - 1)
    assert bench.say(REPEAT) == "rate_limited"
    bench.time.passes(1)  # the first was an hour ago
    assert bench.say(REPEAT) == "fired"
    assert [body["repeat"] for body in bench.bodies()] == [True, True]  # one for each target


def test_audit_has_a_line_per_change_of_mind(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Every decision is audited; repeats that are held back as before only count in the next."""
    with caplog.at_level(logging.INFO, "exporter.audit"):
        for seconds in range(10, 331, 10):
            bench.say(EventKind.FIRING if seconds == 10 else REPEAT)
            bench.time.passes(10)
    lines = bench.audited()
    assert [(line["result"], line["unwritten_repeats"]) for line in lines] == [
        ("fired", 0),
        ("cooldown", 0),
        ("fired", 28),
        ("cooldown", 0),
    ]
    assert lines[0]["stored"] == "disk"
    assert lines[0]["group"] == {"cluster": "eu1", "scale_group": "llm-a"}
    assert lines[0]["event_id"] == bench.bodies()[0]["event_id"] or len(bench.bodies()) == 2
    assert lines[1]["detail"] == "for 4m50s more"
    logged = [r for r in caplog.records if r.name == "exporter.audit"]
    assert [r.getMessage() for r in logged] == [
        "scale-out: fired, gpu_utilization_ratio >= 0.95 for 10s",
        "scale-out: cooldown, for 4m50s more",
        "scale-out: fired, gpu_utilization_ratio >= 0.95 for 10s",
        "scale-out: cooldown, for 4m50s more",
    ]
    assert [getattr(r, "facts", {}) for r in logged] == [
        {
            "what": "decision",
            "rule": line["rule"],
            "kind": line["kind"],
            **({"event_id": line["event_id"]} if line["event_id"] else {}),
            "asked_by": "rule",
        }
        for line in lines
    ]


def test_groups_have_limits_of_their_own(bench: Bench) -> None:
    """Another scale group fires while the first cools down; another rule of the same does not."""
    assert bench.say() == "fired"
    assert bench.say(rule="Other") == "cooldown"
    assert bench.say(group="llm-b") == "fired"
    assert bench.say(group="llm-b") == "cooldown"


@pytest.mark.parametrize(
    ("group_by", "one", "other", "shared"),
    [
        ((), {}, {"group": "llm-b", "rule": "Other", "gpus": ["1"]}, True),
        (("rule",), {}, {"rule": "Other"}, False),
        (("rule",), {}, {"group": "llm-b"}, True),
        (("gpu",), {"gpus": ["0", "1"]}, {"gpus": ["1", "0"]}, True),
        (("gpu",), {"gpus": ["0"]}, {"gpus": ["1"]}, False),
        (("node", "rack", "nothing"), {}, {"group": "llm-b"}, True),
    ],
)
def test_group_by_forms_the_groups(
    tmp_path: Path,
    group_by: tuple[str, ...],
    one: Mapping[str, Any],
    other: Mapping[str, Any],
    shared: bool,
) -> None:
    """Events that agree in the labels of group_by share a cooldown, others do not."""
    with closing(Bench(tmp_path, replace(ACTION, group_by=group_by))) as bench:
        assert bench.say(**one) == "fired"
        assert bench.say(**other) == ("cooldown" if shared else "fired")


def test_labels_of_an_alert_form_groups(bench: Bench) -> None:
    """What comes from Alertmanager is grouped by its labels, before those of this node."""

    def ask(cluster: str) -> str:
        labels = {"cluster": cluster} if cluster else {}
        return bench.policy.enqueue("scale-out", event(gpus=()), labels, "alertmanager")

    assert [ask(name) for name in ("eu2", "eu2", "", "eu1")] == [
        *("fired", "cooldown", "fired", "cooldown")
    ]
    assert [line["source"] for line in bench.audited()] == ["alertmanager"] * 4
    assert bench.policy.enqueue("nothing", event(), {}, "alertmanager") == "ignored"


def test_long_labels_do_not_grow_the_database(bench: Bench) -> None:
    """A label of 16 KiB is a group of its own, in a few hundred bytes."""

    def ask(cluster: str) -> str:
        return bench.policy.enqueue("scale-out", event(gpus=()), {"cluster": cluster}, "x")

    long = "x" * 16_000
    assert [ask(long + "1"), ask(long + "2"), ask(long + "1")] == ["fired", "fired", "cooldown"]
    assert all(len(row.group_key) < 600 for row in bench.pending())


def test_too_many_groups_are_held_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group_by that makes a group of everything ends at a bound, until cooldowns are over."""
    monkeypatch.setattr(verdict, "MAX_GROUPS", 5)
    results = [bench.say(group=str(n)) for n in range(7)]
    assert results == ["fired"] * 5 + ["rate_limited"] * 2
    bench.time.passes(COOLDOWN)
    assert bench.say(group="6") == "fired"


def test_restart_loop_asks_once(bench: Bench) -> None:
    """A daemon that dies again and again sends one request per cooldown in all."""
    results = []
    for _ in range(20):
        results.append(bench.say())
        bench.time.passes(14)
        bench.restart()
    assert results == ["fired"] + ["cooldown"] * 19
    bench.time.passes(20)
    assert bench.say() == "fired"
    assert bench.policy.counts()["scale-out", "fired"] == 1  # since this start


@pytest.mark.parametrize("jump", [3600.0, -3600.0, 3.15e8, -3.15e8])
@pytest.mark.parametrize("restart", [False, True])
def test_clock_jump_changes_no_cooldown(bench: Bench, jump: float, restart: bool) -> None:
    """Setting the wall clock ends no cooldown and prolongs none, with or without a restart."""
    assert bench.say() == "fired"
    bench.time.passes(100)
    bench.time.jumps(jump)
    if restart:
        bench.restart()
    bench.time.passes(199)
    assert bench.say() == "cooldown"
    assert bench.policy.cooldowns() == {"scale-out": pytest.approx(1.0)}
    bench.time.passes(1)
    assert bench.say() == "fired"


def test_shorter_cooldown_counts_after_a_reload(bench: Bench) -> None:
    """If a reload shortens the cooldown, the one under way is over that much sooner."""
    assert bench.say() == "fired"
    short = replace(ACTION, cooldown_seconds=60.0)
    bench.policy.setup = replace(bench.setup, actions={"scale-out": short})
    assert bench.say() == "cooldown"
    bench.time.passes(59)
    assert bench.say() == "cooldown"
    bench.time.passes(1)
    assert bench.say() == "fired"


def test_sick_gpus_never_scale(bench: Bench) -> None:
    """An event of GPUs that all have a fault is ignored; one healthy GPU is enough."""
    both = event(gpus=["0", "1"])
    (said,) = bench.policy.decide(both, NOON, sick={"GPU-0", "GPU-1"}).verdicts
    assert said.result == "ignored"
    (said,) = bench.policy.decide(both, NOON, sick={"GPU-0"}).verdicts
    assert said.result == "fired"


def test_end_is_told_once_and_only_on_request(tmp_path: Path) -> None:
    """RESOLVED is sent where send_resolved asks for it, if its beginning was; names that."""
    quiet, loud = ACTION, replace(ACTION, name="loud", send_resolved=True)
    with closing(Bench(tmp_path, quiet, loud)) as bench:

        def say(kind: EventKind, **changes: Any) -> list[str]:
            told = event(kind, actions=("scale-out", "loud"), **changes)
            return [one.result for one in bench.policy.decide(told, bench.time.now).verdicts]

        assert say(RESOLVED) == ["ignored", "ignored"]
        assert say(EventKind.FIRING) == ["fired", "fired"]
        began = next(b["event_id"] for b in bench.bodies() if b["action"] == "loud")
        assert say(RESOLVED, rule="Other") == ["ignored", "ignored"]
        bench.restart()
        assert say(RESOLVED) == ["ignored", "resolved"]
        end = bench.bodies()[-1]
        assert (end["action"], end["resolves"]) == ("loud", began)
        assert end["event_id"] != began
        bench.restart()
        assert say(RESOLVED) == ["ignored", "ignored"]
        # What was suppressed has no end to tell of.
        assert say(EventKind.FIRING) == ["cooldown", "cooldown"]
        assert say(RESOLVED) == ["ignored", "ignored"]
        # Readings that cease say nothing of the load; and later there is nothing left to end.
        bench.time.passes(COOLDOWN)
        assert say(EventKind.FIRING) == ["fired", "fired"]
        assert say(RESOLVED, reason="absent") == ["ignored", "ignored"]
        assert say(RESOLVED) == ["ignored", "ignored"]


def test_action_without_receiver_sends_nothing(tmp_path: Path) -> None:
    """Without a receiver, or with one that has no target, every event says so."""
    lone, lost = replace(ACTION, receiver=None), replace(ACTION, name="lost", receiver="gone")
    with closing(Bench(tmp_path, lone, lost)) as bench:
        for action in ("scale-out", "lost"):
            assert bench.say(actions=(action,)) == "no_receiver"
        assert bench.outbox.counts() == {}
        assert bench.policy.decide(event(actions=("record", "unknown")), NOON).verdicts == ()


def test_dry_run_is_limited_like_the_real_thing(tmp_path: Path) -> None:
    """A dry run makes a row that says so, and has the cooldown."""
    with closing(Bench(tmp_path, replace(ACTION, dry_run=True))) as bench:
        assert [bench.say(), bench.say()] == ["dry_run", "cooldown"]
        assert bench.bodies()[0]["dry_run"] is True


def test_pause_holds_back_until_it_is_over(bench: Bench) -> None:
    """While paused nothing is sent or counted against limits; the wall clock has no say."""
    up = bench.time.up
    bench.policy.pause = Pause("upgrade", up, up + 60)
    assert bench.say() == "paused"
    bench.time.passes(59)
    bench.time.jumps(-86400)
    assert bench.say() == "paused"
    assert bench.audited()[-1]["detail"] == "for 1s more: upgrade"
    bench.time.passes(1)
    assert bench.say() == "fired"


def test_full_outbox_starts_no_cooldown(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that there is no room for is refused whole, and may come again at once."""
    monkeypatch.setattr(rows, "MAX_PENDING", 1)
    assert bench.say() == "outbox_full"
    with pytest.raises(OutboxUnavailableError, match="too many"):
        bench.policy.enqueue("scale-out", event(), {}, "alertmanager")
    assert bench.woken == []
    monkeypatch.undo()
    assert bench.say() == "fired"


def test_memory_alone_is_no_promise_to_others() -> None:
    """What is in memory alone is sent, but who asked is told to come again, and then is deduped."""
    with closing(Bench(None)) as bench:
        with pytest.raises(OutboxUnavailableError, match="no storage path"):
            bench.policy.enqueue("scale-out", event(), {}, "alertmanager")
        assert bench.woken != []
        assert bench.policy.enqueue("scale-out", event(), {}, "alertmanager") == "cooldown"
        assert bench.say() == "cooldown"


def test_what_fires_is_written_with_the_event(bench: Bench) -> None:
    """What fires is there after a restart, also if the event itself asked for nothing."""
    firing = {("rule", "GPU-0"): ("llm-a", NOON - 10.0, NOON)}
    bench.policy.decide(event(actions=("record",)), NOON, firing=firing)
    bench.restart()
    assert bench.firing() == firing
    bench.policy.decide(event(RESOLVED, actions=("record",)), NOON, firing={})
    bench.restart()
    assert bench.firing() == {}


Step = tuple[str, Any]
STEPS = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([1, 10, 100, 299, 300, 301, 1000, 3600])),
    st.tuples(st.just("event"), st.sampled_from(list(EventKind))),
    st.tuples(st.just("event"), st.just(EventKind.FIRING)),
    st.tuples(st.just("restart"), st.none()),
    st.tuples(st.just("jump"), st.sampled_from([-3.2e8, -3600.0, -60.0, 60.0, 3600.0, 3.2e8])),
    st.tuples(st.just("pause"), st.sampled_from([1, 299, 4000])),
)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
@given(st.lists(st.tuples(STEPS, st.sampled_from("ab")), max_size=40))
def test_limits_hold_whatever_happens(steps: list[tuple[Step, str]]) -> None:
    """Over restarts and clock jumps, an event fires exactly if its group's limits allow it."""
    with tempfile.TemporaryDirectory() as folder, closing(Bench(Path(folder))) as bench:
        fired: dict[str, list[float]] = {"a": [], "b": []}
        paused_until = 0.0
        for (what, value), group in steps:
            now = bench.time.up
            if what == "wait":
                bench.time.passes(value)
            elif what == "jump":
                bench.time.jumps(value)
            elif what == "restart":
                bench.restart()
                bench.policy.pause = None
                paused_until = 0.0
            elif what == "pause":
                paused_until = now + value
                bench.policy.pause = Pause("", now, paused_until)
            else:
                result = bench.say(value, group=group)
                recent = [at for at in fired[group] if now - at < 3600]
                if value is RESOLVED:
                    expected = "ignored"
                elif now < paused_until:
                    expected = "paused"
                elif recent and now - recent[-1] < COOLDOWN:
                    expected = "cooldown"
                else:
                    expected = "rate_limited" if len(recent) >= MOST else "fired"
                assert result == expected
                if result == "fired":
                    fired[group].append(now)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 1.0, 100.0, 299.0, 301.0, 4000.0]),
            st.sampled_from([0.0, -1.0, -3600.0, -3.2e8]),
            st.booleans(),
        ),
        max_size=20,
    )
)
def test_limits_hold_over_reboots(steps: list[tuple[float, float, bool]]) -> None:
    """Reboots, also into the past, never make requests come closer than the limits allow."""
    with tempfile.TemporaryDirectory() as folder, closing(Bench(Path(folder))) as bench:
        fired: list[float] = []
        true = 0.0
        for seconds, jump, reboot in steps:
            bench.time.passes(seconds)
            true += seconds
            if reboot:
                bench.close()
                bench.time.jumps(jump)
                bench.time.reboots(60)
                true += 60
                bench.start()
            if bench.say() == "fired":
                assert not fired or true - fired[-1] >= COOLDOWN
                fired.append(true)
                assert len([at for at in fired if true - at < 3600]) <= MOST
        bench.time.passes(3600)  # and never is anything silenced for longer than that
        assert bench.say() == "fired"


# The pause file.


@pytest.mark.parametrize(
    ("text", "seconds", "reason"),
    [
        ("2h driver upgrade", 7200, "driver upgrade"),
        ("90s\n", 90, "a file orders it"),
        ("", pausing.DEFAULT_SECONDS, "a file orders it"),
        ("driver upgrade", pausing.DEFAULT_SECONDS, "driver upgrade"),
        ("9999d", pausing.MAX_SECONDS, "a file orders it"),
    ],
)
def test_pause_file_says_for_how_long(
    tmp_path: Path, text: str, seconds: float, reason: str
) -> None:
    """The file's first word is a duration, counted from when it was written; else it is 4 hours."""
    time = FakeClock()
    path = tmp_path / pausing.FILE
    path.write_text(text)
    os.utime(path, (NOON - 30, NOON - 30))
    found = PauseFile(tmp_path, time.clock).look()
    assert found == Pause(reason, time.up - 30, time.up - 30 + seconds)


def test_pause_file_is_looked_at_anew(tmp_path: Path) -> None:
    """It counts from when it appears, until it is removed; touching it renews the pause."""
    time = FakeClock()
    path = tmp_path / pausing.FILE
    watch = PauseFile(tmp_path, time.clock)
    assert watch.look() is None
    path.write_text("60s")
    os.utime(path, (NOON, NOON))
    first = watch.look()
    assert first is not None
    assert first.until == time.up + 60
    time.passes(50)
    time.jumps(-1e6)  # setting the clock changes nothing
    assert watch.look() == first
    os.utime(path, (time.now, time.now))
    renewed = watch.look()
    assert renewed is not None
    assert renewed.until == time.up + 60
    os.utime(path, (time.now + 1e6, time.now + 1e6))  # from a clock ahead of ours
    ahead = watch.look()
    assert ahead is not None
    assert ahead.until == time.up + 60
    path.unlink()
    assert watch.look() is None
    assert PauseFile(None, time.clock).look() is None


# The audit.


def test_audit_turns_its_files_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the size limit the file becomes .1, and the oldest of ten goes; no line is split."""
    monkeypatch.setattr(audit, "MAX_BYTES", 1000)
    log = Audit(tmp_path, FakeClock().clock)
    for number in range(300):
        log.write("x", number=number)
    files = sorted(
        tmp_path.iterdir(), key=lambda p: int(p.suffix[1:]) if p.suffix[1:].isdigit() else 0
    )
    assert len(files) == audit.FILES
    assert all(path.stat().st_size <= 1000 for path in files)
    lines = [json.loads(line) for path in reversed(files) for line in path.read_text().splitlines()]
    numbers = [line["number"] for line in lines]
    assert numbers == list(range(numbers[0], 300))


def test_audit_that_cannot_be_written_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without its file the audit goes on in the log; the loss is said once."""
    (tmp_path / audit.FILE).mkdir()
    log = Audit(tmp_path, FakeClock().clock)
    with caplog.at_level(logging.INFO):
        for number in range(3):
            log.write("x", number=number)
    assert (
        len([r for r in caplog.records if r.name == "exporter.audit" and r.levelname == "INFO"])
        == 3
    )
    assert len([r for r in caplog.records if r.levelname == "ERROR"]) == 1


def test_audit_cannot_be_forged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A label with a line end, a terminal's escape or another script stays within its line."""
    hostile = '\n{"ts": "x"}\r\x1b[2J\u2028\u202e🙂'
    with caplog.at_level(logging.INFO):
        Audit(tmp_path, FakeClock().clock).write("x", label=hostile, rule=hostile, detail=hostile)
    (record,) = caplog.records
    for text in (record.getMessage(), record.facts["rule"]):  # type: ignore[attr-defined]
        assert text.isascii()
        assert text.isprintable()
    (line,) = (tmp_path / audit.FILE).read_bytes().splitlines()
    assert line.isascii()
    assert json.loads(line)["label"] == hostile
