"""The configuration file: what is read from it, and what is said about every mistake in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from exporter import catalogue, yamlfile
from exporter.config import Config, ConfigError, Poll, load
from exporter.schema import as_duration

CONFIGS = Path(__file__).parent / "configs"
COLLECTORS = {"memory", "power", "temperature"}
UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
LOADERS = [yaml.SafeLoader, *([yaml.CSafeLoader] if yaml.__with_libyaml__ else [])]


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
        return load(path, COLLECTORS)
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
        ("good-most.yml", Config(Poll(60.0, 600.0, 600.0, 59.999))),
        ("good-alias.yml", Config(poll=Poll(fast_seconds=2.0, pcie_seconds=2.0))),
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
    assert load(CONFIGS / name, COLLECTORS) == expected


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
    config = load(CONFIGS / "good-full.yml", COLLECTORS)
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


def test_the_bound_of_bytes(scratch: Path) -> None:
    """A file of 1 MiB is read, and one byte more is refused unread."""
    scratch.write_bytes(b"#" * (1 << 20))
    assert load(scratch, COLLECTORS) == Config()
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
    assert len(load(scratch, names).collectors) == 4998
    scratch.write_text(body + "poll:\n")
    assert outcome(scratch) == (
        f"{scratch}:5000:6: more than 10000 keys and values, with aliases; write fewer",
    )


WORDS = "poll collectors fast slow pcie deadline power 1s 10 500ms on true ~ << *a &a !x --- é 🙂"
MARKS = [*"-?:,[]{}#&*!|>'\"%@`~\\\t\n\r\0\x85\u2028\ufeff", ": ", "\n  ", "\\U00110000"]
PIECES = st.lists(st.sampled_from([*WORDS.split(), *MARKS]) | st.just(" "), max_size=40)
FILES = st.binary() | PIECES.map(lambda pieces: "".join(pieces).encode())


@pytest.mark.parametrize("loader", LOADERS)
@UNTIMED
@given(data=FILES)
@example(data=b'"\\U00110000"')
@example(data=b"%YAML " + b"9" * 5000 + b".1\n--- {}")
@example(data=b"\xef\xbb\xbfpoll: \xff")
@example(data="poll: {fast: 1\u20281}".encode())
def test_any_bytes_are_a_configuration_or_mistakes(
    data: bytes, loader: type[yaml.SafeLoader], scratch: Path
) -> None:
    """Whatever a file holds, it gives a Config, or a ConfigError of lines that name the file."""
    scratch.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yamlfile, "LOADER", loader)
        result = outcome(scratch)
    if not isinstance(result, Config):
        lines = "\n".join(result).splitlines()
        assert lines == list(result)
        assert lines
        assert all(line.startswith(f"{scratch}:") for line in lines)


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """Draw from all configurations that are valid."""

    def milliseconds(least: int, most: int) -> float:
        return draw(st.integers(least, most)) / 1000

    fast = milliseconds(250, 60_000)
    poll = Poll(
        fast_seconds=fast,
        slow_seconds=milliseconds(round(fast * 1000), 600_000),
        pcie_seconds=milliseconds(1000, 600_000),
        deadline_seconds=draw(st.none() | st.just(milliseconds(50, round(fast * 1000) - 1))),
    )
    return Config(poll, draw(st.dictionaries(st.sampled_from(sorted(COLLECTORS)), st.booleans())))


@UNTIMED
@given(configs())
@example(Config())
def test_a_valid_configuration_survives_being_written(scratch: Path, config: Config) -> None:
    """What is written out reads back equal: the defaults too are within their own bounds."""
    poll = {
        "fast": as_duration(config.poll.fast_seconds),
        "slow": as_duration(config.poll.slow_seconds),
        "pcie": as_duration(config.poll.pcie_seconds),
    }
    if config.poll.deadline_seconds is not None:
        poll["deadline"] = as_duration(config.poll.deadline_seconds)
    whole = {"poll": poll, "collectors": dict(config.collectors)}
    scratch.write_text(yaml.safe_dump(whole))
    assert load(scratch, COLLECTORS) == config


def test_the_documentation_is_right(scratch: Path) -> None:
    """The example in the documentation is valid, and every collector is named there."""
    text = (CONFIGS.parents[1] / "docs" / "configuration.md").read_text()
    scratch.write_text(text.partition("```yaml\n")[2].partition("```")[0])
    assert isinstance(load(scratch, catalogue.COLLECTORS), Config)
    assert [name for name in catalogue.COLLECTORS if f"`{name}`" not in text] == []


def test_without_a_file_yaml_is_not_loaded() -> None:
    """A daemon that runs on its defaults does not pay for the parser's memory."""
    code = "import sys, exporter.config; exporter.config.Config(); sys.exit('yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
