"""A registry with a home of its own, where what previews are made from is kept."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments import empty_folders
from loreg.registry import Registry, connect


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Registry]:
    with connect(**empty_folders(tmp_path).settings, home=tmp_path / "home") as registry:
        yield registry


def home_settings(registry: Registry) -> dict[str, str]:
    return {name: str(getattr(registry.settings, name)) for name in ("database_url", "storage_url")}


def ask_without_torch(registry: Registry, question: str, folder: Path) -> float:
    """Return the number that the registry answers to ``question``, in a process in which torch cannot be imported."""
    code = (
        "import sys; sys.modules['torch'] = None; from loreg.registry import connect; "
        f"print(connect(**{home_settings(registry)!r}).{question})"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder)
    return float(finished.stdout)
