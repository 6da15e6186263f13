"""A batch that is attacked from outside loses nothing, and goes on to the same end.

Attacks come after a number of outcomes, never after a time: so they find the batch at
the same place on any machine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys

import pytest
from chaos import batches
from chaos.harness import Program, dice, state_of, wait_for

from coresize.batch.journal import reader


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

ITEMS = 40

#: What a task may end with whose worker is killed by an attack.
_ENDED_BY_SIGNALS = ("killed", "crashed", "oom")


# --- The attacks: each is called with the program, and dice -----------------------


def _signal(pids, number):
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, number)


def parent_is_killed(program, _):
    program.process.kill()


def all_are_killed(program, _):
    os.killpg(program.process.pid, signal.SIGKILL)


def parent_is_interrupted(program, _):
    program.process.send_signal(signal.SIGINT)


def all_are_interrupted(program, _):
    """Ctrl-C at a terminal goes to all processes."""
    _signal(program.pids(), signal.SIGINT)


def parent_is_interrupted_twice(program, _):
    for _attempt in range(2):
        program.process.send_signal(signal.SIGINT)


def parent_is_terminated(program, _):
    program.process.terminate()


def all_are_terminated(program, _):
    _signal(program.pids(), signal.SIGTERM)


def parent_is_hung_up(program, _):
    program.process.send_signal(signal.SIGHUP)


def a_worker_is_killed(program, dice):
    workers = program.workers()
    _signal(workers and [dice.choice(workers)], signal.SIGKILL)


def all_workers_are_killed(program, _):
    _signal(program.workers(), signal.SIGKILL)


def a_worker_is_terminated(program, dice):
    workers = program.workers()
    _signal(workers and [dice.choice(workers)], signal.SIGTERM)


def a_worker_crashes(program, dice):
    workers = program.workers()
    _signal(workers and [dice.choice(workers)], signal.SIGSEGV)


def workers_are_hung_up(program, _):
    _signal(program.workers(), signal.SIGHUP)


def workers_get_harmless_signals(program, _):
    for number in (signal.SIGCONT, signal.SIGCHLD, signal.SIGWINCH, signal.SIGURG):
        _signal(program.workers(), number)


def _stop_for_a_while(pids):
    _signal(pids, signal.SIGSTOP)
    wait_for(lambda: all(state_of(pid) in ("", "T", "Z") for pid in pids))
    _signal(pids, signal.SIGCONT)


def workers_are_stopped_for_a_while(program, _):
    _stop_for_a_while(program.workers())


def parent_is_stopped_for_a_while(program, _):
    _stop_for_a_while([program.process.pid])


def all_are_stopped_for_a_while(program, _):
    _stop_for_a_while(program.pids())


def forkserver_is_killed(program, _):
    _signal(program.servers(), signal.SIGKILL)


def forkserver_and_worker_are_killed(program, dice):
    forkserver_is_killed(program, dice)
    a_worker_is_killed(program, dice)


def forkserver_is_stopped_for_a_while(program, _):
    _stop_for_a_while(program.servers())


def nothing_happens(_program, _dice):
    """What is attacked is how the program is started."""


def nobody_reads_on(program, _):
    program.process.stdout.close()


@dataclasses.dataclass(frozen=True)
class Attack:
    """One way to attack a batch.

    Attributes:
        act: what is done.
        after: numbers of outcomes after each of which it is done.
        executor: what the batch runs on.
        ends: whether the program ends with status 0 all the same.
        lost: the batch may lose the tasks whose workers the attack ends.
        shell: how a shell starts the program.
    """

    act: object
    after: tuple[int, ...] = (15,)
    executor: str = "process"
    ends: bool = False
    lost: bool = False
    shell: str = 'exec "$@"'
    name: str = ""


STORM = (5, 12, 19, 26)

ATTACKS = [
    Attack(parent_is_killed, after=(0,)),
    Attack(parent_is_killed, after=(1,)),
    Attack(parent_is_killed),
    Attack(parent_is_killed, executor="thread"),
    Attack(parent_is_killed, executor="serial"),
    Attack(all_are_killed),
    Attack(parent_is_interrupted),
    Attack(parent_is_interrupted, executor="thread"),
    Attack(parent_is_interrupted_twice),
    Attack(all_are_interrupted),
    Attack(parent_is_terminated),
    Attack(all_are_terminated),
    Attack(parent_is_hung_up),
    Attack(a_worker_is_killed, after=STORM, ends=True, lost=True),
    Attack(a_worker_is_terminated, after=STORM, ends=True, lost=True),
    Attack(a_worker_crashes, after=STORM, ends=True, lost=True),
    Attack(all_workers_are_killed, after=STORM, ends=True, lost=True),
    Attack(workers_are_hung_up, after=STORM, ends=True, lost=True),
    Attack(workers_get_harmless_signals, after=STORM, ends=True),
    Attack(workers_are_stopped_for_a_while, after=STORM, ends=True),
    Attack(parent_is_stopped_for_a_while, after=STORM, ends=True),
    Attack(all_are_stopped_for_a_while, after=STORM, ends=True),
    Attack(forkserver_is_killed, ends=True, lost=True),
    Attack(forkserver_and_worker_are_killed, ends=True, lost=True),
    Attack(forkserver_is_stopped_for_a_while, after=STORM, ends=True),
    Attack(nobody_reads_on),
    *(
        Attack(nothing_happens, ends=ends, name=name, shell=shell)
        for name, ends, shell in (
            ("disk_is_full", False, 'ulimit -f 40; exec "$@"'),
            ("standard_error_is_full", True, 'exec "$@" 2>/dev/full'),
            ("standard_error_is_closed", True, 'exec "$@" 2>&-'),
            ("standard_input_is_closed", True, 'exec "$@" <&-'),
            ("signals_are_ignored", True, "trap '' HUP PIPE CHLD; exec \"$@\""),
        )
    ),
]


def _named(attack):
    name = attack.name or attack.act.__name__
    return f"{name}-{attack.executor}-{len(attack.after)}x{attack.after[0]}"


@pytest.mark.parametrize("attack", ATTACKS, ids=_named)
def test_an_attacked_batch_goes_on_to_the_same_end(tmp_path, attack):
    journal = tmp_path / "batch.sqlite"
    reported = _attacked(tmp_path, journal, attack)
    ended = _journaled(journal)
    lost = {key for key, status in reported.items() if status != "ok"}
    assert attack.lost or not lost, {key: reported[key] for key in lost}
    assert {reported[key] for key in lost} <= {*_ENDED_BY_SIGNALS, "cancelled"}
    assert {key for key in reported if key not in lost} <= ended
    outcomes = list(batches.run(journal, "serial", ITEMS, retry=_ENDED_BY_SIGNALS))
    assert sorted(outcome.index for outcome in outcomes) == list(range(ITEMS))
    wrong = [one for one in outcomes if one.value != batches.value_of(one.index)]
    assert wrong == []
    again = {one.key for one in outcomes if one.status == "skipped"}
    assert again == ended  # nothing that had ended was run again


def _attacked(folder, journal, attack):
    """Run the batch under attack; the keys that were reported, and their statuses."""
    number = dice(_named(attack))
    words = [journal, attack.executor, ITEMS, *_ENDED_BY_SIGNALS]
    with Program(folder, "batches", *words, shell=attack.shell) as program:
        lines = []
        for after in attack.after:
            lines += _read(program, after - len(lines))
            attack.act(program, number)
        if not program.process.stdout.closed:
            lines += program.process.stdout.readlines()
        status = program.end()
        assert (status == 0) == attack.ends or len(lines) == ITEMS, program.told()
        program.check_nothing_left()
    cells = [line.split("\t") for line in lines if line.endswith("\n")]
    assert len({key for key, *_ in cells}) == len(cells), "a key was reported twice"
    return {key: status for key, status, _ in cells}


def _read(program, count):
    """So many lines of a program, or fewer where it ends before."""
    lines = (program.process.stdout.readline() for _ in range(count))
    return [line for line in lines if line]


def _journaled(journal):
    """The keys of what has ended well, as the journal has it."""
    if not journal.exists():  # it was killed before it began
        return set()
    rows = reader.read(str(journal))
    return {str(row["key"]) for row in rows if row["status"] == "ok"}
