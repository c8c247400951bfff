"""Half a character, a lone surrogate, is refused wherever it is said, and keeps nobody from writing afterwards."""

from __future__ import annotations

import json
import sqlite3
from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from attackers import attacked
from deployments import NEWS, SCIENCE
from factories import change_config, train
from loreg.catalog import Catalog, Transaction, versions
from loreg.catalog.schema import adapter_table
from loreg.entities import Access
from loreg.errors import UsageError
from loreg.registry import Registry, connect

HALF = "\ud800 x"


def lines(folder: Path, **header: str) -> str:
    """The folder as a commit of the Hub."""
    header_line = json.dumps({"key": "header", "value": {"summary": "x", **header}})
    files = (
        json.dumps({"key": "file", "value": {"path": path.name, "content": b64encode(path.read_bytes()).decode()}})
        for path in sorted(folder.iterdir())
    )
    return "\n".join([header_line, *files])


def can_be_written(catalog: Path) -> bool:
    """Whether nobody holds the lock of the database: asked without waiting."""
    connection = sqlite3.connect(catalog, timeout=0, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        return False
    finally:
        connection.close()
    return True


@pytest.mark.parametrize("field", ["summary", "description"])
def test_a_summary_of_half_a_character_is_refused_and_the_next_writer_does_not_wait(tmp_path: Path, field: str):
    with attacked(tmp_path) as server, server.http("writer") as http:
        refused = http.post("/api/models/team/new/commit/main", content=lines(NEWS, **{field: HALF}))
        assert (refused.status_code, "nobody can keep" in refused.text) == (400, True)
        assert can_be_written(tmp_path / "catalog.db")
        assert http.post("/api/models/team/new/commit/main", content=lines(NEWS)).status_code == 200


def test_a_summary_with_nul_is_kept_without_it(tmp_path: Path):
    with attacked(tmp_path) as server, server.http("writer") as http:
        commit_header = {"summary": "a\0b", "description": "\0"}
        assert http.post("/api/models/team/new/commit/main", content=lines(NEWS, **commit_header)).status_code == 200
        assert http.get("/api/v1/adapters/team/new/versions/v1").json()["version"]["message"] == "ab"


@pytest.mark.parametrize("field", ["init_lora_weights", "task_type", "base_model_name_or_path"])
def test_a_field_of_the_configuration_with_nul_is_kept_without_it(registry: Registry, tmp_path: Path, field: str):
    version = registry.push(change_config(train(tmp_path / "a", 1), **{field: "or\0g"}), "team/a").version
    assert "org" in (version.facts.variant, version.facts.task_type, version.facts.base_hint)


def test_a_message_of_half_a_character_is_refused(registry: Registry):
    with pytest.raises(UsageError, match="half a character"):
        registry.push(SCIENCE, "team/a", message=HALF)
    assert registry.push(SCIENCE, "team/a", message="whole").version.number == 1


def test_what_the_driver_cannot_write_is_refused_and_the_lock_is_given_back_at_once(tmp_path: Path):
    """The error is kept, as a server keeps what it logs: nothing that hangs on it may hold the lock."""
    with connect(home=str(tmp_path)) as registry:
        registry.push(SCIENCE, "team/a")
        catalog = registry.context.backend.catalog
        for wrong in ({"name": HALF, "namespace": "team"}, {"name": "a", "namespace": "team", "number": 2**70}):
            with (
                pytest.raises(UsageError, match="cannot hold that") as kept,
                catalog.write(Access.superuser("ada")) as tx,
            ):
                tx.select_compiled(versions.select_version(True, "number"), **{"number": 1, **wrong})
            assert can_be_written(tmp_path / "catalog.db"), kept
        for wrong in ({"name": HALF}, {"id": 2**70}):
            with (
                pytest.raises(UsageError, match="cannot hold that") as kept,
                catalog.write(Access.superuser("ada")) as tx,
            ):
                tx.insert_if_missing(adapter_table, {"namespace": "team", "name": "a", "created_at": tx.at, **wrong})
            assert can_be_written(tmp_path / "catalog.db"), kept


SELECTS: dict[str, Callable[[Transaction], Sequence[Any]]] = {
    "compiled once": lambda tx: tx.select_compiled(select(adapter_table.c.name, adapter_table.c.namespace)),
    "by SQLAlchemy": lambda tx: tx.connection.execute(select(adapter_table.c.name, adapter_table.c.namespace)).all(),
}


@pytest.mark.parametrize("way", SELECTS)
def test_a_writer_who_is_cut_off_between_rows_gives_the_lock_back_at_once(tmp_path: Path, way: str):
    catalog = Catalog(f"sqlite:///{tmp_path}/catalog.db")

    def cut_off(_: bytes) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as kept, catalog.write(Access.superuser("ada")) as tx:
        for name in ("a", "b"):
            tx.get_or_create_locked(
                adapter_table, {"namespace": "team", "name": name, "created_at": tx.at}, "namespace", "name"
            )
        tx.connection.connection.driver_connection.text_factory = cut_off
        SELECTS[way](tx)
    assert can_be_written(tmp_path / "catalog.db"), kept
    with catalog.read() as tx:
        assert SELECTS[way](tx) == []
    catalog.close()
