# noqa: INP001  a script, in no package
"""Installs what a target of the Makefile needs, and nothing where it is there already.

    prepare.py [run | dev | bench | packages | compiler | programs | systemd | browser]...

run, dev, bench, packages: `.venv` with the package, with the tools of the tests, with the bench's
peers, with what builds packages.
compiler: a C compiler with the C library's headers. programs: Debian's Prometheus and its kin,
unpacked into `.cache/debian` rather than installed, because their packages would start services.
systemd: its checker of units, what boots a container of it, and rpm. browser: Chromium, where it
can be had; the tests that look at the status page in it are skipped elsewhere.

Only the standard library, and no syntax that an old Python cannot read: it shall reach the line
that tells it so.
"""

import errno
import fcntl
import hashlib
import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

if sys.version_info < (3, 10):  # noqa: UP036  an outdated Python is the one that reads this
    sys.exit(
        f"gpu-node-exporter needs Python 3.10 or newer; {sys.executable} is "
        f"{sys.version.split()[0]}. Name another: make PYTHON=/path/to/python3.12 ..."
    )

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
DEBIAN = ROOT / ".cache" / "debian"
EXTRAS = {
    "run": "",
    "dev": "[dev]",
    "bench": "[dev,bench]",
    "packages": "[packages]",
}
COMPILER_PACKAGES = ["gcc", "libc6-dev"]
SYSTEMD_PACKAGES = {
    "systemd-analyze": "systemd",
    "systemd-nspawn": "systemd-container",
    "dbus-daemon": "dbus",
    "rpm": "rpm",
}
BROWSER_PACKAGES = ["chromium", "fonts-dejavu-core"]
NO_BROWSER = ROOT / ".cache" / "no-browser"
PROGRAM_PACKAGES = ["prometheus", "prometheus-alertmanager", "prometheus-node-exporter"]
PROGRAMS = ["amtool", "promtool", *PROGRAM_PACKAGES]


def main(wanted: list[str]) -> None:
    """Prepares what is wanted; exits with one plain message where something is missing."""
    tree = os.open(ROOT, os.O_RDONLY)
    fcntl.flock(tree, fcntl.LOCK_EX)  # two makes in one tree would share one half-made .venv
    try:
        install_system_packages(missing_system_packages(wanted))
        for extra in EXTRAS:
            if extra in wanted:
                prepare_venv(extra)
        if "programs" in wanted:
            prepare_programs()
        if "browser" in wanted:
            prepare_browser()
    except PermissionError as error:
        sys.exit(
            f"{error.filename}: no right to write there. Run make as the owner of {ROOT}, "
            f"or remove what another user's make left there: sudo make clean"
        )
    except KeyboardInterrupt:
        sys.exit(130)


