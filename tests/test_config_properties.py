"""The configuration file under any bytes, and any configuration as a file."""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from chaos import ROUNDS
from config_writer import written
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from exporter import yamlfile
from exporter.config import (
    DEFAULT_ACTIONS,
    DEFAULT_RULES,
    Action,
    Aggregate,
    AlertmanagerConfig,
    AlertmanagerReceiver,
    Authorization,
    BasicAuth,
    Condition,
    Config,
    ConfigError,
    FlightRecorder,
    Global,
    HttpConfig,
    KubernetesConfig,
    Poll,
    Receiver,
    Retry,
    Route,
    Rule,
    ScaleGroup,
    ScaleTargetRef,
    TlsConfig,
    WebhookConfig,
    load,
)
from exporter.schema import Key

pytestmark = pytest.mark.chaos

COLLECTORS = ["memory", "power", "temperature"]
METRICS = ["gpu_power_watts", "gpu_utilization_ratio"]
UNTIMED = settings(
    max_examples=100 * ROUNDS, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
LOADERS = [yaml.SafeLoader, *([yaml.CSafeLoader] if yaml.__with_libyaml__ else [])]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file that each example of a property writes anew."""
    return tmp_path_factory.mktemp("config") / "scratch.yml"


WORDS = "poll collectors fast slow pcie deadline power 1s 10 500ms on true ~ << *a &a !x --- é 🙂"
SECTIONS = "rules actions receivers alert metric above for and aggregate quorum name template url"
MARKS = [*"-?:,[]{}#&*!|>'\"%@`~\\\t\n\r\0\x85\u2028\ufeff", ": ", "\n  ", "- ", "\\U00110000"]
PIECES = st.lists(
    st.sampled_from([*WORDS.split(), *SECTIONS.split(), *MARKS]) | st.just(" "), max_size=40
)
FILES = st.binary() | PIECES.map(lambda pieces: "".join(pieces).encode())


@pytest.mark.parametrize("loader", LOADERS)
@UNTIMED
@given(data=FILES)
@example(data=b'"\\U00110000"')
@example(data=b"%YAML " + b"9" * 5000 + b".1\n--- {}")
@example(data=b"\xef\xbb\xbfpoll: \xff")
@example(data="poll: {fast: 1\u20281}".encode())
@example(data=b"receivers: [{name: r, webhook_configs: [{template: {? [a] : 1}}]}]")
@example(data=b"rules: [{alert: a, metric: gpu_power_watts, above: " + b"9" * 5000 + b"}]")
@example(data=b"alertmanager_receiver: {routes: [{matchers: ['a=~\"(?P<x>'], action: a}]}")
def test_any_bytes_are_a_configuration_or_mistakes(
    data: bytes, loader: type[yaml.SafeLoader], scratch: Path
) -> None:
    """Whatever a file holds, it gives a Config, or a ConfigError of lines that name the file."""
    scratch.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yamlfile, "LOADER", loader)
        try:
            load(scratch, COLLECTORS, METRICS)
        except ConfigError as error:
            mistakes = error.mistakes
        else:
            return
    lines = "\n".join(mistakes).splitlines()
    assert lines == list(mistakes)
    assert lines
    assert all(line.startswith(f"{scratch}:") for line in lines)


SWITCH = st.booleans()
NAME = st.text(string.ascii_letters + string.digits + "_", min_size=1, max_size=6)
TEXT = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=8)
LABEL = st.from_regex("[a-z][a-z0-9_]{0,5}", fullmatch=True)
FILE = TEXT.filter(lambda text: "$" not in text).map(lambda text: Path("/run") / text)
HOST = st.sampled_from(["scaler.internal", "10.1.2.3", "[2001:db8::1]:8443", "a-b.example:1"])
ANYTHING = st.recursive(
    TEXT | st.integers(-(10**9), 10**9) | SWITCH | st.just(-0.5),
    lambda part: st.lists(part | st.none(), max_size=3) | st.dictionaries(TEXT, part, max_size=3),
    max_leaves=6,
)


def seconds(least: int, most: int) -> st.SearchStrategy[float]:
    """Draw a time that is written in milliseconds, its bounds in milliseconds too."""
    return st.integers(least, most).map(lambda count: count / 1000)


def distinct(of: st.SearchStrategy[Any], by: Callable[[Any], Any] | None = None) -> Any:
    """Draw a tuple in which nothing is twice."""
    return st.lists(of, max_size=3, unique_by=by or (lambda item: item)).map(tuple)


@st.composite
def thresholds(draw: st.DrawFn) -> dict[str, float]:
    """Draw a threshold, and perhaps where it clears."""
    bound, clear = sorted([draw(st.floats(0, 1)), draw(st.floats(0, 1))])
    if draw(SWITCH):
        bound, clear = clear, bound
        kind = {"above": bound, "clear_below": clear}
    else:
        kind = {"below": bound, "clear_above": clear}
    return dict(list(kind.items())[: draw(st.integers(1, 2))])


@st.composite
def conditions(draw: st.DrawFn) -> Condition:
    """Draw a second condition."""
    bounds = [draw(st.floats(-1e20, 1e20)), None]
    above, below = draw(st.permutations(bounds))
    return Condition("gpu_power_watts", above, below)


@st.composite
def rules(draw: st.DrawFn, fast: int, actions: tuple[str, ...]) -> Rule:
    """Draw a rule for a poll of `fast` milliseconds."""
    return Rule(
        alert=draw(NAME),
        metric=draw(st.sampled_from(METRICS)),
        **draw(thresholds()),
        for_seconds=draw(st.just(0.0) | seconds(3 * fast, 86_400_000)),
        keep_firing_for_seconds=draw(seconds(0, 86_400_000)),
        max_gap_seconds=draw(seconds(fast, 600_000)),
        min_coverage=draw(st.floats(0, 1)),
        smooth_seconds=draw(seconds(0, 600_000)),
        aggregate=draw(
            st.sampled_from([Aggregate(kind) for kind in ("any", "all", "mean", "max")])
            | st.integers(1, 999_999_999).map(lambda count: Aggregate("quorum", count))
        ),
        and_=draw(st.none() | conditions()),
        actions=draw(distinct(st.sampled_from(actions))) if actions else (),
    )


def actions(receivers: tuple[str, ...]) -> st.SearchStrategy[Action]:
    """Draw an action."""
    recording = st.builds(
        FlightRecorder,
        interval_seconds=seconds(50, 60_000),
        duration_seconds=seconds(1000, 86_400_000),
        max_bytes=st.integers(1 << 20, 999_999_999) | st.just(1 << 40),
        max_recordings=st.integers(1, 10_000),
        before_seconds=seconds(0, 600_000),
    )
    recorder = st.builds(Action, name=NAME, flight_recorder=recording)
    if not receivers:
        return recorder
    return recorder | st.builds(
        Action,
        name=NAME,
        receiver=st.sampled_from(receivers),
        group_by=distinct(LABEL),
        cooldown_seconds=seconds(1000, 604_800_000),
        max_per_hour=st.integers(1, 3600),
        send_resolved=SWITCH,
        dry_run=SWITCH,
        step=st.integers(1, 1000),
    )


@st.composite
def http(draw: st.DrawFn) -> dict[str, Any]:
    """Draw what all targets have."""
    pair = draw(st.none() | st.tuples(FILE, FILE))
    cert, key = pair or (None, None)
    who = draw(
        st.builds(HttpConfig)
        | st.builds(Authorization, FILE, NAME.filter(lambda name: name.lower() != "basic")).map(
            lambda header: HttpConfig(authorization=header)
        )
        | st.builds(BasicAuth, TEXT.filter(lambda text: ":" not in text), FILE).map(
            lambda user: HttpConfig(basic_auth=user)
        )
    )
    tls = TlsConfig(
        draw(st.none() | FILE), cert, key, draw(st.none() | TEXT), draw(SWITCH), "TLS13"
    )
    least = draw(st.integers(1000, 3_600_000))
    return {
        "http_config": HttpConfig(who.authorization, who.basic_auth, tls, allow_http=True),
        "timeout_seconds": draw(seconds(100, 60_000)),
        "retry": Retry(
            least / 1000,
            draw(seconds(least, 3_600_000)),
            draw(seconds(least, 86_400_000)),
        ),
    }


def without_variables(value: Any) -> Any:
    """Return a template's value with its dollars written as a template has them."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, list):
        return [without_variables(one) for one in value]
    if isinstance(value, dict):
        return {key.replace("$", "$$"): without_variables(one) for key, one in value.items()}
    return value


@st.composite
def receivers(draw: st.DrawFn) -> Receiver:
    """Draw a receiver."""
    url = f"{draw(st.sampled_from(['http', 'https']))}://{draw(HOST)}/"
    template = draw(st.none() | ANYTHING.map(without_variables))
    by_file = draw(SWITCH)
    webhook = WebhookConfig(
        url=None if by_file else url,
        url_file=draw(FILE) if by_file else None,
        format="json" if template is None else "template",
        template=template,
        signing_secret_file=draw(st.none() | FILE),
        **draw(http()),
    )
    alertmanager = AlertmanagerConfig(url, draw(seconds(1000, 600_000)), **draw(http()))
    kubernetes = KubernetesConfig(
        api_server=url,
        namespace="llm",
        scale_target_ref=ScaleTargetRef("apps/v1", "Deployment", "vllm.old"),
        max_replicas=draw(st.integers(1, 999_999_999)),
        step=draw(st.none() | st.integers(1, 999_999_999)),
        lease="a-lease",
        single_writer=draw(SWITCH),
        refuse_if_hpa=draw(SWITCH),
        allow_from_zero=draw(SWITCH),
        **draw(http()),
    )
    return Receiver(
        draw(NAME), (webhook,), (alertmanager,), (kubernetes,) * draw(st.integers(0, 2))
    )


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """Draw from all configurations that are valid."""
    fast = draw(st.integers(250, 60_000))
    targets = draw(distinct(receivers(), lambda receiver: receiver.name))
    names = tuple(target.name for target in targets)
    done = draw(distinct(actions(names), lambda action: action.name))
    known = tuple(action.name for action in done)
    watched = draw(distinct(rules(fast, known), lambda rule: rule.alert))
    routes = st.builds(
        Route,
        matchers=distinct(st.sampled_from(['a="b"', "a!=b", 'a=~"b|c"'])),
        action=st.sampled_from(known or ("none",)),
        continue_=SWITCH,
    )
    intake = st.builds(
        AlertmanagerReceiver,
        path=st.just("/hook"),
        authorization=st.none() | st.builds(Authorization, FILE),
        routes=st.lists(routes, min_size=1, max_size=2).map(tuple),
    )
    return Config(
        poll=Poll(
            fast_seconds=fast / 1000,
            slow_seconds=draw(seconds(fast, 600_000)),
            pcie_seconds=draw(seconds(1000, 600_000)),
            deadline_seconds=draw(st.none() | seconds(50, fast - 1)),
        ),
        collectors=draw(st.dictionaries(st.sampled_from(COLLECTORS), SWITCH)),
        global_=Global(draw(st.dictionaries(LABEL, TEXT, max_size=3))),
        rules=watched,
        actions=done,
        receivers=targets,
        scale_groups=draw(
            st.sampled_from([(), (ScaleGroup("a", ("0-3", "5")), ScaleGroup("b", ("4",)))])
        ),
        alertmanager_receiver=draw(st.none() | intake) if known else None,
    )


@UNTIMED
@given(config=configs())
@example(config=Config(actions=(DEFAULT_ACTIONS[0],), rules=DEFAULT_RULES[:1]))
def test_a_valid_configuration_survives_being_written(scratch: Path, config: Config) -> None:
    """What is written out reads back equal: the defaults too are within their own bounds."""
    scratch.write_text(json.dumps(written(config, Key("")), ensure_ascii=False))
    assert load(scratch, COLLECTORS, [*METRICS, "gpu_memory_used_ratio"]) == config
