"""The bundle for support: the report, the page, config and versions, nothing secret in any."""

from __future__ import annotations

import contextlib
import getpass
import gzip
import io
import json
import os
import platform
import socket
import tarfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from exporter.config import Config, ConfigError
from exporter.doctor import report
from exporter.doctor.checks import examine
from exporter.doctor.redact import Redactor
from exporter.doctor.report import Report
from exporter.exposition import Page

FOLDER = "gpu-node-exporter-doctor"
LIBRARIES = (
    "apscheduler",
    "h11",
    "nvidia-ml-py",
    "prometheus-client",
    "psutil",
    "pyyaml",
    "requests",
)
README = """What gpu-node-exporter doctor found on a node, for those who help with it.

report.txt, report.json  the report
page.prom                the metrics page at that moment, without series of processes
config.json              the config as the daemon understands it: numbers and switches
versions.json            of the exporter, its libraries, Python and the kernel

UUIDs, serial numbers, names of hosts and users, addresses, URLs and paths are replaced by aliases:
the same one for the same thing, here only. Processes, secrets and templates are left out.
Look through it before you send it.
"""


class BundleError(Exception):
    """The file cannot be written; the text says why and what would help."""


def write(path: Path, original: Report, config: Config | ConfigError) -> None:
    """Write the bundle, for its owner's eyes alone.

    Raises:
        BundleError: the file is there already, or cannot be written.
    """
    content = _tar(_files(original, config))
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise BundleError(f"--bundle: {path} is there already; name another file") from None
    except OSError as error:
        raise BundleError(f"--bundle: {path}: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise BundleError(f"--bundle: {path}: {error.strerror}") from None


def _files(original: Report, config: Config | ConfigError) -> Mapping[str, str]:
    redactor = Redactor(_names(original))
    facts = redactor.facts(original.facts)
    found = Report(facts, examine(facts), original.simulated, original.at)
    if isinstance(config, ConfigError):
        settings: object = {"mistakes": len(config.mistakes)}
    else:
        settings = redactor.config(config)
    files = {
        "report.txt": report.text(found, colour=False),
        "report.json": report.as_json(report.as_dict(found)),
        "page.prom": Page(openmetrics=False).plain(facts.snapshot).decode(),
        "config.json": json.dumps(settings, indent=1) + "\n",
        "versions.json": json.dumps(_versions(original), indent=1) + "\n",
    }
    return {"README.txt": README, **{name: redactor.text(files[name]) for name in files}}


def _names(original: Report) -> set[str]:
    """Return names of this machine, and of users as far as they have to do with this report."""
    host = socket.gethostname()
    names = {host, host.partition(".")[0], platform.node()}
    names |= {os.environ.get(name, "") for name in ("USER", "LOGNAME", "SUDO_USER", "HOSTNAME")}
    with contextlib.suppress(KeyError, OSError):  # a number without a name
        names.add(getpass.getuser())
    view = original.facts.snapshot.processes
    return names | {process.user for process in (view.on_host.processes if view else ())}


def _versions(original: Report) -> dict[str, object]:
    return {
        "gpu-node-exporter": original.facts.snapshot.build.version,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "driver_libraries": list(original.facts.machine.kernel.library_versions),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _tar(files: Mapping[str, str]) -> bytes:
    """Return a tar.gz whose members belong to nobody and have no time."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name, text in files.items():
            content = text.encode()
            member = tarfile.TarInfo(f"{FOLDER}/{name}")
            member.size, member.mode = len(content), 0o600
            archive.addfile(member, io.BytesIO(content))
    return gzip.compress(plain.getvalue(), mtime=0)
