"""A commit of the Hub costs and leaves no more than it may: rights, numbers and names are looked at before files."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments import NEWS, SCIENCE, empty_folders
from factories import change_config, copy
from live_server import live_server
from loreg.catalog import Catalog
from loreg.entities import Access
from loreg.local import pending_uploads
from loreg.registry import connect
from server.conftest import SCOPES, Guarded

COMMIT = "/api/models/team/new/commit/main"


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Guarded]:
    (tmp_path / "loreg.toml").write_text('[check]\nmax_rank = 4\naliases = ["prod"]\n')
    deployment = empty_folders(tmp_path)
    with (
        connect(database_url=deployment.database_url, storage_url=deployment.storage_url) as registry,
        live_server(deployment, is_open=False) as endpoint,
    ):
        tokens = {role: registry.tokens.create(role, scopes)[1] for role, scopes in SCOPES.items()}
        registry.push(SCIENCE, "team/science")
        yield Guarded(endpoint, tokens, registry)


@pytest.fixture
def writer(team: Guarded) -> Iterator[httpx.Client]:
    with team.http("writer") as http:
        yield http


def line(path: str, content: bytes = b"words") -> str:
    value = {"path": path, "content": b64encode(content).decode(), "encoding": "base64"}
    return json.dumps({"key": "file", "value": value})


def whole(folder: Path, *more: str) -> str:
    return "\n".join([*(line(path.name, path.read_bytes()) for path in sorted(folder.iterdir())), *more])


def stored(tmp_path: Path) -> set[str]:
    """The names of all that lies in the store."""
    return {path.name for path in (tmp_path / "store").rglob("*") if path.is_file()}


def test_1500_files_in_one_commit_are_refused_before_any_is_stored(team: Guarded, writer: httpx.Client, tmp_path: Path):
    before = stored(tmp_path)
    refused = writer.post(COMMIT, content="\n".join(line(f"{i}.txt", b"%d" % i) for i in range(1500)))
    assert (refused.status_code, "500 files" in refused.headers["X-Error-Message"]) == (400, True)
    removals = "\n".join(json.dumps({"key": "deletedFile", "value": {"path": f"{i}.txt"}}) for i in range(1500))
    assert writer.post(COMMIT, content=removals).status_code == 400
    assert stored(tmp_path) == before
    assert writer.get("/api/models/team/new").status_code == 404


def test_as_many_files_as_a_commit_may_have_are_taken(writer: httpx.Client):
    header = json.dumps({"key": "header", "value": {"summary": "many"}})
    assert writer.post(COMMIT, content="\n".join([header, *(line(f"{i}.txt") for i in range(500))])).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "../../etc/passwd", "/etc/passwd", "a/../b.txt", "a//b.txt", "./a.txt", "a\\b.txt", ".git/config", "a\nb.txt",
        "", "a/", "weights.pkl", "run.py", "other.safetensors", "n" * 600,
    ],
)  # fmt: skip
def test_a_name_that_no_version_may_have_is_refused_when_it_is_sent(
    team: Guarded, writer: httpx.Client, tmp_path: Path, path: str
):
    assert writer.post(COMMIT, content=line("README.md")).status_code == 200
    before, commit = stored(tmp_path), writer.get("/api/models/team/new").json()["sha"]
    refused = writer.post(COMMIT, content=line("notes.txt", b"notes") + "\n" + line(path, b"other"))
    assert refused.status_code == 422
    assert "leave it out of the version" in refused.headers["X-Error-Message"]
    assert writer.get("/api/models/team/new").json()["sha"] == commit
    assert stored(tmp_path) == before


def test_of_a_refused_adapter_nothing_is_stored(team: Guarded, writer: httpx.Client, tmp_path: Path):
    before = stored(tmp_path)
    broken = change_config(copy(NEWS, tmp_path / "broken"), r=4)
    refused = writer.post(COMMIT, content=whole(broken))
    assert (refused.status_code, "LR003" in refused.headers["X-Error-Message"]) == (422, True)
    assert stored(tmp_path) == before
    assert writer.get("/api/models/team/new").status_code == 404


def test_of_an_adapter_that_the_policy_refuses_nothing_is_stored(team: Guarded, writer: httpx.Client, tmp_path: Path):
    before = stored(tmp_path)
    refused = writer.post("/api/models/team/new/commit/prod", content=whole(NEWS))
    assert (refused.status_code, "LP004" in refused.headers["X-Error-Message"]) == (422, True)
    assert stored(tmp_path) == before
    assert team.http("reader").get("/api/v1/adapters/team/new/versions").status_code == 404
    assert writer.post("/api/models/team/new/commit/dev", content=whole(NEWS)).status_code == 200


def test_of_a_content_that_was_yanked_nothing_is_stored_again(team: Guarded, writer: httpx.Client, tmp_path: Path):
    assert writer.post(COMMIT, content=whole(NEWS)).status_code == 200
    team.behind.yank("team/new:v1")
    before = stored(tmp_path)
    assert writer.post(COMMIT, content=whole(NEWS)).status_code == 409
    assert stored(tmp_path) == before


@pytest.mark.parametrize(
    "body",
    [
        line("a.txt") + '\n{"key": "file", "value": {"path": "b.txt", "content": "%%%", "encoding": "base64"}}',
        line("a.txt") + '\n{"key": "lfsFile", "value": {"path": "b.bin", "oid": "00", "size": 1}}',
        line("a.txt") + '\n{"key": "file", "value": {"path": "b.txt", "content": "QUJD',
        line("a.txt") + "\n[]",
        line("a.txt") + "\n" + "[" * 100_000,
        line("a.txt") + '\n{"key": "header", "value": {"parentCommit": "no commit"}}',
        line("a.txt") + '\n{"key": "file", "value": {"path": "' + "n" * 2_000_000 + '", "content": "QUJD"}}',
    ],
)
def test_of_a_commit_that_is_none_nothing_is_stored(team: Guarded, writer: httpx.Client, tmp_path: Path, body: str):
    before = stored(tmp_path)
    assert writer.post(COMMIT, content=body).status_code == 400
    assert stored(tmp_path) == before
    assert writer.get("/api/models/team/new").status_code == 404


@pytest.mark.parametrize(("role", "status"), [("reader", 403), ("stranger", 403), ("anonymous", 401)])
def test_who_may_not_write_is_told_before_his_body_is_looked_at(team: Guarded, role: str, status: int):
    assert team.http(role).post(COMMIT, content=b"no commit at all").status_code == status


def test_a_namespace_has_so_many_drafts_and_no_more(
    team: Guarded, writer: httpx.Client, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pending_uploads, "MAX_PENDING", 2)

    def create(name: str) -> httpx.Response:
        return writer.post("/api/repos/create", json={"name": name, "organization": "team"})

    assert [create(name).status_code for name in ("one", "two", "two")] == [200, 200, 200]
    for refused in (
        create("three"),
        writer.post("/api/models/team/science/branch/canary"),
        writer.post("/api/models/team/three/commit/main", content=line("README.md")),
    ):
        assert (refused.status_code, "2 unfinished uploads" in refused.headers["X-Error-Message"]) == (403, True)
    assert writer.post("/api/models/team/two/commit/main", content=line("README.md")).status_code == 200
    assert writer.post("/api/models/team/three/commit/main", content=whole(NEWS)).status_code == 200  # it is no draft
    stranger = team.http("stranger").post("/api/repos/create", json={"name": "one", "organization": "other"})
    assert stranger.status_code == 200  # another namespace is as free as before


def test_a_draft_that_nobody_touched_for_a_week_gives_way_to_another(
    team: Guarded, writer: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pending_uploads, "MAX_PENDING", 1)
    assert writer.post("/api/models/team/old/commit/main", content=line("README.md")).status_code == 200
    catalog = Catalog(f"sqlite:///{tmp_path}/catalog.db")
    with catalog.write(Access.superuser("ada")) as tx:
        tx.connection.exec_driver_sql("UPDATE drafts SET updated_at = datetime(updated_at, '-8 days')")
    catalog.close()
    assert writer.post("/api/models/team/old/commit/main", content=line("LICENSE")).status_code == 200  # nobody waits
    assert writer.post("/api/models/team/new/commit/main", content=line("README.md")).status_code == 403
    with Catalog(f"sqlite:///{tmp_path}/catalog.db").write(Access.superuser("ada")) as tx:
        tx.connection.exec_driver_sql("UPDATE drafts SET updated_at = datetime(updated_at, '-8 days')")
    assert writer.post("/api/models/team/new/commit/main", content=line("README.md")).status_code == 200
    assert writer.get("/api/models/team/old").status_code == 404
    recorded = [(event.action, event.detail["adapter"]) for event in team.behind.events(limit=2).items]
    assert recorded == [("draft", "team/new"), ("undraft", "team/old")]


def test_a_draft_has_so_many_files_and_no_more(writer: httpx.Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(pending_uploads, "MAX_FILES", 2)
    assert writer.post(COMMIT, content="\n".join(map(line, ("a.txt", "b.txt")))).status_code == 200
    before = stored(tmp_path)
    refused = writer.post(COMMIT, content=line("c.txt", b"another"))
    assert (refused.status_code, "would have 3" in refused.headers["X-Error-Message"]) == (403, True)
    assert stored(tmp_path) == before
    assert writer.post(COMMIT, content=whole(NEWS)).status_code == 200  # a whole adapter is no draft


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/repos/create", []),
        ("/api/repos/create", "news"),
        ("/api/repos/create", {"name": 7}),
        ("/api/models/team/new/preupload/main", {"files": [{"size": 1}]}),
        ("/api/models/team/new/preupload/main", {"files": "README.md"}),
        ("/api/models/team/new/preupload/main", []),
        ("/api/models/team/science/branch/canary", []),
        ("/api/models/team/science/branch/canary", {"startingPoint": ["main"]}),
        ("/api/models/team/science/tag/main", {"tag": {"a": 1}}),
    ],
)
def test_a_body_of_another_form_is_the_fault_of_who_sends_it(writer: httpx.Client, path: str, body: Any):
    assert writer.post(path, json=body).status_code in (400, 403, 404)
