"""Commits of the Hub that meet: none is lost without a word, whatever comes between its reading and its writing."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from sqlalchemy import text

from concurrency import all_at_once, eventually, somebody_waits
from deployments import Deployment, empty_folders
from factories import train
from hub_clients import VERSIONS, Client, python_with
from live_server import live_server
from loreg.catalog import Catalog, Transaction
from loreg.entities import Access
from loreg.local.backend import LocalBackend
from loreg.registry import Registry, connect
from loreg.storage.staged import StagedStore

ADAPTER = ("README.md", "adapter_config.json", "adapter_model.safetensors")


class Hub:
    """A server whose clients are those of the Hub, what lies behind it, and an adapter of three files."""

    def __init__(self, deployment: Deployment, endpoint: str, behind: Registry, folder: Path) -> None:
        self.deployment, self.endpoint, self.behind = deployment, endpoint, behind
        self.adapter = train(folder / "adapter", 7)

    def commit(self, path: str, content: bytes, *, branch: str = "main", parent: str = "") -> httpx.Response:
        header = {"key": "header", "value": {"summary": path, **({"parentCommit": parent} if parent else {})}}
        file = {"path": path, "content": b64encode(content).decode(), "encoding": "base64"}
        body = "\n".join(map(json.dumps, (header, {"key": "file", "value": file})))
        return httpx.post(f"{self.endpoint}/api/models/team/news/commit/{branch}", content=body, timeout=60)

    def commit_file(self, path: str, **more: str) -> httpx.Response:
        return self.commit(path, (self.adapter / path).read_bytes(), **more)

    def head(self, revision: str = "main") -> str:
        return str(httpx.get(f"{self.endpoint}/api/models/team/news/revision/{revision}").json()["sha"])

    def files(self, revision: str = "main") -> set[str]:
        revision_info = httpx.get(f"{self.endpoint}/api/models/team/news/revision/{revision}").json()
        return {sibling["rfilename"] for sibling in revision_info["siblings"]}

    def count_pending(self) -> int:
        with Catalog(self.deployment.database_url).read(Access.superuser("ada")) as tx:
            return int(tx.connection.execute(text("SELECT count(*) FROM drafts")).scalar_one())


@pytest.fixture(params=["sqlite", "postgresql"])
def hub(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Hub]:
    on_sqlite = request.param == "sqlite"
    deployment = empty_folders(tmp_path) if on_sqlite else request.getfixturevalue("postgres_and_s3")
    with (
        connect(
            database_url=deployment.database_url,
            storage_url=deployment.storage_url,
            storage_endpoint=deployment.storage_endpoint,
        ) as behind,
        live_server(deployment) as endpoint,
    ):
        yield Hub(deployment, endpoint, behind, tmp_path)


class Paused:
    """Holds the first commit after it looked at the branch and before it writes, until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.go = threading.Event(), threading.Event()
        keep, first = StagedStore.flush, threading.Lock()

        def pausing(store: StagedStore) -> None:
            if first.acquire(blocking=False):
                self.reached.set()
                assert self.go.wait(60)
            keep(store)

        monkeypatch.setattr(StagedStore, "flush", pausing)


def test_parallel_commits_of_a_real_client_lose_nothing(hub: Hub, tmp_path: Path):
    """Twelve new repositories, each with three commits of one file at the same moment."""
    client = Client(Path(sys.executable), hub.endpoint, "", tmp_path / "home")
    refused = client.run(
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from threading import Barrier\n"
        "from huggingface_hub import HfApi\n"
        "api = HfApi()\n"
        "names = [f'team/news{i}' for i in range(12)]\n"
        "for name in names: api.create_repo(name)\n"
        "start = Barrier(len(files))\n"
        "def commit(name, file):\n"
        "    start.wait()\n"
        "    try: api.upload_file(path_or_fileobj=f'{folder}/{file}', path_in_repo=file, repo_id=name)\n"
        "    except Exception as error: return str(error)\n"
        "with ThreadPoolExecutor(len(files)) as pool:\n"
        "    told = [list(pool.map(commit, [name] * len(files), files)) for name in names]\n"
        "result = [error for each in told for error in each if error]",
        folder=str(hub.adapter),
        files=ADAPTER,
    )
    assert refused == []
    for number in range(12):
        details = hub.behind.show(f"team/news{number}")
        assert {file.path for file in details.files} == set(ADAPTER)
    assert hub.count_pending() == 0


def test_parallel_commits_to_a_whole_adapter_lose_nothing(hub: Hub):
    hub.behind.push(hub.adapter, "team/news")
    before = hub.files()
    new = [f"notes-{i}.txt" for i in range(6)]
    answers = all_at_once([lambda path=path: hub.commit(path, path.encode()) for path in new])
    assert [answer.status_code for answer in answers] == [200] * 6
    assert hub.files() == before | set(new)


