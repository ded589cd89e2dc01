"""What all tests share: the order of slow ones, golden files, the fake driver library."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos import ROUNDS
from chaos_world import World, world
from fake_nvml import FakeNvml, build
from hypothesis import settings
from nvml_loaded import Node, loaded
from packaged import Packages
from packaged import build as build_packages
from scripted import Clock

from exporter.device import NvmlDevice

CACHE = Path(__file__).parents[1] / ".cache"

# Properties see the same examples on every machine; a long storm finds new ones.
settings.register_profile("ours", derandomize=ROUNDS == 1, deadline=None)
settings.load_profile("ours")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --update."""
    parser.addoption("--update", action="store_true", help="write the golden files anew")


def pytest_configure(config: pytest.Config) -> None:
    """Declare our marks."""
    config.addinivalue_line(
        "markers", "slow(seconds): takes seconds, about so many; runs after the fast tests"
    )
    config.addinivalue_line(
        "markers", "chaos(long): faults and hostility, CHAOS_ROUNDS times; `long`: only if above 1"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run fast tests first, then the longest. Those of a file stay together: they share fixtures.

    Those that only a long storm has are left out of a short one.
    """
    long = [item for item in items if ROUNDS == 1 and _is_long(item)]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
    late = {item: any(map(item.get_closest_marker, ("slow", "chaos"))) for item in items}
    items.sort(key=lambda item: (late[item], -_seconds(item)))
    for item in items:
        group = "packages" if "packages" in getattr(item, "fixturenames", ()) else item.path.name
        item.add_marker(pytest.mark.xdist_group(f"{group} {late[item]}"))


def _is_long(item: pytest.Item) -> bool:
    return any(mark.kwargs.get("long") for mark in item.iter_markers("chaos"))


def _seconds(item: pytest.Item) -> float:
    return max((sum(mark.args) for mark in item.iter_markers("slow")), default=0.0)


@pytest.fixture(scope="session")
def fake_library() -> Path:
    """Build the fake driver library, once for each content of its sources; give its folder."""
    return build(CACHE / "fakenvml")


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """Build every package once."""
    return build_packages(tmp_path_factory.mktemp("packages"), tmp_path_factory.mktemp("next"))


@pytest.fixture
def fake(fake_library: Path) -> Iterator[FakeNvml]:
    """Give a fake node of eight H100, for processes that the test starts."""
    with FakeNvml(fake_library) as node:
        yield node


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Give the clock that the devices behind NVML read in this test."""
    clock = Clock()
    monkeypatch.setattr(NvmlDevice, "now", lambda _: clock())
    return clock


@pytest.fixture
def node(fake_library: Path, clock: Clock) -> Iterator[Node]:
    """Give a fake node of eight H100 inside this process."""
    with loaded(fake_library, clock) as it:
        yield it


@pytest.fixture
def chaotic(tmp_path: Path, fake_library: Path) -> Iterator[World]:
    """Give a node to which everything happens, for daemons that come and go."""
    with world(tmp_path, fake_library) as it:
        yield it
