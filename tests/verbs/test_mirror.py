"""mirror: another registry has the same versions with the same history, a second run sends nothing, and conflicts stay.

What both sides say is compared field by field; nothing is compared with what the mirror itself reports.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from msgspec.structs import replace
from sqlalchemy import insert, select

from deployments import Deployment, command_line
from factories import train, write_base
from live_server import live_server
from loreg import connect
from loreg.catalog.schema import (
    adapter_table,
    alias_move_table,
    alias_table,
    metric_table,
    tombstone_table,
    version_table,
)
from loreg.catalog.versions import find_adapter_id
from loreg.entities import MIRRORED_FROM, Access, Commit, MergeOptions, Origin, OriginEvent
from loreg.errors import ConflictError, NotAllowedError, NotFoundError, UsageError
from loreg.local.backend import LocalBackend
from loreg.manifest import Manifest
from loreg.refs import parse_adapter_name
from loreg.registry import Registry
from loreg.storage import BlobStore, FolderStore, put_bytes
from loreg.storage.s3 import S3Store
from server.conftest import Guarded

NAMES = ("team/one", "team/two", "team/both")


def as_author(registry: Registry, author: str) -> Registry:
    return Registry(dataclasses.replace(registry.settings, author=author))


def fill(home: Path, folder: Path) -> Registry:
    """A registry in which everything has happened that can happen to versions; ``folder`` is for what is pushed."""
    ada = connect(home=str(home), author="ada")
    grace = as_author(ada, "grace")
    ada.bases.add(write_base(folder / "base"), ["tiny", "org/tiny"])
    half = {name: value.half() for name, value in {"head.bias": torch.ones(3)}.items()}
    ada.bases.add(write_base(folder / "tuned", half), ["tuned"])
    ada.bases.relate("tuned", "tiny", "finetuned_from")
    one, two, three = (train(folder / str(seed), seed) for seed in (1, 2, 3))
    (one / "README.md").write_text("# One\nA card.\n")
    ada.push(one, "team/one", base="tiny", tasks=["qa"], metrics=["accuracy=0.5@d:test"], aliases=["prod"], message="1")
    grace.push(two, "team/one", base="tuned", labels={"run": "7"}, aliases=["next"], message="second")
    ada.tag("team/one:v2", "prod")
    grace.add_metrics("team/one:v1", ["accuracy=0.75@d:test", "loss=0.25"])
    ada.push(three, "team/one", aliases=["gone"])
    ada.untag("team/one", "gone")
    grace.yank("team/one:v3", reason="wrong data")
    ada.tag("team/one:v1", "prod")
    ada.push(two, "team/two", tasks=["news"])
    ada.push(one, "team/one", labels={"later": "yes"})  # says more of v1
    grace.merge(["team/one:v1", "team/two"], MergeOptions([0.5, 0.5]), name="team/both")
    ada.push(three, "other/alone")
    grace.close()
    return ada


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source and with what was pushed to it, which every test gets a copy of."""
    folder = tmp_path_factory.mktemp("filled")
    fill(folder / "source", folder / "adapters").close()
    return folder


@pytest.fixture
def source(filled: Path, tmp_path: Path) -> Iterator[Registry]:
    for name in ("source", "adapters"):
        shutil.copytree(filled / name, tmp_path / name)
    with connect(home=str(tmp_path / "source"), author="ada") as registry:
        yield registry


@pytest.fixture
def target(local_deployment: Deployment) -> Iterator[Registry]:
    with connect(**local_deployment.settings, author="mirror") as registry:
        yield registry


def events_of(registry: Registry, name: str) -> list[OriginEvent]:
    """All events of an adapter, the oldest first, but for those of mirrors."""
    events, cursor = [], None
    while True:
        page = registry.events(name=name, limit=3, cursor=cursor)
        events += page.items
        cursor = page.cursor
        if cursor is None:
            break
    for event in events:
        assert event.ref.partition(":")[0] == name
    numbers = (event.ref.partition(":v")[2] for event in events)
    read = [
        OriginEvent(event.at, event.author, event.action, int(number) if number else None, event.detail)
        for event, number in zip(events, numbers, strict=True)
    ]
    return [event for event in reversed(read) if event.action != "mirror"]


def assert_same(source: Registry, target: Registry, names: tuple[str, ...] = NAMES) -> None:
    for name in names:
        theirs, ours = source.versions(name).items, target.versions(name).items
        assert ours == theirs
        for version in theirs:
            assert target.show(version.ref) == source.show(version.ref)
            assert target.lineage(version.ref) == source.lineage(version.ref)
            with_base = {version.base.digest} if version.base else set()
            for digest in with_base:
                theirs_, ours_ = source.bases.show(digest), target.bases.show(digest)
                assert ours_.base == theirs_.base
                edges = [[replace(edge, author="") for edge in side.edges] for side in (theirs_, ours_)]
                assert edges[0] == edges[1]
        assert [event.identity for event in events_of(target, name)] == [
            event.identity for event in events_of(source, name)
        ]
        assert all(MIRRORED_FROM in event.detail for event in events_of(target, name))
        assert MIRRORED_FROM not in {key for event in events_of(source, name) for key in event.detail}
    entries = {str(entry.adapter): entry for entry in source.adapters().items}
    for entry in target.adapters().items:
        assert entry == entries[str(entry.adapter)]
    assert {str(entry.adapter) for entry in target.adapters().items} == set(names)


def store_of(registry: Registry) -> BlobStore:
    store = registry.context.store
    assert isinstance(store, BlobStore)
    return store


