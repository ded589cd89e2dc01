"""A fake of NVIDIA's management library: built from C, steered by a file, observed by a log.

`build()` compiles `tests/fakenvml/` into a `libnvidia-ml.so.1` against NVIDIA's own `nvml.h`.
`FakeNvml` steers one such library while real processes load it through `LD_LIBRARY_PATH`.

Scenario keys, all `key=value`. A running process notices a change when it calls, at most 10 ms late
(`applied()` tells). A waiting nvmlEventSetWait looks once a second, so that it costs as little CPU
as a real one, and wakes when another call has noticed a change.

The machine (read at init: a running library keeps what it started with)
  profile        h100x8 b200x8 a100-mig h100-mig l40s t4 geforce gb10 vgpu none
  driver         driver version, "580.95.05": which symbols and which field ids there are
  count          number of GPUs, at most 16
The machine (at once)
  nvml_version   text of nvmlSystemGetNVMLVersion
  latency        zero (default) or real: each call takes what was measured on a real board
  time           seconds: the clock stands there, so every reading is the same in every run; a
                 change holds from the time that stood before it, and counters move with the time
  ret            code that every call on a GPU gives
  init.<what>    as `call.<symbol>.<what>`, of nvmlInit: `init.ret`, `init.times`, `init.delay_ms`
  call.<symbol>.<what>      of a call that names no GPU
A GPU: `gpu<N>.` or, for all of them, `gpu*.`
  call.<symbol>.ret         code to answer with
  call.<symbol>.delay_ms    time to take first
  call.<symbol>.block_until_removed   path: the call hangs while this file exists
  call.<symbol>.every       only each nth call
  call.<symbol>.times       only the first n calls that it would be for
  lost                      1: every call gives GPU_IS_LOST
  ret, delay_ms, block      the same as above, of every call on it
  field.<id>[.<scope>].ret, .value, .type    one field: its code, value, nvmlValueType_t
  gpm.<id>.value, .ret      one GPM metric; a value may be `nan`
  process.<pid>             <bytes|na>[,c|g|m[,<sm percent>[,<GPU instance>]]]
  xid                       <xid>[:<sequence>[:<GPU instance>[:<compute instance>]]],...
                            queued when the text changes and the sequence is new
  mig                       <index>:<GPU instance>:<slices>,...: replaces the instances
  reset, reset_counters     a text that changes: GPU reset (handles and samples die), counters to 0
  pulse_ms, pulse_on_ms     load in pulses: how far apart they begin, how long each is; `util` is
                            the load in a pulse, 100 unless told
  sample_type, sample_clock_ms   of nvmlDeviceGetSamples: nvmlValueType_t, and how far its clock is
                            ahead of the others
  <reading>                 integer, one of OVERRIDES in fakenvml.h: util temp power_mw ...
"""

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from fake_nvml_log import Calls, parse_log

SOURCES = Path(__file__).parent / "fakenvml"
LIBRARY = "libnvidia-ml.so.1"
_FLAGS = ("-std=gnu11", "-O2", "-fPIC", "-Wall", "-Wextra", "-Werror", "-pthread", "-shared")
_EXTRA_EXPORTS = ("fakenvml_set",)
Value = str | int | float | Path


class BuildError(RuntimeError):
    """The library cannot be built here; the message says what to install."""


def nvml_header() -> Path:
    """Finds NVIDIA's nvml.h.

    Returns:
        Its path, from the installed distribution nvidia-nvml-dev.

    Raises:
        BuildError: when the distribution or the file is not installed.
    """
    try:
        files = importlib.metadata.files("nvidia-nvml-dev") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "nvml.h":
            return Path(str(file.locate()))
    raise BuildError("nvml.h not found: install the PyPI distribution nvidia-nvml-dev")


def exported_symbols() -> tuple[str, ...]:
    """Names that a build without `hide` exports, as symbols.def lists them."""
    text = (SOURCES / "symbols.def").read_text()
    return tuple(re.findall(r"^SYMBOL\((\w+),", text, re.MULTILINE))


def build(cache_dir: Path, hide: Sequence[str] = ()) -> Path:
    """Compiles the library, once for each content of its sources.

    Args:
        cache_dir: where builds are kept; created when missing.
        hide: symbols to leave out, as an older driver's library does.

    Returns:
        The folder that holds libnvidia-ml.so.1, for LD_LIBRARY_PATH.

    Raises:
        BuildError: no C compiler, no nvml.h, or sources that do not compile.
        ValueError: a name in `hide` that the library does not have.
    """
    names = exported_symbols()
    for name in hide:
        if name not in names:
            raise ValueError(f"hide: {name} is no symbol of the fake, see symbols.def")
    header = nvml_header()
    compiler = shutil.which("cc")
    if compiler is None:
        raise BuildError("no C compiler: cc is not on PATH, install gcc or clang")
    sources = sorted(SOURCES.iterdir())
    digest = hashlib.sha256(repr((_FLAGS, sorted(hide))).encode())
    for source in [*sources, header]:
        digest.update(source.name.encode() + source.read_bytes())
    target = cache_dir / digest.hexdigest()[:20]
    if not (target / LIBRARY).exists():
        kept = [name for name in (*names, *_EXTRA_EXPORTS) if name not in hide]
        _compile(compiler, header.parent, [s for s in sources if s.suffix == ".c"], kept, target)
    return target


