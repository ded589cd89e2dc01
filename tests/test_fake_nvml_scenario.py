"""How a test steers the fake library and what it learns back: faults, hangs, the call log."""

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from fake_nvml import FakeNvml
from nvml_child import ask, library, start


@pytest.fixture
def fake(pytestconfig: pytest.Config) -> Iterator[FakeNvml]:
    """A fake node of eight H100."""
    with FakeNvml(library(pytestconfig)) as it:
        yield it


def test_a_scenario_changes_while_a_process_runs(fake: FakeNvml) -> None:
    """A running process sees a new file; a GPU's own key beats `gpu*`, wherever it stands."""
    fake.set({"gpu1.temp": 41, "gpu*.temp": 40})
    code = """
        N.nvmlInit()
        def temperatures():
            return [N.nvmlDeviceGetTemperatureV(gpu(i), 0) for i in range(3)]
        print(temperatures(), flush=True)
        sys.stdin.readline()
        while temperatures()[0] == 40:
            time.sleep(0.001)
        print(temperatures())
    """
    with start(fake, code) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline().strip() == "[40, 41, 40]"
        fake.set({"gpu*.temp": 83})
        assert not fake.applied()
        out, _ = child.communicate("\n", timeout=60)
    assert out.strip() == "[83, 41, 83]"
    assert fake.applied()


def test_calls_fail_by_rule(fake: FakeNvml) -> None:
    """A code for one call of one GPU; each second call; the first two; the whole GPU lost."""
    fake.set({"gpu0.call.nvmlDeviceGetPowerUsage.ret": 999, "gpu3.lost": True})
    fake.set({"gpu*.call.nvmlDeviceGetUUID.ret": 4, "gpu*.call.nvmlDeviceGetUUID.every": 2})
    fake.set({"gpu2.call.nvmlDeviceGetSerial.ret": 27, "gpu2.call.nvmlDeviceGetSerial.times": 2})
    code = """
        h = [gpu(i) for i in range(3)]
        answer = [
            [rc(N.nvmlDeviceGetPowerUsage, each) for each in h],
            [rc(N.nvmlDeviceGetUUID, h[1]) for _ in range(4)],
            [rc(N.nvmlDeviceGetSerial, h[2]) for _ in range(4)],
            rc(N.nvmlDeviceGetHandleByIndex, 3),
        ]
        put("gpu0.lost=1", "ret=16")
        answer += [rc(N.nvmlDeviceGetName, h[0]), rc(N.nvmlDeviceGetName, h[1])]
    """
    assert ask(fake, code) == [[999, 0, 0], [0, 4, 0, 4], [27, 27, 0, 0], 15, 15, 16]


def test_a_hung_gpu_blocks_its_calls_alone(fake: FakeNvml) -> None:
    """A call hangs until released while another GPU answers; the log saw both in flight."""
    fake.set({"gpu0.temp": 50, "gpu1.temp": 51})
    fake.hang(0, "nvmlDeviceGetTemperatureV")
    code = """
        N.nvmlInit()
        h = [gpu(0), gpu(1)]
        stuck = threading.Thread(target=lambda: print(N.nvmlDeviceGetTemperatureV(h[0], 0)))
        stuck.start()
        while sys.stdin.readline().strip() == "look":
            print(stuck.is_alive(), N.nvmlDeviceGetTemperatureV(h[1], 0), flush=True)
        stuck.join()
    """
    with start(fake, code) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        while fake.calls().max_in_flight < 2:
            child.stdin.write("look\n")
            child.stdin.flush()
            assert child.stdout.readline().strip() == "True 51"
        fake.release(0)
        out, _ = child.communicate("go\n", timeout=60)
    assert out.strip() == "50"
    assert fake.calls().max_in_flight_by_gpu[1] == 1


