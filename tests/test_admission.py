"""Which task may start: what is learned, what is likely, and caution after a kill."""

from __future__ import annotations

import pytest

from coresize.executor.admission.rules import MemoryTrace, PeakStats, Rules
from coresize.executor.jobs import Job


MIB = 1024**2


def job(need=None):
    return Job(b"", "function", need)


def pool(*peaks, optimistic=True, rest=0.0):
    """An admission that has seen tasks with such peaks, in MiB."""
    admission = Rules(8, learns=True, optimistic=optimistic)
    for peak in peaks:
        admission.succeeded(job(), peak * MIB, rest)
    return admission


def test_a_task_of_which_nothing_is_known_runs_alone():
    admission, one = pool(), job()
    assert admission.choose([one], [], 0) is one
    assert admission.choose([job()], [(one, 0, 0.0)], 10**12) is None


def test_needs_that_are_declared_are_reserved_to_the_last_byte():
    admission, running = pool(), [(job(100), 40, 9.9)]
    assert admission.choose([job(50)], running, 109) is None
    assert admission.choose([job(50)], running, 110) is not None


SEEN = [10, 100, 200, 300] * 5


@pytest.mark.parametrize(("optimistic", "starts"), [(True, True), (False, False)])
def test_only_who_may_run_again_is_not_believed_to_take_the_most(optimistic, starts):
    running = [(job(), 0, 0.0)] * 2
    chosen = pool(*SEEN, optimistic=optimistic).choose([job()], running, 800 * MIB)
    assert (chosen is not None) == starts


def test_who_has_rested_takes_no_more():
    admission = pool(*SEEN, rest=0.2)
    for rested, starts in ((0.1, False), (0.3, True)):
        running = [(job(), 10 * MIB, rested)] * 4
        chosen = admission.choose([job()], running, 350 * MIB)
        assert (chosen is not None) == starts


def test_caution_doubles_after_a_kill_and_falls_with_each_success():
    admission = pool(*SEEN)
    before = admission.caution
    admission.killed(job(), 10, 3)
    assert admission.caution == 2 * before
    for _ in range(100):
        admission.succeeded(job(), 10 * MIB)
    assert admission.caution == 0.5


def test_who_is_ended_for_the_sake_of_others_keeps_its_need():
    admission = pool(*SEEN)
    small, large = job(), job()
    admission.evicted(small, 50 * MIB)
    admission.evicted(large, 600 * MIB)
    assert small.need is None
    assert large.need == 900 * MIB


def test_the_outlook_is_that_of_those_that_took_more():
    learned = PeakStats()
    for peak in (100, 200, 300):
        learned.add(peak * MIB, 0.0)
    mean, variance = learned.outlook(0)
    assert mean == pytest.approx(220 * MIB, rel=1e-6)
    assert variance > 0
    assert learned.outlook(250 * MIB)[0] == pytest.approx(80 * MIB, rel=1e-6)
    assert learned.outlook(1000 * MIB)[0] == pytest.approx(100 * MIB, rel=1e-6)


def test_a_rest_is_what_comes_before_growth():
    growth = MemoryTrace(0.0)
    for now, used in ((0.1, 50), (0.2, 50), (0.5, 80), (0.9, 80)):
        growth.look(used * MIB, 0, now)
    assert growth.stable_for(0.9) == pytest.approx(0.4)
    assert growth.longest_stable(80 * MIB, 1.0) == pytest.approx(0.4)


def test_a_peak_that_no_look_has_seen_may_come_at_any_time():
    growth = MemoryTrace(0.0)
    growth.look(50 * MIB, 0, 0.1)
    assert growth.longest_stable(300 * MIB, 1.0) == 1.0


def test_a_long_rest_is_forgotten_by_and_by():
    learned = PeakStats()
    learned.add(MIB, 10.0)
    for _ in range(100):
        learned.add(MIB, 0.0)
    assert learned.rest < 0.1