def _compile(
    compiler: str, include: Path, sources: Sequence[Path], exports: Sequence[str], target: Path
) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        script = Path(scratch) / "exports.map"
        script.write_text("{ global: " + " ".join(f"{name};" for name in exports) + " local: *; };")
        output = Path(scratch) / LIBRARY
        linker = [f"-Wl,-soname,{LIBRARY}", f"-Wl,--version-script={script}"]
        done = subprocess.run(
            [compiler, *_FLAGS, f"-I{include}", *linker, "-o", output, *sources, "-lm"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise BuildError(f"tests/fakenvml does not compile:\n{done.stderr}")
        target.mkdir(exist_ok=True)
        output.replace(target / LIBRARY)  # whole, also beside another build of the same


class FakeNvml(AbstractContextManager["FakeNvml"]):
    """Steers the fake library for the processes started with `env()`.

    Args:
        library: folder from `build()`.
        scenario: first keys and values, see the module's text.
    """

    def __init__(self, library: Path, scenario: Mapping[str, Value] | None = None) -> None:
        self._library = library
        self._folder = tempfile.TemporaryDirectory(prefix="fakenvml-", ignore_cleanup_errors=True)
        self._keys: dict[str, str] = {}
        self._serial = 0
        self._stamp = time.time_ns()
        self._xids: dict[int, list[str]] = {}
        self.set(scenario or {})

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Removes its files, and with them every hang."""
        self._folder.cleanup()

    @property
    def folder(self) -> Path:
        """Where its files are; gone after close()."""
        return Path(self._folder.name)

    def env(self) -> dict[str, str]:
        """Environment for a child process: this one's, with the library, scenario and log."""
        path = [str(self._library), os.environ.get("LD_LIBRARY_PATH", "")]
        return {
            **os.environ,
            "LD_LIBRARY_PATH": os.pathsep.join(filter(None, path)),
            "FAKE_NVML_SCENARIO": str(self.folder / "scenario"),
            "FAKE_NVML_LOG": str(self.folder / "log"),
        }

    def set(self, keys: Mapping[str, Value] | None = None, /, **more: Value) -> None:
        """Sets keys and replaces the scenario file in one step.

        Args:
            keys: as the module's text lists them; True and False are written 1 and 0.
            **more: the same, for keys that are Python names.

        Raises:
            ValueError: a key or value that no line can hold.
        """
        for key, value in {**(keys or {}), **more}.items():
            text = str(int(value)) if isinstance(value, bool) else str(value)
            if not key or "\n" in key + text or "=" in key:
                raise ValueError(f"scenario: {key!r}={text!r} does not fit in one line")
            self._keys[key] = text
        self._write()

    def clear(self, *keys: str) -> None:
        """Takes keys back.

        Raises:
            KeyError: a key that is not set.
        """
        for key in keys:
            del self._keys[key]
        self._write()

    def _write(self) -> None:
        self._serial += 1
        scratch = self.folder / "scenario.new"
        lines = [f"{key}={value}\n" for key, value in self._keys.items()]
        scratch.write_text("".join([f"serial={self._serial}\n", *lines]))
        # A file system's own stamps may be the same twice within some milliseconds.
        self._stamp = max(self._stamp + 1, time.time_ns())
        os.utime(scratch, ns=(self._stamp, self._stamp))
        scratch.replace(self.folder / "scenario")

    def applied(self) -> bool:
        """Whether a process has read the scenario as it now is. It looks when it is called."""
        return self.calls().serial == self._serial

    def hang(self, gpu: int, symbol: str | None = None) -> None:
        """Makes calls on a GPU, or one of its calls, block from now on until `release()`."""
        path = self._hang_file(gpu)
        path.touch()
        self.set({self._hang_key(gpu, symbol): path})

    def release(self, gpu: int) -> None:
        """Ends what `hang()` began; calls that are blocked go on within some milliseconds."""
        path = self._hang_file(gpu)
        self.clear(*[key for key, value in self._keys.items() if value == str(path)])
        path.unlink()

    def _hang_file(self, gpu: int) -> Path:
        return self.folder / f"hang-{gpu}"

    def _hang_key(self, gpu: int, symbol: str | None) -> str:
        if symbol is None:
            return f"gpu{gpu}.block"
        return f"gpu{gpu}.call.{symbol}.block_until_removed"

    def xid(self, gpu: int, xid: int, gpu_instance: int = -1, compute_instance: int = -1) -> None:
        """Queues one XID error for whoever has registered for this GPU's."""
        entries = self._xids.setdefault(gpu, [])
        instances = "".join(f":{n & 0xFFFFFFFF}" for n in (gpu_instance, compute_instance))
        entries.append(f"{xid}:{len(entries) + 1}{instances}")
        self.set({f"gpu{gpu}.xid": ",".join(entries)})

    def reset(self, gpu: int) -> None:
        """Resets a GPU: handles, GPM samples and counters of before are gone."""
        self.set({f"gpu{gpu}.reset": self._serial})

    def reset_counters(self, gpu: int) -> None:
        """Sets a GPU's counters to 0, as reloading the driver does."""
        self.set({f"gpu{gpu}.reset_counters": self._serial})

    def calls(self) -> Calls:
        """Reads the log.

        Raises:
            ValueError: the library did not understand a line of the scenario.
        """
        try:
            data = (self.folder / "log").read_bytes()
        except FileNotFoundError:
            return Calls()
        return parse_log(data)
