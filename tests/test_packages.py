"""The packages, through their life on a machine: installed, upgraded, removed, purged."""

from __future__ import annotations

import email
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from container import Container, booted, missing_right
from packaged import MACHINE, Packages, install

from exporter import __version__

pytestmark = [pytest.mark.slow(40), pytest.mark.timeout(300)]

UNIT = "gpu-node-exporter.service"
CONFIG = "/etc/gpu-node-exporter/config.yml"
ENVIRONMENT = "/etc/default/gpu-node-exporter"
OWN = "poll: {fast: 2s}\n"
# Whatever bears our name, where packages and services leave things.
TRACES = "find /etc /usr /var /run -xdev -name '*gpu-node-exporter*' ! -path '/var/log/*'"
PYTHONS = [f"python3.{minor}" for minor in range(10, 15)]
CHECK = """
import sys
sys.path.insert(0, sys.argv[1])
sys.dont_write_bytecode = True
import psutil, requests, yaml
import exporter.app, exporter.cli, exporter.scaleout.service
assert not yaml.__with_libyaml__
for module in (psutil, requests, yaml, exporter):
    assert module.__file__.startswith(sys.argv[1]), module
psutil.virtual_memory()
sys.exit(exporter.cli.run(sys.argv[2:]))
"""


@pytest.fixture
def machine(packages: Packages, tmp_path: Path) -> Iterator[Container]:
    """Give a machine that has never seen the package, without a network."""
    if (why := missing_right()) is not None:
        pytest.skip(why)
    with booted(tmp_path, {packages.folder: "/opt/packages"}) as container:
        yield container


