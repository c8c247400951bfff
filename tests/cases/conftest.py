"""A registry of its own, and one base for all."""

from __future__ import annotations

from pathlib import Path

import pytest

from cases.building import llama, save
from deployments import empty_home
from loreg.registry import Registry, connect


@pytest.fixture
def local_registry(tmp_path: Path) -> Registry:
    return connect(home=empty_home(tmp_path / "home"))


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(llama(), tmp_path_factory.mktemp("bases") / "llama")


@pytest.fixture(scope="session")
def tied_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(llama(tied=True), tmp_path_factory.mktemp("bases") / "tied")
