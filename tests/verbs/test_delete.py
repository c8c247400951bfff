"""delete: a version is gone for good, from catalog and store, and nothing that others share goes with it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from deployments import HISTORY, SCIENCE, Deployment, Loreg
from factories import train
from loreg import MergeOptions, connect
from loreg.catalog.schema import upload_table
from loreg.catalog.uploads import reserve
from loreg.checking.profile import read_profile
from loreg.entities import Access, Deletion, Upload
from loreg.errors import ConflictError, NotAllowedError, NotFoundError, UsageError
from loreg.exporting.folder import digest_request
from loreg.local.backend import LocalBackend
from loreg.local.uploads import Uploads
from loreg.refs import parse_ref
from loreg.registry import Registry
from loreg.storage import Blob, BlobStore

REASON = "asked for by its author"


@pytest.fixture
def behind(deployment: Deployment) -> Iterator[Registry]:
    """The catalog and store themselves, also those of a server."""
    settings = {name: getattr(deployment, name) for name in ("database_url", "storage_url", "storage_endpoint")}
    with connect(**settings, author="ada") as opened:
        yield opened


@pytest.fixture
def direct(local_deployment: Deployment) -> Iterator[Registry]:
    with connect(**local_deployment.settings, author="ada") as opened:
        yield opened


def stored(registry: Registry) -> set[str]:
    store = registry.context.store
    assert isinstance(store, BlobStore)
    return {blob.sha256 for blob in store.list()}


def test_what_is_sent_after_the_deletion_is_refused(direct: Registry):
    """An upload that was announced before goes with the version, though its bytes were on their way."""
    version = direct.push(SCIENCE, "team/science").version
    weights = next(file for file in direct.show(version.ref).files if file.path.endswith(".safetensors"))
    backend = direct.context.backend
    assert isinstance(backend, LocalBackend)
    uploads = Uploads(backend.catalog, direct.context.store, Access.superuser("eve"))
    with backend.catalog.write(Access.superuser("eve")) as tx:
        upload = Upload("sent-late", weights.sha256, weights.size)
        reserve(tx, [upload])
    direct.delete(version.ref, REASON)
    with pytest.raises(NotFoundError, match="there is no such upload any more"):
        uploads.receive(upload, SCIENCE / weights.path)
    assert direct.verify().references == 0


def test_what_is_deleted_while_its_upload_is_announced_is_refused(direct: Registry, monkeypatch: pytest.MonkeyPatch):
    version = direct.push(SCIENCE, "team/science").version
    weights = next(file for file in direct.show(version.ref).files if file.path.endswith(".safetensors"))
    backend, store = direct.context.backend, direct.context.store
    assert isinstance(backend, LocalBackend)
    assert isinstance(store, BlobStore)
    has, asked = type(store).has, []

    def delete_then_look(self: BlobStore, blob: Blob) -> bool:
        if not asked:
            asked.append(blob)
            direct.delete(version.ref, REASON)
        return has(self, blob)

    monkeypatch.setattr(type(store), "has", delete_then_look)
    with pytest.raises(NotAllowedError, match="this content was deleted"):
        Uploads(backend.catalog, store, Access.superuser("eve")).reserve([Blob(weights.sha256, weights.size)])
    assert asked
    with backend.catalog.read(Access.superuser("eve")) as tx:
        assert tx.connection.execute(select(upload_table)).all() == []


def with_card(folder: Path, to: Path, text: str) -> Path:
    """The same weights and configuration with another README.md."""
    shutil.copytree(folder, to)
    (to / "README.md").write_text(text)
    return to


def blobs_of(registry: Registry, ref: str) -> set[str]:
    details = registry.show(ref)
    return {details.version.digest, *(file.sha256 for file in details.files)}


def test_a_version_goes_with_its_blobs_and_the_next_number_is_another(registry: Registry, behind: Registry, tmp_path):
    registry.push(SCIENCE, "team/science", aliases=["prod"], tasks=["qa"], metrics=["f1=0.5"], labels={"a": "b"})
    registry.push(HISTORY, "team/history")
    kept = blobs_of(behind, "team/history")
    gone = blobs_of(behind, "team/science") - kept
    deletion = registry.delete("team/science:prod", REASON)
    assert (deletion.ref, deletion.aliases, deletion.waiting) == ("team/science:v1", ("prod",), 0)
    assert deletion.removed == deletion.blobs == len(gone)
    assert stored(behind) == kept
    assert behind.verify(read_data=True).ok
    pushed = registry.push(train(tmp_path / "next", 1), "team/science")
    assert pushed.version.ref == "team/science:v2"
    assert [version.number for version in registry.versions("team/science").items] == [2]


def test_what_it_says_before_is_what_goes(registry: Registry, behind: Registry, tmp_path: Path):
    registry.push(SCIENCE, "team/science", aliases=["prod"])
    registry.push(with_card(SCIENCE, tmp_path / "other", "# Another"), "team/other")
    registry.merge(["team/science"], MergeOptions(weights=[1.0]), name="team/merged")
    registry.pull("team/science", tmp_path / "out", profile="vllm")
    before = stored(behind)
    events = len(registry.events(limit=100).items)
    planned = registry.delete("team/science:v1", REASON, dry_run=True)
    assert (stored(behind), len(registry.events(limit=100).items)) == (before, events)
    assert (planned.dry_run, planned.children, planned.exports) == (True, ("team/merged:v1",), ("vllm",))
    weights = next(file for file in registry.show("team/other").files if file.path.endswith(".safetensors"))
    (shared,) = [blob for blob in planned.shared if blob.sha256 == weights.sha256]
    assert (shared.size, {owner.name for owner in shared.owners.listed}) == (weights.size, {"team/other:v1"})
    done = registry.delete("team/science:v1", REASON)
    assert (done.blobs, done.size, done.shared) == (planned.blobs, planned.size, planned.shared)
    gone = before - stored(behind)
    assert len(gone) == done.removed == planned.blobs
    assert planned.shared_count + planned.blobs == len(gone) + len({blob.sha256 for blob in planned.shared})
    assert behind.verify(read_data=True).ok


def test_the_same_content_is_refused_under_every_name(registry: Registry, behind: Registry, tmp_path: Path):
    registry.push(SCIENCE, "team/science")
    registry.delete("team/science", REASON)
    empty = stored(behind)
    for folder, name in (
        (SCIENCE, "team/science"),
        (SCIENCE, "elsewhere/science"),
        (with_card(SCIENCE, tmp_path / "card", "# The same weights"), "team/other"),
    ):
        with pytest.raises(NotAllowedError, match=f"this content was deleted from the registry: .*{REASON}"):
            registry.push(folder, name)
    assert stored(behind) == empty  # not even sent
    assert registry.search().items == ()


def test_a_result_that_is_the_deleted_content_is_refused(registry: Registry, tmp_path: Path):
    registry.push(SCIENCE, "team/science")
    registry.merge(["team/science"], MergeOptions(weights=[0.5]), name="team/half")
    registry.delete("team/half", REASON)
    with pytest.raises(NotAllowedError, match="was deleted from the registry"):
        registry.merge(["team/science"], MergeOptions(weights=[0.5]), name="team/again")


@pytest.fixture
def exported(direct: Registry, tmp_path: Path) -> str:
    """What SGLang takes of team/scaled:v1, pushed as a version of its own; returns the ref of that."""
    direct.push(train(tmp_path / "scaled", 1, alpha_pattern={"v_proj": 3}), "team/scaled")
    direct.export("team/scaled", "sglang", tmp_path / "for-sglang")
    return direct.push(tmp_path / "for-sglang", "team/for-sglang").version.ref


def record_export(registry: Registry) -> None:
    """Let the registry make, and remember, what SGLang takes of team/scaled."""
    ref = parse_ref("team/scaled:v1")
    registry.context.backend.record_export(ref, digest_request(read_profile("sglang"), None), "sglang")


def test_an_export_of_another_version_with_its_weights_goes_too(direct: Registry, exported: str, tmp_path: Path):
    record_export(direct)
    weights = next(file.sha256 for file in direct.show(exported).files if file.path.endswith(".safetensors"))
    direct.delete(exported, REASON)
    assert weights not in stored(direct)
    assert direct.events(name="team/scaled")[0].action == "export drop"
    with pytest.raises(NotAllowedError, match="this content was deleted"):
        record_export(direct)
    assert weights not in stored(direct)
    direct.pull("team/scaled", tmp_path / "as-it-is")


def test_an_export_that_is_made_while_its_content_is_deleted_is_refused(
    direct: Registry, exported: str, monkeypatch: pytest.MonkeyPatch
):
    weights = next(file.sha256 for file in direct.show(exported).files if file.path.endswith(".safetensors"))
    record = LocalBackend._record_export

    def delete_before(self: LocalBackend, *arguments: Any) -> None:
        monkeypatch.undo()
        direct.delete(exported, REASON)
        record(self, *arguments)

    monkeypatch.setattr(LocalBackend, "_record_export", delete_before)
    with pytest.raises(NotAllowedError, match="this content was deleted"):
        record_export(direct)
    assert weights not in stored(direct)


def test_weights_that_another_version_has_stay_allowed(registry: Registry, behind: Registry, tmp_path: Path):
    registry.push(SCIENCE, "team/science")
    registry.push(with_card(SCIENCE, tmp_path / "other", "# Another"), "team/other")
    registry.delete("team/science", REASON)
    assert registry.push(with_card(SCIENCE, tmp_path / "third", "# Third"), "team/third").created
    with pytest.raises(NotAllowedError, match="was deleted"):
        registry.push(SCIENCE, "team/science")
    registry.pull("team/other", tmp_path / "pulled")
    assert behind.verify(read_data=True).ok


def test_one_content_under_two_names_goes_under_one_of_them(registry: Registry, behind: Registry, tmp_path: Path):
    registry.push(SCIENCE, "team/one")
    registry.push(SCIENCE, "team/two")
    before = stored(behind)
    deletion = registry.delete("team/one", REASON)
    assert (deletion.removed, deletion.shared_count) == (0, len(before))
    assert stored(behind) == before
    assert not registry.push(SCIENCE, "team/two", tasks=["qa"]).created  # it is there, and may be described
    with pytest.raises(NotAllowedError, match="was deleted"):
        registry.push(SCIENCE, "team/three")


def test_a_ref_to_it_says_that_it_was_deleted_when_and_why(registry: Registry):
    digest = registry.push(SCIENCE, "team/science", aliases=["prod"]).version.digest
    at = registry.delete("team/science", REASON) and registry.events(limit=1).items[0].at
    for ref in ("team/science:v1", f"team/science@sha256:{digest[:12]}"):
        with pytest.raises(NotFoundError, match=rf"team/science:v1 was deleted on {at:%Y-%m-%d} by ada: {REASON}"):
            registry.show(ref)
    with pytest.raises(NotFoundError, match="every version of team/science was deleted"):
        registry.show("team/science")
    with pytest.raises(NotFoundError, match="no alias 'prod'"):
        registry.show("team/science:prod")
    with pytest.raises(NotFoundError, match="there is no version team/science:v2"):
        registry.delete("team/science:v2", REASON)


def test_events_and_moves_stay_without_content(registry: Registry, behind: Registry):
    registry.push(HISTORY, "team/science", labels={"secret": "word"})
    registry.push(SCIENCE, "team/science", aliases=["prod"], labels={"secret": "word"}, tasks=["hidden"])
    registry.add_metrics("team/science:v2", ["f1=0.5@secret"])
    digest = registry.show("team/science:v2").version.digest
    before = [(event.id, event.action, event.author, event.at) for event in registry.events(limit=100).items]
    registry.delete("team/science:v2", REASON)
    events = {event.id: event for event in registry.events(limit=100).items}
    assert [(key, events[key].action, events[key].author, events[key].at) for key, *_ in before] == before
    newest = max(events)
    assert (events[newest].action, events[newest].ref) == ("delete", "team/science")
    assert events[newest].detail == {"number": 2, "digest": digest, "reason": REASON}
    of_second = [event for event in events.values() if event.detail.get("number") == 2 and event.id != newest]
    assert {event.action for event in of_second} == {"push", "tag", "metric"}
    assert all(event.detail == {"number": 2} for event in of_second)
    assert events[min(events)].detail != {"number": 1}  # those of others say what they did
    moves = [(move.alias, move.number) for move in registry.show("team/science:v1").alias_moves]
    assert moves == [("prod", None), ("prod", 2)]


def test_what_was_merged_from_it_keeps_its_lineage(registry: Registry):
    digest = registry.push(SCIENCE, "team/science").version.digest
    registry.merge(["team/science"], MergeOptions(weights=[1.0]), name="team/merged")
    registry.delete("team/science", REASON)
    _, (edge,) = registry.lineage("team/merged")
    assert (edge.parent.digest, edge.parent_ref) == (digest, "")


def test_a_merged_version_can_be_deleted(registry: Registry, behind: Registry):
    registry.push(SCIENCE, "team/science")
    registry.merge(["team/science"], MergeOptions(weights=[0.5]), name="team/merged")
    registry.delete("team/merged", REASON)
    assert registry.show("team/science").version.number == 1
    assert behind.verify(read_data=True).ok


def test_a_reason_is_asked_for(registry: Registry):
    registry.push(SCIENCE, "team/science")
    for reason in (" ", "x" * 1001, "two\nlines"):
        with pytest.raises(UsageError):
            registry.delete("team/science", reason)
    assert registry.show("team/science").version.number == 1


def test_a_guarded_alias_goes_on_after_its_version_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "loreg.toml").write_text('[check]\naliases = ["prod"]\nagainst = "prod"\n')
    with connect(home=str(tmp_path / "home"), author="ada") as registry:
        registry.push(SCIENCE, "team/science", aliases=["prod"], metrics=["f1=0.5"])
        registry.push(HISTORY, "team/science", aliases=["prod"], metrics=["f1=0.7"])
        registry.delete("team/science:v2", REASON)
        third = registry.push(train(tmp_path / "third", 1), "team/science", metrics=["f1=0.6"]).version
        assert registry.tag(third.ref, "prod").aliases == ("prod",)  # no worse than v1, the last that is there


class Killed(BaseException):
    """As if the process had ended there."""


def die(*_: object) -> None:
    raise Killed


def test_killed_before_its_blobs_are_gone_it_is_finished_by_a_second_one(
    direct: Registry, monkeypatch: pytest.MonkeyPatch
):
    direct.push(SCIENCE, "team/science")
    direct.push(HISTORY, "team/history")
    kept = blobs_of(direct, "team/history")
    store = type(direct.context.store)
    with monkeypatch.context() as patched:
        patched.setattr("loreg.local.deletion._remove_marked", die)
        with pytest.raises(Killed):
            direct.delete("team/science:v1", REASON)
    assert stored(direct) > kept
    with pytest.raises(NotFoundError, match="was deleted"):
        direct.show("team/science:v1")
    with monkeypatch.context() as patched:
        patched.setattr(store, "delete", die)
        with pytest.raises(Killed):
            direct.delete("team/science:v1", REASON)
    waiting = direct.delete("team/science:v1", REASON)
    assert (waiting.removed, waiting.waiting) == (0, len(stored(direct) - kept))  # they are claimed for 15 minutes
    let_claims_run_out(direct)
    finished = direct.delete("team/science:v1", REASON)
    assert (finished.waiting, stored(direct)) == (0, kept)
    again = direct.delete("team/science:v1", REASON)
    assert (again.removed, again.waiting, again.blobs) == (0, 0, 0)
    assert [event.action for event in direct.events(limit=100).items].count("delete") == 1


def let_claims_run_out(registry: Registry) -> None:
    from datetime import timedelta

    from sqlalchemy import update

    from loreg.catalog.clock import now
    from loreg.catalog.schema import garbage_table
    from loreg.entities import Access

    with registry.context.backend.catalog.write(Access.superuser("")) as tx:
        tx.connection.execute(update(garbage_table).values(claimed_at=now(tx, -timedelta(minutes=16))))


def test_killed_before_its_blobs_are_gone_it_is_finished_by_gc(direct: Registry, monkeypatch: pytest.MonkeyPatch):
    direct.push(SCIENCE, "team/science")
    with monkeypatch.context() as patched:
        patched.setattr("loreg.local.deletion._remove_marked", die)
        with pytest.raises(Killed):
            direct.delete("team/science:v1", REASON)
    assert direct.gc(grace="24h").removed == 3
    assert stored(direct) == set()


def test_killed_before_the_transaction_nothing_is_deleted(direct: Registry, monkeypatch: pytest.MonkeyPatch):
    direct.push(SCIENCE, "team/science", aliases=["prod"])
    with monkeypatch.context() as patched:
        patched.setattr("loreg.catalog.collection.mark_deleted", die)
        with pytest.raises(Killed):
            direct.delete("team/science:v1", REASON)
    assert direct.show("team/science:prod").version.number == 1
    assert direct.verify(read_data=True).ok


def test_a_push_of_other_content_whose_blob_goes_sends_it_again(
    direct: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    card = "# A card that two have"
    direct.push(with_card(SCIENCE, tmp_path / "science", card), "team/science")
    backend, deleted = direct.context.backend, []
    commit = backend.commit

    def delete_first(request):
        if not deleted:
            deleted.append(direct.delete("team/science", REASON).removed)
        return commit(request)

    monkeypatch.setattr(backend, "commit", delete_first)
    assert direct.push(with_card(HISTORY, tmp_path / "history", card), "team/history").created
    assert deleted[0] >= 3
    assert direct.verify(read_data=True).ok


def test_content_that_is_deleted_while_it_is_pushed_is_refused(direct: Registry, monkeypatch: pytest.MonkeyPatch):
    direct.push(SCIENCE, "team/science")
    backend = direct.context.backend
    commit = backend.commit

    def delete_first(request):
        if str(request.adapter) == "team/again":
            direct.delete("team/science", REASON)
            # another client sent it meanwhile
            for path in SCIENCE.iterdir():
                from loreg.storage import put_bytes

                put_bytes(direct.context.store, path.read_bytes())
        return commit(request)

    monkeypatch.setattr(backend, "commit", delete_first)
    with pytest.raises((NotAllowedError, NotFoundError), match="was deleted"):
        direct.push(SCIENCE, "team/again")
    assert direct.search().items == ()


def test_a_store_of_another_registry_loses_nothing(local_deployment: Deployment, direct: Registry, tmp_path: Path):
    direct.push(SCIENCE, "team/science")
    before = stored(direct)
    with connect(home=str(tmp_path / "other"), author="eve") as other:
        other.push(SCIENCE, "team/science")
    settings = {**local_deployment.settings, "database_url": f"sqlite:///{tmp_path}/other/catalog.db"}
    with connect(**settings, author="eve") as other, pytest.raises(ConflictError, match="belongs to registry"):
        other.delete("team/science", REASON)
    assert stored(direct) == before


class TestCommand:
    def test_it_is_refused_without_a_terminal_unless_it_is_told_to(self, loreg: Loreg):
        loreg("push", SCIENCE, "team/science")
        outcome = loreg("delete", "team/science", "--reason", REASON)
        assert outcome.exit_code == 4
        assert "blobs go" in outcome.stderr  # what goes is shown first
        line = next(line for line in outcome.stderr.splitlines() if line.startswith("error: "))
        hint = line.partition("Hint: loreg ")[2]
        assert hint == f"delete team/science --reason '{REASON}' --yes"
        import shlex

        done = loreg(*shlex.split(hint))
        assert (done.exit_code, done.stderr) == (0, "")
        assert done.stdout.startswith("deleted team/science:v1@sha256:")
        gone = loreg("show", "team/science:v1")
        assert (gone.exit_code, REASON in gone.stderr) == (3, True)
        refused = loreg("push", SCIENCE, "team/science")
        assert refused.exit_code == 4
        assert len(refused.stderr.splitlines()) == 1
        assert "none left" in loreg("ls").stdout

    def test_a_dry_run_shows_it(self, loreg: Loreg, tmp_path: Path):
        loreg("push", SCIENCE, "team/science", "--alias", "prod")
        loreg("push", with_card(SCIENCE, tmp_path / "other", "x"), "team/other")
        table = loreg("delete", "team/science", "--reason", REASON, "--dry-run")
        assert (table.exit_code, table.stderr) == (0, "")
        assert "the alias prod goes" in table.stdout
        assert "team/other:v1 (adapter_model.safetensors)" in table.stdout
        document = json.loads(
            loreg("delete", "team/science", "--reason", REASON, "--dry-run", "--format", "json").stdout
        )
        assert set(document) == set(Deletion.__struct_fields__)
        assert (document["dry_run"], document["aliases"]) == (True, ["prod"])
        quiet = loreg("delete", "team/science", "--reason", REASON, "--dry-run", "--format", "quiet")
        assert quiet.stdout == "team/science:v1\n"
        assert loreg("show", "team/science:prod").exit_code == 0

    def test_a_reason_is_needed(self, loreg: Loreg):
        loreg("push", SCIENCE, "team/science")
        assert loreg("delete", "team/science", "--yes").exit_code == 2
        assert loreg("delete", "team/science", "--yes", "--reason", " ").exit_code == 2
        assert loreg("show", "team/science:v1").exit_code == 0

    @pytest.mark.parametrize(
        ("typed", "is_deleted"),
        [("y\nteam/science:v1\n", True), ("y\nteam/science\n", False), ("n\n", False), ("y\n\n", False)],
    )
    def test_on_a_terminal_it_asks_twice(self, tmp_path: Path, typed: str, is_deleted: bool):
        home = tmp_path / "home"
        with connect(home=str(home), author="ada") as registry:
            registry.push(SCIENCE, "team/science")
        master, terminal = pty.openpty()
        command = [sys.executable, "-m", "loreg_cli.main", "delete", "team/science", "--reason", REASON]
        with subprocess.Popen(
            command, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "LOREG_HOME": str(home)},
        ) as process:  # fmt: skip
            os.write(master, typed.encode())
            output, errors = process.communicate(timeout=120)
        os.close(master)
        os.close(terminal)
        assert ("deleted team/science:v1" in output) == is_deleted
        assert process.returncode == (0 if is_deleted else 130), errors
        with contextlib.closing(sqlite3.connect(home / "catalog.db")) as connection:
            assert connection.execute("SELECT count(*) FROM versions").fetchall() == [(0 if is_deleted else 1,)]
