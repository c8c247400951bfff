"""A catalog in SQLite: what was committed is on the disk, and a link to it is the catalog itself."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from deployments import NEWS
from factories import train
from loreg.catalog import Catalog, sqlite
from loreg.entities import Access
from loreg.errors import NotAllowedError, UnavailableError
from loreg.registry import Registry, connect


def test_what_is_committed_is_on_the_disk_when_that_is_said(tmp_path: Path):
    """SQLite then syncs -wal with every commit; with less it does so only when it takes -wal into the database."""
    catalog = Catalog(f"sqlite:///{tmp_path}/catalog.db")
    for open_ in (catalog.read, lambda: catalog.write(Access.superuser("ada"))):
        with open_() as tx:
            assert tx.connection.execute(text("PRAGMA synchronous")).scalar() == 2
            assert tx.connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
    catalog.close()


@pytest.fixture
def link(tmp_path: Path) -> Path:
    """``home/catalog.db``, which leads to ``data/catalog.db``."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "catalog.db").symlink_to(tmp_path / "data" / "catalog.db")
    return tmp_path / "home" / "catalog.db"


def at(database: Path, tmp_path: Path) -> Registry:
    return connect(database_url=f"sqlite:///{database}", storage_url=str(tmp_path / "store"))


@pytest.fixture
def may_only_read(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """From the call on whoever opens a database may only read it."""

    def begin() -> None:
        monkeypatch.setattr(sqlite, "_why_only_read", lambda files: sqlite._ReadOnly("it is another's", ""))

    yield begin


def test_who_reads_through_a_link_sees_what_a_writer_has_just_committed(
    link: Path, may_only_read: Callable[[], None], tmp_path: Path
):
    real = tmp_path / "data" / "catalog.db"
    with at(real, tmp_path) as writer:
        writer.push(NEWS, "t/one")
    with at(real, tmp_path) as writer:
        writer.push(train(tmp_path / "two", 2), "t/two")
        assert real.with_name("catalog.db-wal").stat().st_size > 0
        may_only_read()
        with at(link, tmp_path) as reader:
            assert len(reader.adapters().items) == 2
            writer.push(train(tmp_path / "three", 3), "t/three")
            assert len(reader.adapters().items) == 3
            with pytest.raises(NotAllowedError, match="it is another's"):
                reader.tag("t/one", "prod")
    assert list(link.parent.iterdir()) == [link]


def test_a_link_to_a_catalog_that_is_not_there_yet_is_where_it_is_made(link: Path, tmp_path: Path):
    with at(link, tmp_path) as registry:
        registry.push(NEWS, "t/one")
        assert all(check.ok for check in registry.doctor())
    assert link.is_symlink()
    with at(tmp_path / "data" / "catalog.db", tmp_path) as registry:
        assert registry.show("t/one").version.number == 1


def test_a_folder_that_is_a_link_is_the_folder(tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "home").symlink_to(tmp_path / "data")
    with at(tmp_path / "home" / "catalog.db", tmp_path) as writer:
        writer.push(NEWS, "t/one")
        with sqlite3.connect(tmp_path / "data" / "catalog.db") as other:
            assert other.execute("SELECT count(*) FROM versions").fetchone() == (1,)
        other.close()


def test_a_link_that_leads_to_itself_is_one_line(tmp_path: Path):
    loop = tmp_path / "catalog.db"
    loop.symlink_to(loop)
    with at(loop, tmp_path) as registry, pytest.raises(UnavailableError, match="cannot be used: Too many"):
        registry.adapters()


def test_a_link_into_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path):
    (tmp_path / "file").touch()
    (tmp_path / "catalog.db").symlink_to(tmp_path / "file" / "catalog.db")
    with pytest.raises(NotAllowedError, match="cannot make the catalog's folder"):
        at(tmp_path / "catalog.db", tmp_path).adapters()
