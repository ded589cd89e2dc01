"""Calls of the fake library that take several steps: GPM, MIG, processes, samples, events."""

from collections.abc import Iterator

import pytest
from fake_nvml import FakeNvml
from nvml_child import ask, library, start

NOT_SUPPORTED = 3


@pytest.fixture
def fake(pytestconfig: pytest.Config) -> Iterator[FakeNvml]:
    """A fake node of eight H100."""
    with FakeNvml(library(pytestconfig)) as it:
        yield it


GPM = """
    def metrics(a, b, *ids):
        m = N.c_nvmlGpmMetricsGet_t()
        m.version, m.numMetrics, m.sample1, m.sample2 = 1, len(ids), a, b
        for i, each in enumerate(ids):
            m.metrics[i].metricId = each
        code = rc(N.nvmlGpmMetricsGet, m)
        return code or [[m.metrics[i].nvmlReturn, m.metrics[i].value] for i in range(len(ids))]
    def sample(t, take=lambda s: N.nvmlGpmSampleGet(gpu(0), s)):
        put(f"time={t}")
        it = N.nvmlGpmSampleAlloc()
        take(it)
        return it
"""


def test_gpm_works_out_the_two_samples_it_is_given(fake: FakeNvml) -> None:
    """Rates are differences over the window; swapped, reused and pre-reset samples are refused."""
    code = (
        GPM
        + """
    put("gpu0.util=50", "gpu0.pcie_tx_bytes_per_second=104857600", "gpu0.gpm.5.value=nan")
    put("gpu0.gpm.7.ret=3")
    a, b, c = sample(1), sample(3), sample(7)
    before, after = (number(gpu(0), 138, 0xFFFFFFFF), put("time=8"), number(gpu(0), 138, -1))[::2]
    links = (after - before) / 1024
    values = metrics(a, b, 1, 20, 5, 7, 200)
    rate = metrics(b, c, 61)
    answer = [values[:2], str(values[2][1]), values[3][0], values[4][0], rate[0][1], links,
              metrics(b, a, 1), metrics(a, a, 1), metrics(a, b, 300)]
    put("gpu0.reset=1")
    answer.append(metrics(a, b, 1))
    N.nvmlGpmSampleFree(a)
    answer += [metrics(a, b, 1), rc(N.nvmlGpmSampleFree, a)]
    """
    )
    levels, nan, refused, unknown, rate, links, *bad = ask(fake, code)
    assert levels == [[0, pytest.approx(50)], [0, pytest.approx(100)]]
    assert (nan, refused, unknown) == ("nan", 3, 3)
    assert rate == pytest.approx(links, rel=1e-4)
    assert bad == [2, 2, 2, 2, 2, 2]
    assert (fake.calls().gpm_swapped, fake.calls().gpm_reused) == (1, 1)


def test_gpm_is_there_per_mig_instance(fake: FakeNvml) -> None:
    """A MIG handle and its parent with the instance's id give the same; PCIe has no meaning."""
    fake.set(profile="h100-mig", time=0)
    code = (
        GPM
        + """
    mig = N.nvmlDeviceGetMigDeviceHandleByIndex(gpu(0), 2)
    take = lambda s: N.nvmlGpmSampleGet(mig, s)
    parent = lambda s: N.nvmlGpmMigSampleGet(gpu(0), 5, s)
    answer = [metrics(sample(1, take), sample(2, take), 2, 20),
              metrics(sample(1, parent), sample(2, parent), 2),
              metrics(sample(1), sample(2, take), 2)]
    """
    )
    own, by_parent, mixed = ask(fake, code)
    assert own[0][0] == 0
    assert own[1][0] == NOT_SUPPORTED
    assert by_parent[0] == [0, pytest.approx(own[0][1])]
    assert mixed == 2


