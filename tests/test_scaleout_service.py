"""Scale-out as the daemon holds it, its metrics, and the commands beside it."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from oracle import meaning
from scaleout_peers import FakeClock, Reply, config, event, serving, wait_until, webhook

from exporter.config import AlertmanagerConfig, Config, Receiver, Retry
from exporter.exposition import Page
from exporter.scaleout import commands, outbox
from exporter.scaleout.clock import Clock, system_clock
from exporter.scaleout.commands import CommandError
from exporter.scaleout.model import EventKind
from exporter.scaleout.outbox import OutboxUnavailableError
from exporter.scaleout.receivers import Place
from exporter.scaleout.service import Scaleout
from exporter.scaleout.verdict import RESULTS
from exporter.scaleout_view import ScaleoutView
from exporter.snapshot import Build, Reload, Snapshot

EXAMPLE = Path(__file__).parents[1] / "docs" / "examples" / "webhook_receiver.py"
FIRING = {("GpuSustainedLoad", "GPU-0"): ("llm-a", 1.0, 2.0)}
PLACE = Place({"cluster": "eu1"}, "gpu-017", "http://gpu-017:9836")


@contextmanager
def daemon(whole: Config, folder: Path | None, clock: Clock | None = None) -> Iterator[Scaleout]:
    """Run scale-out as the daemon does."""
    made = Scaleout(whole, folder, "gpu-017", "http://gpu-017:9836", clock or system_clock())
    try:
        yield made
    finally:
        made.stop()


def fire(service: Scaleout, kind: EventKind = EventKind.FIRING, group: str = "llm-a") -> str:
    """Do what the daemon does in a tick with an event; return the result."""
    service.tick(FIRING)
    (verdict,) = service.decide(event(kind, group=group), time.time()).verdicts
    return verdict.result


def delivered(service: Scaleout) -> int:
    """Return how many requests the outbox has seen delivered."""
    return service.view().outbox.get("delivered", 0)


def rendered(view: ScaleoutView) -> dict[tuple[str, tuple[str, ...]], float]:
    """Return what the page shows of a view: values by name and label values."""
    snapshot = Snapshot(
        0.0, 0.0, 1.0, Build("", "", simulated=False), Reload(True, 0.0), scaleout=view
    )
    page = Page(openmetrics=False).plain(snapshot).decode()
    return {
        (name, tuple(value for _, value in labels)): number
        for family in meaning(page, openmetrics=False).values()
        for name, labels, number in family[3]
        if name.startswith("scaleout_")
    }


# The service.


def test_event_is_delivered_and_counted(tmp_path: Path) -> None:
    """An event becomes a request at the receiver, and everything about it is on the page."""
    with serving(503, 200) as peer, daemon(config(webhook(peer.url)), tmp_path) as service:
        assert [fire(service), fire(service)] == ["fired", "cooldown"]
        wait_until(lambda: delivered(service) == 1)
        shown = rendered(service.view())
    assert json.loads(peer.said[0].body)["data"]["rule"] == "GpuSustainedLoad"
    assert shown["scaleout_events_total", ("scale-out", "fired")] == 1
    assert shown["scaleout_events_total", ("scale-out", "cooldown")] == 1
    assert shown["scaleout_deliveries_total", ("scaler", "retry")] == 1
    assert shown["scaleout_deliveries_total", ("scaler", "delivered")] == 1
    assert shown["scaleout_outbox_events", ("delivered",)] == 1
    assert shown["scaleout_outbox_events", ("pending",)] == 0
    assert shown["scaleout_outbox_durable", ()] == 1
    assert shown["scaleout_paused", ()] == 0
    assert 290 < shown["scaleout_cooldown_remaining_seconds", ("scale-out",)] <= 300
    age = time.time() - shown["scaleout_last_delivery_timestamp_seconds", ("scaler",)]
    assert 0 <= age < 60


def test_metrics_are_born_at_zero(tmp_path: Path) -> None:
    """Before anything happens, all that is configured is there with 0; a time of nothing is not."""
    with daemon(config(webhook("http://127.0.0.1:1/")), tmp_path) as service:
        shown = rendered(service.view())
    results = {labels[1] for name, labels in shown if name == "scaleout_events_total"}
    assert results == set(RESULTS)
    assert {value for key, value in shown.items() if key[0] != "scaleout_outbox_durable"} == {0}
    names = {name for name, _ in shown}
    assert "scaleout_deliveries_total" in names
    assert "scaleout_last_delivery_timestamp_seconds" not in names


def test_default_config_costs_nothing(tmp_path: Path) -> None:
    """Without a receiver neither SQLite nor a thread is there until an event; nothing is sent."""
    program = (
        "import sys, threading\n"
        "from pathlib import Path\n"
        "from exporter.config import Config\n"
        "from exporter.scaleout.clock import system_clock\n"
        "from exporter.scaleout.service import Scaleout\n"
        f"service = Scaleout(Config(), Path({str(tmp_path)!r}), 'n', '', system_clock())\n"
        "service.tick({})\n"
        "print(len(service.view().events), threading.active_count())\n"
        "print(*[m for m in ('sqlite3', 'requests', 'hashlib') if m in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{len(RESULTS)} 1\n\n"
    assert list(tmp_path.iterdir()) == []
    with daemon(Config(), tmp_path) as service:
        assert fire(service) == "no_receiver"
        assert rendered(service.view())["scaleout_events_total", ("scale-out", "no_receiver")] == 1
        assert service.view().durable is None


def test_restart_takes_up_where_it_was(tmp_path: Path) -> None:
    """What fires, the cooldown, and when something was last delivered survive a restart."""
    with serving() as peer:
        whole = config(webhook(peer.url))
        with daemon(whole, tmp_path) as service:
            assert service.restored == {}
            fire(service)
            wait_until(lambda: delivered(service) == 1)
        with daemon(whole, tmp_path) as service:
            assert service.restored == FIRING
            assert fire(service) == "cooldown"
            assert time.time() - service.view().last_delivery_timestamp_seconds["scaler"] < 60


def test_view_is_the_same_object_without_news(tmp_path: Path) -> None:
    """As long as nothing changes, the page can keep what it has rendered."""
    clock = FakeClock()
    with daemon(config(webhook("http://127.0.0.1:1/")), tmp_path, clock.clock) as service:
        first = service.view()
        clock.passes(5)
        service.tick({})
        assert service.view() is first


def test_reload_takes_other_receivers(tmp_path: Path) -> None:
    """A reload can add, change and remove receivers; what waits for one that is gone ends."""
    with serving(503) as old, serving() as new, daemon(Config(), tmp_path) as service:
        service.reload(config(webhook(old.url, retry=Retry())))
        assert fire(service) == "fired"
        wait_until(lambda: old.said)
        service.reload(config(webhook(new.url)))
        wait_until(lambda: delivered(service) == 1)
        assert fire(service) == "cooldown"
        assert fire(service, group="llm-b") == "fired"
        wait_until(lambda: delivered(service) == 2)
        service.reload(Config())
        assert fire(service, group="llm-c") == "no_receiver"


def test_reload_takes_an_alertmanager(tmp_path: Path) -> None:
    """An Alertmanager that a reload adds is told when what fires is over."""
    with serving() as peer, daemon(config(webhook("http://127.0.0.1:1/")), tmp_path) as service:
        push = AlertmanagerConfig(peer.url, resend_delay_seconds=600.0)
        service.reload(
            replace(config(), receivers=(Receiver("scaler", alertmanager_configs=(push,)),))
        )
        assert fire(service) == "fired"
        wait_until(lambda: delivered(service) == 1)
        service.tick({})
        wait_until(lambda: len(peer.said) == 2)


def test_reload_keeps_what_has_not_changed(tmp_path: Path) -> None:
    """A reload of the same receivers keeps them with all they know; other labels do not."""
    whole = config(webhook("http://127.0.0.1:1/"))
    with daemon(whole, tmp_path) as service:
        before = service._targets
        service.reload(replace(whole, rules=()))
        assert [a is b for a, b in zip(service._targets, before, strict=True)] == [True]
        labelled = replace(whole, global_=replace(whole.global_, external_labels={"cluster": "x"}))
        service.reload(labelled)
        assert [a is b for a, b in zip(service._targets, before, strict=True)] == [False]


def test_request_from_elsewhere_must_be_on_disk(tmp_path: Path) -> None:
    """What Alertmanager asks for is accepted once it is on disk, and refused if it cannot be."""
    with serving() as peer:
        with daemon(config(webhook(peer.url)), tmp_path) as service:
            assert service.enqueue("scale-out", event(gpus=())) == "fired"
            assert service.enqueue("scale-out", event(gpus=())) == "cooldown"
            wait_until(lambda: delivered(service) == 1)
        with (
            daemon(config(webhook(peer.url)), None) as service,
            pytest.raises(OutboxUnavailableError),
        ):
            service.enqueue("scale-out", event(gpus=()))


def test_disk_that_comes_back_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a disk holds count from when it can be read, and the gauge tells of it."""
    storage = tmp_path / "storage"
    with serving() as peer:
        whole = config(webhook(peer.url))
        with daemon(whole, storage) as service:
            assert fire(service) == "fired"
            wait_until(lambda: delivered(service) == 1)
        storage.rename(tmp_path / "away")
        storage.write_text("a file in its place")
        monkeypatch.setattr(outbox, "TEND_SECONDS", 0.0)
        with daemon(whole, storage) as service:
            service.tick({})
            assert rendered(service.view())["scaleout_outbox_durable", ()] == 0
            storage.unlink()
            (tmp_path / "away").rename(storage)
            service.tick({})
            assert rendered(service.view())["scaleout_outbox_durable", ()] == 1
            assert fire(service) == "cooldown"


