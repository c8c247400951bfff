"""Versions are numbered, immutable, found by every kind of ref; what is said of them has a history."""

from __future__ import annotations

import json
from functools import partial

import pytest
from sqlalchemy import text

from concurrency import all_at_once
from loreg.catalog import Catalog, Transaction, aliases, bases, metrics, versions
from loreg.catalog.search import search
from loreg.catalog.version_details import version_details
from loreg.catalog.version_json import VersionRecord
from loreg.entities import Access, BaseModel, Metric, Query, Version
from loreg.errors import ConflictError, NotFoundError, YankedError
from loreg.parsing import parse_metric, parse_sort
from loreg.refs import parse_ref
from version_factories import new_version


def resolve(catalog: Catalog, ref: str) -> str:
    with catalog.read() as tx:
        return versions.resolve(tx, parse_ref(ref)).version.ref


def row(tx: Transaction, version: Version) -> VersionRecord:
    return versions.resolve(tx, parse_ref(version.ref))


def best_by(catalog: Catalog, metric: str) -> list[str]:
    with catalog.read() as tx:
        return [version.ref for version in search(tx, Query(sort=parse_sort(f"metric:{metric}"))).items]


@pytest.fixture
def two(record):
    return record("team/a", "one", aliases=("prod",)), record("team/a", "two")


class TestRefs:
    def test_every_kind(self, catalog: Catalog, two):
        first, second = two
        assert resolve(catalog, "team/a") == "team/a:v2"
        assert resolve(catalog, "team/a:latest") == "team/a:v2"
        assert resolve(catalog, "team/a:v1") == "team/a:v1"
        assert resolve(catalog, "team/a:prod") == "team/a:v1"
        assert resolve(catalog, f"team/a@sha256:{first.digest}") == "team/a:v1"
        assert resolve(catalog, f"team/a@sha256:{second.digest[:8]}") == "team/a:v2"
        assert resolve(catalog, f"team/a:prod@sha256:{first.digest[:12]}") == "team/a:v1"

    @pytest.mark.parametrize(
        ("ref", "says"),
        [
            ("team/b", "there is no adapter 'team/b'; did you mean 'team/a'"),
            ("other/a", "there is no adapter 'other/a'; did you mean 'team/a'"),
            ("zzz", "there is no adapter 'zzz'"),
            ("team/a:v9", "there is no version team/a:v9"),
            ("team/a:dev", "team/a has no alias 'dev'; it has: prod"),
            ("team/a@sha256:00000000", "there is no version"),
        ],
    )
    def test_what_is_not_there(self, catalog: Catalog, two, ref: str, says: str):
        with pytest.raises(NotFoundError, match=says):
            resolve(catalog, ref)

    def test_a_digest_that_is_not_the_alias_is_a_conflict(self, catalog: Catalog, two):
        with pytest.raises(ConflictError, match="is not what it was"):
            resolve(catalog, f"team/a:prod@sha256:{two[1].digest[:12]}")

    def test_a_yanked_version_is_found_only_exactly(self, catalog: Catalog, two):
        with catalog.write(Access.superuser("ada")) as tx:
            for version in two:
                versions.set_yanked(tx, row(tx, version), True)
        assert resolve(catalog, "team/a:v1") == "team/a:v1"
        assert resolve(catalog, f"team/a@sha256:{two[1].digest}") == "team/a:v2"
        with pytest.raises(YankedError, match="every version of team/a is yanked"):
            resolve(catalog, "team/a")
        with pytest.raises(YankedError, match="points to v1, which is yanked"):
            resolve(catalog, "team/a:prod")