@pytest.fixture(scope="module")
def unpacked(packages: Packages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder in which the .deb's files lie."""
    root = tmp_path_factory.mktemp("unpacked")
    subprocess.run(["dpkg-deb", "-x", packages.folder / packages.deb, root], check=True)
    return root


def test_nobody_is_named_as_the_maintainer(packages: Packages) -> None:
    """Both kinds of package name a role, at a domain that can never be anybody's (RFC 2606)."""
    deb, rpm = packages.folder / packages.deb, packages.folder / packages.rpm
    role = "gpu-node-exporter maintainers <maintainers@gpu-node-exporter.invalid>"
    commands: tuple[list[str | Path], ...] = (
        ["dpkg-deb", "--field", deb, "Maintainer"],
        ["rpm", "--query", "--queryformat=%{PACKAGER}\n", "--package", rpm],
    )
    for command in commands:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        assert done.stdout == f"{role}\n"


def pid(machine: Container) -> str:
    """Return the running service's process."""
    shown = machine.show(UNIT, "ActiveState", "MainPID")
    assert shown["ActiveState"] == "active", machine.journal(f"--unit={UNIT}")
    return shown["MainPID"]


def use(machine: Container) -> None:
    """Change the config as an operator does, and let the service leave something behind."""
    machine.write(CONFIG, OWN)
    machine.write(ENVIRONMENT, 'ARGS="--simulate=t4"\n')
    machine.run("systemctl", "restart", UNIT)
    machine.sh("touch /var/lib/gpu-node-exporter/kept")


def is_kept(machine: Container) -> bool:
    """Return whether what `use` did is still there."""
    assert machine.sh(f"cat {CONFIG}") == OWN
    assert "--simulate=t4" in machine.sh(f"cat {ENVIRONMENT}")
    return machine.run("test", "-e", "/var/lib/gpu-node-exporter/kept", check=False).returncode == 0


def test_the_life_of_a_deb(machine: Container, packages: Packages) -> None:
    """Installed it runs; upgraded it runs anew, with config and state; purged it leaves nothing."""
    before = machine.sh(TRACES)
    machine.run("apt-get", "install", "--yes", f"/opt/packages/{packages.deb}")
    assert machine.show(UNIT, "UnitFileState") == {"UnitFileState": "enabled"}
    assert machine.show("gpu-node-exporter.socket", "UnitFileState") == {
        "UnitFileState": "disabled"
    }
    pid(machine)
    use(machine)
    old = pid(machine)
    install(machine, packages.next_deb)
    assert pid(machine) != old
    assert is_kept(machine)
    offered = machine.sh(f"tail -n 1 {CONFIG}.dpkg-dist")
    assert offered == "# The next release says more.\n"

    machine.run("dpkg", "--remove", "gpu-node-exporter")
    assert machine.run("systemctl", "is-active", UNIT, check=False).stdout == "inactive\n"
    assert machine.run("sh", "-c", "test -e /usr/bin/gpu-node-exporter", check=False).returncode
    assert is_kept(machine)
    assert machine.sh("find /usr/lib/gpu-node-exporter", check=False) == ""
    install(machine, packages.next_deb)
    pid(machine)
    assert is_kept(machine)

    machine.run("dpkg", "--purge", "gpu-node-exporter")
    assert machine.sh(TRACES) == before


def test_a_deb_leaves_what_the_administrator_switched_off(
    machine: Container, packages: Packages
) -> None:
    """A service that is stopped, disabled or masked stays so through an upgrade."""
    install(machine, packages.deb)
    machine.run("systemctl", "stop", UNIT)
    install(machine, packages.next_deb)
    state = machine.show(UNIT, "ActiveState", "UnitFileState")
    assert state == {"ActiveState": "inactive", "UnitFileState": "enabled"}
    machine.run("systemctl", "disable", UNIT)
    install(machine, packages.deb)
    state = machine.show(UNIT, "ActiveState", "UnitFileState")
    assert state == {"ActiveState": "inactive", "UnitFileState": "disabled"}
    machine.run("systemctl", "mask", UNIT)
    install(machine, packages.next_deb)
    assert machine.show(UNIT, "UnitFileState") == {"UnitFileState": "masked"}


def test_the_life_of_an_rpm(machine: Container, packages: Packages) -> None:
    """As of a .deb, but the distribution decides whether it is enabled, and state stays."""
    machine.write("/etc/systemd/system-preset/00-test.preset", f"enable {UNIT}\n")
    rpm = ["rpm", "--nodeps"]  # what it depends on is there, but as Debian's packages
    machine.run(*rpm, "--install", f"/opt/packages/{packages.rpm}")
    assert machine.run("systemctl", "is-enabled", UNIT).stdout == "enabled\n"
    assert machine.show(UNIT, "ActiveState") == {"ActiveState": "inactive"}
    machine.run("systemctl", "start", UNIT)
    use(machine)
    old = pid(machine)
    machine.run(*rpm, "--upgrade", f"/opt/packages/{packages.next_rpm}")
    assert pid(machine) != old
    assert is_kept(machine)
    assert machine.sh(f"tail -n 1 {CONFIG}.rpmnew") == "# The next release says more.\n"
    assert machine.run(*rpm, "--verify", "gpu-node-exporter", check=False).stdout.split() == [
        *("S.5....T.", "c", ENVIRONMENT),
        *("S.5....T.", "c", CONFIG),
    ]
    machine.run(*rpm, "--erase", "gpu-node-exporter")
    assert machine.run("systemctl", "is-active", UNIT, check=False).stdout == "inactive\n"
    assert machine.sh(f"cat {CONFIG}.rpmsave") == OWN
    assert (
        machine.sh("find /usr/lib/gpu-node-exporter /etc/systemd -name '*gpu*'", check=False) == ""
    )


# What is in them


def test_there_is_one_of_each(packages: Packages) -> None:
    """One command builds sdist, wheel, and both packages for both kinds of machine."""
    names = {path.name for path in packages.folder.iterdir() if "-2" not in path.name}
    version = __version__
    assert names == {
        f"gpu_node_exporter-{version}.tar.gz",
        f"gpu_node_exporter-{version}-py3-none-any.whl",
        f"gpu-node-exporter_{version}-1_amd64.deb",
        f"gpu-node-exporter_{version}-1_arm64.deb",
        f"gpu-node-exporter-{version}-1.x86_64.rpm",
        f"gpu-node-exporter-{version}-1.aarch64.rpm",
    }


@pytest.mark.parametrize("python", PYTHONS)
def test_one_package_does_for_every_python(unpacked: Path, python: str) -> None:
    """Every Python of this machine loads all that the package brings, and nothing else."""
    interpreter = runnable(python)
    if interpreter is None:
        pytest.skip(f"there is no {python} here")
    library = unpacked / "usr/lib/gpu-node-exporter"
    config = unpacked / "etc/gpu-node-exporter/config.yml"
    done = subprocess.run(
        [interpreter, "-IS", "-c", CHECK, library, "check-config", config],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == (f"{config}: good\n", "")


def runnable(python: str) -> str | None:
    """Return a Python's path if it runs: version managers have names for those that they lack."""
    path = shutil.which(python)
    if path is None:
        return None
    command = [path, "-c", "import sys; print(sys.executable)"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def test_nothing_is_for_one_python_alone(unpacked: Path) -> None:
    """Each compiled part has the stable ABI; no bytecode, no tests, no command of a library."""
    library = unpacked / "usr/lib/gpu-node-exporter"
    compiled = {str(path.relative_to(library)) for path in library.rglob("*.so")}
    assert compiled == {"bcrypt/_bcrypt.abi3.so", "psutil/_psutil_linux.abi3.so"}
    assert not list(library.rglob("__pycache__"))
    assert not (library / "bin").exists()


def test_compiled_parts_are_of_the_package_s_machine(packages: Packages, tmp_path: Path) -> None:
    """The package for ARM holds code for ARM: built on any machine, each has its own."""
    machines = {"amd64": 62, "arm64": 183}  # e_machine in the ELF header
    for name, number in machines.items():
        deb = packages.folder / packages.find(f"*-1_{name}.deb")
        subprocess.run(["dpkg-deb", "-x", deb, tmp_path / name], check=True)
        libraries = list((tmp_path / name).rglob("*.so"))
        found = {int.from_bytes(library.read_bytes()[18:20], "little") for library in libraries}
        assert found == {number}


def test_libraries_are_the_tested_ones(unpacked: Path) -> None:
    """Versions in the package are those of constraints.txt."""
    pins = (Path(__file__).parents[1] / "constraints.txt").read_text().splitlines()
    found = sorted((unpacked / "usr/lib/gpu-node-exporter").glob("*.dist-info/METADATA"))
    assert len(found) > 7
    for path in found:
        about = email.message_from_string(path.read_text())
        name = about["Name"].lower().replace("_", "-")
        assert name == "gpu-node-exporter" or f"{name}=={about['Version']}" in pins


def test_sdist_and_wheel_are_whole(packages: Packages, unpacked: Path) -> None:
    """The wheel has every module; the sdist also what runs as a service, and its licence."""
    (wheel,) = packages.folder.glob("*.whl")
    modules = {path for path in zipfile.ZipFile(wheel).namelist() if path.startswith("exporter/")}
    library = unpacked / "usr/lib/gpu-node-exporter"
    files = (path for path in library.glob("exporter/**/*") if path.is_file())
    installed = {str(path.relative_to(library)) for path in files}
    assert modules == {*installed, "exporter/py.typed"}
    (sdist,) = packages.folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "systemd/gpu-node-exporter.service", "systemd/config.yml"} <= names


def test_an_outdated_python_is_told(unpacked: Path) -> None:
    """The launcher has no syntax that an old Python cannot read before it looks for a newer one."""
    launcher = unpacked / "usr/bin/gpu-node-exporter"
    code = "import ast, sys; ast.parse(open(sys.argv[1]).read(), feature_version=(3, 6))"
    subprocess.run([sys.executable, "-c", code, launcher], check=True)
    assert launcher.read_text().startswith("#!/usr/bin/python3 -IS\n")
    assert MACHINE in ("amd64", "arm64")
