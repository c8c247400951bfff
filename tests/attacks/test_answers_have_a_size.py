"""What is asked for one version, or one file, has a size, however often its aliases moved and wherever it lies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from attackers import attacked
from deployments import SCIENCE
from loreg.catalog import aliases, versions
from loreg.entities import Access
from loreg.local.backend import LocalBackend
from loreg.manifest import Manifest
from loreg.refs import parse_ref
from loreg.registry import Registry, connect


@pytest.fixture(params=["sqlite", "postgresql"])
def local(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    """A registry behind no server, on either database."""
    on_sqlite = request.param == "sqlite"
    url = f"sqlite:///{tmp_path}/catalog.db" if on_sqlite else request.getfixturevalue("postgres_url")
    with connect(database_url=url, storage_url=str(tmp_path / "store")) as registry:
        yield registry


def test_a_version_shows_its_newest_thousand_moves_and_each_alias_has_its_own(local: Registry):
    first = local.push(SCIENCE, "team/a", aliases=["prod"]).version
    with local.context.backend.catalog.write(Access.superuser("ada")) as tx:
        record = versions.resolve(tx, parse_ref(first.ref))
        for _ in range(600):
            aliases.set_alias(tx, record.adapter_id, record.id, "next")
            aliases.remove_alias(tx, record.adapter_id, "next")
        assert [move.number for move in aliases.list_moves(tx, record.adapter_id, "prod")] == [1]
        assert len(aliases.list_moves(tx, record.adapter_id, "next")) == 1000
    moves = local.show("team/a").alias_moves
    assert (len(moves), moves[0].number, moves[1].number) == (1000, None, 1)
    assert {move.alias for move in moves} == {"next"}


def test_a_file_that_many_versions_have_is_answered_with_so_many(local: Registry, monkeypatch: pytest.MonkeyPatch):
    pushed = [local.push(SCIENCE, f"team/a{n}") for n in range(4)]
    config = next(file.sha256 for file in local.show("team/a0").files if file.path == "adapter_config.json")
    backend = local.context.backend
    assert backend.with_file(config) == tuple(done.version.ref for done in pushed)
    monkeypatch.setattr(versions, "_MAX_COPIES", 3)
    assert backend.with_file(config) == ("team/a0:v1", "team/a1:v1", "team/a2:v1")


def test_clients_of_the_hub_are_told_of_files_and_not_how_a_version_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with attacked(tmp_path) as server, server.http("reader") as http:
        details = server.behind.show("team/science")
        assert server.behind.context.backend.files_of(parse_ref("team/science")) == (details.version, details.files)
        monkeypatch.setattr(LocalBackend, "show", None)
        for revision in ("main", "prod", "v1", details.version.digest[:40]):
            head = http.head(f"/team/science/resolve/{revision}/adapter_config.json")
            assert (head.status_code, head.headers["X-Repo-Commit"]) == (200, Manifest(details.files).digest[:40])
        assert http.get("/team/science/resolve/main/adapter_config.json").status_code == 200
