"""The fake library itself: build, conformance to nvml.h, lifecycle, arguments."""

import ctypes
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import fake_nvml
import pynvml
import pytest
from fake_nvml import BuildError, FakeNvml, build, exported_symbols, nvml_header
from nvml_child import ask, library, start

STRUCTS = {
    "nvmlFieldValue_t": pynvml.c_nvmlFieldValue_t,
    "nvmlMemory_t": pynvml.c_nvmlMemory_t,
    "nvmlMemory_v2_t": pynvml.c_nvmlMemory_v2_t,
    "nvmlBAR1Memory_t": pynvml.c_nvmlBAR1Memory_t,
    "nvmlProcessInfo_v2_t": pynvml.c_nvmlProcessInfo_v3_t,
    "nvmlProcessUtilizationSample_t": pynvml.c_nvmlProcessUtilizationSample_t,
    "nvmlEventData_t": pynvml.c_nvmlEventData_t,
    "nvmlGpmMetricsGet_t": pynvml.c_nvmlGpmMetricsGet_t,
    "nvmlGpmSupport_t": pynvml.c_nvmlGpmSupport_t,
    "nvmlGpuFabricInfo_v2_t": pynvml.c_nvmlGpuFabricInfo_v2_t,
    "nvmlGpuFabricInfo_v3_t": pynvml.c_nvmlGpuFabricInfo_v3_t,
    "nvmlTemperature_v1_t": pynvml.c_nvmlTemperature_v1_t,
    "nvmlMarginTemperature_v1_t": pynvml.c_nvmlMarginTemperature_v1_t,
    "nvmlFanSpeedInfo_v1_t": pynvml.c_nvmlFanSpeedInfo_t,
    "nvmlUtilization_t": pynvml.c_nvmlUtilization_t,
    "nvmlSample_t": pynvml.c_nvmlSample_t,
    "nvmlViolationTime_t": pynvml.c_nvmlViolationTime_t,
    "nvmlPciInfo_t": pynvml.nvmlPciInfo_t,
    "nvmlDeviceAttributes_t": pynvml.c_nvmlDeviceAttributes,
    "nvmlRowRemapperHistogramValues_t": pynvml.c_nvmlRowRemapperHistogramValues,
    "nvmlConfComputeSystemState_t": pynvml.c_nvmlConfComputeSystemState_t,
    "nvmlEccSramErrorStatus_v1_t": pynvml.c_nvmlEccSramErrorStatus_v1_t,
    "nvmlRepairStatus_v1_t": pynvml.c_nvmlRepairStatus_t,
    "nvmlGridLicensableFeatures_t": pynvml.c_nvmlGridLicensableFeatures_v4_t,
    "nvmlPlatformInfo_v2_t": pynvml.c_nvmlPlatformInfo_v2_t,
}


@pytest.fixture
def fake(pytestconfig: pytest.Config) -> Iterator[FakeNvml]:
    """A fake node of eight H100."""
    with FakeNvml(library(pytestconfig)) as it:
        yield it


def test_a_build_is_made_once_and_a_hidden_symbol_is_another(tmp_path: Path) -> None:
    """The same sources give the same untouched file; `hide` really takes a symbol away."""
    first = build(tmp_path) / fake_nvml.LIBRARY
    stamp = first.stat().st_mtime_ns
    assert build(tmp_path) / fake_nvml.LIBRARY == first
    assert first.stat().st_mtime_ns == stamp
    old = build(tmp_path, hide=["nvmlDeviceGetTemperatureV"])
    with FakeNvml(old) as fake:
        code = "answer = rc(N.nvmlDeviceGetTemperatureV, gpu(0), 0), hasattr(lib, 'nvmlShutdown')"
        assert ask(fake, code) == [pynvml.NVML_ERROR_FUNCTION_NOT_FOUND, True]