# The commands, beside a daemon.


def test_pause_is_noticed_within_a_tick(tmp_path: Path) -> None:
    """`pause` beside a daemon holds back what comes after its next tick; `resume` ends that."""
    clock = system_clock()
    with serving() as peer, daemon(config(webhook(peer.url)), tmp_path) as service:
        said = commands.pause(tmp_path, clock, seconds=3600, reason="driver upgrade")
        assert re.fullmatch(r"paused until \d{4}-.*Z\n", said)
        assert fire(service) == "paused"
        assert rendered(service.view())["scaleout_paused", ()] == 1
        text = commands.status(tmp_path, clock)
        assert re.search(r"paused for (59m\d+s|1h) more by pause: driver upgrade \(by .+\)", text)
        assert commands.resume(tmp_path, clock) == "resumed\n"
        assert fire(service) == "fired"
        wait_until(lambda: delivered(service) == 1)
    audited = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [line["what"] for line in audited][:4] == ["paused", "decision", "resumed", "decision"]
    assert audited[0]["reason"].startswith("driver upgrade (by ")


def test_pause_file_is_noticed_within_a_tick(tmp_path: Path) -> None:
    """A file `pause` holds back too, while it is there; `resume` says that it does."""
    clock = system_clock()
    with daemon(config(webhook("http://127.0.0.1:1/")), tmp_path) as service:
        (tmp_path / "pause").write_text("2h maintenance")
        assert fire(service) == "paused"
        assert "maintenance" in commands.status(tmp_path, clock)
        assert "remove it" in commands.resume(tmp_path, clock)
        (tmp_path / "pause").unlink()
        assert fire(service) == "fired"