def test_another_registry_has_the_same_versions_with_the_same_history(source: Registry, target: Registry):
    report = target.mirror(["team/*"], source=source.settings.home)
    assert (report.ok, report.new, report.adapters) == (True, 5, 3)
    assert_same(source, target)
    assert target.verify(read_data=True, trust_checksums=False).ok
    assert target.verify().orphan_count == 0
    stored = sum(blob.size for blob in store_of(target).list())
    manifests = sum(
        len(Manifest(source.show(version.ref).files).to_bytes())
        for digest, version in {v.digest: v for n in NAMES for v in source.versions(n).items}.items()
    )
    assert report.size == stored - manifests  # each content once
    assert_same_moves_and_metrics(source, target)


def test_what_mirrored_is_an_event_of_who_did_it(source: Registry, target: Registry):
    target.mirror(["team/two"], source=source.settings.home)
    (event,) = [event for event in target.events().items if event.action == "mirror"]
    assert (event.author, event.ref) == ("mirror", "team/two:v1")
    assert event.detail[MIRRORED_FROM] == source.context.backend.upkeep().registry_id()


@contextlib.contextmanager
def nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No blob is stored or read, nothing is committed, and no request says anything but GET."""

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("something was sent")

    with monkeypatch.context() as patch:
        for store in (FolderStore, S3Store):
            for name in ("put", "get", "read"):
                patch.setattr(store, name, refuse)
        patch.setattr(LocalBackend, "commit", refuse)
        patch.setattr(LocalBackend, "add_base", refuse)
        send = httpx.Client.send

        def only_get(self: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
            assert request.method == "GET"
            return send(self, request, **options)

        patch.setattr(httpx.Client, "send", only_get)
        yield


def test_a_second_run_sends_nothing(source: Registry, target: Registry, monkeypatch: pytest.MonkeyPatch):
    target.mirror(["team/*"], source=source.settings.home)
    before = target.events(limit=1000)
    with nothing_is_sent(monkeypatch):
        report = target.mirror(["team/*"], source=source.settings.home)
    assert (report.new, report.changed, report.known, report.blobs, report.aliases) == (0, 0, 5, 0, 0)
    assert target.events(limit=1000) == before


def change(source: Registry, folder: Path) -> None:
    """Everything that may change after a mirror."""
    with as_author(source, "later") as later:
        later.add_metrics("team/one:v1", ["loss=0.125", "f1=0.5"])
        later.tag("team/one:v2", "prod")
        later.untag("team/one", "next")
        later.unyank("team/one:v3")
        later.yank("team/two:v1", reason="old")
        later.push(train(folder / "4", 4), "team/one", base="tiny", aliases=["newest"])
        later.push(folder / "2", "team/one", tasks=["more"])
        later.tag("team/one:v3", "again")


def test_a_later_run_brings_what_changed_and_no_more(source: Registry, target: Registry, tmp_path: Path):
    target.mirror(["team/*"], source=source.settings.home)
    before = {blob.sha256 for blob in store_of(target).list()}
    change(source, tmp_path / "adapters")
    report = target.mirror(["team/*"], source=source.settings.home)
    assert (report.ok, report.new) == (True, 1)
    assert_same(source, target)
    new = source.show("team/one:v4")
    added = {blob.sha256 for blob in store_of(target).list()} - before
    assert added == {new.version.digest, *(file.sha256 for file in new.files)} - before
    assert report.blobs == len(added) - 1  # the manifest is made there


def test_one_that_is_behind_by_several_runs_through_a_third_has_the_same(
    source: Registry, target: Registry, tmp_path: Path
):
    with connect(home=str(tmp_path / "middle"), author="mirror") as middle:
        middle.mirror(["team/*"], source=source.settings.home)
        target.mirror(["team/*"], source=middle.settings.home)
        change(source, tmp_path / "adapters")
        middle.mirror(["team/*"], source=source.settings.home)
        target.mirror(["team/*"], source=middle.settings.home)
    assert_same(source, target)
    first = next(event for event in target.events(name="team/two", limit=1000).items if event.action == "yank")
    assert first.detail[MIRRORED_FROM] == source.context.backend.upkeep().registry_id()


def test_to_a_server_and_back_from_one(source: Registry, postgres_and_s3: Deployment, tmp_path: Path, monkeypatch):
    with live_server(postgres_and_s3) as endpoint, connect(endpoint=endpoint) as served:
        assert source.mirror(["team/*"], to=endpoint).ok
        assert_same(source, served)
        with nothing_is_sent(monkeypatch):
            assert source.mirror(["team/*"], to=endpoint).known == 5
        change(source, tmp_path / "adapters")
        assert source.mirror(["team/*"], to=endpoint).ok
        assert_same(source, served)
        with connect(home=str(tmp_path / "back")) as back:
            assert back.mirror(["team/*"], source=endpoint).ok
            for name in NAMES:
                assert back.versions(name) == source.versions(name)
                events = events_of(source, name)
                assert [event.identity for event in events_of(back, name)] == [event.identity for event in events]


def test_from_one_server_to_another(source: Registry, postgres_and_s3: Deployment, tmp_path: Path):
    other = Deployment(f"sqlite:///{tmp_path}/other/catalog.db", str(tmp_path / "other" / "store"))
    (tmp_path / "other").mkdir()
    source.mirror(["team/*"], to=tmp_path / "other")
    with (
        live_server(other) as one,
        live_server(postgres_and_s3) as two,
        connect(endpoint=one) as here,
        connect(endpoint=two) as there,
    ):
        assert here.mirror(["team/*"], to=two).ok
        assert_same(source, there)


def test_through_a_bundle(source: Registry, target: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source.mirror(["team/*"], to=tmp_path / "one.loreg")
    assert target.mirror(source=tmp_path / "one.loreg").ok
    assert_same(source, target)
    change(source, tmp_path / "adapters")
    report = source.mirror(["team/*"], to=tmp_path / "two.loreg", since=tmp_path / "one.loreg")
    new = {file.sha256 for file in source.show("team/one:v4").files}
    assert report.blobs == len(new - {file.sha256 for file in source.show("team/one:v2").files})
    assert (tmp_path / "two.loreg").stat().st_size < (tmp_path / "one.loreg").stat().st_size
    assert target.mirror(source=tmp_path / "two.loreg").ok
    assert_same(source, target)
    with nothing_is_sent(monkeypatch):
        assert target.mirror(source=tmp_path / "two.loreg").known == 6


def test_a_bundle_that_lacks_what_an_earlier_one_has_says_so(source: Registry, target: Registry, tmp_path: Path):
    source.mirror(["team/*"], to=tmp_path / "one.loreg")
    source.mirror(["team/*"], to=tmp_path / "two.loreg", since=tmp_path / "one.loreg")
    report = target.mirror(source=tmp_path / "two.loreg")
    assert not report.ok
    assert all("is not in" in conflict.reason for conflict in report.conflicts)
    assert target.mirror(source=tmp_path / "one.loreg").ok
    assert target.mirror(source=tmp_path / "two.loreg").ok
    assert_same(source, target)


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


STEPS = (
    (FolderStore, "put"),
    (LocalBackend, "commit"),
    (LocalBackend, "add_base"),
    (LocalBackend, "relate"),
)


@contextlib.contextmanager
def killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kill before the step of that number: a blob that is stored, a commit, a base. Even steps are done first."""
    steps = itertools.count(1)  # of several threads

    def kill(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Any, *arguments: Any, **options: Any) -> Any:
            is_last = next(steps) == step
            if is_last and step % 2:
                raise Killed
            result = method(self, *arguments, **options)
            if is_last:
                raise Killed
            return result

        return call

    with monkeypatch.context() as patch:
        for class_, name in STEPS:
            patch.setattr(class_, name, kill(getattr(class_, name)))
        yield