def quiet(
    command: list[str], cwd: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs a command without input; what it prints is kept, both streams as one text."""
    return subprocess.run(  # noqa: S603  every command is written in this file
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def must(done: subprocess.CompletedProcess[str], advice: str) -> None:
    """Shows all that a failed command printed, then the advice, and exits."""
    if done.returncode != 0:
        sys.exit(f"{done.stdout.rstrip()}\n{' '.join(map(str, done.args))}: failed. {advice}")


def say(text: str) -> None:
    """One line of progress for whoever waits."""
    sys.stderr.write(f"{text}\n")


# -- the system's packages ---------------------------------------------------------------------


def missing_system_packages(wanted: list[str]) -> list[str]:
    """The Debian packages that only root can install and that what is wanted cannot do without."""
    missing: list[str] = []
    if any(not is_installed(extra) for extra in EXTRAS if extra in wanted) and not venv_maker():
        missing.append(f"python3.{sys.version_info.minor}-venv")
    if "compiler" in wanted and not has_compiler():
        missing += COMPILER_PACKAGES
    if "systemd" in wanted:
        missing += [name for tool, name in SYSTEMD_PACKAGES.items() if not shutil.which(tool)]
    return missing


def install_system_packages(packages: list[str]) -> None:
    """Installs with apt-get as root or through a sudo that asks nothing; else says what to do."""
    if not packages:
        return
    names = " ".join(packages)
    if not shutil.which("apt-get"):
        sys.exit(f"Missing on this machine: what Debian calls {names}. Install it, and make again.")
    root = as_root()
    if root is None:
        sudo = "sudo " if shutil.which("sudo") else ""
        sys.exit(
            f"Missing on this machine: {names}. {'Run' if sudo else 'As root, run'}\n"
            f"    {sudo}apt-get update && {sudo}apt-get install {names}\n"
            "then make again."
        )
    must(apt_install(root, packages), f"The tests and the virtual environment need {names}.")
    importlib.invalidate_caches()


def apt_install(root: list[str], packages: list[str]) -> subprocess.CompletedProcess[str]:
    """Installs packages of this Debian or Ubuntu, after another look at its lists if need be."""
    say(f"Installing {' '.join(packages)} with {' '.join([*root, 'apt-get'])}")
    apt = [*root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
    apt += ["-o", "DPkg::Lock::Timeout=120"]  # seconds that another apt may take to end
    install = [*apt, "install", "--yes", "--no-install-recommends", *packages]
    done = quiet(install)
    if done.returncode != 0:
        quiet([*apt, "update"])  # the lists were empty or old; a source that fails need not matter
        done = quiet(install)
    return done


def prepare_browser() -> None:
    """Installs Chromium where that needs nobody's help, and says so where it does.

    Ubuntu has it as a snap alone: it is not asked for again until `make clean`.
    """
    if shutil.which("chromium") or NO_BROWSER.exists():
        return
    root = as_root() if shutil.which("apt-get") else None
    if root is None or apt_install(root, BROWSER_PACKAGES).returncode != 0:
        say("Chromium cannot be installed here: the tests that look at the status page are skipped")
        NO_BROWSER.parent.mkdir(exist_ok=True)
        NO_BROWSER.touch()


def as_root() -> list[str] | None:
    """The words to put before root's command: none for root, None for who may not be root."""
    if os.geteuid() == 0:
        return []
    sudo = ["sudo", "-n"]
    return sudo if shutil.which("sudo") and quiet([*sudo, "true"]).returncode == 0 else None


def has_compiler() -> bool:
    """Whether `cc` finds the C library's headers."""
    command = ["cc", "-fsyntax-only", "-include", "stdio.h", "-x", "c", os.devnull]
    return shutil.which("cc") is not None and quiet(command).returncode == 0


# -- .venv -------------------------------------------------------------------------------------


def prepare_venv(extra: str) -> None:
    """Makes `.venv` anew where it is not of this Python and these pins; then adds the extra."""
    if is_installed(extra):
        return
    for place in (ROOT, VENV, *ROOT.glob("*.egg-info")):
        if place.exists() and not os.access(place, os.W_OK):
            raise PermissionError(errno.EACCES, "not writable", str(place))
    say(f"Preparing .venv for {extra} (Python {sys.version.split()[0]})")
    if not is_installed("run"):
        maker = venv_maker() or "venv"
        must(quiet([sys.executable, "-m", maker, "--clear", str(VENV)]), "It makes .venv.")
    pip = quiet(
        [str(VENV / "bin" / "python"), "-m", "pip", "install", "-e", f".{EXTRAS[extra]}"],
        PIP_CONSTRAINT="constraints.txt",
        PIP_BUILD_CONSTRAINT="constraints.txt",  # what pip 25.3 and later read for the build
        PIP_DISABLE_PIP_VERSION_CHECK="1",
    )
    must(pip, "Is PyPI within reach?")
    stamp(extra).write_text(digest(), encoding="utf-8")
    stamp("run").write_text(digest(), encoding="utf-8")


def venv_maker() -> str | None:
    """The module that can make a virtual environment with pip in it.

    Debian's Python has `venv` without `ensurepip` until the package python3-venv is there.
    """
    if importlib.util.find_spec("ensurepip"):
        return "venv"
    return "virtualenv" if importlib.util.find_spec("virtualenv") else None


def is_installed(extra: str) -> bool:
    """Whether `.venv` holds the extra as the files of today ask for it."""
    return (
        stamp(extra).exists()
        and stamp(extra).read_text(encoding="utf-8") == digest()
        and (VENV / "bin" / "python").exists()  # a link into a Python that may be gone
    )


def stamp(extra: str) -> Path:
    """The file that tells that an extra was installed to its end."""
    return VENV / f"stamp-{extra}"


def digest() -> str:
    """All that a virtual environment depends on: its place, its Python, the requirements."""
    parts = [str(ROOT).encode(), sys.version.encode()]
    parts += [(ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


# -- Debian's programs -------------------------------------------------------------------------


def prepare_programs() -> None:
    """Unpacks Debian's programs into `.cache/debian`, which needs no root and starts no service."""
    if all((DEBIAN / "usr/bin" / name).exists() for name in PROGRAMS):
        return
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        sys.exit("The tests run Debian's Prometheus: they need apt-get and dpkg-deb to fetch it.")
    say(f"Unpacking {', '.join(PROGRAM_PACKAGES)} into {DEBIAN.relative_to(ROOT)}")
    DEBIAN.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=DEBIAN.parent) as folder:
        tree = Path(folder) / "tree"
        unpack(PROGRAM_PACKAGES, Path(folder), tree)
        apart = [name for name in PROGRAMS if not (tree / "usr/bin" / name).exists()]
        if apart:  # Debian 13 gave promtool a package of its own
            unpack(apart, Path(folder), tree)
        bring_templates(tree / "usr/bin/prometheus-alertmanager")
        for name in PROGRAMS:
            must(quiet([str(tree / "usr/bin" / name), "--version"]), "The tests need it to start.")
        shutil.rmtree(DEBIAN, ignore_errors=True)
        tree.rename(DEBIAN)


def unpack(packages: list[str], folder: Path, tree: Path) -> None:
    """Downloads packages of this Debian or Ubuntu into the folder, unpacks them into the tree."""
    if quiet(["apt-get", "download", *packages], cwd=folder).returncode != 0:
        # The machine's package lists are empty or old: lists of our own, which need no root.
        lists = folder / "lists"
        (lists / "partial").mkdir(parents=True, exist_ok=True)
        apt = ["apt-get", "-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={folder}/cache"]
        apt += ["-o", "APT::Sandbox::User=root"]  # root's apt would fetch as one who may not write
        update = quiet([*apt, "update"])
        download = quiet([*apt, "download", *packages], cwd=folder)
        must(download, f"{update.stdout.rstrip()}\nUbuntu has them in its component universe.")
    for package in packages:
        for archive in folder.glob(f"{package}_*.deb"):
            must(quiet(["dpkg-deb", "-x", str(archive), str(tree)]), "Is the disk full?")


def bring_templates(binary: Path) -> None:
    """Lets an unpacked Alertmanager find its templates, without which it does not start.

    Debian compiled the absolute folder of the templates into it. It becomes a descriptor's folder
    of the same length, and a script of the binary's name opens the descriptor.
    """
    compiled = b"/usr/share/prometheus/alertmanager"
    code = binary.read_bytes()
    if compiled not in code:
        return
    real = binary.with_name(f"{binary.name}.real")
    binary.rename(real)
    real.write_bytes(code.replace(compiled, b"/proc/self/fd/9".ljust(len(compiled), b"/")))
    binary.write_text(
        '#!/bin/sh\nexec 9<"${0%/*}/../share/prometheus/alertmanager" && exec "$0.real" "$@"\n',
        encoding="utf-8",
    )
    binary.chmod(0o755)


if __name__ == "__main__":
    main(sys.argv[1:])
