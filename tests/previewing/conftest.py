"""A registry with a home of its own, where what previews are made from is kept."""

from __future__ import annotations

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