@pytest.mark.parametrize("has_files", [False, True])
def test_a_commit_that_was_overtaken_is_applied_to_what_the_other_left(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, has_files: bool
):
    if has_files:
        hub.commit("LICENSE", b"mit")
    paused = Paused(monkeypatch)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(hub.commit_file, "README.md")
        assert paused.reached.wait(60)
        assert hub.commit_file("adapter_config.json").status_code == 200
        paused.go.set()
        assert slow.result().status_code == 200
    assert hub.files() == {"README.md", "adapter_config.json", *(["LICENSE"] if has_files else [])}


def test_a_commit_that_a_whole_version_overtook_is_applied_to_that(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    hub.commit_file("adapter_config.json")
    paused = Paused(monkeypatch)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(hub.commit_file, "README.md")
        assert paused.reached.wait(60)
        assert hub.commit_file("adapter_model.safetensors").status_code == 200  # now it is v1
        paused.go.set()
        assert slow.result().status_code == 200
    assert hub.files() == set(ADAPTER)
    assert (len(hub.behind.versions("team/news").items), hub.count_pending()) == (2, 0)


def test_a_commit_that_a_push_overtook_is_applied_to_that(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    hub.behind.push(train(tmp_path / "a", 1), "team/news")
    paused = Paused(monkeypatch)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(hub.commit, "notes.txt", b"notes")
        assert paused.reached.wait(60)
        hub.behind.push(train(tmp_path / "b", 2), "team/news")
        paused.go.set()
        assert slow.result().status_code == 200
    second, third = hub.behind.show("team/news:v2").files, hub.behind.show("team/news").files
    assert set(third) - set(second) == {file for file in third if file.path == "notes.txt"}


def test_the_parent_that_a_client_names_is_honoured_to_the_last_moment(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    hub.behind.push(hub.adapter, "team/news")
    parent = hub.head()
    paused = Paused(monkeypatch)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(hub.commit, "a.txt", b"a", parent=parent)
        assert paused.reached.wait(60)
        assert hub.commit("b.txt", b"b", parent=parent).status_code == 200
        paused.go.set()
        answer = slow.result()
    assert answer.status_code == 412
    assert f"main of team/news is at commit {hub.head()} by now, not {parent}" in answer.headers["X-Error-Message"]
    assert hub.files() - {file.path for file in hub.behind.show("team/news:v1").files} == {"b.txt"}
    assert hub.commit("a.txt", b"a", parent=hub.head()[:7]).status_code == 200


def test_the_parent_of_a_draft_is_honoured(hub: Hub):
    httpx.post(f"{hub.endpoint}/api/repos/create", json={"name": "news", "organization": "team"})
    empty = hub.head()
    first = hub.commit_file("adapter_config.json", parent=empty).json()["commitOid"]
    assert hub.commit_file("README.md", parent=empty).status_code == 412
    assert hub.files() == {"adapter_config.json"}
    assert hub.commit_file("README.md", parent=first).status_code == 200
    assert hub.commit("a.txt", b"a", parent="0" * 40).status_code == 412


@pytest.mark.parametrize("version", VERSIONS)
def test_whoever_is_overtaken_reads_why_and_what_to_do(hub: Hub, tmp_path: Path, version: str):
    hub.behind.push(hub.adapter, "team/news")
    run = Client(python_with(version), hub.endpoint, "", tmp_path / "home").run(
        "from huggingface_hub import HfApi\n"
        "api = HfApi()\n"
        "parent = api.model_info('team/news').sha\n"
        "def upload(name): return api.upload_file(\n"
        "    path_or_fileobj=name.encode(), path_in_repo=name, repo_id='team/news', parent_commit=parent)\n"
        "upload('a.txt')\n"
        "try: result = str(upload('b.txt'))\n"
        "except Exception as error: result = [type(error).__name__, str(error)]"
    )
    assert run[0] == "HfHubHTTPError"
    assert "412" in run[1]
    assert "somebody else committed, and nothing of this commit was" in run[1]
    assert "hf download team/news --revision main, then commit again" in run[1]


def test_a_commit_that_fails_at_its_end_leaves_draft_and_versions_as_they_were(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
):
    hub.commit_file("adapter_config.json")
    record, recorded = LocalBackend.record, threading.Event()

    def killed(self: LocalBackend, tx: Transaction, *arguments: Any) -> Any:
        committed = record(self, tx, *arguments)
        if recorded.is_set():
            raise KeyError("here the process would end")
        recorded.set()  # the rehearsal
        return committed

    with monkeypatch.context() as dying:
        dying.setattr(LocalBackend, "record", killed)
        assert hub.commit_file("adapter_model.safetensors").status_code == 500
    assert hub.files() == {"adapter_config.json"}
    assert httpx.get(f"{hub.endpoint}/api/v1/adapters/team/news/versions").status_code == 404
    assert hub.commit_file("adapter_model.safetensors").status_code == 200
    assert (hub.files(), hub.count_pending()) == ({"adapter_config.json", "adapter_model.safetensors"}, 0)


def stale_draft(hub: Hub, name: str, content: bytes) -> None:
    """A draft as a release that could die between two transactions left it, with one file."""
    digest = hashlib.sha256(content).hexdigest()
    with Catalog(hub.deployment.database_url).write(Access.superuser("ada")) as tx:
        tx.connection.execute(
            text(
                "INSERT INTO drafts (namespace, name, branch, files, author, updated_at) "
                "VALUES ('team', 'news', '', :files, 'ada', '2026-01-01 00:00:00')"
            ),
            {"files": json.dumps([[name, digest, len(content)]])},
        )


def test_a_draft_that_already_became_a_version_is_no_more_in_the_way(hub: Hub):
    hub.behind.push(hub.adapter, "team/news")
    stale_draft(hub, "adapter_config.json", (hub.adapter / "adapter_config.json").read_bytes())
    assert hub.commit("notes.txt", b"notes").status_code == 200
    assert hub.files() == {*ADAPTER, "notes.txt"}
    assert hub.count_pending() == 0


def test_a_draft_that_another_version_overtook_is_given_up_with_a_word(hub: Hub):
    hub.commit("LICENSE", b"mit")
    hub.behind.push(hub.adapter, "team/news")
    answer = hub.commit("notes.txt", b"notes")
    assert answer.status_code == 412
    assert "main of team/news became another version" in answer.headers["X-Error-Message"]
    assert (hub.files(), hub.count_pending()) == (set(ADAPTER), 0)
    assert hub.commit("notes.txt", b"notes").status_code == 200
    assert hub.files() == {*ADAPTER, "notes.txt"}
    assert [event.action for event in hub.behind.events(limit=2).items] == ["push", "undraft"]


def test_who_names_the_version_that_overtook_a_draft_goes_on_from_there(hub: Hub):
    hub.commit("LICENSE", b"mit")
    hub.behind.push(hub.adapter, "team/news")
    assert hub.commit("notes.txt", b"notes", parent=hub.head()).status_code == 200
    assert (hub.files(), hub.count_pending()) == ({*ADAPTER, "notes.txt"}, 0)


def test_a_branch_begins_where_its_maker_says_and_is_not_begun_twice(hub: Hub, tmp_path: Path):
    hub.behind.push(train(tmp_path / "a", 1), "team/news")
    hub.behind.push(train(tmp_path / "b", 2), "team/news")
    begin = f"{hub.endpoint}/api/models/team/news/branch/canary"
    assert httpx.post(begin, json={"startingPoint": "v1"}).status_code == 200
    assert hub.commit("notes.txt", b"notes", branch="canary").status_code == 200
    first, canary = (set(hub.behind.show(f"team/news:{ref}").files) for ref in ("v1", "canary"))
    assert {file.path for file in canary - first} == {"notes.txt"}
    assert httpx.post(begin, json={"startingPoint": "v2"}).status_code == 200
    assert (hub.count_pending(), set(hub.behind.show("team/news:canary").files)) == (0, canary)
    assert httpx.post(f"{hub.endpoint}/api/models/team/news/branch/main").status_code == 200
    assert hub.count_pending() == 0  # main is there: no draft stands in the way of what is pushed


@pytest.mark.parametrize("there", [False, True])
def test_a_commit_waits_for_a_draft_that_somebody_else_is_writing(
    postgres_and_s3: Deployment, tmp_path: Path, there: bool
):
    """The other is a connection to PostgreSQL with its statement made and not committed."""
    deployment = postgres_and_s3
    with (
        connect(
            database_url=deployment.database_url,
            storage_url=deployment.storage_url,
            storage_endpoint=deployment.storage_endpoint,
        ) as behind,
        live_server(deployment) as endpoint,
    ):
        hub = Hub(deployment, endpoint, behind, tmp_path)
        if there:
            hub.commit("LICENSE", b"mit")
            statement = "UPDATE drafts SET files = %s::json WHERE branch = ''"
        else:
            statement = (
                "INSERT INTO drafts (namespace, name, branch, files, author, updated_at) "
                "VALUES ('team', 'news', '', %s::json, 'ada', now())"
            )
        with ThreadPoolExecutor(1) as pool, psycopg.connect(deployment.database_url) as other:
            other.execute(statement, [json.dumps([["theirs.txt", hashlib.sha256(b"").hexdigest(), 0]])])
            slow: Future[httpx.Response] = pool.submit(hub.commit, "ours.txt", b"ours")
            eventually(lambda: slow.done() or somebody_waits(deployment.database_url))
            other.commit()
            assert slow.result().status_code == 200
        assert hub.files() == {"theirs.txt", "ours.txt"}