def test_pause_ends_by_itself(tmp_path: Path) -> None:
    """A pause is over when its time is, without anybody's doing, and survives a restart until."""
    clock = FakeClock()
    whole = config(webhook("http://127.0.0.1:1/"))
    with daemon(whole, tmp_path, clock.clock) as service:
        commands.pause(tmp_path, clock.clock, seconds=60, reason="x")
        assert fire(service) == "paused"
    with daemon(whole, tmp_path, clock.clock) as service:
        assert fire(service) == "paused"
        assert service.view().paused
        clock.passes(60)
        service.tick({})
        assert not service.view().paused
        assert fire(service) == "fired"


@pytest.mark.parametrize("seconds", [0, -5, 1e9, float("nan")])
def test_pause_needs_a_sensible_time(tmp_path: Path, seconds: float) -> None:
    """A pause always has an end."""
    with pytest.raises(CommandError, match="a pause lasts"):
        commands.pause(tmp_path, system_clock(), seconds=seconds, reason="x")


def test_dead_request_can_be_tried_again(tmp_path: Path) -> None:
    """`retry` beside a daemon sends a dead request again under its id, by name or all of them."""
    clock = system_clock()
    with serving(404) as peer, daemon(config(webhook(peer.url)), tmp_path) as service:
        fire(service)
        fire(service, group="llm-b")
        wait_until(lambda: service.view().outbox["dead"] == 2)
        one, other = peer.ids()
        text = commands.status(tmp_path, clock)
        assert f"{one} " in text
        assert "dead, 1 attempts: it answered 404" in text
        peer.replies[:] = [Reply(200)]
        assert commands.retry(tmp_path, clock, one) == "1 to be tried again, for 10m\n"
        service.tick({})
        wait_until(lambda: delivered(service) == 1)
        with pytest.raises(CommandError, match=f"no request {one} is dead"):
            commands.retry(tmp_path, clock, one)
        assert commands.retry(tmp_path, clock, None) == "1 to be tried again, for 10m\n"
        service.tick({})
        wait_until(lambda: delivered(service) == 2)
        assert peer.ids() == [one, other, one, other]
        audited = (tmp_path / "audit.jsonl").read_text().splitlines()
        assert json.loads(audited[-1])["attempt"] == 1  # as if it were new
        with pytest.raises(CommandError, match="nothing is dead"):
            commands.retry(tmp_path, clock, None)


