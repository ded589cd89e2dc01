"""The crew: jobs on few threads; a job that hangs is left behind and costs only itself."""

from __future__ import annotations

import threading
import time

from exporter.crew import Crew, Job

SOON = 0.05
NEVER_HERE = 30.0


def who() -> str:
    """Return the name of the thread that runs this."""
    return threading.current_thread().name


def test_one_thread_reads_all_and_is_used_again() -> None:
    """Fast jobs run in order on one thread, at the next tick on the same one."""
    crew = Crew("t")
    threads = []
    for _ in range(3):
        jobs = [Job(who) for _ in range(8)]
        crew.start(jobs, split=False)
        crew.wait(NEVER_HERE)
        assert all(job.done for job in jobs)
        threads += [job.result for job in jobs]
    assert set(threads) == {"t-1"}


def test_split_gives_each_job_its_own_thread_and_joining_keeps_no_more() -> None:
    """Split jobs run side by side (they meet at a barrier); threads are not made anew."""
    crew = Crew("t")
    barrier = threading.Barrier(4, timeout=NEVER_HERE)
    for _ in range(3):
        jobs = [Job(lambda: (barrier.wait(), who())[1]) for _ in range(4)]
        crew.start(jobs, split=True)
        crew.wait(NEVER_HERE)
        assert {job.result for job in jobs} == {"t-1", "t-2", "t-3", "t-4"}


def test_hung_job_costs_only_itself_and_comes_back() -> None:
    """Jobs behind a hung one are done within the same wait; the late thread is used again."""
    crew = Crew("t")
    gate = threading.Event()
    before, hung, after = Job(who), Job(lambda: str(gate.wait(NEVER_HERE))), [Job(who), Job(who)]
    crew.start([before, hung, *after], split=False)
    crew.wait(SOON)
    assert before.done
    assert all(job.done and not job.overdue for job in after)
    assert hung.overdue
    assert not hung.done
    assert not crew.is_busy
    count = threading.active_count()
    gate.set()
    while crew._finished.empty():  # its thread has not reported back
        time.sleep(0.001)
    for _ in range(3):
        jobs = [Job(who) for _ in range(3)]
        crew.start(jobs, split=True)
        crew.wait(NEVER_HERE)
        assert all(job.done for job in jobs)
    assert threading.active_count() == count


def test_two_hung_jobs_are_found_in_one_wait() -> None:
    """Two of eight that hang for ever leave six done and two overdue, and no thread waits."""
    crew = Crew("t")
    gate = threading.Event()
    jobs: list[Job[str]] = [Job(who) for _ in range(8)]
    jobs[2], jobs[5] = stuck = [Job(lambda: str(gate.wait(NEVER_HERE))) for _ in range(2)]
    crew.start(jobs, split=False)
    crew.wait(SOON)
    assert [job.overdue for job in jobs] == [job in stuck for job in jobs]
    assert [job.done for job in jobs] == [job not in stuck for job in jobs]
    gate.set()


def test_deadline_counts_for_each_job_not_for_their_sum() -> None:
    """Ten jobs that each stay below the deadline are all done, though together they pass it."""
    crew = Crew("t")
    pause = threading.Event()
    jobs = [Job(lambda: pause.wait(0.03)) for _ in range(10)]
    crew.start(jobs, split=False)
    crew.wait(0.2)
    assert all(job.done and not job.overdue for job in jobs)


def test_looking_without_waiting_returns_at_once() -> None:
    """With block=False a job that is not back stays under way."""
    crew = Crew("t")
    gate = threading.Event()
    job = Job(lambda: gate.wait(NEVER_HERE))
    crew.start([job], split=False)
    crew.wait(NEVER_HERE, block=False)
    assert crew.is_busy
    assert not job.overdue
    gate.set()
    crew.wait(NEVER_HERE)
    assert job.done
    assert not crew.is_busy