class TestRecording:
    def test_the_same_content_makes_no_new_version_but_adds_what_is_said(self, catalog: Catalog, record):
        record("a", "one", tasks=("x",))
        with catalog.write(Access.superuser("ada")) as tx:
            again, created = versions.record(
                tx, new_version("a", "one", tasks=("y",), labels={"k": "v"}, aliases=("prod",))
            )
        version = again.version
        assert not created
        assert (version.number, version.tasks, version.labels, version.aliases) == (
            1,
            ("x", "y"),
            {"k": "v"},
            ("prod",),
        )

    def test_the_same_content_under_two_names_is_two_versions_of_one_blob(self, catalog: Catalog, record):
        record("a", "same")
        record("b", "same")
        with catalog.read() as tx:
            assert tx.connection.execute(text("SELECT count(*) FROM blobs")).scalar() == 1

    def test_a_yanked_content_is_not_pushed_again_silently(self, catalog: Catalog, record):
        version = record("a", "one")
        with catalog.write(Access.superuser("ada")) as tx:
            versions.set_yanked(tx, row(tx, version), True)
        with pytest.raises(ConflictError, match="this content is a:v1, which was yanked") as error:
            record("a", "one")
        assert error.value.hint == "loreg unyank a:v1"

    def test_a_base_can_be_told_later_but_not_changed(self, catalog: Catalog, record):
        llama, mistral = (BaseModel(digit * 64, (f"org/{digit}",), 1, 1) for digit in "ab")
        with catalog.write(Access.superuser("ada")) as tx:
            bases.record(tx, llama, 1)
            bases.record(tx, mistral, 1)
        record("a", "one")
        assert record("a", "one", base=llama).base.digest == llama.digest
        assert record("a", "one").base.digest == llama.digest
        with pytest.raises(ConflictError, match="recorded with another base"):
            record("a", "one", base=mistral)

    def test_numbers_are_given_out_once_when_many_push_at_once(self, catalog: Catalog):
        def push(who: int) -> None:
            for i in range(5):
                with catalog.write(Access.superuser(f"user{who}")) as tx:
                    versions.record(tx, new_version("team/busy", f"{who} {i}"))

        all_at_once([partial(push, who) for who in range(4)])
        with catalog.read() as tx:
            numbers = tx.connection.execute(text("SELECT number FROM versions ORDER BY number")).scalars().all()
        assert numbers == list(range(1, 21))

    def test_an_error_in_a_transaction_leaves_nothing(self, catalog: Catalog):
        with pytest.raises(RuntimeError), catalog.write(Access.superuser("ada")) as tx:
            versions.record(tx, new_version("a", "one"))
            raise RuntimeError
        with catalog.read() as tx:
            for table in ("adapters", "versions", "blobs", "files", "events", "tasks"):
                assert tx.connection.execute(text(f"SELECT count(*) FROM {table}")).scalar() == 0


class TestHistory:
    def test_every_move_of_an_alias_is_kept(self, catalog: Catalog, two):
        with catalog.write(Access.superuser("grace")) as tx:
            second = row(tx, two[1])
            aliases.set_alias(tx, second.adapter_id, second.id, "prod")
            aliases.set_alias(tx, second.adapter_id, second.id, "prod")
            aliases.remove_alias(tx, second.adapter_id, "prod")
            moves = version_details(tx, parse_ref("team/a")).alias_moves
        assert [(m.alias, m.number, m.author) for m in moves] == [
            ("prod", None, "grace"),
            ("prod", 2, "grace"),
            ("prod", 1, "ada"),
        ]

    def test_a_metric_measured_again_replaces_the_value_and_the_event_keeps_the_old_one(self, catalog: Catalog, record):
        version = record("a", metrics=(parse_metric("f1=0.5@x"),))
        with catalog.write(Access.superuser("ada")) as tx:
            measured = row(tx, version)
            metrics.put(tx, measured.adapter_id, measured.id, parse_metric("f1=0.6@x"))
            metrics.put(tx, measured.adapter_id, measured.id, parse_metric("f1=0.7@y"))
            assert [str(m) for m in versions.by_id(tx, measured.id).metrics] == ["f1=0.6@x", "f1=0.7@y"]
            rows = tx.connection.execute(text("SELECT detail FROM events WHERE action = 'metric' ORDER BY id"))
            details = [d if isinstance(d, dict) else json.loads(d) for d in rows.scalars()]
            assert [d["replaced"] for d in details] == [None, 0.5, None]

    def test_a_metric_of_which_less_is_better_after_all(self, catalog: Catalog, record):
        for name, value in (("a", 0.1), ("b", 0.2)):
            record(name, name, metrics=(Metric("cer", value),))
        assert best_by(catalog, "cer") == ["b:v1", "a:v1"]
        for name, value in (("a", 0.1), ("b", 0.2)):
            record(name, name, metrics=(Metric("cer", value, higher_is_better=False),))
        assert best_by(catalog, "cer") == ["a:v1", "b:v1"]

    def test_everything_that_was_done_is_an_event(self, catalog: Catalog, two):
        with catalog.write(Access.superuser("grace")) as tx:
            versions.set_yanked(tx, row(tx, two[1]), True, "broken")
            versions.set_yanked(tx, row(tx, two[1]), True, "broken")
            versions.set_yanked(tx, row(tx, two[1]), False)
            events = tx.connection.execute(text("SELECT author, action FROM events ORDER BY id")).all()
        assert [tuple(e) for e in events] == [
            ("ada", "push"),
            ("ada", "tag"),
            ("ada", "push"),
            ("grace", "yank"),
            ("grace", "unyank"),
        ]