def test_dead_requests_can_be_forgotten(tmp_path: Path) -> None:
    """`purge` removes the dead and nothing else."""
    with serving(404, 200) as peer, daemon(config(webhook(peer.url)), tmp_path) as service:
        fire(service)
        wait_until(lambda: service.view().outbox["dead"] == 1)
        fire(service, group="llm-b")
        wait_until(lambda: delivered(service) == 1)
        assert commands.purge(tmp_path, system_clock()) == "1 forgotten\n"
        service.tick({})
        assert service.view().outbox["dead"] == 0
        assert delivered(service) == 1


def test_status_tells_all_that_matters(tmp_path: Path) -> None:
    """The status names pauses, cooldowns and every waiting request, and no more than is of use."""
    clock = FakeClock()
    retry = Retry(min_backoff_seconds=15.0)
    with serving(503) as peer:
        whole = config(webhook(peer.url, retry=retry))
        with daemon(whole, tmp_path, clock.clock) as service:
            fire(service)
            wait_until(lambda: service.view().deliveries["scaler", "retry"] == 1)
            text = commands.status(tmp_path, clock.clock)
    lines = text.splitlines()
    assert lines[:3] == ["not paused", "1 pending", 'cooldown of scale-out ["", "llm-a"]: 5m more']
    assert re.fullmatch(
        r"[0-9A-Z]{26} \S+Z scaler/webhook/0 pending, 1 attempts,"
        r" next in (8|9|1\d)s, given up in 10m: it answered 503",
        lines[3],
    )


def test_commands_need_an_outbox(tmp_path: Path) -> None:
    """Where there is no outbox, or one that is damaged, each command says so in one line."""
    clock = system_clock()
    for content in (None, b"damaged" * 1000):
        if content is not None:
            (tmp_path / "outbox.db").write_bytes(content)
        commands_there_are: list[Callable[[], str]] = [
            lambda: commands.status(tmp_path, clock),
            lambda: commands.pause(tmp_path, clock, seconds=5, reason=""),
            lambda: commands.resume(tmp_path, clock),
            lambda: commands.retry(tmp_path, clock, None),
            lambda: commands.purge(tmp_path, clock),
        ]
        for command in commands_there_are:
            with pytest.raises(CommandError, match=str(tmp_path / "outbox.db")) as refused:
                command()
            assert "\n" not in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["outbox.db"]


