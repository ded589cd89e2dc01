"""Step 2, first half: the driver in the kernel, its libraries, its device files."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.doctor.facts import PASSED_ON, Facts, Kernel
from exporter.doctor.finding import Finding, Kind, Severity, Step, fine

STEP = Step.HEALTH
CONTROL, UVM = "nvidiactl", "nvidia-uvm"
OURS = ("nvidia", "")  # kernel drivers of a GPU that NVML could list

NOUVEAU = Kind(
    "nouveau",
    STEP,
    Severity.ERROR,
    "The free driver nouveau, which has no CUDA, holds the GPU.",
    "Write blacklist nouveau to /etc/modprobe.d/nouveau.conf, rebuild the initramfs, reboot.",
)
PASSED = Kind(
    "gpu-passed-on",
    STEP,
    Severity.NOTE,
    "The GPU is kept for a virtual machine, so that this host cannot use it.",
    "Nothing, if that is meant; run the doctor in the virtual machine.",
)
NO_MODULE = Kind(
    "module-missing",
    STEP,
    Severity.ERROR,
    "The kernel module of the driver is not loaded.",
    "modprobe nvidia. If it is not found or not allowed: dkms status, mokutil --sb-state (with "
    "Secure Boot the module must be signed), dmesg.",
)
MISMATCH = Kind(
    "version-mismatch",
    STEP,
    Severity.ERROR,
    "Library and kernel module are of two driver versions, as after an upgrade without reboot: "
    "no program can start on the GPUs any more.",
    "Reboot; or stop all that uses the GPUs, then modprobe -r nvidia_uvm nvidia_drm "
    "nvidia_modeset nvidia && modprobe nvidia.",
)
MIXED_LIBRARIES = Kind(
    "libraries-mixed",
    STEP,
    Severity.WARNING,
    "The driver's library is installed in two versions; which one a program gets is chance.",
    "Remove the one that is not that of the kernel module: dpkg -S or rpm -qf tells its package.",
)
NO_LIBCUDA = Kind(
    "libcuda-missing",
    STEP,
    Severity.ERROR,
    "NVML is installed, but not libcuda, without which no CUDA program starts.",
    "Install the driver's compute libraries (libcuda1, libnvidia-compute-*, nvidia-driver-cuda). "
    "In a container: NVIDIA_DRIVER_CAPABILITIES=compute,utility.",
)
NO_FILES = Kind(
    "device-files-missing",
    STEP,
    Severity.ERROR,
    "The kernel module is loaded, but its device files are not there.",
    "nvidia-modprobe -c 0 -u, or nvidia-smi as root, makes them. In a container, give it the "
    "devices.",
)
NO_UVM = Kind(
    "uvm-missing",
    STEP,
    Severity.WARNING,
    "/dev/nvidia-uvm is not there: CUDA programs start only where they may make it themselves.",
    "modprobe nvidia_uvm && nvidia-modprobe -c 0 -u; in a container, give it /dev/nvidia-uvm.",
)
FORBIDDEN_FILES = Kind(
    "device-files-forbidden",
    STEP,
    Severity.ERROR,
    "This user may not read and write the driver's device files.",
    "Look at NVreg_DeviceFileMode in /etc/modprobe.d, and whether the user must be in a group such "
    "as video or render. In a systemd unit: DeviceAllow=char-nvidia* rw.",
)
KINDS = (
    NOUVEAU,
    PASSED,
    NO_MODULE,
    MISMATCH,
    MIXED_LIBRARIES,
    NO_LIBCUDA,
    NO_FILES,
    NO_UVM,
    FORBIDDEN_FILES,
)


def check(facts: Facts) -> Iterator[Finding]:
    """Look at modules, libraries and device files."""
    kernel, is_up = facts.machine.kernel, facts.snapshot.driver is not None
    if not is_up and not facts.snapshot.pci_gpus and kernel.module_version is None:
        return
    yield from _holders(kernel)
    if kernel.module_version is None:
        if not is_up and any(gpu.driver in OURS for gpu in kernel.gpus or ()):
            yield NO_MODULE.found("the kernel module nvidia is not loaded")
    else:
        yield fine(STEP, "module", f"kernel module nvidia {kernel.module_version} is loaded")
        yield from _files(kernel, is_up=is_up)
    library = facts.snapshot.driver.driver_version if facts.snapshot.driver else ""
    yield from _libraries(kernel, library)


def _holders(kernel: Kernel) -> Iterator[Finding]:
    for gpu in kernel.gpus or ():
        if gpu.driver == "nouveau":
            yield NOUVEAU.found(f"the GPU at {gpu.address} is held by nouveau")
        if gpu.driver in PASSED_ON:
            yield PASSED.found(f"the GPU at {gpu.address} is held by {gpu.driver}")


def _libraries(kernel: Kernel, library: str) -> Iterator[Finding]:
    versions = kernel.library_versions or ((library,) if library else ())
    module = kernel.module_version
    if module and versions and module not in versions:
        yield MISMATCH.found(f"kernel module {module}, library {' and '.join(versions)}")
    elif len(versions) > 1:
        yield MIXED_LIBRARIES.found(f"libnvidia-ml {' and '.join(versions)}")
    elif module and versions:
        yield fine(STEP, "library", f"library {versions[0]} is that of the module")
    if kernel.has_libcuda is False:
        yield NO_LIBCUDA.found("libnvidia-ml is installed without libcuda.so.1")


def _files(kernel: Kernel, *, is_up: bool) -> Iterator[Finding]:
    wanted = [CONTROL]
    if not is_up:  # what NVML lists has its file, by whatever number
        ours = [gpu for gpu in kernel.gpus or () if gpu.driver in OURS]
        wanted += [f"nvidia{number}" for number in range(len(ours))]
    missing = [name for name in wanted if name not in kernel.device_files]
    if missing and not is_up:
        yield NO_FILES.found("not there: " + ", ".join(f"/dev/{name}" for name in missing))
    elif UVM not in kernel.device_files:
        yield NO_UVM.found("/dev/nvidia-uvm is not there")
    needed = {name for name in kernel.device_files if name in (CONTROL, UVM) or _is_gpu(name)}
    refused = sorted(name for name in needed if not kernel.device_files[name])
    if refused:
        yield FORBIDDEN_FILES.found("no access to " + ", ".join(f"/dev/{n}" for n in refused))
    elif not missing:
        yield fine(STEP, "device-files", f"{len(needed)} device files, read and write allowed")


def _is_gpu(name: str) -> bool:
    return name.removeprefix("nvidia").isdecimal()
