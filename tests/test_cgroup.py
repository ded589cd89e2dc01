"""Who runs a process, from the paths that real machines have."""

from __future__ import annotations

import pytest
from chaos import ROUNDS
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.cgroup import Attribution, attribution

ID = "8c1f0b9e7a6d4c52" * 4
INNER = "0123456789abcdef" * 4
POD = "6f2a1f3c-91d7-4f0e-b1a2-7c5de0a4b913"
POD_SLICE = POD.replace("-", "_")
STATIC_POD = "c0a1d2e3f4a5968778695a4b3c2d1e0f"

NOBODY = Attribution()
SHAPES = {
    "systemd, version 2": (
        "0::/system.slice/vllm.service\n",
        Attribution(systemd_unit="vllm.service"),
    ),
    "systemd, an instance with escapes": (
        "0::/system.slice/system-vllm\\x2dserver.slice/vllm\\x2dserver@llama-70b.service\n",
        Attribution(systemd_unit="vllm\\x2dserver@llama-70b.service"),
    ),
    "systemd, a cgroup below the unit": (
        "0::/system.slice/triton.service/models/llm\n",
        Attribution(systemd_unit="triton.service"),
    ),
    "systemd, version 1": (
        (
            "12:devices:/system.slice/vllm.service\n11:freezer:/\n"
            "1:name=systemd:/system.slice/vllm.service\n0::/system.slice/vllm.service\n"
        ),
        Attribution(systemd_unit="vllm.service"),
    ),
    "two hierarchies that differ: systemd's own counts": (
        "5:cpu,cpuacct:/system.slice/old.service\n1:name=systemd:/system.slice/vllm.service\n",
        Attribution(systemd_unit="vllm.service"),
    ),
    "a session": (
        "0::/user.slice/user-1000.slice/session-3.scope\n",
        Attribution(systemd_unit="session-3.scope"),
    ),
    "a user's service": (
        "0::/user.slice/user-1000.slice/user@1000.service/app.slice/jupyter.service\n",
        Attribution(systemd_unit="jupyter.service", user_manager="user@1000.service"),
    ),
    "a user's manager": (
        "0::/user.slice/user-1000.slice/user@1000.service/init.scope\n",
        Attribution(systemd_unit="user@1000.service"),
    ),
    "a unit that was removed": (
        "0::/system.slice/vllm.service (deleted)\n",
        Attribution(systemd_unit="vllm.service"),
    ),
    "docker, systemd driver": (
        f"0::/system.slice/docker-{ID}.scope\n",
        Attribution(container_id=ID),
    ),
    "docker, cgroupfs driver, version 1": (
        f"11:memory:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/system.slice/containerd.service\n",
        Attribution(systemd_unit="containerd.service", container_id=ID),
    ),
    "docker in docker": (
        f"0::/docker/{ID}/docker/{INNER}\n",
        Attribution(container_id=INNER),
    ),
    "containerd, systemd driver": (
        (
            f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{POD_SLICE}.slice/"
            f"cri-containerd-{ID}.scope\n"
        ),
        Attribution(container_id=ID, pod_uid=POD),
    ),
    "containerd, guaranteed": (
        f"0::/kubepods.slice/kubepods-pod{POD_SLICE}.slice/cri-containerd-{ID}.scope\n",
        Attribution(container_id=ID, pod_uid=POD),
    ),
    "containerd, cgroupfs driver": (
        f"0::/kubepods/besteffort/pod{POD}/{ID}\n",
        Attribution(container_id=ID, pod_uid=POD),
    ),
    "containerd, cgroupfs driver with systemd's notation": (
        (
            f"11:devices:/system.slice/containerd.service/kubepods-burstable-pod{POD_SLICE}.slice"
            f":cri-containerd:{ID}\n"
        ),
        Attribution(systemd_unit="containerd.service", container_id=ID, pod_uid=POD),
    ),
    "cri-o": (
        (
            f"0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{POD_SLICE}.slice/"
            f"crio-{ID}.scope/container\n"
        ),
        Attribution(container_id=ID, pod_uid=POD),
    ),
    "a static pod": (
        f"0::/kubepods/burstable/pod{STATIC_POD}/{ID}\n",
        Attribution(container_id=ID, pod_uid=STATIC_POD),
    ),
    "kind": (
        (
            f"0::/docker/{ID}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/"
            f"kubelet-kubepods-besteffort-pod{POD_SLICE}.slice/cri-containerd-{INNER}.scope\n"
        ),
        Attribution(container_id=INNER, pod_uid=POD),
    ),
    "podman": (
        f"0::/machine.slice/libpod-{ID}.scope/container\n",
        Attribution(container_id=ID),
    ),
    "podman without root": (
        f"0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container\n",
        Attribution(systemd_unit="user@1000.service", container_id=ID),
    ),
    "podman in a unit": (
        f"0::/system.slice/vllm.service/libpod-payload-{ID}\n",
        Attribution(systemd_unit="vllm.service", container_id=ID),
    ),
    "lxc": ("0::/lxc.payload.web-1\n", Attribution(container_id="web-1")),
    "lxc, version 1": ("4:memory:/lxc/101/ns\n", Attribution(container_id="101")),
    "a unit in lxc": (
        "0::/lxc.payload.web/system.slice/vllm.service\n",
        Attribution(systemd_unit="vllm.service", container_id="web"),
    ),
    "slurm, version 1": (
        (
            "9:freezer:/slurm/uid_1000/job_48213/step_0\n5:memory:/slurm/uid_1000/job_48213/step_0/task_0\n"
            "1:name=systemd:/system.slice/slurmd.service\n"
        ),
        Attribution(systemd_unit="slurmd.service", slurm_job_id="48213"),
    ),
    "slurm, version 2": (
        "0::/system.slice/slurmstepd.scope/job_48213/step_batch/user/task_0\n",
        Attribution(systemd_unit="slurmstepd.scope", slurm_job_id="48213"),
    ),
    "slurm, several daemons": (
        "0::/system.slice/node7_slurmstepd.scope/job_9/step_extern/user/task_special\n",
        Attribution(systemd_unit="node7_slurmstepd.scope", slurm_job_id="9"),
    ),
    "seen from another cgroup namespace": (
        f"0::/../../kubepods-burstable-pod{POD_SLICE}.slice/cri-containerd-{ID}.scope\n",
        Attribution(container_id=ID, pod_uid=POD),
    ),
    "slurm, seen from another cgroup namespace": (
        "0::/../job_12/step_0/user/task_0\n",
        Attribution(slurm_job_id="12"),
    ),
    "the root": ("0::/\n", NOBODY),
    "nothing": ("", NOBODY),
    "no cgroup": ("nonsense\n::\n0\n", NOBODY),
    "look-alikes": (
        f"0::/jobs/job_5/podman/pod-{POD}/docker-{ID[:-1]}.scopes/x.service.d/{ID}0\n",
        NOBODY,
    ),
    "a name too long for a kernel": (f"0::/{'a' * 300}.service\n", NOBODY),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_shape(shape: str) -> None:
    """This content of /proc/PID/cgroup tells exactly that."""
    content, expected = SHAPES[shape]
    assert attribution(content) == expected


NAMES = st.one_of(
    st.sampled_from(
        [
            *("system.slice", "vllm.service", "init.scope", "user@7.service", "slurm", "lxc", ".."),
            *(ID, f"docker-{ID}.scope", f"kubepods-pod{POD_SLICE}.slice", f"pod{POD}", "job_7"),
            *("lxc.payload.a", f"a:b:{ID}", "step_0", "slurmstepd.scope", " (deleted)", "_", ""),
        ]
    ),
    st.text(max_size=300),
)


@pytest.mark.chaos
@settings(max_examples=100 * ROUNDS)
@given(
    st.one_of(
        st.text(),
        st.lists(
            st.builds(
                lambda head, names: f"{head}:/{'/'.join(names)}",
                st.sampled_from(["0:", "1:name=systemd", "4:cpu,cpuacct", "x", ""]),
                st.lists(NAMES, max_size=12),
            ),
            max_size=80,
        ).map("\n".join),
    )
)
def test_any_content_gives_short_labels(content: str) -> None:
    """Whatever stands there, nothing fails, and no label is longer than a cgroup's name."""
    found = attribution(content)
    assert max(len(found.systemd_unit), len(found.container_id)) <= 255
    assert len(found.pod_uid) in (0, 32, 36)
    assert found.slurm_job_id == "" or found.slurm_job_id.isdecimal()
    assert not found.user_manager or found.systemd_unit
