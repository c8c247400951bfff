"""The checker can fail: a registry is damaged in each way that it claims to see, and it says so."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from deployments import Deployment, Loreg, command_line
from factories import train, write_base
from faults.checker import contents, differences, faults, files_below, half, look
from faults.soak.journal import Operation, lost

_DRAFT = "namespace, name, branch, files, author, updated_at"
_JOB = (
    "id, kind, request, namespace, author, grants, state, attempts, worker, what, done, total, "
    "result, error, created_at"
)


class Registry:
    """A registry in SQLite and a folder that can be damaged."""

    def __init__(self, room: Path) -> None:
        self.database, self.store = room / "catalog.db", room / "store"
        self.loreg: Loreg = command_line(Deployment(f"sqlite:///{self.database}", str(self.store)).environment)

    def do(self, *arguments: str | Path) -> None:
        outcome = self.loreg(*arguments)
        assert outcome.exit_code == 0, outcome.stderr

    def sql(self, *statements: str) -> None:
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            for statement in statements:
                assert connection.execute(statement).rowcount != 0, statement
            connection.commit()

    def one(self, query: str) -> str:
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            return str(connection.execute(query).fetchone()[0])

    def blob(self, query: str) -> Path:
        digest = self.one(query)
        path = self.store / "sha256" / digest[:2] / digest
        path.chmod(0o644)
        return path

    def mark(self, owner: str) -> None:
        """Mark the store as somebody's."""
        (self.store / "owner").chmod(0o644)
        (self.store / "owner").write_text(owner)

    def list_faults(self) -> list[str]:
        return faults(look(f"sqlite:///{self.database}", str(self.store)))


