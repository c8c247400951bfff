"""A catalog of every old revision, beside a store: it is upgraded, verified, repaired as far as can be, and used."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import MetaData, create_engine

from broken_registries import copy_rows
from deployments import HISTORY, NEWS, SCIENCE, Deployment
from loreg.catalog import migrations
from loreg.catalog.engine import open_engine
from loreg.entities import Damage, DamageKind, ReferenceKind
from loreg.registry import Registry, connect
from loreg.storage import BlobStore, digest_of, open_store, put_bytes

DUMPS = sorted((Path(__file__).parents[1] / "data").glob("catalog-*.sql"))
#: The beginnings of digests in the dumps: what nobody has kept, of a merge, of two bases, and of a draft since 0007.
OF_THE_MERGE = {"64e3acb1", "70519f1c", "80006631"}
OF_BASES = {"0001": {"58c97fb2"}}
BOTH_BASES = {"58c97fb2", "abababab"}
OF_THE_DRAFT = {revision: {"12121212"} for revision in ("0007", "0008", "0009")}
MANIFESTS = {"74824d86", "16824e9c", "9c9a97cf"}
ORPHAN = b"of nobody"


def install(dump: Path, deployment: Deployment, scratch: Path) -> None:
    """Put the old catalog, not upgraded, where the deployment has its own, and what is known of its blobs beside it."""
    is_sqlite = deployment.database_url.startswith("sqlite:///")
    path = Path(deployment.database_url.removeprefix("sqlite:///")) if is_sqlite else scratch / "dumped.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(dump.read_text())
    if not is_sqlite:
        _copy_to_postgres(f"sqlite:///{path}", deployment.database_url, dump.stem.removeprefix("catalog-"))
    store = open_store(deployment.storage_url, deployment.storage_endpoint)
    for adapter in (SCIENCE, HISTORY):
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            store.put(digest_of(adapter / name), adapter / name)


def _copy_to_postgres(source_url: str, target_url: str, revision: str) -> None:
    source, target = create_engine(source_url), open_engine(target_url)
    config = migrations.alembic_config()
    with target.connect() as connection, connection.begin():
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        command.upgrade(config, revision)
    here, there = MetaData(), MetaData()
    here.reflect(source)
    there.reflect(target)
    there.remove(there.tables["alembic_version"])
    copy_rows(source_url, target_url, here, there)
    source.dispose()
    target.dispose()


@pytest.fixture(params=DUMPS, ids=lambda path: path.stem)
def revision(request: pytest.FixtureRequest, local_deployment: Deployment, tmp_path: Path) -> str:
    """An old catalog is there; which one."""
    install(request.param, local_deployment, tmp_path)
    return str(request.param.stem.removeprefix("catalog-"))


@pytest.fixture
def registry(revision: str, local_deployment: Deployment) -> Iterator[Registry]:
    with connect(**local_deployment.settings, author="ada") as opened:
        before, after = opened.upgrade()
        assert (before, after) == (revision, migrations.HEAD)
        yield opened


def beginnings(damages: tuple[Damage, ...]) -> set[str]:
    return {damage.sha256[:8] for damage in damages}


def test_an_old_catalog_is_upgraded_verified_repaired_and_used(registry: Registry, revision: str, tmp_path: Path):
    unknown = OF_THE_MERGE | OF_BASES.get(revision, BOTH_BASES) | OF_THE_DRAFT.get(revision, set())
    verified = registry.verify(read_data=True)
    assert beginnings(verified.damages) == unknown | MANIFESTS
    assert {damage.kind for damage in verified.damages} == {DamageKind.MISSING}
    assert (verified.read + verified.proven, verified.orphan_count) == (3, 0)
    kinds = {owner.kind for damage in verified.damages for owner in damage.owners}
    assert (ReferenceKind.PENDING_UPLOAD in kinds) == (revision in OF_THE_DRAFT)

    repaired = registry.repair([SCIENCE])
    assert {item.damage.sha256[:8] for item in repaired.repaired} == MANIFESTS  # made of old rows, to the same bytes
    assert beginnings(repaired.broken) == unknown
    assert registry.verify(["team/science", "team/history"]).damage_count == 1  # the base that science is on

    registry.pull("team/science", tmp_path / "science")
    assert registry.show("team/history:prod").version.number == 1
    registry.tag("team/history:v1", "canary", expected=0)
    assert registry.show("team/history:canary").version.aliases == ("canary", "prod")
    assert registry.push(SCIENCE, "team/science").created is False
    pushed = registry.push(NEWS, "team/news")
    assert (pushed.version.ref, pushed.created) == ("team/news:v1", True)
    again = registry.push(HISTORY, "team/science")
    assert (again.version.ref, again.created) == ("team/science:v2", True)

    store = registry.context.store
    assert isinstance(store, BlobStore)
    put_bytes(store, ORPHAN)
    kept = {blob.sha256 for blob in store.list()} - {hashlib.sha256(ORPHAN).hexdigest()}
    registry.gc(grace="24h")
    assert registry.gc(grace="0h").removed == 1
    assert {blob.sha256 for blob in store.list()} == kept
    assert beginnings(registry.verify(read_data=True).damages) == unknown
