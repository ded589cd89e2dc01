"""Who runs a process, by the path of its control group: systemd, containers, Kubernetes, Slurm."""

from __future__ import annotations

import re

from exporter.frozen import dataclass

MOST_LINES = 64  # version 1 has a line a hierarchy, about a dozen
LONGEST_NAME = 255  # NAME_MAX: no cgroup's name is longer

_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]+\.(?:service|scope)")
_USER_MANAGER = re.compile(r"user@[0-9]+\.service")
# cgroupfs driver: podUID; systemd driver: kubepods-burstable-podUID.slice, dashes as underscores.
# A static pod's UID is a hash without dashes.
_POD = re.compile(
    r"(?:|.*kubepods-(?:[a-z]+-)?)"
    r"pod([0-9a-f]{8}([-_])[0-9a-f]{4}\2[0-9a-f]{4}\2[0-9a-f]{4}\2[0-9a-f]{12}|[0-9a-f]{32})"
    r"(?:\.slice)?"
)
# ID, docker-ID.scope, cri-containerd-ID.scope, crio-ID, libpod-payload-ID
_CONTAINER = re.compile(r"(?:[a-z][a-z0-9_.-]*-)?([0-9a-f]{64})(?:\.scope)?")
_LXC = re.compile(r"lxc\.payload\.(.+)")
_LXC_PARENTS = ("lxc", "lxc.payload")
_JOB = re.compile(r"job_([0-9]{1,20})")
_SLURM = re.compile(r"slurm(?:_.*)?|(?:.*_)?slurmstepd\.scope")
_INIT = "init.scope"  # a manager's own processes, below the unit or container that it runs in


@dataclass(frozen=True, slots=True)
class Attribution:
    """Who runs a process; "" where nobody of that kind does.

    Attributes:
        systemd_unit: The innermost service or scope; not a container's own scope.
        user_manager: The unit of the user's manager that started `systemd_unit`, e.g.
            "user@1000.service"; "" for a unit of the system.
        container_id: Of the innermost container: 64 hex digits, or LXC's name.
        pod_uid: As the Kubernetes API writes it, with dashes.
        slurm_job_id: Digits.
    """

    systemd_unit: str = ""
    user_manager: str = ""
    container_id: str = ""
    pod_uid: str = ""
    slurm_job_id: str = ""


def attribution(content: str) -> Attribution:
    """Return who runs a process, by the content of /proc/PID/cgroup (cgroups(7)).

    Version 2 has one line, version 1 one for each hierarchy, and only some of them may know of a
    container or a job: what one line does not say is taken from the next, systemd's first.
    """
    found = [_of_path(path) for path in _paths(content)]
    with_unit = next((one for one in found if one.systemd_unit), Attribution())
    return Attribution(
        with_unit.systemd_unit,
        with_unit.user_manager,
        next((one.container_id for one in found if one.container_id), ""),
        next((one.pod_uid for one in found if one.pod_uid), ""),
        next((one.slurm_job_id for one in found if one.slurm_job_id), ""),
    )


def _paths(content: str) -> list[str]:
    """Return the paths of all lines, each once, systemd's own hierarchy first."""
    first: list[str] = []
    others: list[str] = []
    for line in content.split("\n", MOST_LINES)[:MOST_LINES]:
        parts = line.split(":", 2)  # a path may hold colons
        if len(parts) == 3:  # noqa: PLR2004  hierarchy, controllers, path
            known = parts[1] in ("", "name=systemd")
            (first if known else others).append(parts[2].removesuffix(" (deleted)"))
    return list(dict.fromkeys(first + others))


def _of_path(path: str) -> Attribution:
    unit = manager = container = pod = job = ""
    below = ""  # the name above the present one
    in_slurm = False
    # Runtimes that write systemd's notation into a path have SLICE:PREFIX:ID as one name.
    names = [part for name in path.split("/") for part in _parts(name) if len(part) <= LONGEST_NAME]
    for name, following in zip(names, [*names[1:], ""], strict=True):
        if match := _CONTAINER.fullmatch(name) or _LXC.fullmatch(name):
            container = match[1]
        elif below in _LXC_PARENTS and name != "ns":
            container = name
        elif match := _POD.fullmatch(name):
            pod = match[1].replace("_", "-")
        elif _UNIT.fullmatch(name) and not (name == _INIT and unit):
            manager = unit if _USER_MANAGER.fullmatch(unit) else ""
            unit = name
        if (match := _JOB.fullmatch(name)) and (in_slurm or following.startswith("step_")):
            job = match[1]
        in_slurm |= _SLURM.fullmatch(name) is not None
        below = name
    return Attribution(unit, manager, container, pod, job)


def _parts(name: str) -> list[str]:
    """Return a cgroup's name, or what it holds when a runtime put three into one."""
    parts = name.split(":")
    if len(parts) == 3 and _CONTAINER.fullmatch(parts[2]):  # noqa: PLR2004
        return [parts[0], parts[2]]
    return [name.removeprefix("_")]  # systemd escapes what the kernel has reserved
