"""The checks, one session each; ``nox --list`` names them."""

from __future__ import annotations

import time

import nox


PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)

#: Tests whose programs take time to start, to be attacked and to end.
PROGRAMS = (
    "chaos",
    "test_answers.py",
    "test_batch_lifecycle.py",
    "test_batch_nesting.py",
    "test_bounded_memory.py",
    "test_cli_streams.py",
    "test_orphans.py",
    "test_pool_failures.py",
    "test_worker_start.py",
)

nox.needs_version = ">=2025.2"
nox.options.sessions = ["tests", "programs", "live"]
nox.options.error_on_missing_interpreters = False
nox.options.reuse_venv = "yes"


def _install(session: nox.Session, *groups: str) -> None:
    """The dependency groups, and coresize as a user gets it: built, not in place."""
    # Tests start interpreters by the thousand: each module is compiled once for all.
    session.env["PYTHONDONTWRITEBYTECODE"] = ""
    session.install(*nox.project.dependency_groups(PROJECT, *groups), ".")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Tables, laws, recorded hosts and every example; no container.

    The Pythons between the oldest and the newest run the first row of each table,
    unless tests are chosen: ``-- WORDS``.
    """
    _install(session, "tests")
    # The tests keep half a core busy: they wait for the programs that they start.
    count = session.run("coresize", "workers", "--cpus", "0.6", silent=True)
    left = [f"--ignore=tests/{name}" for name in ("live", *PROGRAMS)]
    between = session.python not in (PYTHONS[0], PYTHONS[-1])
    words = session.posargs or (["--first-rows"] if between else [])
    session.run("pytest", "-n", str(count).strip(), *left, *words)


@nox.session(python=[PYTHONS[0], PYTHONS[-1]])
def programs(session: nox.Session) -> None:
    """Whole programs that are started, attacked, and end; no container."""
    _install(session, "tests")
    count = session.run("coresize", "workers", "--cpus", "0.6", silent=True)
    names = [f"tests/{name}" for name in PROGRAMS]
    session.run("pytest", "-n", str(count).strip(), *names, *session.posargs)


@nox.session(python=[PYTHONS[0], PYTHONS[-1]])
def live(session: nox.Session) -> None:
    """Real containers, kernels and programs, skipped with the reason where missing."""
    if session.python != PYTHONS[0]:
        # Debian has CPython's own tests for the oldest; the newest brings its own.
        _install(session, "tests")
        session.run("pytest", "tests/live/test_cpython.py", *session.posargs)
        return
    _install(session, "live")
    session.run("pytest", "tests/live", *session.posargs)


@nox.session(python=[PYTHONS[0], PYTHONS[-1]])
def chaos(session: nox.Session) -> None:
    """Every way of tests/chaos, then ways by chance for 10 minutes, or -- MINUTES."""
    _install(session, "tests")
    minutes, *words = session.posargs or ["10"]
    seed = session.env.get("CORESIZE_CHAOS_SEED") or str(time.time_ns())
    env = {"CORESIZE_CHAOS_MINUTES": minutes, "CORESIZE_CHAOS_SEED": seed}
    session.log(f"CORESIZE_CHAOS_SEED={seed}")
    session.run("pytest", "tests/chaos", *words, env=env)


@nox.session
def lint(session: nox.Session) -> None:
    """Layout, rules, and the directions of imports."""
    _install(session, "lint")
    session.run("ruff", "format", "--diff", ".")
    session.run("ruff", "check", ".")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy, strict."""
    _install(session, "types", "benchmarks")
    session.run("mypy")


@nox.session(name="format")
def format_(session: nox.Session) -> None:
    """Write the layout that lint asks for."""
    _install(session, "lint")
    session.run("ruff", "format", ".")
    session.run("ruff", "check", "--fix", ".")


@nox.session(python=PYTHONS[-1])  # the newest has os.process_cpu_count()
def benchmarks(session: nox.Session) -> None:
    """Ratios against peers; tables are kept in docs/reference."""
    _install(session, "benchmarks")
    session.run("python", "benchmarks/profiles.py")
    session.run("python", "benchmarks/calls.py")
    session.run("python", "benchmarks/peers.py", "--write")
    session.run("python", "benchmarks/rounding.py")
    session.run("python", "benchmarks/history.py")
    session.run("python", "benchmarks/batch.py")
    session.run("python", "benchmarks/pools.py", "--write")
    session.run("python", "benchmarks/makespan.py", "--write")
    session.run("python", "benchmarks/reuse.py")
