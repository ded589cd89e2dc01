"""The configuration file: what is read from it, and what is said about every mistake in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import pytest
import yaml

from exporter import yamlfile
from exporter.config import (
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
    InferenceServer,
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
from exporter.config.advice import warnings
from exporter.config.urls import is_exposed, url

CONFIGS = Path(__file__).parent / "configs"
COLLECTORS = {"memory", "power", "temperature"}
METRICS = {
    "gpu_memory_used_ratio",
    "gpu_temperature_celsius",
    "gpu_utilization_ratio",
    "host_memory_used_ratio",
    "inference_requests_waiting",
}
CREDENTIALS = Path("/run/credentials/gpu-node-exporter.service")
LOADERS = [yaml.SafeLoader, *([yaml.CSafeLoader] if yaml.__with_libyaml__ else [])]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what systemd sets."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(CREDENTIALS))
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("NOT_SET", raising=False)


@pytest.fixture(params=LOADERS, ids=lambda loader: loader.__name__)
def any_loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read YAML as with libyaml, then as without."""
    monkeypatch.setattr(yamlfile, "LOADER", request.param)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file that each example of a property writes anew."""
    return tmp_path_factory.mktemp("config") / "scratch.yml"


def outcome(path: Path) -> Config | tuple[str, ...]:
    """Return what a file says, or the mistakes in it."""
    try:
        return load(path, COLLECTORS, METRICS)
    except ConfigError as error:
        return error.mistakes


@pytest.mark.usefixtures("any_loader")
@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.glob("bad-*.yml")))
def test_every_mistake_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file gives exactly the messages that its first lines expect, in the file's order."""
    monkeypatch.chdir(CONFIGS)
    lines = Path(name).read_text(errors="replace").splitlines()
    expected = [line[len("# expect: ") :] for line in lines if line.startswith("# expect: ")]
    assert expected
    assert outcome(Path(name)) == tuple(expected)


@pytest.mark.usefixtures("any_loader")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("good-empty.yml", Config()),
        ("good-comments.yml", Config()),
        ("good-least.yml", Config(Poll(0.25, 0.25, 1.0, 0.05))),
        ("good-most.yml", Config(Poll(60.0, 600.0, 600.0, 59.999), rules=())),
        ("good-slowest-default.yml", Config(Poll(fast_seconds=3.0))),
        ("good-alias.yml", Config(poll=Poll(fast_seconds=2.0, pcie_seconds=2.0))),
        (
            "good-inference.yml",
            Config(
                inference_servers=(
                    InferenceServer("a", "http://localhost:8000/metrics"),
                    InferenceServer(
                        "b",
                        "http://10.0.0.5:8000/metrics?x=1",
                        "triton",
                        ("0-3", "GPU-8f1c2f60-5a7b-4c7c-9c62-0f3a6f0b9d11"),
                        interval_seconds=10.0,
                        timeout_seconds=10.0,
                        http_config=HttpConfig(allow_http=True),
                    ),
                ),
            ),
        ),
        ("good-bom-crlf.yml", Config(Poll(fast_seconds=2.0), {"power": True})),
        (
            "good-full.yml",
            Config(
                poll=Poll(0.5, 90.0, 10.0, 0.25),
                collectors={"memory": True, "power": False, "temperature": False},
            ),
        ),
    ],
)
def test_good_files(name: str, expected: Config) -> None:
    """A file says what it says, whatever YAML it is said in; what it leaves out has its default."""
    assert load(CONFIGS / name, COLLECTORS, METRICS) == expected


@pytest.mark.usefixtures("any_loader")
@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b"\xef\xbb\xbfpol: {}", "1:1"),
        (b"\xef\xbb\xbfpoll: \xff", "1:7"),
        (b"poll:\r\n  fast: 1s\r\n  slow: 1\r\n", "3:9"),
        ("# 🙂é\npoll: {🙂éあ: 1}".encode(), "2:8"),
        ("collectors: {'é🙂': on}".encode(), "1:14"),
        ("collectors: {power: é🙂, memory: 1}".encode(), "1:21"),
    ],
)
def test_places_are_counted_as_editors_do(data: bytes, place: str, scratch: Path) -> None:
    """Lines end with any line ending, columns are characters, a byte order mark is none."""
    scratch.write_bytes(data)
    result = outcome(scratch)
    assert isinstance(result, tuple)
    assert result[0].startswith(f"{scratch}:{place}: ")