def test_killed_at_any_step_and_repeated_it_finishes(source: Registry, tmp_path: Path, monkeypatch):
    step, was_killed = 0, True
    while was_killed:
        step += 1
        with connect(home=str(tmp_path / f"target-{step}"), author="mirror") as target:
            was_killed = False
            with killed_at(step, monkeypatch):
                try:
                    target.mirror(["team/*"], source=source.settings.home)
                except Killed:
                    was_killed = True
            assert_history_is_true(target)
            assert target.mirror(["team/*"], source=source.settings.home).ok
            assert_same(source, target)
            assert_same_moves_and_metrics(source, target)
            assert target.verify(read_data=True).ok
    assert step > 15


def assert_history_is_true(registry: Registry) -> None:
    """Each alias means what its last move says, and none that was removed is there."""
    moved: dict[tuple[int, str], int | None] = {}
    means: dict[tuple[int, str], int | None] = {}
    with registry.context.backend.catalog.read(Access.superuser("ada")) as tx:
        for row in tx.connection.execute(select(alias_move_table).order_by(alias_move_table.c.id)):
            moved[row.adapter_id, row.alias] = row.version_id
        for row in tx.connection.execute(select(alias_table)):
            means[row.adapter_id, row.alias] = row.version_id
    assert means == {key: version for key, version in moved.items() if version is not None}


def assert_same_moves_and_metrics(source: Registry, target: Registry) -> None:
    assert moves_and_metrics(target) == moves_and_metrics(source)


def moves_and_metrics(registry: Registry) -> tuple[list[Any], set[Any]]:
    """All moves of aliases of team/*, in order by alias, and all metrics, each with its author and time."""
    team = adapter_table.c.namespace == "team"
    move, metric = alias_move_table.c, metric_table.c
    moves = (
        select(adapter_table.c.name, move.alias, move.number, move.author, move.at)
        .join(adapter_table, (adapter_table.c.id == move.adapter_id) & team)
        .order_by(adapter_table.c.name, move.alias, move.id)
    )
    metrics = (
        select(
            adapter_table.c.name, version_table.c.number, metric.name, metric.value, metric.author, metric.created_at
        )
        .join(version_table, version_table.c.id == metric.version_id)
        .join(adapter_table, (adapter_table.c.id == version_table.c.adapter_id) & team)
    )
    with registry.context.backend.catalog.read(Access.superuser("ada")) as tx:
        return tx.connection.execute(moves).all(), set(tx.connection.execute(metrics).all())


