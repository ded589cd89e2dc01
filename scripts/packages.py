# noqa: INP001  a script, in no package
"""Builds all packages into dist/: sdist, wheel, and .deb and .rpm for x86-64 and ARM.

    packages.py [--output DIR] [--release N]

The .deb and .rpm hold the libraries that the exporter needs, in the versions of constraints.txt, as
pure Python and extensions of the stable ABI: one package does for every Python from 3.10 on.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UNITS = ROOT / "systemd"
PYTHON_VERSION = "3.10"  # the oldest: its dependencies are a superset of those of all others
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}  # nfpm's name, the wheels' name
FORMATS = ("deb", "rpm")
# What wheels put beside their packages, and what only helps an interpreter of one version.
LEFT_OUT = ("bin", "_yaml", "example.py", "**/*.cpython-*.so", "**/*.pyi", "**/py.typed")


def main(output: Path, release: int) -> None:
    """Builds everything, or exits with what failed."""
    output.mkdir(parents=True, exist_ok=True)
    for old in output.glob("gpu[-_]node[-_]exporter*"):
        old.unlink()
    with tempfile.TemporaryDirectory(prefix="packages-") as name:
        work = Path(name)
        # The wheel comes from the sdist, so that one which lacks a file is noticed here.
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(output), "."]
        run(command, ROOT, {})
        wheel = next(output.glob("*.whl"))
        for machine in MACHINES:
            lay_out(wheel, machine, work / machine / "root")
            for form in FORMATS:
                pack(work / machine, form, machine, release, output)
    for path in sorted(output.glob("gpu[-_]node[-_]exporter*")):
        sys.stdout.write(f"{path}\n")


def pack(folder: Path, form: str, machine: str, release: int, output: Path) -> None:
    """Builds a package of what lies in the folder `root` in this folder."""
    shutil.copytree(ROOT / "packaging", folder / "packaging", dirs_exist_ok=True)
    version = next((folder / "root").glob("usr/lib/*/gpu_node_exporter-*.dist-info"))
    nfpm = [str(Path(sys.executable).with_name("nfpm")), "package", "--target", str(output)]
    nfpm += ["--config", "packaging/nfpm.yaml", "--packager", form]
    variables = {
        "VERSION": version.name.removesuffix(".dist-info").partition("-")[2],
        "RELEASE": str(release),
        "ARCH": machine,
    }
    run(nfpm, folder, variables)


def lay_out(wheel: Path, machine: str, root: Path) -> None:
    """Puts every file where it will be on a node."""
    library = root / "usr/lib/gpu-node-exporter"
    fetch(wheel, MACHINES[machine], library)
    for source, target, mode in (
        (ROOT / "packaging/gpu-node-exporter", "usr/bin/gpu-node-exporter", 0o755),
        (UNITS / "gpu-node-exporter.service", "usr/lib/systemd/system/", 0o644),
        (UNITS / "gpu-node-exporter.socket", "usr/lib/systemd/system/", 0o644),
        (UNITS / "config.yml", "etc/gpu-node-exporter/config.yml", 0o644),
        (UNITS / "environment", "etc/default/gpu-node-exporter", 0o644),
        (ROOT / "LICENSE", "usr/share/doc/gpu-node-exporter/copyright", 0o644),
        (ROOT / "CHANGELOG.md", "usr/share/doc/gpu-node-exporter/", 0o644),
        (ROOT / "README.md", "usr/share/doc/gpu-node-exporter/", 0o644),
    ):
        place = root / target
        if target.endswith("/"):
            place /= source.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place)
        place.chmod(mode)
    for path in root.rglob("*"):  # whatever the umask of whoever builds
        if path.is_dir():
            path.chmod(0o755)


def fetch(wheel: Path, machine: str, library: Path) -> None:
    """Installs the wheel with its dependencies for any Python and one kind of machine."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pip += ["--target", str(library), "--no-compile", "--only-binary=:all:"]
    pip += ["--constraint", str(ROOT / "constraints.txt"), "--platform", f"manylinux2014_{machine}"]
    pip += ["--python-version", PYTHON_VERSION, "--implementation", "cp"]
    pip += ["--abi", "abi3", "--abi", f"cp{PYTHON_VERSION.replace('.', '')}", "--abi", "none"]
    run([*pip, str(wheel)], ROOT, {})
    for pattern in LEFT_OUT:
        for path in library.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in library.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def run(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    """Runs a command; shows all it printed and exits if it fails."""
    done = subprocess.run(  # noqa: S603  every command is written in this file
        command,
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"{done.stdout.rstrip()}\n{' '.join(command)}: failed")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, default=ROOT / "dist")
    parser.add_argument("--release", type=int, default=1, help="of this version's packages")
    arguments = parser.parse_args()
    main(arguments.output.resolve(), arguments.release)