def test_values_cannot_be_changed() -> None:
    """A loaded configuration is frozen down to its mappings, so that threads may share it."""
    config = load(CONFIGS / "good-full.yml", COLLECTORS, METRICS)
    assert isinstance(config.collectors, MappingProxyType)
    assert isinstance(Config().collectors, MappingProxyType)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere.yml", "No such file or directory"),
        (".", "Is a directory"),
        ("file/config.yml", "Not a directory"),
        ("/proc/self/mem", "Input/output error"),
    ],
)
def test_a_file_that_cannot_be_read(
    name: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the system says about the file is said in one line, with the file's name."""
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert outcome(Path(name)) == (f"{name}: cannot be read: {reason}",)


def test_no_bytes_are_no_configuration(scratch: Path) -> None:
    """A file that was cut off is refused; one that says nothing on purpose is not."""
    scratch.write_bytes(b"")
    assert outcome(scratch) == (
        f"{scratch}: is empty, maybe cut off; write {{}} if every setting shall have its default",
    )
    for text in ("{}", "\n", "# nothing yet\n"):
        scratch.write_text(text)
        assert load(scratch, COLLECTORS, METRICS) == Config()
    assert load(Path("/dev/null"), COLLECTORS, METRICS) == Config()


def test_the_bound_of_bytes(scratch: Path) -> None:
    """A file of 1 MiB is read, and one byte more is refused unread."""
    scratch.write_bytes(b"#" * (1 << 20))
    assert load(scratch, COLLECTORS, METRICS) == Config()
    scratch.write_bytes(b"#" * ((1 << 20) + 1))
    assert outcome(scratch) == (
        f"{scratch}: is larger than 1 MiB; a configuration must be smaller",
    )


@pytest.mark.usefixtures("any_loader")
@pytest.mark.parametrize("unit", ["[", "- ", "{a: ", "? ", "&a [*a, ", "!!seq ["])
def test_depth_cannot_overflow_the_stack(unit: str, scratch: Path) -> None:
    """Nesting that would crash libyaml's composer, or exhaust Python's stack, is a mistake."""
    scratch.write_text(unit * (500_000 // len(unit)))
    result = outcome(scratch)
    assert isinstance(result, tuple)
    assert [line.startswith(f"{scratch}:1:") for line in result] == [True]


@pytest.mark.usefixtures("any_loader")
def test_the_bound_of_nodes(scratch: Path) -> None:
    """As many keys and values as are allowed are decoded, and one more is refused."""
    names = {f"c{number}" for number in range(4998)}
    body = "collectors:\n" + "".join(f"  {name}: on\n" for name in sorted(names))
    scratch.write_text(body + "#")
    assert len(load(scratch, names, METRICS).collectors) == 4998
    scratch.write_text(body + "poll:\n")
    assert outcome(scratch) == (
        f"{scratch}:5000:6: more than 10000 keys and values, with aliases; write fewer",
    )


HTTP = HttpConfig(
    Authorization(CREDENTIALS / "scaler-token", "Token"),
    tls_config=TlsConfig(
        ca_file=Path("/etc/gpu-node-exporter/ca.pem"),
        cert_file=Path("/etc/gpu-node-exporter/node.pem"),
        key_file=Path("/etc/gpu-node-exporter/node.key"),
        server_name="scaler",
        min_version="TLS13",
    ),
)
RETRY = Retry(2.0, 20.0, 300.0)
CLUSTER = Config(
    global_=Global({"cluster": "prod-eu1", "scale_group": "llm-a", "rack": "010"}),
    rules=(
        Rule(
            "GpuSustainedLoad",
            "gpu_utilization_ratio",
            above=0.95,
            for_seconds=10.0,
            clear_below=0.85,
            keep_firing_for_seconds=30.0,
            min_coverage=0.8,
            smooth_seconds=3.0,
            and_=Condition("gpu_memory_used_ratio", above=0.05),
            actions=("record", "scale-out"),
        ),
        DEFAULT_RULES[0],
        Rule("NodeMemoryHigh", "host_memory_used_ratio", above=0.9, clear_below=0.9),
        Rule(
            "GpusIdle",
            "gpu_utilization_ratio",
            below=0.0,
            for_seconds=3600.0,
            clear_above=0.1,
            aggregate=Aggregate("quorum", 4),
        ),
        Rule(
            "GpusCold",
            "gpu_temperature_celsius",
            below=-5.5,
            clear_above=-5.5,
            aggregate=Aggregate("mean"),
        ),
    ),
    actions=(
        Action("record", FlightRecorder(0.1, 600.0, 256 << 20, 20, 30.0)),
        Action("watch", FlightRecorder()),
        Action(
            "scale-out",
            receiver="llm-a",
            max_per_hour=4,
            send_resolved=True,
            dry_run=True,
            step=2,
        ),
    ),
    receivers=(
        Receiver(
            "llm-a",
            webhook_configs=(
                WebhookConfig(
                    "https://scaler.internal/v1/scale-out?pool=llm-a",
                    format="cloudevents",
                    signing_secret_file=CREDENTIALS / "scaler-webhook",
                    http_config=HTTP,
                    timeout_seconds=4.0,
                    retry=RETRY,
                ),
                WebhookConfig(
                    url_file=Path("/run/secrets/url"),
                    format="template",
                    template={
                        "replicas": 1,
                        "node": "$node",
                        "tags": ["gpu", "1", "on", 0.5, -3, True, None, "~tilde"],
                        "nested": {"key with spaces": [], "empty": {}, "nothing": None},
                    },
                    http_config=HttpConfig(
                        basic_auth=BasicAuth("exporter", Path("/run/secrets/password")),
                        allow_http=True,
                    ),
                ),
            ),
            alertmanager_configs=(
                AlertmanagerConfig("https://alertmanager-0.internal:9093", 20.0),
                AlertmanagerConfig("http://[::1]:9093/am", timeout_seconds=1.0),
            ),
            kubernetes_configs=(
                KubernetesConfig(
                    "https://k8s.internal:6443",
                    "llm",
                    ScaleTargetRef("apps/v1", "Deployment", "vllm"),
                    max_replicas=16,
                    step=2,
                    lease="gpu-node-exporter-scaleout-llm",
                    refuse_if_hpa=False,
                    allow_from_zero=True,
                    http_config=HTTP,
                    retry=RETRY,
                ),
                KubernetesConfig(
                    "http://127.0.0.1:8001",
                    "llm",
                    ScaleTargetRef("v1", "ReplicationController", "vllm.old"),
                    max_replicas=1,
                    single_writer=True,
                ),
            ),
        ),
    ),
    scale_groups=(
        ScaleGroup("llm-a", ("0-3", "6")),
        ScaleGroup("llm-b", ("4", "GPU-8f1c2f60-5a7b-4c7c-9c62-0f3a6f0b9d11")),
    ),
    alertmanager_receiver=AlertmanagerReceiver(
        "/hooks/alertmanager",
        Authorization(CREDENTIALS / "am-token"),
        (
            Route(('alertname="GpuSustainedLoad"', 'severity=~"page|critical"'), "scale-out", True),
            Route((), "record"),
        ),
    ),
)


@pytest.mark.usefixtures("any_loader")
def test_every_section() -> None:
    """A file with every section and nearly every key says all of it."""
    config = load(CONFIGS / "good-cluster.yml", COLLECTORS, METRICS)
    assert config == CLUSTER
    assert config.external_labels["rack"] == "010"
    assert isinstance(config.external_labels, MappingProxyType)


def test_the_password_of_a_url_is_not_told(scratch: Path) -> None:
    """A URL with a password in it is refused without writing the password into logs."""
    scratch.write_text(
        "receivers: [{name: r, webhook_configs: [url: 'https://me:s3cr@t@scaler.internal/']}]"
    )
    result = outcome(scratch)
    assert isinstance(result, tuple)
    assert '"https://...@scaler.internal/" holds a user name' in result[0]
    assert "s3cr" not in result[0]


@pytest.mark.parametrize(
    ("text", "exposed"),
    [
        ("https://scaler.internal", False),
        ("https://Scaler.internal.:8443/a/%C3%A9?b=c&d=$e", False),
        ("https://192.0.2.1/", False),
        ("https://[2001:db8::1]:8443/", False),
        ("http://scaler.internal/", True),
        ("HTTP://scaler.internal/", True),
        ("http://127.0.0.1.nip.io/", True),
        ("http://0.0.0.0/", True),
        ("http://localhost:1/", False),
        ("http://LOCALHOST/", False),
        ("http://127.8.9.1/", False),
        ("http://[::1]/", False),
        ("http://[::ffff:127.0.0.1]/", False),
    ],
)
def test_urls(text: str, exposed: bool) -> None:
    """A URL is taken as it is written; only http to another host is in clear."""
    assert url(text) == text
    assert is_exposed(text) == exposed


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.glob("warn-*.yml")))
def test_warnings(name: str) -> None:
    """Each file is good, and gives exactly the warnings that its first lines expect."""
    lines = (CONFIGS / name).read_text().splitlines()
    expected = [line[len("# expect: ") :] for line in lines if line.startswith("# expect: ")]
    assert list(warnings(load(CONFIGS / name, COLLECTORS, METRICS))) == expected


def test_usual_files_give_no_warnings() -> None:
    """Neither the defaults nor a plain file are warned of."""
    assert warnings(Config()) == ()
    assert warnings(load(CONFIGS / "good-full.yml", COLLECTORS, METRICS)) == ()


def test_without_a_file_yaml_is_not_loaded() -> None:
    """A daemon that runs on its defaults does not pay for the parser's memory."""
    code = "import sys, exporter.config; exporter.config.Config(); sys.exit('yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
