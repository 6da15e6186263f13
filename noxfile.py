"""The checks, one session each; ``nox --list`` names them."""

from __future__ import annotations

import nox


PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)

nox.options.sessions = ["tests", "lint", "types"]
nox.options.error_on_missing_interpreters = False
nox.options.default_venv_backend = "virtualenv"


def _group(name: str) -> list[str]:
    return list(nox.project.dependency_groups(PROJECT, name))