def test_what_is_missing_for_a_build_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A misspelt symbol and a missing compiler give one clear line each."""
    with pytest.raises(ValueError, match="hide: nvmlNothing is no symbol of the fake"):
        build(tmp_path, hide=["nvmlNothing"])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match="no C compiler: cc is not on PATH"):
        build(tmp_path)


def test_it_exports_functions_of_nvml_h_and_nothing_else(pytestconfig: pytest.Config) -> None:
    """Every export is declared in NVIDIA's header, which the sources are compiled against."""
    listing = subprocess.run(
        ["nm", "-D", "--defined-only", library(pytestconfig) / fake_nvml.LIBRARY],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    exports = set(re.findall(r" [A-Z] (\w+)", listing))
    assert exports == {*exported_symbols(), "fakenvml_set"}
    declared = set(re.findall(r"DECLDIR (\w+)\(", nvml_header().read_text()))
    assert set(exported_symbols()) <= declared | {"nvmlErrorString"}


def test_structs_have_the_size_that_nvml_h_gives_them(tmp_path: Path) -> None:
    """Structs of pynvml, of NVIDIA's header and so of this library agree about memory."""
    prints = "".join(f'printf("{name} %zu\\n", sizeof({name}));' for name in STRUCTS)
    source = tmp_path / "sizes.c"
    source.write_text(f"#include <stdio.h>\n#include <nvml.h>\nint main(void){{{prints}}}")
    program = tmp_path / "sizes"
    subprocess.run(["cc", f"-I{nvml_header().parent}", "-o", program, source], check=True)
    lines = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    sizes = {name: int(size) for name, size in map(str.split, lines.splitlines())}
    assert sizes == {name: ctypes.sizeof(struct) for name, struct in STRUCTS.items()}
    assert (sizes["nvmlFieldValue_t"], sizes["nvmlGpmMetricsGet_t"]) == (40, 19104)


def test_init_is_counted_and_handles_end_with_it(fake: FakeNvml) -> None:
    """Before init 1; two inits need two shutdowns; a handle of before is INVALID_ARGUMENT."""
    code = """
        before = gpu(0)
        N.nvmlInit()
        N.nvmlShutdown()
        still = rc(N.nvmlDeviceGetPowerUsage, before)
        N.nvmlShutdown()
        closed = rc(N.nvmlDeviceGetPowerUsage, before), rc(N.nvmlShutdown)
        N.nvmlInit()
        answer = still, *closed, rc(N.nvmlDeviceGetPowerUsage, before)
    """
    assert ask(fake, code) == [0, 1, 1, 2]


def test_init_fails_as_often_as_asked_and_then_counts_anew(fake: FakeNvml) -> None:
    """Two failures, then success; the machine is the one of the init, until the next."""
    fake.set({"init.ret": 18, "init.times": 3})
    code = """
        answer = [N.nvmlDeviceGetCount()]
        put("count=5", "driver=570.10")
        answer += [N.nvmlDeviceGetCount(), N.nvmlSystemGetDriverVersion()]
        N.nvmlShutdown()
        N.nvmlInit()
        answer += [N.nvmlDeviceGetCount(), N.nvmlSystemGetDriverVersion()]
    """
    body = "codes = [rc(N.nvmlInit) for _ in range(3)]\nprint(codes)\n"
    with start(fake, body) as child:
        assert child.communicate(timeout=60)[0].strip() == "[18, 18, 18]"
    fake.clear("init.ret", "init.times")
    assert ask(fake, code) == [8, 8, "580.95.05", 5, "570.10"]


def test_arguments_are_checked_as_the_driver_does(fake: FakeNvml) -> None:
    """NULL 2, short string 7, wrong struct version 25, a handle that never was 2."""
    code = """
        buffer = ctypes.create_string_buffer(4)
        memory = N.c_nvmlMemory_v2_t()
        memory.version = 0x3000028
        answer = [
            lib.nvmlDeviceGetPowerUsage(gpu(0), None),
            lib.nvmlDeviceGetName(gpu(0), buffer, 4),
            lib.nvmlDeviceGetMemoryInfo_v2(gpu(0), ctypes.byref(memory)),
            lib.nvmlDeviceGetPowerUsage(ctypes.c_void_p(0x1234), ctypes.byref(memory)),
            rc(N.nvmlDeviceGetHandleByIndex, 8),
            rc(N.nvmlDeviceGetHandleByUUID, "GPU-0"),
        ]
    """
    assert ask(fake, code) == [2, 7, 25, 2, 2, 6]