def test_mig_instances_are_sparse_and_their_handles_die(fake: FakeNvml) -> None:
    """Indexes 0, 2 and 5; after a reconfiguration the old handles are invalid, ids are reused."""
    fake.set(profile="a100-mig")
    code = """
        def tree(handle):
            found = {}
            for i in range(N.nvmlDeviceGetMaxMigDeviceCount(handle)):
                code = rc(N.nvmlDeviceGetMigDeviceHandleByIndex, handle, i)
                found[i] = N.nvmlDeviceGetMigDeviceHandleByIndex(handle, i) if code == 0 else code
            return found
        found = tree(gpu(0))
        mig = found[2]
        answer = [{i: m if isinstance(m, int) else 0 for i, m in found.items()},
                  [N.nvmlDeviceGetName(mig), N.nvmlDeviceGetGpuInstanceId(mig),
                   N.nvmlDeviceGetComputeInstanceId(mig), N.nvmlDeviceGetUUID(mig)[:4],
                   N.nvmlDeviceGetAttributes_v2(mig).memorySizeMB,
                   N.nvmlDeviceIsMigDeviceHandle(mig).value],
                  [rc(N.nvmlDeviceGetPowerUsage, mig), rc(N.nvmlDeviceGetMemoryInfo, mig),
                   rc(N.nvmlDeviceGetUtilizationRates, gpu(0)), field(gpu(0), 142)[0],
                   field(gpu(0), 138, 0)[0], rc(N.nvmlDeviceGetUtilizationRates, gpu(1))],
                  N.nvmlDeviceGetMigMode(gpu(0)) + N.nvmlDeviceGetMigMode(gpu(1))]
        old = N.nvmlDeviceGetUUID(mig)
        back = N.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(mig)
        answer.append(N.nvmlDeviceGetIndex(back))
        put("gpu0.mig=2:5:4")
        new = N.nvmlDeviceGetMigDeviceHandleByIndex(gpu(0), 2)
        answer.append([rc(N.nvmlDeviceGetMemoryInfo, mig), N.nvmlDeviceGetGpuInstanceId(new),
                       N.nvmlDeviceGetUUID(new) == old, rc(N.nvmlDeviceGetPowerUsage, gpu(0))])
    """
    tree, one, codes, modes, parent, after = ask(fake, code)
    assert {int(i): code for i, code in tree.items()} == {0: 0, 1: 6, 2: 0, 3: 6, 4: 6, 5: 0, 6: 6}
    assert one == ["NVIDIA A100-SXM4-80GB MIG 2g.20gb", 5, 0, "MIG-", 20480, 1]
    assert codes == [3, 0, 3, 3, 3, 0]
    assert (modes, parent) == ([1, 1, 0, 0], 0)
    assert after == [2, 5, False, 0]


def test_processes_follow_the_sizing_protocol(fake: FakeNvml) -> None:
    """Empty, sized, too small, and a process that appears between the two calls."""
    code = """
        h, fn = gpu(0), lib.nvmlDeviceGetComputeRunningProcesses_v3
        count = ctypes.c_uint(0)
        ref = ctypes.byref(count)
        answer = [[fn(h, ref, None), count.value]]
        put("gpu0.process.100=1048576", "gpu0.process.200=na", "gpu0.process.300=5,g,20")
        answer.append([fn(h, ref, None), count.value])
        room = (N.c_nvmlProcessInfo_v3_t * 2)()
        put("gpu0.process.101=7")
        answer.append([fn(h, ref, room), count.value])
        found = N.nvmlDeviceGetComputeRunningProcesses(h)
        answer.append([[p.pid, p.usedGpuMemory, p.gpuInstanceId] for p in found])
        answer.append([p.pid for p in N.nvmlDeviceGetGraphicsRunningProcesses(h)])
        answer.append(N.nvmlDeviceGetComputeRunningProcesses(gpu(1)))
    """
    empty, sized, small, found, graphics, elsewhere = ask(fake, code)
    none = 0xFFFFFFFF
    assert (empty, sized, small) == ([0, 0], [7, 2], [7, 3])
    assert found == [[100, 1 << 20, none], [200, None, none], [101, 7, none]]
    assert (graphics, elsewhere) == ([300], [])


def test_process_utilization_has_a_cursor(fake: FakeNvml) -> None:
    """Idle is NOT_FOUND; cursor 0 also finds a stale sample; nothing is given out twice."""
    code = """
        h = gpu(0)
        put("time=50")
        count = ctypes.c_uint(0)
        sizing = lib.nvmlDeviceGetProcessUtilization(h, None, ctypes.byref(count),
                                                     ctypes.c_ulonglong(0))
        answer = [rc(N.nvmlDeviceGetProcessUtilization, h, 0), sizing, count.value]
        put("gpu0.process.100=1,c,70", "gpu0.process.200=1,c,0")
        first = N.nvmlDeviceGetProcessUtilization(h, 0)
        last = max(s.timeStamp for s in first)
        answer += [[[s.pid, s.smUtil, last - s.timeStamp] for s in first]]
        answer.append(rc(N.nvmlDeviceGetProcessUtilization, h, last))
        put("time=51")
        answer.append([s.pid for s in N.nvmlDeviceGetProcessUtilization(h, last)])
    """
    idle, sizing, capacity, first, again, later = ask(fake, code)
    assert (idle, sizing, capacity) == (6, 7, 72)
    assert first == [[100, 70, 0], [4194303, 90, 3_600_000_000]]
    assert (again, later) == (6, [100])