def test_the_log_counts_calls_fields_and_what_runs_at_once(fake: FakeNvml) -> None:
    """Counts are exact per symbol, GPU and field; a batch in another thread is seen."""
    code = """
        h = [gpu(i) for i in range(2)]
        for _ in range(5):
            N.nvmlDeviceGetPowerUsage(h[0])
        N.nvmlDeviceGetPowerUsage(h[1])
        N.nvmlDeviceGetFieldValues(h[1], [83, 83, (138, 0xFFFFFFFF)])
        N.nvmlDeviceGetFieldValues(h[0], [83])
        answer = rc(N.nvmlDeviceGetHandleByIndex, 99)
    """
    ask(fake, code)
    calls = fake.calls()
    assert calls.count("nvmlDeviceGetPowerUsage", gpu=0) == 5
    assert calls.count("nvmlDeviceGetPowerUsage") == 6
    assert calls.count("nvmlDeviceGetHandleByIndex_v2") == 3
    assert calls.fields[1] == {83: 2, 138: 1}
    assert (calls.inits, calls.max_in_flight, calls.max_in_flight_batch) == (1, 1, 1)
    fake.set({"gpu*.call.nvmlDeviceGetFieldValues.delay_ms": 200})
    code = """
        handles = [gpu(0), gpu(1)]
        threads = [threading.Thread(target=field, args=(each, 83)) for each in handles]
        answer = [thread.start() for thread in threads]
    """
    ask(fake, code)
    assert fake.calls().max_in_flight_batch == 2


def test_misuse_is_counted(fake: FakeNvml) -> None:
    """A call after fork is seen, and event sets and GPM samples that were never freed."""
    code = """
        h = gpu(0)
        N.nvmlEventSetCreate()
        N.nvmlGpmSampleAlloc()
        pid = os.fork()
        if pid == 0:
            N.nvmlDeviceGetPowerUsage(h)
            os._exit(0)
        os.waitpid(pid, 0)
        answer = 0
    """
    ask(fake, code)
    calls = fake.calls()
    assert (calls.after_fork, calls.event_sets, calls.gpm_samples) == (1, 1, 1)


@pytest.mark.parametrize("key", ["gpu0.temperature", "gpu16.temp", "gpu0.call.nvmlNothing.ret"])
def test_a_mistake_in_a_scenario_is_an_error(fake: FakeNvml, key: str) -> None:
    """A key that the library does not know reaches the test with its line."""
    fake.set({key: 83})
    ask(fake, "answer = 0")
    with pytest.raises(ValueError, match=f"scenario line 2: not understood: {key}=83"):
        fake.calls()


def test_real_latency_takes_the_time(fake: FakeNvml) -> None:
    """PcieThroughput blocks for its 20 ms window, and a field batch for the sum of its members."""
    fake.set(latency="real")
    code = """
        h = gpu(0)
        start = time.monotonic()
        N.nvmlDeviceGetPcieThroughput(h, 0)
        middle = time.monotonic()
        batch = N.nvmlDeviceGetFieldValues(h, [83, 185])
        answer = [middle - start, time.monotonic() - middle, [v.latencyUsec for v in batch]]
    """
    throughput, batch, latencies = ask(fake, code)
    assert throughput >= 0.020
    assert batch >= 0.0059
    assert latencies == [2600, 3300]


def test_threads_and_changes_do_not_disturb_each_other(fake: FakeNvml) -> None:
    """Calls stay right while the scenario is replaced under them, and all of them are counted."""
    code = """
        h = [gpu(i) for i in range(4)]
        bad = []
        def work(handle):
            for _ in range(3000):
                if N.nvmlDeviceGetTemperatureV(handle, 0) not in (60, 61) or field(handle, 83)[0]:
                    bad.append(1)
        put("gpu*.temp=60")
        threads = [threading.Thread(target=work, args=(each,)) for each in h]
        for thread in threads: thread.start()
        for i in range(200): put(f"gpu*.temp={60 + i % 2}")
        for thread in threads: thread.join()
        answer = len(bad)
    """
    assert ask(fake, code) == 0
    assert fake.calls().count("nvmlDeviceGetTemperatureV") == 12000
    assert fake.calls().fields[2] == {83: 3000}


def test_the_library_is_small(fake: FakeNvml) -> None:
    """Loading it and using every GPU adds less than 1 MiB to a process."""
    code = """
        import ctypes
        def resident():
            with open("/proc/self/statm") as statm:
                return int(statm.read().split()[1]) * 4096
        ctypes.CDLL("libm.so.6")
        before = resident()
        lib = ctypes.CDLL("libnvidia-ml.so.1")
        handle, out = ctypes.c_void_p(), ctypes.c_ulonglong()
        assert lib.nvmlInitWithFlags(0) == 0
        for i in range(8):
            assert lib.nvmlDeviceGetHandleByIndex_v2(i, ctypes.byref(handle)) == 0
            assert lib.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(out)) == 0
        print(resident() - before)
    """
    child = subprocess.run(
        [sys.executable, "-c", re.sub("^ {8}", "", code, flags=re.MULTILINE)],
        env=fake.env(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(child.stdout) < 1 << 20