def test_test_asks_every_target_once(tmp_path: Path) -> None:
    """`test` sends one request to each target, past the outbox, and tells how each took it."""
    with serving() as good, serving(503) as bad:
        both = config(webhook(good.url), webhook(bad.url))
        with pytest.raises(CommandError) as refused:
            commands.test(both, "scaler", PLACE, system_clock(), dry_run=False)
        assert str(refused.value).splitlines() == [
            "scaler/webhook/0: delivered (200)",
            "scaler/webhook/1: retry (503): it answered 503",
        ]
        body = json.loads(good.said[0].body)["data"]
        assert (body["rule"], body["node"], body["cluster"]) == ("test", "gpu-017", "eu1")
        assert not body["dry_run"]
        text = commands.test(both, "scaler", PLACE, system_clock(), dry_run=True)
        assert text == "scaler/webhook/0: dry_run\nscaler/webhook/1: dry_run\n"
        assert (len(good.said), len(bad.said)) == (1, 1)
    with pytest.raises(CommandError, match="there is no receiver x; configured: scaler"):
        commands.test(both, "x", PLACE, system_clock(), dry_run=True)
    idle = replace(both, receivers=(*both.receivers, Receiver("idle", (webhook(good.url),))))
    with pytest.raises(CommandError, match="no action names"):
        commands.test(idle, "idle", PLACE, system_clock(), dry_run=True)
    assert list(tmp_path.iterdir()) == []


# The example receiver.


@contextmanager
def example(*flags: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run docs/examples/webhook_receiver.py; give its URL and the process."""
    command = [sys.executable, str(EXAMPLE), "--port", "0", *flags]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            where = process.stderr.readline().split()[-1]
            assert where.startswith("127.0.0.1:")
            yield f"http://{where}/scale", process
        finally:
            process.kill()


def lines_of(process: subprocess.Popen[str], count: int) -> list[Mapping[str, str]]:
    """Return what the example prints of so many requests."""
    assert process.stdout is not None
    return [json.loads(process.stdout.readline()) for _ in range(count)]


def test_example_receives_what_is_sent(tmp_path: Path) -> None:
    """The example takes a signed request after failures, once; a wrong secret is refused."""
    secret = tmp_path / "secret"
    secret.write_text("whsec_" + base64.b64encode(os.urandom(24)).decode())
    secret.chmod(0o600)
    with example("--secret-file", str(secret), "--fail", "2") as (url, process):
        hook = webhook(url, signing_secret_file=secret)
        with daemon(config(hook), tmp_path / "storage") as service:
            fire(service)
            said = lines_of(process, 3)
            wait_until(lambda: delivered(service) == 1)
        assert [line["verdict"] for line in said] == ["made to fail", "made to fail", "accepted"]
        assert len({line["id"] for line in said}) == 1
        secret.write_text("whsec_" + base64.b64encode(os.urandom(24)).decode())
        text = "retry .401.: it answered 401"
        with pytest.raises(CommandError, match=text):
            commands.test(config(hook), "scaler", PLACE, system_clock(), dry_run=False)
        assert lines_of(process, 1)[0]["verdict"] == "not genuine"


def test_example_acts_once_per_cooldown(tmp_path: Path) -> None:
    """Of several nodes that ask for one group at once, the example acts for the first."""
    with example("--cooldown", "300") as (url, process):
        whole = config(webhook(url))
        for node in ("a", "b"):
            with daemon(whole, tmp_path / node) as service:
                fire(service)
                wait_until(lambda service=service: delivered(service) == 1)  # type: ignore[misc]  # bound now
        said = lines_of(process, 2)
    assert [line["verdict"] for line in said] == ["accepted", "too soon after another node's"]