@pytest.fixture
def whole(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A copy of :func:`built`, which is done once."""
    if not _built:
        _built.append(built(tmp_path_factory.mktemp("built")))
    shutil.copyfile(_built[0].database, tmp_path / "catalog.db")
    shutil.copytree(_built[0].store, tmp_path / "store")
    registry = Registry(tmp_path)
    assert registry.list_faults() == []
    return registry


_built: list[Registry] = []


def built(tmp_path: Path) -> Registry:
    """Two adapters, a base, a merge, an export, an alias that moved, a task, a metric and a draft."""
    registry = Registry(tmp_path)
    base, one, two = write_base(tmp_path / "base"), train(tmp_path / "one", 1), train(tmp_path / "two", 2)
    registry.do("push", one, "team/one", "--base", base, "--task", "news", "--metric", "loss=0.5@d", "--alias", "prod")
    registry.do("push", two, "team/one")
    registry.do("tag", "team/one:v2", "prod")
    registry.do("merge", "team/one:v1", "team/one:v2", "--push", "team/blend")
    registry.do("pull", "team/one:v1", tmp_path / "pulled", "--profile", "peft:0.10")
    digest = registry.one("SELECT digest FROM files")
    size = registry.one(f"SELECT size FROM blobs WHERE digest = '{digest}'")
    files = json.dumps([{"path": "adapter_config.json", "sha256": digest, "size": int(size)}])
    registry.sql(f"INSERT INTO drafts ({_DRAFT}) VALUES ('team', 'half', '', '{files}', 'ada', '2026-01-01 00:00:00')")
    return registry


_WEIGHTS = "SELECT digest FROM files WHERE path = 'adapter_model.safetensors'"
_DRAFTED = "SELECT json_extract(files, '$[0].sha256') FROM drafts"
_DAY = "2026-01-01 00:00:00"
_EXPORTED = "SELECT digest FROM export_files WHERE path = 'loreg_export.json'"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, tuple[Callable[[Registry], object], str]] = {
    "a blob is gone": (lambda r: r.blob(_WEIGHTS).unlink(), "adapter_model.safetensors: .* is not stored"),
    "a byte is another": (lambda r: flip(r.blob(_WEIGHTS)), "adapter_model.safetensors: .* is damaged"),
    "a blob is cut off": (lambda r: r.blob(_WEIGHTS).write_bytes(b"x"), r"is damaged in the store \(1 bytes"),
    "a manifest is gone": (lambda r: r.blob("SELECT digest FROM versions").unlink(), "manifest: .* is not stored"),
    "a base's list is gone": (lambda r: r.blob("SELECT digest FROM bases").unlink(), "base .* is not stored"),
    "an exported file is gone": (lambda r: r.blob(_EXPORTED).unlink(), "export .* is not stored"),
    "an exported file is no more named": (
        lambda r: r.sql("DELETE FROM export_files WHERE path = 'loreg_export.json'"),
        "export .* not those of its digest",
    ),
    "a file's row is gone": (
        lambda r: r.sql("DELETE FROM files WHERE path = 'README.md' AND version_id = 1"), "not those of its digest"
    ),
    "the weights' row is gone": (
        lambda r: r.sql("DELETE FROM files WHERE path = 'adapter_model.safetensors' AND version_id = 1"),
        "without adapter_model.safetensors",
    ),
    "a file's size is another": (lambda r: r.sql("UPDATE files SET size = 1 WHERE version_id = 1"), "bytes, its blob"),
    "a blob's row is gone": (
        lambda r: r.sql("DELETE FROM blobs WHERE digest = (SELECT digest FROM bases)"), "no such row in blobs"
    ),
    "a version's size is another": (lambda r: r.sql("UPDATE versions SET bytes = 1"), "1 bytes are recorded"),
    "numbers have a hole": (lambda r: r.sql("UPDATE versions SET number = 3 WHERE number = 2"), r"versions \[1, 3\]"),
    "an adapter has no version": (
        lambda r: r.sql("INSERT INTO adapters VALUES (99, 'team', 'empty', '2026-01-01')"), "team/empty has no version"
    ),
    "a version is gone and its rows are not": (lambda r: r.sql("DELETE FROM versions WHERE id = 1"), "no such row in"),
    "a version has no modules": (lambda r: r.sql("DELETE FROM module_types"), "no module is recorded"),
    "no event tells of a version": (lambda r: r.sql("DELETE FROM events WHERE action = 'push'"), "no event tells"),
    "an alias moved and nobody wrote it down": (lambda r: r.sql("UPDATE aliases SET version_id = 1"), "it moved to 2"),
    "an alias is gone and nobody wrote it down": (lambda r: r.sql("DELETE FROM aliases"), "means None, it moved to 2"),
    "an alias has no history": (lambda r: r.sql("DELETE FROM alias_moves"), "moved to nowhere"),
    "an alias means a version of another": (
        lambda r: r.sql("UPDATE aliases SET version_id = 3", "UPDATE alias_moves SET version_id = 3, number = 1"),
        "a version of another",
    ),
    "a move names another number": (lambda r: r.sql("UPDATE alias_moves SET number = 7"), "moved to v7"),
    "a merge has lost a source": (lambda r: r.sql("DELETE FROM lineage"), r"was merged from the positions \[\]"),
    "a base has another number of tensors": (lambda r: r.sql("UPDATE bases SET tensors = 1"), "1 tensors are recorded"),
    "a metric has another score": (lambda r: r.sql("UPDATE metrics SET score = 9"), "metric loss scores 9"),
    "a task is filed under another base": (lambda r: r.sql("UPDATE tasks SET base = 'x'"), "under the base 'x'"),
    "a draft's file is gone": (
        lambda r: r.sql("""UPDATE drafts SET files = '[{"path": "a", "sha256": "00", "size": 1}]'"""),
        "draft of team/half: a",
    ),
    "a job's version is gone": (
        lambda r: r.sql(
            f"INSERT INTO jobs ({_JOB}) VALUES (1, 'merge', '{{}}', 'team', 'ada', '{{}}', 'done', 1, 'w', '', 0, 0,"
            """ '{"digest": "00"}', '{}', '2026-01-01')"""
        ),
        "job 1 is done, and its version",
    ),
    "a number that is gone was given again": (
        lambda r: r.sql(f"INSERT INTO tombstones VALUES (1, 2, '00', '', 0, 'old', 'ada', '{_DAY}')"),
        r"has the versions \[2\], which are gone",
    ),
    "what was deleted is there again": (
        lambda r: r.sql(
            f"INSERT INTO tombstones SELECT adapter_id, 3, digest, '', 1, 'law', 'ada', '{_DAY}' FROM versions"
            " WHERE id = 1"
        ),
        "v3 was deleted, and its content is there again",
    ),
    "weights that were deleted are there again": (
        lambda r: r.sql(
            f"INSERT INTO tombstones SELECT 1, 3, '00', ({_WEIGHTS}), 1, 'law', 'ada', '{_DAY}'"
        ),
        "v3 was deleted, and a version has its weights",
    ),
    "what a version has is being removed": (
        lambda r: r.sql(f"INSERT INTO garbage VALUES (({_WEIGHTS} LIMIT 1), 1, '{_DAY}', '{_DAY}', NULL)"),
        "garbage: .* is removed, and something refers to it",
    ),
    "what a draft has was removed": (
        lambda r: r.sql(f"INSERT INTO garbage VALUES (({_DRAFTED}), 1, '{_DAY}', '{_DAY}', '{_DAY}')"),
        "garbage: .* was removed, and something refers to it",
    ),
    "the store is another registry's": (lambda r: r.mark("0" * 32), "the store belongs to 000000000000"),
    "the registry has no id": (lambda r: r.sql("DELETE FROM registry"), "the registry has 0 ids"),
    "a table is gone": (lambda r: r.sql("DROP TABLE labels"), "no table labels"),
    "the database is rubbish": (lambda r: r.database.write_bytes(b"rubbish" * 999), "the database cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_checker_says_that(whole: Registry, damage: str):
    do, words = DAMAGES[damage]
    do(whole)
    sentences = "\n".join(whole.list_faults())
    assert pytest.raises(AssertionError, match=words).matches(AssertionError(sentences)), sentences


def test_a_folder_is_absent_or_whole(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / "whole" / name).mkdir(parents=True)
        (tmp_path / "whole" / name / "file").write_text(name)
    expected = files_below(tmp_path / "whole")
    assert half(tmp_path / "absent", expected) == []
    assert half(tmp_path / "whole", expected) == []
    (tmp_path / "whole" / "b" / "file").write_text("other")
    assert "b/file is" in half(tmp_path / "whole", expected)[0]
    (tmp_path / "whole" / "b" / "file").unlink()
    assert "without b/file" in half(tmp_path / "whole", expected)[0]


def test_two_registries_with_the_same_content_are_the_same_whatever_came_first(tmp_path: Path):
    rooms = [tmp_path / name for name in ("first", "second", "third")]
    one, two = train(tmp_path / "one", 1), train(tmp_path / "two", 2)
    pushes = ([(one, "a"), (two, "b")], [(two, "b"), (one, "a")], [(one, "a"), (one, "b")])
    seen = []
    for room, pushed in zip(rooms, pushes, strict=True):
        room.mkdir()
        registry = Registry(room)
        for folder, name in pushed:
            registry.do("push", folder, name)
        seen.append(contents(look(f"sqlite:///{registry.database}", str(registry.store))))
    assert differences(seen[0], seen[1]) == []
    assert any(sentence.startswith("b:v1 is") for sentence in differences(seen[0], seen[2]))


def test_what_was_acknowledged_and_is_not_there_is_lost(whole: Registry):
    digest = whole.one("SELECT digest FROM versions WHERE id = 1")
    whole.sql(
        f"INSERT INTO jobs ({_JOB}) VALUES (1, 'merge', '{{}}', 'team', 'ada', '{{}}', 'failed', 1, 'w', '', 0, 0,"
        """ '{}',"""
        """ '{"code": "conflict", "message": "not empty"}', '2026-01-01')"""
    )
    one, gone = {"name": "team/one"}, {"name": "team/gone"}
    there = [
        Operation("push", "", {**one, "number": 1, "digest": digest, "alias": "prod"}),
        Operation("tag", "", {**one, "number": 2, "alias": "prod"}),
        Operation("hub", "", {**one, "commit": digest[:40]}),
        Operation("push", "unavailable", {}),
    ]
    absent = [
        Operation("push", "", {**gone, "number": 1, "digest": digest, "alias": ""}),
        Operation("push", "", {**one, "number": 1, "digest": "0" * 64, "alias": ""}),
        Operation("tag", "", {**one, "number": 1, "alias": "best"}),
        Operation("metric", "", {**one, "number": 1, "dataset": "d", "value": 0.25}),
        Operation("hub", "", {**one, "commit": "0" * 40}),
        Operation("job", "", {"id": 1}),
        Operation("job", "", {"id": 2}),
    ]
    seen = look(f"sqlite:///{whole.database}", str(whole.store))
    assert list(lost(there, seen)) == []
    sentences = list(lost(absent, seen))
    assert [line.partition(":")[0] for line in sentences] == [operation.kind for operation in absent]


def test_postgresql_and_s3_are_read_as_well(postgres_and_s3: Deployment, tmp_path: Path):
    deployment = postgres_and_s3
    outcome = command_line(deployment.environment)("push", train(tmp_path / "one", 1), "team/one", "--alias", "prod")
    assert outcome.exit_code == 0, outcome.stderr
    where = (deployment.database_url, deployment.storage_url, deployment.storage_endpoint)
    seen = look(*where)
    assert faults(seen) == []
    import psycopg

    from faults.checker import s3_client

    bucket, _, prefix = deployment.storage_url.removeprefix("s3://").partition("/")
    digest = next(row["digest"] for row in seen["files"] if row["path"] == "adapter_config.json")
    key = f"{prefix}/sha256/{digest[:2]}/{digest}"
    s3_client(deployment.storage_endpoint).put_object(Bucket=bucket, Key=key, Body=b"other")
    with psycopg.connect(deployment.database_url) as connection:
        connection.execute("UPDATE versions SET number = 2")
    sentences = "\n".join(faults(look(*where)))
    assert "adapter_config.json: " in sentences
    assert "is damaged in the store (5 bytes there)" in sentences
    assert "team/one has the versions [2]" in sentences
