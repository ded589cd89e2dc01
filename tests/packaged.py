"""The packages as `make packages` builds them, once for all tests, and a second release of each."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from container import Container

SCRIPT = Path(__file__).parents[1] / "scripts" / "packages.py"
MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "amd64")
RPM_MACHINE = {"amd64": "x86_64", "arm64": "aarch64"}[MACHINE]


@dataclass(frozen=True)
class Packages:
    """Where they are. `next_*` is a later release, whose own config.yml has changed."""

    folder: Path

    def find(self, pattern: str) -> str:
        """Return the one file that matches, by its name."""
        (path,) = self.folder.glob(pattern)
        return path.name

    @property
    def deb(self) -> str:
        """The .deb for this machine."""
        return self.find(f"*-1_{MACHINE}.deb")

    @property
    def next_deb(self) -> str:
        """Its next release."""
        return self.find(f"*-2_{MACHINE}.deb")

    @property
    def rpm(self) -> str:
        """The .rpm for this machine."""
        return self.find(f"*-1.{RPM_MACHINE}.rpm")

    @property
    def next_rpm(self) -> str:
        """Its next release."""
        return self.find(f"*-2.{RPM_MACHINE}.rpm")


def build(folder: Path, work: Path) -> Packages:
    """Build all of them with the command that `make packages` runs, and next releases."""
    done = subprocess.run(
        [sys.executable, SCRIPT, f"--output={folder}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    packages = Packages(folder)
    root = work / "root"
    root.mkdir()
    subprocess.run(["dpkg-deb", "-x", folder / packages.deb, root], check=True)
    config = root / "etc/gpu-node-exporter/config.yml"
    config.write_text(config.read_text() + "# The next release says more.\n")
    script = _script()
    for form in ("deb", "rpm"):
        script.pack(work, form, MACHINE, 2, folder)
    shutil.rmtree(work)
    return packages


def install(container: Container, name: str) -> None:
    """Install or upgrade a .deb as an unattended machine does."""
    command = ["dpkg", "--force-confdef", "--force-confold", "--install", f"/opt/packages/{name}"]
    container.run("env", "DEBIAN_FRONTEND=noninteractive", *command)


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("packages", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
