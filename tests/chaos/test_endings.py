"""A program that ends with work at hand does it, or says so, and leaves no process."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from chaos import endings
from chaos.harness import Program


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

ALL = endings.COUNT

#: The exit status of each, and how many of its tasks are done: None where any number.
ENDINGS = {
    "without_shutdown": (0, ALL),
    "without_shutdown_of_threads": (0, ALL),
    "without_shutdown_and_held": (0, ALL),
    "without_shutdown_of_a_map": (0, ALL),
    "without_shutdown_of_two": (0, ALL),
    "without_shutdown_in_a_thread": (0, ALL),
    "by_sys_exit": (3, ALL),
    "by_an_error": (1, ALL),
    "by_an_error_without_shutdown": (1, ALL),
    "by_an_interrupt": (-signal.SIGINT, None),
    "by_os_exit": (4, None),
    "by_a_kill": (-signal.SIGKILL, None),
    "by_a_signal": (-signal.SIGTERM, None),
    "by_a_batch_that_is_read_in_part": (0, None),
    "by_a_batch_that_a_daemon_reads": (0, None),
    "by_a_batch_that_a_thread_reads": (0, ALL),
    "by_a_ring": (0, ALL),
    "with_a_pool_made_at_exit": (0, None),
    "with_a_thread_that_submits": (0, ALL),
    "with_an_interrupt_at_any_place": (-signal.SIGINT, None),
    "with_collections_at_every_turn": (0, ALL),
    "in_an_interpreter_of_its_own": (0, None),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_a_program_ends_with_work_at_hand(tmp_path, name):
    status, count = ENDINGS[name]
    done = tmp_path / "done"
    done.mkdir()
    with Program(tmp_path, Path(endings.__file__), name, done) as program:
        assert program.end() == status, program.told()
        program.check_nothing_left()
        assert "Fatal Python error" not in program.told()
    calls = {path.name: path.read_text() for path in done.iterdir()}
    assert set(calls.values()) <= {"x"}, "a task was called twice"
    assert count in (None, len(calls)), program.told()
