"""`doctor` as a command: its report, its JSON, its exit code, and what it reads."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
from doctor_node import BUSES, Node, assert_reads_well
from scripted import Clock, ScriptedDriver

from exporter import once
from exporter.doctor.checks import examine, reference
from exporter.doctor.command import Local, gather
from exporter.doctor.facts import Xids
from exporter.doctor.machine import read, space
from exporter.doctor.readspeed import measure
from exporter.doctor.report import Report, as_dict, text
from exporter.doctor.xids import read as read_xids
from exporter.once import sources
from exporter.poll import Sources
from exporter.sampling import DriverInfo, FoundGpu
from exporter.snapshot import Build
from exporter.xid import Kmsg, Store
from exporter.xid import ledger as xid_ledger

ROOT = Path(__file__).parents[1]
COMMAND = str(Path(sys.executable).parent / "gpu-node-exporter")
MIB = 1 << 20
LOGGED = "NVRM: Xid (PCI:{}): {}, pid=1234, name=python3, Ch 00000008"


def doctor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command, on a machine without a driver."""
    return subprocess.run(
        [COMMAND, "doctor", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LD_LIBRARY_PATH": "", **environment},
    )


def test_machine_without_gpu_is_told() -> None:
    """On this machine, which has no driver, that is the one error, and the host is told."""
    with tempfile.TemporaryDirectory() as short:  # a long path would be a long line
        done = doctor("--storage.path", short)
    assert (done.returncode, done.stderr) == (1, "")
    assert_reads_well(done.stdout)
    assert re.search(r"error   (no NVIDIA GPU|.*no driver)", done.stdout)
    assert "RAM" in done.stdout
    assert "Traceback" not in done.stdout
    assert done.stdout.count("   error ") == 1


def test_json_is_what_is_documented(tmp_path: Path) -> None:
    """The JSON has the keys that docs/doctor.md lists, in every finding, GPU and group."""
    done = doctor("--simulate=b200x8-sick", "--json", "--storage.path", str(tmp_path))
    assert (done.returncode, done.stderr) == (1, "")
    answer = json.loads(done.stdout)
    documentation = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    section = documentation.partition("## JSON")[2].partition("\n## ")[0]
    told = set(re.findall(r"`(\w+)`", section))
    for part in (answer, *answer["findings"], *answer["gpus"], *answer["trial"], answer["driver"]):
        assert set(part) <= told, set(part) - told
    assert answer["format"] == 1
    assert answer["severity"] == "error"
    assert len(answer["gpus"]) == 8
    assert {f["severity"] for f in answer["findings"]} == {"ok", "note", "warning", "error"}


def test_exit_code_tells_whether_something_is_wrong() -> None:
    """0 for a node that is well; 2 for a wrong command line, in a line that says what is right."""
    assert doctor("--simulate=l40s").returncode == 0
    wrong = doctor("--simulat=l40s", "--jsn")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.count("\n") == 1
    assert "did you mean --json?" in wrong.stderr


def test_colours_only_when_asked(tmp_path: Path) -> None:
    """Colour codes are around the severity alone, and do not widen the lines."""
    facts = Node().facts(tmp_path)
    report = Report(facts, examine(facts), "", "now")
    coloured = text(report, colour=True)
    assert "\033[32mok     \033[0m" in coloured
    assert re.sub(r"\033\[[0-9;]*m", "", coloured) == text(report, colour=False)


def test_findings_are_documented() -> None:
    """docs/doctor.md has what `doctor --findings` prints: every kind, its meaning and remedy."""
    done = doctor("--findings")
    assert (done.returncode, done.stdout) == (0, reference())
    assert (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8").endswith(reference())


def test_same_facts_give_the_same_report(tmp_path: Path) -> None:
    """Nothing is read while it is judged: no file, no clock."""
    facts = Node().facts(tmp_path)
    assert examine(facts) == examine(facts)
    report = Report(facts, examine(facts), "", "now")
    assert as_dict(report) == as_dict(report)


@pytest.mark.parametrize("size", [0, 5 * MIB, 40 * MIB + 12345])
def test_model_file_is_read(size: int, tmp_path: Path) -> None:
    """A file of any size is read up to the bound, past the page cache or with a word about it."""
    file = tmp_path / "model.safetensors"
    with file.open("wb") as out:
        out.truncate(size)
    speed = measure(file, 32 * MIB)
    assert speed.problem == ""
    assert speed.read_bytes == min(size, 32 * MIB)
    assert speed.seconds > 0


def test_model_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """A folder, a FIFO that nobody writes to, and nothing at all: each has its problem."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert "no file" in measure(tmp_path).problem
    assert "no file" in measure(fifo).problem
    assert "No such file" in measure(tmp_path / "none").problem


def test_bare_root_is_no_error(tmp_path: Path) -> None:
    """A host that shows nothing, as in a sandbox, is read without an error: all is unknown."""
    seen = read(tmp_path / "models", tmp_path / "none", tmp_path)
    assert seen.memory_bytes is None
    assert seen.kernel.gpus is None
    assert seen.kernel.module_version is None
    assert seen.storage is None
    assert seen.models is not None
    assert seen.models.total_bytes > 0


def test_files_full_of_garbage_are_no_error(tmp_path: Path) -> None:
    """What no kernel writes is taken for unknown, and never for a number."""
    node = Node(
        edit=lambda root: [
            path.write_bytes(b"\xff\x00garbage = -\n" * 10)
            for path in root.rglob("*")
            if path.is_file() and not path.is_symlink()
        ]
    )
    machine = node.facts(tmp_path).machine
    assert machine.memory_bytes is None
    assert machine.vm.swappiness is None
    assert machine.stalls_percent == {}


def test_space_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    """The file system of the nearest folder above counts."""
    assert space(tmp_path / "a" / "b").total_bytes == space(tmp_path).total_bytes


def kmsg(path: Path, *messages: str) -> Path:
    """Write a kernel log in the format of /dev/kmsg."""
    lines = (f"4,{n},{1000 * n},-;{message}\n" for n, message in enumerate(messages, 1))
    path.write_text("".join(lines), encoding="ascii")
    return path


def test_xids_of_this_boot_are_read(tmp_path: Path) -> None:
    """Errors of the kernel log are counted on top of what the daemon has kept of this boot."""
    store = Store(tmp_path, "this-boot")
    kept = xid_ledger.Ledger()
    source = xid_ledger.Source.KERNEL_LOG
    kept.add(xid_ledger.Event(source, BUSES[1], 48, 1.7e9, 1.0))
    store.save(kept)
    path = kmsg(tmp_path / "kmsg", LOGGED.format(BUSES[2][:-2], 79), "usb 1-1: new device")
    found = read_xids([lambda: Kmsg(path)], store)
    assert found.is_seen
    assert sorted(found.counts) == [(BUSES[1], 48), (BUSES[2], 79)]
    assert [count.total for count in found.counts.values()] == [1, 1]


def test_log_that_is_not_for_us_is_told(tmp_path: Path) -> None:
    """Without any way to the kernel log, nothing is claimed of XID errors."""
    found = read_xids([lambda: Kmsg(tmp_path / "none")], None)
    assert found == Xids({}, is_seen=False)


def test_local_is_not_read_for_a_simulated_node() -> None:
    """A simulated node has a simulated host: nothing of this machine is in its report."""
    simulated = gather(sources("t4", lambda: None), None, sleep=lambda _: None)
    assert simulated.machine.kernel.module_version == "535.261.03"
    assert simulated.snapshot.host is not None
    assert simulated.snapshot.host.memory is None


def test_swap_during_the_trial_is_counted(tmp_path: Path) -> None:
    """Pages that move between the two looks at the host are told, those of before are not."""
    moved = iter([500, 800])
    bare = read(tmp_path, None, tmp_path)
    local = Local(lambda: replace(bare, swapped_pages=next(moved)), lambda: Xids({}, is_seen=True))
    facts = gather(sources("none", lambda: None), local, sleep=lambda _: None)
    assert facts.swapped_pages == 300


def test_driver_that_needs_long_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """An nvmlInit that outlasts the first reading is no missing driver; one that hangs is told."""
    monkeypatch.setattr(once, "DEADLINE_SECONDS", 0.01)
    driver, waits = ScriptedDriver(1, Clock()), []
    ready, connected = Event(), Event()

    class Slow(ScriptedDriver):
        def connect(self) -> tuple[DriverInfo, tuple[FoundGpu, ...]]:
            ready.wait(60)
            try:
                return driver.connect()
            finally:
                connected.set()

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            ready.set()
            connected.wait(60)

    program = Build("1", "3", simulated=False)
    origin = Sources(Slow(1, driver.clock), program, lambda: None, driver.clock)
    found = gather(origin, None, sleep=sleep)
    assert found.snapshot.driver is not None
    assert len(waits) >= 4
    ready.clear()
    stuck = gather(Sources(Slow(1, driver.clock), program, lambda: None), None, sleep=waits.append)
    ready.set()
    assert [f.name for f in examine(stuck) if f.severity.is_wrong] == ["no-driver"]