def test_a_bundle_is_complete_or_absent(source: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    copied = []
    get = FolderStore.get

    def killed_at_the_third(self: FolderStore, *arguments: Any) -> None:
        copied.append(arguments)
        if len(copied) == 3:
            raise Killed
        get(self, *arguments)

    monkeypatch.setattr(FolderStore, "get", killed_at_the_third)
    with pytest.raises(Killed):
        source.mirror(["team/*"], to=tmp_path / "team.loreg")
    assert [path.name for path in tmp_path.iterdir() if "loreg" in path.name] == []
    monkeypatch.undo()
    source.mirror(["team/*"], to=tmp_path / "team.loreg")
    assert (tmp_path / "team.loreg").stat().st_mode & 0o077 == 0


def test_an_alias_that_the_target_moved_itself_is_named_and_left(source: Registry, target: Registry):
    target.mirror(["team/*"], source=source.settings.home)
    target.tag("team/one:v2", "prod")
    source.tag("team/one:v2", "next")  # the same as there: no move
    source.push(source.settings.home.parent / "adapters" / "2", "team/one", aliases=["canary"])
    report = target.mirror(["team/*"], source=source.settings.home)
    assert [conflict.ref for conflict in report.conflicts] == ["team/one:prod"]
    assert "'prod' means v2 here" in report.conflicts[0].reason
    assert "v1 in the source" in report.conflicts[0].reason
    assert target.show("team/one:prod").version.number == 2
    assert target.show("team/one:canary").version.number == 2  # the others follow
    assert [c.ref for c in target.mirror(["team/*"], source=source.settings.home).conflicts] == ["team/one:prod"]
    assert target.mirror(["team/*"], source=source.settings.home, force=True).ok
    assert target.show("team/one:prod").version.number == 1
    source.tag("team/one:v2", "prod")
    assert target.mirror(["team/*"], source=source.settings.home).ok
    assert target.show("team/one:prod").version.number == 2


def test_aliases_of_the_targets_own_stay(source: Registry, target: Registry):
    target.mirror(["team/*"], source=source.settings.home)
    target.tag("team/one:v1", "ours")
    assert target.mirror(["team/*"], source=source.settings.home).ok
    assert target.show("team/one:ours").version.number == 1
    source.tag("team/one:v2", "ours")
    source.untag("team/one", "ours")
    for _ in range(2):  # what the source had and removed is not the target's
        assert target.mirror(["team/*"], source=source.settings.home).ok
        assert target.show("team/one:ours").version.number == 1
        assert_history_is_true(target)


def test_a_version_that_was_deleted_in_the_source_is_no_hindrance(source: Registry, target: Registry):
    source.delete("team/one:v1", reason="law")
    assert target.mirror(["team/one"], source=source.settings.home).ok
    assert [version.number for version in target.versions("team/one").items] == [3, 2]
    assert_history_is_true(target)
    source.tag("team/one:v2", "late")
    source.delete("team/one:v2", reason="law")  # the target has it, and keeps it
    assert target.mirror(["team/one"], source=source.settings.home).ok
    assert [version.number for version in target.versions("team/one").items] == [3, 2]
    assert_history_is_true(target)


def test_what_is_deleted_in_the_source_later_brings_its_events_no_second_time(source: Registry, target: Registry):
    def count(number: int) -> int:
        events = target.events(name="team/one", limit=200).items
        return sum(event.ref == f"team/one:v{number}" or event.detail.get("number") == number for event in events)

    target.mirror(["team/one"], source=source.settings.home)
    before = {number: count(number) for number in (1, 2)}
    assert all(before.values())
    source.delete("team/one:v1", reason="law")
    assert target.mirror(["team/one"], source=source.settings.home).ok
    assert {number: count(number) for number in (1, 2)} == {1: before[1] + 1, 2: before[2]}  # that it was deleted


def test_a_version_that_the_target_yanked_itself_stays_so(source: Registry, target: Registry):
    target.mirror(["team/*"], source=source.settings.home)
    target.yank("team/two:v1", reason="not for us")
    target.unyank("team/one:v3")
    report = target.mirror(["team/*"], source=source.settings.home)
    assert [conflict.ref for conflict in report.conflicts] == ["team/one:v3", "team/two:v1"]
    assert target.show("team/two:v1").version.yanked
    assert not target.show("team/one:v3").version.yanked
    assert target.mirror(["team/*"], source=source.settings.home, force=True).ok
    assert not target.show("team/two:v1").version.yanked
    assert target.show("team/one:v3").version.yanked


def test_a_number_that_other_content_has_stops_that_adapter_alone(source: Registry, target: Registry, tmp_path: Path):
    target.push(train(tmp_path / "own", 9), "team/one", aliases=["prod"])
    report = target.mirror(["team/*"], source=source.settings.home)
    assert [conflict.ref for conflict in report.conflicts] == ["team/one:v1"]
    theirs, ours = source.show("team/one:v1").version, target.show("team/one:v1").version
    assert theirs.digest[:12] in report.conflicts[0].reason
    assert ours.digest[:12] in report.conflicts[0].reason
    assert len(target.versions("team/one").items) == 1
    assert target.versions("team/two") == source.versions("team/two")


def test_what_the_policy_of_the_target_refuses_is_named(source: Registry, tmp_path: Path):
    (tmp_path / "loreg.toml").write_text('[check]\naliases = ["prod"]\nmax_rank = 2\n')
    with connect(home=str(tmp_path / "guarded"), author="mirror") as target:
        report = target.mirror(["team/*"], source=source.settings.home)
        assert [conflict.ref for conflict in report.conflicts] == ["team/one:prod"]
        assert [version.number for version in target.versions("team/one").items] == [3, 2, 1]
        assert target.show("team/one:next").version.number == 2
        with pytest.raises(NotFoundError):
            target.show("team/one:prod")
        assert_history_is_true(target)
        (tmp_path / "loreg.toml").unlink()  # what was refused comes when it is allowed, with its history
    with connect(home=str(tmp_path / "guarded"), author="mirror") as target:
        assert target.mirror(["team/*"], source=source.settings.home).ok
        assert_same_moves_and_metrics(source, target)


def test_a_guarded_alias_does_not_come_to_mean_a_worse_version(source: Registry, tmp_path: Path):
    """The history that comes with it does not count: the target has never meant that version."""
    (tmp_path / "loreg.toml").write_text('[check]\naliases = ["prod"]\nagainst = "prod"\n')
    with connect(home=str(tmp_path / "guarded"), author="mirror") as target:
        assert target.mirror(["team/one"], source=source.settings.home).ok
        worse = train(tmp_path / "worse", 8)
        source.push(worse, "team/one", base="tiny", tasks=["qa"], metrics=["accuracy=0.5@d:test", "loss=0.25"])
        source.tag("team/one:v4", "prod")
        report = target.mirror(["team/one"], source=source.settings.home)
        assert [conflict.ref for conflict in report.conflicts] == ["team/one:prod"]
        assert target.show("team/one:prod").version.number == 1
        assert_history_is_true(target)


def test_what_the_target_refuses_holds_up_no_other_alias(source: Registry, tmp_path: Path):
    (tmp_path / "loreg.toml").write_text('[check]\naliases = ["prod"]\nmax_rank = 2\n')
    source.tag("team/one:v2", "other")  # its only event is of the same commit as the last of prod
    with connect(home=str(tmp_path / "guarded"), author="mirror") as target:
        report = target.mirror(["team/one"], source=source.settings.home)
        assert [conflict.ref for conflict in report.conflicts] == ["team/one:prod"]
        assert target.show("team/one:other").version.number == 2


def test_an_alias_never_means_on_its_way_what_it_does_not_mean_in_the_end(source: Registry, target: Registry):
    """In the source prod went from v1 to v2 and back: whoever follows it in the target sees no v2."""
    target.mirror(["team/*"], source=source.settings.home)
    events = target.events(name="team/one", limit=1000).items
    moved = [event.detail["aliases"]["prod"] for event in events if "prod" in event.detail.get("aliases", ())]
    assert moved == [1]


def commit_of(source: Registry, ref: str, **origin: Any) -> Commit:
    """The version as the mirror would commit it, with another origin."""
    details = source.show(ref)
    version = details.version
    values = {
        "registry": "elsewhere",
        "number": version.number,
        "previous": version.number - 1,
        "author": version.author,
        "created_at": version.created_at,
    }
    return Commit(version.adapter, Manifest(details.files), origin=Origin(**{**values, **origin}))


@pytest.fixture
def prepared(source: Registry, target: Registry) -> Registry:
    """A target that has the blobs of team/one, and of its versions the first."""
    target.mirror(["team/two"], source=source.settings.home)
    for version in source.versions("team/one").items:
        for file in source.show(version.ref).files:
            content = source.context.store.read(file.sha256)
            put_bytes(target.context.store, content)
    target.context.backend.commit(commit_of(source, "team/one:v1"))
    return target


def test_a_gap_is_refused_and_both_numbers_are_named(source: Registry, prepared: Registry):
    with pytest.raises(ConflictError, match=r"team/one:v3 comes after v2 in elsewhere, here the last .* is v1"):
        prepared.context.backend.commit(commit_of(source, "team/one:v3"))
    # A number that the source does not have any more either is no gap.
    assert prepared.context.backend.commit(commit_of(source, "team/one:v3", previous=1)).version.number == 3


def test_a_number_that_other_content_has_is_refused_and_both_contents_are_named(source: Registry, prepared: Registry):
    mine, other = source.show("team/one:v1").version.digest[:12], source.show("team/one:v2").version.digest[:12]
    with pytest.raises(ConflictError, match=f"is sha256:{mine} here, and sha256:{other} in elsewhere"):
        prepared.context.backend.commit(commit_of(source, "team/one:v2", number=1, previous=0))
    with pytest.raises(ConflictError, match="has this content as team/one:v2, here it is team/one:v1"):
        prepared.context.backend.commit(commit_of(source, "team/one:v1", number=2, previous=1))


def bury(registry: Registry, name: str, number: int, digest: str, *, is_banned: bool) -> None:
    with registry.context.backend.catalog.write(Access.superuser("ada")) as tx:
        adapter_id = find_adapter_id(tx, parse_adapter_name(name))
        row = {"adapter_id": adapter_id, "number": number, "digest": digest, "weights": "", "is_banned": is_banned}
        tx.connection.execute(insert(tombstone_table), {**row, "reason": "law", "author": "ada", "at": tx.at})


def test_a_number_that_was_deleted_is_never_given_again_and_counts(source: Registry, prepared: Registry):
    bury(prepared, "team/one", 2, "0" * 64, is_banned=False)
    with pytest.raises(ConflictError, match="was deleted here"):
        prepared.context.backend.commit(commit_of(source, "team/one:v2"))
    assert prepared.context.backend.commit(commit_of(source, "team/one:v3")).version.number == 3


def test_content_that_was_deleted_for_good_does_not_come_back(source: Registry, prepared: Registry):
    bury(prepared, "team/two", 9, source.show("team/one:v2").version.digest, is_banned=True)
    with pytest.raises(ConflictError, match="content that was deleted here for good"):
        prepared.context.backend.commit(commit_of(source, "team/one:v2"))


def test_the_same_commit_again_changes_nothing(source: Registry, prepared: Registry):
    events = tuple(events_of(source, "team/one"))
    of_first = tuple(event for event in events if event.number in (1, None))
    for _ in range(2):
        prepared.context.backend.commit(commit_of(source, "team/one:v1", events=of_first))
    identities = [event.identity for event in events_of(prepared, "team/one")]
    assert len(set(identities)) == len(identities)
    assert set(identities) == {event.identity for event in of_first}


@pytest.mark.parametrize(
    "wrong",
    [
        {"registry": ""},
        {"registry": "a\nb"},
        {"number": 0, "previous": 0},
        {"number": 1, "previous": 1},
        {"number": 10**10},
        {"author": "x" * 200},
        {"author": "a\x1b[2J"},
        {"created_at": "naive"},
        {"events": "no action"},
        {"events": "no time zone"},
        {"events": "large"},
        {"events": "reserved alias"},
    ],
)
def test_an_origin_that_no_registry_has_is_refused(source: Registry, prepared: Registry, wrong: dict[str, Any]):
    at = source.show("team/one:v1").version.created_at
    event = OriginEvent(at, "ada", "tag", 1, {"alias": "prod"})
    events = {
        "no action": replace(event, action="DROP TABLE"),
        "no time zone": replace(event, at=at.replace(tzinfo=None)),
        "large": replace(event, action="x", detail={"text": "x" * 300_000}),
        "reserved alias": replace(event, detail={"alias": "v7"}),
    }
    if "events" in wrong:
        wrong = {"events": (events[wrong["events"]],)}
    if "created_at" in wrong:
        wrong = {"created_at": at.replace(tzinfo=None)}
    before = prepared.events(limit=1)
    with pytest.raises(UsageError):
        prepared.context.backend.commit(commit_of(source, "team/one:v1", **wrong))
    assert prepared.events(limit=1) == before


def test_an_event_of_a_version_that_is_not_here_is_refused(source: Registry, prepared: Registry):
    event = OriginEvent(source.show("team/one:v2").version.created_at, "ada", "yank", 2, {"reason": ""})
    with pytest.raises(ConflictError, match="is of v2, which is not here"):
        prepared.context.backend.commit(commit_of(source, "team/one:v1", events=(event,)))


def test_damage_in_the_source_is_named_and_stops_that_adapter_alone(source: Registry, target: Registry):
    (weights,) = [f for f in source.show("team/two:v1").files if f.path.endswith(".safetensors")]
    both = source.show("team/both:v1")
    (of_both,) = [f for f in both.files if f.path.endswith(".safetensors")]
    path = store_of(source).folder / "sha256" / of_both.sha256[:2] / of_both.sha256
    path.chmod(0o644)
    path.write_bytes(bytes(of_both.size))
    report = target.mirror(["team/*"], source=source.settings.home)
    assert [conflict.ref for conflict in report.conflicts] == ["team/both"]
    assert store_of(target).size(of_both.sha256) is None
    assert store_of(target).size(weights.sha256) == weights.size
    assert_same(source, target, ("team/one", "team/two"))


def test_only_what_matches_comes_and_a_pattern_of_nothing_is_an_error(source: Registry, target: Registry):
    target.mirror(["*/two", "other/*"], source=source.settings.home)
    assert {str(entry.adapter) for entry in target.adapters().items} == {"team/two", "other/alone"}
    with pytest.raises(NotFoundError, match=r"no adapter in .* matches 'nobody/\*'"):
        target.mirror(["nobody/*"], source=source.settings.home)


def test_places_that_are_none_are_refused(source: Registry, tmp_path: Path):
    with pytest.raises(UsageError, match="to one place, or comes from one"):
        source.mirror()
    with pytest.raises(UsageError, match="to one place, or comes from one"):
        source.mirror(to="./a", source="./b")
    with pytest.raises(UsageError, match="is no place of a registry"):
        source.mirror(to="postgresql://example.org/x")
    with pytest.raises(NotFoundError, match="no registry in"):
        source.mirror(source="./nowhere")
    with pytest.raises(NotFoundError, match="no bundle"):
        source.mirror(source="./nowhere.loreg")
    with pytest.raises(UsageError, match="an earlier bundle is for a new bundle"):
        source.mirror(to="./home", since="./one.loreg")
    assert not (tmp_path / "nowhere").exists()


def test_the_command_says_what_it_did_and_leaves_with_7_for_a_conflict(source: Registry, tmp_path: Path):
    loreg = command_line({"LOREG_HOME": str(source.settings.home)})
    outcome = loreg("mirror", "team/*", "--to", tmp_path / "there", "--format", "json")
    report = json.loads(outcome.stdout)
    assert (outcome.exit_code, report["ok"], report["new"], report["known"]) == (0, True, 5, 0)
    assert sorted(loreg("mirror", "team/*", "--to", tmp_path / "more", "--format", "quiet").stdout.split()) == sorted(
        version.ref for name in NAMES for version in source.versions(name).items
    )
    with connect(home=str(tmp_path / "there")) as there:
        there.tag("team/one:v2", "prod")
    outcome = loreg("mirror", "team/*", "--to", tmp_path / "there")
    assert outcome.exit_code == 7
    assert "team/one:prod" in outcome.stdout
    assert loreg("mirror", "--to", tmp_path / "there").exit_code == 2


def test_not_for_who_is_no_administrator(
    guarded: Guarded, source: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """In tests/attacks is what else they may try; here: nothing was sent, and reading is enough for a source."""
    monkeypatch.setenv("OWNERS", guarded.tokens["owner"])
    with pytest.raises(NotAllowedError):
        source.mirror(["team/*"], to=guarded.endpoint, token_env="OWNERS")
    assert len(guarded.behind.versions("team/science").items) == 1
    monkeypatch.setenv("READERS", guarded.tokens["reader"])
    with connect(home=str(tmp_path / "copy")) as copy:
        assert copy.mirror(["team/*"], source=guarded.endpoint, token_env="READERS").ok
        assert copy.versions("team/science") == guarded.behind.versions("team/science")
        identities = [event.identity for event in events_of(guarded.behind, "team/science")]
        assert [event.identity for event in events_of(copy, "team/science")] == identities
    monkeypatch.setenv("ROOTS", guarded.tokens["root"])
    assert source.mirror(["team/*"], to=guarded.endpoint, token_env="ROOTS").ok
    assert guarded.behind.versions("team/one") == source.versions("team/one")
    with pytest.raises(UsageError, match="NOBODYS is not set"):
        source.mirror(["team/*"], to=guarded.endpoint, token_env="NOBODYS")


def test_nothing_is_readable_of_a_private_server_without_a_token(guarded: Guarded, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("LOREG_TOKEN", guarded.tokens["root"])  # of no server that is named
    with connect(home=str(tmp_path / "copy")) as copy, pytest.raises(NotFoundError, match="no adapter in"):
        copy.mirror(["team/*"], source=guarded.endpoint)


def test_numbers_have_the_direction_that_the_target_declares(source: Registry, target: Registry):
    source.add_metrics("team/one:v1", ["carbon=3"])
    target.declare_metric("carbon", lower_is_better=True)
    for _ in range(2):
        target.mirror(source=source.settings.home)
        (carbon,) = (m for m in target.show("team/one:v1").version.metrics if m.name == "carbon")
        assert not carbon.higher_is_better


class TestVerdictsOnUpgrades:
    @pytest.fixture
    def upgraded(self, source: Registry, tmp_path: Path) -> Registry:
        """Both versions of an upgraded base are known; one adapter is asked for, and others are of the old one."""
        source.bases.add(write_base(tmp_path / "next", {"head.bias": torch.ones(3)}), ["next"])
        source.push(train(tmp_path / "beside", 7), "team/beside", base="tiny")
        selection = ["team/one:prod", "team/beside"]
        report = source.upgrade_base(str(tmp_path / "adapters" / "base"), str(tmp_path / "next"), selection)
        assert report.recorded == 2
        return source

    def verdicts(self, registry: Registry, *names: str) -> dict[str, tuple[object, ...]]:
        return {
            verdict.ref: (verdict.digest, verdict.verdict, verdict.reason, verdict.tensors, verdict.read)
            for verdict in registry.bases.upgrade_verdicts("tiny", "next").items
            if verdict.ref.partition(":")[0] in names
        }

    def test_come_along_with_the_new_base(self, upgraded: Registry, target: Registry):
        report = target.mirror(["team/one"], source=upgraded.settings.home)
        assert self.verdicts(target, "team/one") == self.verdicts(upgraded, "team/one") != {}
        assert self.verdicts(target, "team/beside") == {}
        (note,) = (note for note in report.notes if "upgrade" in note)
        assert re.search(r"from org/tiny .* to next .* means for 1 version is recorded", note)
        assert target.mirror(["team/one"], source=upgraded.settings.home).notes == ()

    def test_come_along_to_a_server(self, upgraded: Registry, guarded: Guarded, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("ROOTS", guarded.tokens["root"])
        upgraded.mirror(["team/*"], to=guarded.endpoint, token_env="ROOTS")
        assert self.verdicts(guarded.behind, *NAMES, "team/beside") == self.verdicts(upgraded, *NAMES, "team/beside")

    def test_of_the_targets_own_stay(self, upgraded: Registry, target: Registry, tmp_path: Path):
        target.mirror(["team/one"], source=upgraded.settings.home)
        (theirs,) = target.bases.upgrade_verdicts("tiny", "next").items
        target.upgrade_base(str(tmp_path / "adapters" / "base"), str(tmp_path / "next"), ["team/one:prod"])
        (own,) = target.bases.upgrade_verdicts("tiny", "next").items
        assert own.at > theirs.at
        target.mirror(["team/one"], source=upgraded.settings.home)
        assert target.bases.upgrade_verdicts("tiny", "next").items == (own,)


class TestDeclarationsOfMetrics:
    @pytest.fixture
    def declared(self, source: Registry, tmp_path: Path) -> Registry:
        """Of carbon less is better, which nobody guesses by its name; what else is declared nothing there has."""
        source.declare_metric("carbon", lower_is_better=True, unit="kg")
        source.declare_metric("unused", lower_is_better=True)
        for number, value in enumerate((2.0, 5.0), 1):
            source.add_metrics(f"team/one:v{number}", [f"carbon={value}"])
        return source

    @pytest.mark.parametrize("by", ["folder", "bundle"])
    def test_come_along_and_the_best_is_the_best_there(
        self, declared: Registry, target: Registry, tmp_path: Path, by: str
    ):
        place = declared.settings.home
        if by == "bundle":
            place = tmp_path / "one.loreg"
            declared.mirror(["team/one"], to=place)
        report = target.mirror(["team/one"], source=place)
        (note,) = (note for note in report.notes if "carbon" in note)
        assert note.startswith("metric 'carbon' is declared as in ")
        assert note.endswith(": lower is better (kg)")
        (item,) = target.context.backend.metric_vocabulary().declarations
        assert (item.name, item.higher_is_better, item.unit) == ("carbon", False, "kg")
        target.add_metrics("team/one:v1", ["carbon=1@other"])  # of a number that is typed there, too
        best = target.search(best="carbon").items
        assert [version.ref for version in best] == ["team/one:v1"]
        again = target.mirror(["team/one"], source=place)
        assert (again.notes, again.new) == ((), 0)

    def test_come_along_to_a_server(self, declared: Registry, guarded: Guarded, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("ROOTS", guarded.tokens["root"])
        declared.mirror(["team/*"], to=guarded.endpoint, token_env="ROOTS")
        (item,) = guarded.behind.context.backend.metric_vocabulary().declarations
        assert (item.name, item.higher_is_better, item.unit) == ("carbon", False, "kg")

    def test_of_the_targets_own_stay_and_both_are_named(self, declared: Registry, target: Registry):
        target.declare_metric("carbon", unit="t")
        (note,) = target.mirror(["team/one"], source=declared.settings.home).notes
        assert "'carbon' stays as" in note
        assert "declared it here, higher is better (t)" in note
        assert note.endswith("says lower is better (kg)")
        (item,) = target.context.backend.metric_vocabulary().declarations
        assert (item.higher_is_better, item.unit) == (True, "t")
        assert all(
            metric.higher_is_better
            for version in target.versions("team/one").items
            for metric in version.metrics
            if metric.name == "carbon"
        )


def shares_of(registry: Registry) -> list[tuple[str, int, float, tuple[str, ...], str]]:
    canaries = registry.canaries("team/one")
    return [(canary.alias, canary.number, canary.share, canary.rollback_if, canary.author) for canary in canaries]


def test_canaries_come_along_change_and_end_as_in_the_source(source: Registry, target: Registry):
    source.begin_canary("team/one:v2", "prod", "10%", rollback_if=["loss>9"])
    target.mirror(source=source.settings.home)
    assert shares_of(target) == [("prod", 2, 0.1, (), "ada")]
    assert target.shares("team/one:prod").pick("user-1") is not None
    source.begin_canary("team/one:v2", "prod", "30%", rollback_if=["loss>9"])
    again = target.mirror(source=source.settings.home)
    assert (shares_of(target), again.conflicts) == ([("prod", 2, 0.3, (), "ada")], ())
    source.add_metrics("team/one:v2", ["loss=10"])
    target.mirror(source=source.settings.home)
    assert (shares_of(source), shares_of(target)) == ([], [])
    before = target.events(limit=1).items[0].id
    target.mirror(source=source.settings.home)
    assert target.events(limit=1).items[0].id == before


def test_a_canary_comes_with_the_move_of_its_alias(source: Registry, target: Registry):
    source.begin_canary("team/one:v2", "prod", "10%")
    target.mirror(source=source.settings.home)
    source.tag("team/one:v2", "prod")
    source.begin_canary("team/one:v1", "prod", "10%")
    assert target.mirror(source=source.settings.home).conflicts == ()
    assert target.show("team/one:prod").version.number == 2
    assert shares_of(target) == [("prod", 1, 0.1, (), "ada")]


def test_a_copy_takes_no_canary_back_by_itself(source: Registry, target: Registry):
    source.begin_canary("team/one:v2", "prod", "10%", rollback_if=["loss>9"])
    target.mirror(source=source.settings.home)
    target.add_metrics("team/one:v2", ["loss=10"])
    assert len(shares_of(target)) == 1


def test_a_canary_of_the_targets_own_stays_and_is_named(source: Registry, target: Registry):
    target.mirror(source=source.settings.home)
    target.begin_canary("team/one:v2", "prod", "20%", rollback_if=["loss>9"])
    own = [("prod", 2, 0.2, ("loss>9",), "mirror")]
    assert target.mirror(source=source.settings.home).conflicts == ()
    assert shares_of(target) == own
    source.begin_canary("team/one:v2", "prod", "10%")
    for _ in range(2):
        (conflict,) = target.mirror(source=source.settings.home).conflicts
        assert (conflict.ref, "of its own here" in conflict.reason) == ("team/one:prod", True)
        assert shares_of(target) == own
    assert target.mirror(source=source.settings.home, force=True).conflicts == ()
    assert shares_of(target) == [("prod", 2, 0.1, (), "ada")]


def test_a_promotion_of_the_targets_own_is_taken_back_by_a_metric_of_the_source(source: Registry, target: Registry):
    target.mirror(source=source.settings.home)
    target.tag("team/one:v1", "live")
    target.tag("team/one:v2", "live", rollback_if=["loss>9"])
    source.add_metrics("team/one:v2", ["loss=10"])
    target.mirror(source=source.settings.home)
    assert target.show("team/one:live").version.number == 1


def test_what_the_source_takes_back_is_taken_back(source: Registry, target: Registry):
    source.tag("team/one:v2", "prod", rollback_if=["loss>9"])
    target.mirror(source=source.settings.home)
    assert (target.show("team/one:prod").version.number, target.promotions("team/one")) == (2, ())
    source.add_metrics("team/one:v2", ["loss=10"])
    target.mirror(source=source.settings.home)
    assert target.show("team/one:prod").version.number == 1


def test_a_yank_of_the_source_ends_a_canary_of_the_targets_own(source: Registry, target: Registry):
    target.mirror(source=source.settings.home)
    target.begin_canary("team/one:v2", "prod", "20%")
    source.yank("team/one:v2")
    target.mirror(source=source.settings.home)
    assert shares_of(target) == []
