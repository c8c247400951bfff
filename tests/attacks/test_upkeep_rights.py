"""verify, repair and gc, asked for by those who may not: they learn nothing, and no worker calls where it is told."""

from __future__ import annotations

import httpx
import pytest

from listeners import http_listener
from loreg.errors import UsageError
from loreg.storage import BlobStore
from loreg.worker import Worker
from server.conftest import ROLES, Guarded

KINDS = ("verify", "repair", "gc")
#: Tokens for all namespaces, and for one whose name might be taken for all.
WIDE = {"reads all": ["read:*"], "writes all": ["write:*"], "many": ["admin:team", "admin:other"]}


@pytest.fixture
def wide(either: Guarded) -> Guarded:
    tokens = {name: either.behind.tokens.create(name, scopes)[1] for name, scopes in WIDE.items()}
    return Guarded(either.endpoint, {**either.tokens, **tokens}, either.behind)


def others() -> list[str]:
    return [role for role in (*ROLES, *WIDE) if role != "root"]


def test_nobody_but_an_administrator_of_everything_asks_sees_or_cancels(wide: Guarded):
    for kind in KINDS:
        for role in others():
            refused = wide.http(role).post("/api/v1/jobs", json={"kind": kind, "request": {}})
            assert (refused.status_code, kind, role) == (401 if role == "anonymous" else 403, kind, role)
    assert wide.behind.jobs.list().items == ()
    wide.behind.namespaces.set_public("team", True)
    accepted = [wide.http("root").post("/api/v1/jobs", json={"kind": kind, "request": {}}) for kind in KINDS]
    assert [answer.status_code for answer in accepted] == [202] * 3
    for role in others():
        http = wide.http(role)
        assert http.get("/api/v1/jobs").json() == {"items": [], "cursor": None}
        for answer in accepted:
            url = f"/api/v1/jobs/{answer.json()['id']}"
            assert (http.get(url).status_code, http.delete(url).status_code, role) == (404, 404, role)
        assert not [event for event in _events(http) if event["action"].startswith("job")]
    root = wide.http("root")
    assert [job["kind"] for job in root.get("/api/v1/jobs").json()["items"]] == [*reversed(KINDS)]
    assert [job.state for job in wide.behind.jobs.list().items] == ["queued"] * 3
    assert root.delete(f"/api/v1/jobs/{accepted[0].json()['id']}").json()["state"] == "cancelled"


def _events(http: httpx.Client) -> list[dict[str, str]]:
    answer = http.get("/api/v1/events")
    return answer.json()["items"] if answer.is_success else []


def test_a_job_of_a_token_that_lost_its_rights_is_not_done(either: Guarded):
    job = either.registry("root").jobs.submit("gc", grace="0h")
    either.behind.tokens.create("next", ["admin:*"])
    root = next(token.id for token in either.behind.tokens.list() if token.name == "root")
    either.behind.tokens.revoke(root)
    ended = either.behind.jobs.show(job.id)
    assert (ended.state, ended.error["code"]) == ("failed", "unauthenticated")


@pytest.mark.parametrize("kind", ["http", "beside it", "above it"])
def test_no_worker_calls_an_address_that_only_the_request_names(either: Guarded, kind: str):
    store = either.behind.context.store
    assert isinstance(store, BlobStore)
    files = either.behind.show("team/science").files
    store.delete(files[0].sha256)
    with http_listener() as stranger:
        base = f"127.0.0.1:{stranger.port}"
        source, allowed = {
            "http": (f"http://{base}", ["http://backup.example"]),
            "beside it": (f"http://{base}/other", [f"http://{base}/backup"]),
            "above it": (f"http://{base}/backup/..", [f"http://{base}/backup"]),
        }[kind]
        job = either.registry("root").jobs.submit("repair", sources=[allowed[0], source])
        assert Worker(either.behind.settings, None, None, "cpu", allowed).work(until_idle=True) == 1
        error = either.behind.jobs.show(job.id).error
        assert (error["code"], "does not repair from" in error["message"]) == ("not-allowed", True)
        assert bytes(stranger.heard) == b""
    assert store.size(files[0].sha256) is None


def test_a_name_before_the_address_is_refused_when_the_job_is_asked(either: Guarded):
    """``http://backup.example@other`` is an address of ``other``, and what stands there may be a password."""
    with http_listener() as stranger:
        source = f"http://backup.example@127.0.0.1:{stranger.port}"
        with pytest.raises(UsageError, match="has a key or a password in it"):
            either.registry("root").jobs.submit("repair", sources=[source])
        assert bytes(stranger.heard) == b""
    assert either.behind.jobs.list().items == ()
