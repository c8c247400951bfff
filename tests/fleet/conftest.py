"""Registries with a few small adapters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text

from deployments import Deployment
from factories import train
from loreg import Registry, connect
from server.conftest import guarded, guarded_folder

__all__ = ["guarded", "guarded_folder"]

ALPHAS = (8, 9, 10, 11, 12, 13)


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Six adapters by their alpha."""
    folder = tmp_path_factory.mktemp("adapters")
    return {alpha: train(folder / str(alpha), alpha, lora_alpha=alpha) for alpha in ALPHAS}


@pytest.fixture
def filled(local_deployment: Deployment, adapters: dict[int, Path]) -> Iterator[Registry]:
    """A registry with a version of each; every chunk has one."""
    with connect(**local_deployment.settings) as registry:
        for alpha, folder in adapters.items():
            registry.push(folder, f"team/a{alpha}")
        yield registry


@pytest.fixture
def one_in_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loreg.local.maps._MAX_VERSIONS", 1)


@pytest.fixture
def database(local_deployment: Deployment) -> Iterator[Engine]:
    engine = create_engine(local_deployment.database_url.replace("postgresql://", "postgresql+psycopg://"))
    yield engine
    engine.dispose()


def forget_facts(engine: Engine) -> None:
    """As if the versions had been pushed before there were facts."""
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM facts"))
        connection.execute(text("DELETE FROM findings"))


@pytest.fixture
def local_registry(tmp_path: Path) -> Iterator[Registry]:
    with connect(home=str(tmp_path / "home"), author="ada") as registry:
        yield registry
