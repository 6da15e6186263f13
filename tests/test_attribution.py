"""To whom a kill for memory is attributed, by what the answers of the tasks show."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from coresize.executor.pool.attribution import Attribution


class Counter:
    """A counter of kills that counts what a case says."""

    is_of_all = False

    def __init__(self):
        self.new = 0

    def take(self):
        new, self.new = self.new, 0
        return new


@dataclass(eq=False)
class Worker:
    """A worker as far as kills are attributed: pid 1 is alive and is not killed."""

    kills: Counter
    pid: int = 1
    running: list = field(default_factory=lambda: ["task"])
    kill_reason: str | None = None
    killed: str = "no"
    lost: str = "no"
    suspected: bool = False
    started: dict = field(default_factory=dict)
    losing: int = 0
    reaped: bool = False

    def loss(self):
        losing, self.losing = self.losing, 0
        return losing

    def has_reaped(self):
        reaped, self.reaped = self.reaped, False
        return reaped


GONE, SEEN = 1, 2


def play(steps):
    """The verdicts of the answers in a script, with three workers.

    A step is a look, with what is seen of each worker's descendants and how many kills
    are new; or a worker's answer: "well", "failed", or "killed" if the error of the
    task shows that SIGKILL has ended a child. Each answering task has waited for one.
    """
    counter = Counter()
    workers = [Worker(counter) for _ in range(3)]
    attribution = Attribution()
    attribution._counts["here"] = counter
    verdicts = []
    for step in steps:
        if step[0] == "look":
            _, counter.new, losses = step
            for worker, loss in zip(workers, losses, strict=True):
                worker.losing = loss
            attribution.look(workers)
            continue
        worker, answer = workers[step[0]], step[1]
        worker.reaped = True
        if answer == "well":
            verdict = attribution.of_success(worker, workers)
        else:
            verdict = attribution.of_task(worker, workers)
            if verdict == "no" and answer == "killed":
                verdict = attribution.take_doubtful(worker, workers)
        verdicts.append(verdict)
    return verdicts


CASES = {
    "seen": ([("look", 1, (SEEN, 0, 0)), (0, "failed")], ["yes"]),
    "gone": ([("look", 1, (GONE, 0, 0)), (0, "failed")], ["yes"]),
    "unseen": ([("look", 1, (0, 0, 0)), (0, "failed")], ["yes"]),
    "each once": (
        [("look", 1, (0, 0, 0)), (0, "failed"), (1, "failed")],
        ["yes", "no"],
    ),
    "a child that SIGKILL ended beats one that is gone": (
        [("look", 1, (GONE, 0, 0)), (1, "killed"), (0, "failed")],
        ["probably", "no"],
    ),
    "but not one that was seen": (
        [("look", 1, (SEEN, 0, 0)), (1, "killed"), (0, "failed")],
        ["no", "yes"],
    ),
    "who was suspected falsely gets a later kill": (
        [
            ("look", 1, (GONE, 0, 0)),
            (1, "killed"),
            ("look", 1, (0, 0, 0)),
            (0, "killed"),
        ],
        ["probably", "yes"],
    ),
    "a success was suspected falsely": (
        [("look", 1, (GONE, 0, 0)), (0, "well"), (1, "failed")],
        ["no", "yes"],
    ),
    "a success takes no kill from others": (
        [("look", 1, (0, 0, 0)), (0, "well"), (1, "killed")],
        ["no", "yes"],
    ),
    "a success without what was killed": (
        [("look", 1, (SEEN, 0, 0)), (0, "well"), (1, "killed")],
        ["yes", "no"],
    ),
    "without a kill": ([("look", 0, (GONE, 0, 0)), (0, "killed")], ["no"]),
}


@pytest.mark.parametrize(("steps", "verdicts"), CASES.values(), ids=CASES)
def test_each_kill_explains_the_task_with_the_best_evidence(steps, verdicts):
    assert play(steps) == verdicts


def test_a_kill_that_has_waited_long_explains_a_shown_one_only():
    counter = Counter()
    one, other = Worker(counter), Worker(counter)
    attribution = Attribution()
    attribution._waiting[counter] = []
    attribution._late[counter] = []
    attribution._counts["here"] = counter
    counter.new = 1
    attribution.look([one, other])
    attribution._waiting[counter][0] -= 2.0
    one.reaped = True
    assert attribution.of_task(one, [one, other]) == "no"
    assert attribution.take_doubtful(one, [one, other]) == "probably"
    assert attribution.take_doubtful(other, [one, other]) == "no"