def test_samples_keep_seconds_of_history(fake: FakeNvml) -> None:
    """Power each 20 ms and utilization each 200 ms, also of before a change; a cursor moves on."""
    code = """
        h = gpu(0)
        put("time=100", "gpu0.util=20")
        put("time=110")
        put("gpu0.util=90")
        put("time=112")
        kind, power = N.nvmlDeviceGetSamples(h, 0, 0)
        _, util = N.nvmlDeviceGetSamples(h, 1, 0)
        values = [s.sampleValue.uiVal for s in util]
        answer = [kind, len(power), power[1].timeStamp - power[0].timeStamp, len(util),
                  values.count(20), values.count(90), values[-1]]
        last = util[-1].timeStamp
        answer.append(rc(N.nvmlDeviceGetSamples, h, 1, last))
        put("time=113")
        answer += [len(N.nvmlDeviceGetSamples(h, 1, last)[1]), rc(N.nvmlDeviceGetSamples, h, 5, 0)]
    """
    kind, power, step, util, low, high, newest, empty, new, clocks = ask(fake, code)
    assert (kind, power, util, newest) == (1, 119, 71, 90)
    assert step == pytest.approx(20_000, abs=1)
    assert low + high >= 60
    assert high == pytest.approx(11, abs=1)
    assert (empty, new, clocks) == (6, 5, 3)


def test_events_come_in_order_to_those_who_registered(fake: FakeNvml) -> None:
    """What was before registration is lost; a queue keeps order; a timeout is code 10."""
    code = """
        events = N.nvmlEventSetCreate()
        put("gpu1.xid=13")
        answer = [rc(N.nvmlDeviceRegisterEvents, gpu(1), 8 | 0x80, events)]
        N.nvmlDeviceRegisterEvents(gpu(1), 8, events)
        N.nvmlDeviceRegisterEvents(gpu(2), 8, events)
        put("gpu1.xid=13", "gpu0.xid=31")
        answer.append(rc(N.nvmlEventSetWait, events, 0))
        put("gpu1.xid=48:1,79:2")
        put("gpu2.xid=94:1:5:0")
        put("gpu1.xid=48:1,79:2,119:3")
        for _ in range(4):
            d = N.nvmlEventSetWait(events, 1000)
            index = N.nvmlDeviceGetIndex(d.device)
            answer.append([index, d.eventType, d.eventData, d.gpuInstanceId, d.computeInstanceId])
        answer.append(rc(N.nvmlEventSetWait, events, 0))
        N.nvmlEventSetFree(events)
        answer.append(rc(N.nvmlEventSetWait, events, 0))
    """
    none = 0xFFFFFFFF
    assert ask(fake, code) == [
        *(3, 10),
        *([1, 8, 48, none, none], [1, 8, 79, none, none]),
        *([2, 8, 94, 5, 0], [1, 8, 119, none, none]),
        *(10, 2),
    ]


def test_a_wait_is_no_call_in_flight(fake: FakeNvml) -> None:
    """A thread that waits for events may do so beside any other call."""
    code = """
        N.nvmlInit()
        events = N.nvmlEventSetCreate()
        N.nvmlDeviceRegisterEvents(gpu(0), 8, events)
        waiter = threading.Thread(target=lambda: N.nvmlEventSetWait(events, 60000))
        waiter.start()
        while sys.stdin.readline().strip() == "call":
            print(N.nvmlDeviceGetCount(), flush=True)
        put("gpu0.xid=31")
        waiter.join()
    """
    with start(fake, code) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        while fake.calls().count("nvmlEventSetWait_v2") == 0:
            pass
        child.stdin.write("call\n")
        child.stdin.flush()
        assert child.stdout.readline().strip() == "8"
        child.communicate("done\n", timeout=60)
    assert child.returncode == 0
    assert fake.calls().max_in_flight == 1


def test_a_wait_wakes_for_an_event_in_the_file(fake: FakeNvml) -> None:
    """A process that only waits sees an XID written from outside, and counts no call in flight."""
    code = """
        N.nvmlInit()
        events = N.nvmlEventSetCreate()
        N.nvmlDeviceRegisterEvents(gpu(3), 8, events)
        print("waiting", flush=True)
        print(N.nvmlEventSetWait(events, 60000).eventData)
    """
    with start(fake, code) as child:
        assert child.stdout is not None
        assert child.stdout.readline().strip() == "waiting"
        fake.xid(3, 79)
        out, _ = child.communicate(timeout=60)
    assert out.strip() == "79"
    assert fake.calls().count("nvmlEventSetWait_v2") == 1
