"""Matchers mean here what they mean in Alertmanager, and what may take long is refused."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from debian import program
from hypothesis import given
from hypothesis import strategies as st

from exporter.matchers import parse_matchers

LABELS = {"alertname": "GpuHot", "severity": "page", "node": "gpu-017", "odd": "a, b"}


def matches(text: str, labels: dict[str, str]) -> bool:
    """Return whether all matchers in a text hold."""
    return all(matcher.matches(labels) for matcher in parse_matchers(text))


@pytest.mark.parametrize(
    ("text", "is_match"),
    [
        ('alertname="GpuHot"', True),
        ("alertname=GpuHot", True),
        (" alertname =  GpuHot ", True),
        ('{alertname="GpuHot"}', True),
        ('alertname="GpuHot",severity="page"', True),
        ('{ alertname="GpuHot" , severity="ticket" , }', False),
        ('alertname="gpuhot"', False),
        ('alertname!="GpuHot"', False),
        ('alertname!="GpuCold"', True),
        ('alertname=~"Gpu"', False),
        ('alertname=~"Gpu.*"', True),
        ('alertname=~"Gpu|GpuHot"', True),
        ('alertname=~"X.*y.*|Gpu.*t.*"', True),
        ('alertname=~"^GpuHot$"', True),
        ('alertname=~"(?i)gpuhot"', True),
        ('alertname!~"Gpu"', True),
        ('alertname!~".*Hot"', False),
        ('severity=~"page|critical"', True),
        ("severity=~page|critical", True),
        ('node=~"gpu-[0-9]+"', True),
        (r'node=~"gpu-\\d{3}"', True),
        (r'node=~"gpu-\d{3}"', True),
        (r'node=~"gpu\\.017"', False),
        (r'node=~"(?:gpu|cpu)-01[^0-6]"', True),
        ('missing=""', True),
        ("missing=", True),
        ('missing!=""', False),
        ('missing=~".*"', True),
        ('missing=~".+"', False),
        ('missing!="x"', True),
        ('odd="a, b"', True),
        ('odd=~"a, .",node=~".*7"', True),
        (r'odd!="a\"b\\c\nd"', True),
        ("alertname==GpuHot", False),
    ],
)
def test_same_as_alertmanager(tmp_path: Path, text: str, is_match: bool) -> None:
    """A matcher decides as Debian's amtool does with the same labels."""
    assert matches(text, LABELS) is is_match
    config = tmp_path / "alertmanager.yml"
    config.write_text(
        f"""
route: {{receiver: "no", routes: [{{receiver: "yes", matchers: [{json.dumps(text)}]}}]}}
receivers: [{{name: "no"}}, {{name: "yes"}}]
"""
    )
    labels = [f"{name}={json.dumps(value)}" for name, value in LABELS.items()]
    command = [str(program("amtool")), "config", "routes", "test", f"--config.file={config}"]
    said = subprocess.run([*command, *labels], capture_output=True, text=True, check=True).stdout
    assert said.strip() == ("yes" if is_match else "no")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("{}", "is empty"),
        ("alertname", "is no matcher"),
        ('alertname="x', "is no matcher"),
        ('alertname="x"y"', "is no matcher"),
        ('a="b" c="d"', "is no matcher"),
        ("0a=b", "is no matcher"),
        ('{a="b"', "is no matcher"),
        ("a-b=c", "is no matcher"),
        ('a=~"("', "bad pattern"),
        ('a=~"[z-a]"', "bad pattern"),
        ('a=~"*"', "bad pattern"),
        (r'a=~"\\pL"', "bad pattern"),
        ('a=~"x{1,99999999999}"', "bad pattern"),
        (r'a=~"(x)\\1"', "not both RE2's and Python's"),
        ('a=~"(?=x)"', "not both RE2's and Python's"),
        ('a=~"x(?i)y"', "not both RE2's and Python's"),
        ('a=~"[[:alpha:]]"', "not both RE2's and Python's"),
        ('a=~"[a--b]"', "not both RE2's and Python's"),
        ('a=~"(a+)+"', "repeats a group"),
        ('a=~"(a|a)*"', "repeats a group"),
        ('a=~"((a{2})){30}"', "repeats a group"),
        ('a=~"a*a*a*b"', "more than 2 times"),
        ('a=~"a?a?a?"', "more than 2 times"),
        ('a=~"(a*|b*|c*)"', "more than 2 times"),
    ],
)
def test_mistakes(text: str, reason: str) -> None:
    """What is no matcher, means something else in Alertmanager, or may take long, says so."""
    with pytest.raises(ValueError, match=reason) as caught:
        parse_matchers(text)
    assert str(caught.value).isprintable()


def test_long_values() -> None:
    """A value that is too long for patterns matches none, and no opposite of one."""
    for operator in ("=~", "!~"):
        assert matches(f'a{operator}"x*"', {"a": "x" * 256}) is (operator == "=~")
        assert not matches(f'a{operator}"x*"', {"a": "x" * 257})
    assert matches('a!="y"', {"a": "x" * 257})


@given(st.text(alphabet='a=~!"{}\\,|*+?()[]^$.-1n ') | st.text())
def test_any_text(text: str) -> None:
    """Any text is a matcher, or a mistake in one line."""
    try:
        matchers = parse_matchers(text)
    except ValueError as error:
        assert str(error).isprintable() or not text.isprintable()  # noqa: PT017
    else:
        for matcher in matchers:
            matcher.matches({"a": text})
