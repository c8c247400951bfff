"""What the tests work with: real adapters, places to push to, and the command line as a person sees it."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from loreg.catalog import Catalog

EXAMPLES = Path(__file__).parents[1] / "examples" / "adapters"
NEWS = EXAMPLES / "minilm-news-topics-r8"
MOVIES = EXAMPLES / "minilm-movie-sentiment-r8"
SCIENCE = EXAMPLES / "smollm2-science-r8"
HISTORY = EXAMPLES / "smollm2-history-r8"
DORA = EXAMPLES / "smollm2-movies-dora-r8"


@dataclass(frozen=True)
class Deployment:
    """A fresh, empty catalog and store; with ``endpoint`` they are those of a server."""

    database_url: str
    storage_url: str
    storage_endpoint: str = ""
    endpoint: str = ""

    @property
    def settings(self) -> dict[str, str]:
        """What ``connect`` is told: the server alone, or what lies behind it."""
        if self.endpoint:
            return {"endpoint": self.endpoint}
        behind = ("database_url", "storage_url", "storage_endpoint")
        return {name: getattr(self, name) for name in behind}

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LOREG_DATABASE_URL": self.database_url,
            "LOREG_STORAGE_URL": self.storage_url,
            "LOREG_STORAGE_ENDPOINT": self.storage_endpoint,
            "LOREG_ENDPOINT": self.endpoint,
            "LOREG_AUTHOR": "ada",
        }


@functools.cache
def _migrated_sqlite() -> bytes:
    """The file of an empty catalog, which every migration has made, once in a test process."""
    with tempfile.TemporaryDirectory() as folder:
        catalog = Catalog(f"sqlite:///{folder}/catalog.db")
        catalog.upgrade()
        catalog.close()
        return Path(folder, "catalog.db").read_bytes()


def empty_sqlite(file: Path) -> str:
    """Write an empty catalog, for its owner alone as loreg makes it; returns its URL."""
    file.parent.mkdir(mode=0o700, exist_ok=True)
    file.touch(mode=0o600, exist_ok=False)
    file.write_bytes(_migrated_sqlite())
    return f"sqlite:///{file}"


def empty_home(folder: Path) -> str:
    """Make the home of a registry with an empty catalog; returns ``folder``."""
    empty_sqlite(folder / "catalog.db")
    return str(folder)


def empty_folders(folder: Path) -> Deployment:
    """A deployment on SQLite and a folder, both in ``folder``."""
    return Deployment(empty_sqlite(folder / "catalog.db"), str(folder / "store"))


@dataclass(frozen=True)
class Outcome:
    """What a person sees of a command."""

    exit_code: int
    stdout: str
    stderr: str


Loreg = Callable[..., Outcome]


def command_line(environment: dict[str, str]) -> Loreg:
    def run(*arguments: str | Path, **more_environment: str) -> Outcome:
        from loreg_cli.main import cli

        result = CliRunner().invoke(cli, [str(a) for a in arguments], env={**environment, **more_environment})
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run
