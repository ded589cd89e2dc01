"""The project's own tooling: what a newcomer's first commands meet, and the pins."""

import ast
import re
import shutil
import subprocess
import sys
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from debian import program
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PREPARE = ROOT / "scripts" / "prepare.py"


def prepare(tree: Path, before: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs a copy of prepare.py in an empty tree, on a machine that the code before it makes poor.

    PATH is empty: there is no apt-get, no sudo and no compiler, so nothing can be installed.
    """
    (tree / "scripts").mkdir()
    copy = shutil.copy(PREPARE, tree / "scripts")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tree)
    code = f"import runpy, sys\n{before}\nrunpy.run_path({str(copy)!r}, run_name='__main__')"
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        env={"PATH": str(tree)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_prepare_tells_an_old_python(tmp_path: Path) -> None:
    """A Python below 3.10 is refused in one line that says how to name another."""
    ended = prepare(tmp_path, "sys.version_info = (3, 9, 18, 'final', 0)", "run")
    assert ended.returncode == 1
    assert re.fullmatch(r"gpu-node-exporter needs Python 3\.10 .* make PYTHON=.*\n", ended.stderr)


def test_prepare_can_be_read_by_an_old_python() -> None:
    """The refusal is reached: the file has no syntax that came after Python 3.6."""
    ast.parse(PREPARE.read_text(encoding="utf-8"), feature_version=(3, 6))


def test_prepare_names_every_missing_package_at_once(tmp_path: Path) -> None:
    """Without venv's package and a compiler, one message names both; no half-made .venv is left."""
    hidden = "sys.modules['ensurepip'] = sys.modules['virtualenv'] = None"
    ended = prepare(tmp_path, hidden, "dev", "compiler")
    assert ended.returncode == 1
    assert f"python3.{sys.version_info.minor}-venv gcc libc6-dev" in ended.stderr
    assert not (tmp_path / ".venv").exists()


def test_absent_program_fails_its_test() -> None:
    """A test that wants a program which is not there fails, and is told the command to run."""
    either = (pytest.fail.Exception, pytest.skip.Exception)
    with pytest.raises(either, match="make setup") as outcome:
        program("no-such-program")
    assert outcome.type is pytest.fail.Exception


def test_unpacked_alertmanager_finds_its_templates(tmp_path: Path) -> None:
    """Debian's Alertmanager serves from where it was unpacked, with nothing of it in /usr/share."""
    config = tmp_path / "alertmanager.yml"
    config.write_text("{route: {receiver: none}, receivers: [{name: none}]}", encoding="utf-8")
    command = [str(program("prometheus-alertmanager")), f"--config.file={config}"]
    command += [f"--storage.path={tmp_path}", "--cluster.listen-address="]
    command += ["--web.listen-address=127.0.0.1:0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, cwd=tmp_path, text=True) as daemon:
        try:
            assert daemon.stderr is not None
            log = []
            for line in daemon.stderr:
                log.append(line)
                if "Listening on" in line:
                    break
        finally:
            daemon.kill()
    assert "Listening on" in log[-1], "".join(log)


def test_all_that_is_installed_is_pinned() -> None:
    """The tests run on the versions in constraints.txt, to the last: a run can be repeated."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    pinned = {pin.name: str(pin.specifier) for pin in pins if holds(pin, "")}
    installed: dict[str, str] = {}
    todo = [Requirement("gpu-node-exporter[dev]")]
    while todo:
        parent = todo.pop()
        for child in map(Requirement, requires(parent.name) or []):
            name = canonicalize_name(child.name)
            if name not in installed and any(holds(child, e) for e in {"", *parent.extras}):
                installed[name] = f"=={Version(version(name))}"  # some write v1.0
                todo.append(child)
    assert installed.items() <= pinned.items()


def holds(requirement: Requirement, extra: str) -> bool:
    """Whether a requirement counts on this Python, for those who ask for the extra."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})
