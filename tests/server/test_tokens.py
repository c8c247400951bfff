"""Tokens: shown once, kept as a digest, good until they expire or are revoked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import text

from concurrency import all_at_once
from factories import write_base
from loreg.catalog import Catalog
from loreg.entities import Access
from loreg.errors import ConflictError, NotFoundError, UnauthenticatedError, UsageError
from loreg.registry import Registry, connect
from server.conftest import Guarded


def asks(guarded: Guarded, authorization: str) -> tuple[int, str]:
    with guarded.http("anonymous") as http:
        response = http.get("/api/v1/whoami", headers=[(b"Authorization", authorization.encode())])
        return response.status_code, response.headers.get("WWW-Authenticate", "")


REFUSED = (401, 'Bearer realm="loreg"')


def test_one_that_holds_says_who_asks(guarded_folder: Guarded):
    with guarded_folder.http("writer") as http:
        caller = http.get("/api/v1/whoami").json()
        assert (caller["author"], caller["grants"], caller["expires_at"]) == ("writer", {"team": "write"}, None)
    with guarded_folder.http("anonymous") as http:
        nobody = {"author": "anonymous", "grants": {}, "token_id": None, "expires_at": None}
        assert http.get("/api/v1/whoami").json() == nobody


@pytest.mark.parametrize(
    "authorization",
    ["Bearer", "Bearer x", "Bearer lrg_", "Bearer lrg_" + "x" * 43, "Basic dTpw", "lrg_" + "x" * 43, "Bearer \u00e9"],
)
def test_malformed_and_unknown_ones(guarded_folder: Guarded, authorization: str):
    assert asks(guarded_folder, authorization) == REFUSED


def test_one_that_expired(guarded_folder: Guarded):
    token, secret = guarded_folder.behind.tokens.create("old", ["read:*"], expires="1h")
    with guarded_folder.behind.context.backend.catalog.write(Access.superuser("ada")) as tx:
        past = datetime.now(UTC) - timedelta(seconds=1)
        tx.connection.execute(text("UPDATE tokens SET expires_at = :at WHERE id = :id"), {"at": past, "id": token.id})
    assert asks(guarded_folder, f"Bearer {secret}") == REFUSED
    _, secret = guarded_folder.behind.tokens.create("new", ["read:*"], expires="1h")
    assert asks(guarded_folder, f"Bearer {secret}")[0] == 200


def test_two_with_other_scopes_do_not_have_one_name(guarded_folder: Guarded):
    behind = guarded_folder.behind
    token, _ = behind.tokens.create("ci-bot", ["write:team"])
    for scopes in (["read:team"], ["write:other"], ["admin:*"]):
        with pytest.raises(ConflictError, match=f"'ci-bot' is the name of token {token.id}"):
            behind.tokens.create("ci-bot", scopes)
    refused = guarded_folder.http("root").post("/api/v1/tokens", json={"name": "ci-bot", "scopes": ["read:x"]})
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert behind.tokens.create("ci-bot", ["write:team"], expires="1h")[0].id > token.id


def test_what_was_made_under_a_name_is_not_given_to_who_gets_it_with_other_scopes(
    guarded_folder: Guarded, tmp_path: Path
):
    behind = guarded_folder.behind

    def bot(scope: str) -> tuple[int, Registry]:
        token, secret = behind.tokens.create("ci-bot", [scope])
        return token.id, connect(endpoint=guarded_folder.endpoint, token=secret)

    first, team = bot("write:team")
    added = team.bases.add(write_base(tmp_path / "base"), ["base"]).base
    behind.tokens.revoke(first)
    with pytest.raises(ConflictError, match="'ci-bot' is the name of token"):
        bot("write:other")
    _, again = bot("write:team")
    again.bases.add(tmp_path / "base", ["renamed"])  # who had it before goes on
    assert behind.bases.show(added.digest).base.names == ("base", "renamed")


@pytest.mark.parametrize("url", ["sqlite", "postgresql"])
def test_of_many_who_make_tokens_of_one_name_and_other_scopes_at_once_one_does(
    url: str, request: pytest.FixtureRequest, tmp_path: Path
):
    where = f"sqlite:///{tmp_path}/c.db" if url == "sqlite" else request.getfixturevalue("postgres_url")

    def make(scope: str) -> bool:
        with connect(database_url=where, storage_url=str(tmp_path / "store")) as local_registry:
            try:
                local_registry.tokens.create("ci-bot", [scope])
            except ConflictError:
                return False
            return True

    assert sum(all_at_once([partial(make, f"write:team-{number}") for number in range(6)])) == 1


def test_one_that_was_revoked(guarded_folder: Guarded):
    token, secret = guarded_folder.behind.tokens.create("x", ["read:*"])
    assert asks(guarded_folder, f"Bearer {secret}")[0] == 200
    root = guarded_folder.registry("root")
    assert root.tokens.revoke(token.id).revoked_at is not None
    assert asks(guarded_folder, f"Bearer {secret}") == REFUSED
    with connect(endpoint=guarded_folder.endpoint, token=secret) as registry, pytest.raises(UnauthenticatedError):
        registry.adapters()
    with pytest.raises(NotFoundError):
        root.tokens.revoke(99)


def test_the_secret_is_nowhere(guarded_folder: Guarded):
    root = guarded_folder.registry("root")
    token, secret = root.tokens.create("ci", ["write:team", "read:*"], expires="2w")
    assert secret.startswith("lrg_")
    assert token.grants == {"team": "write", "*": "read"}
    catalog = Catalog(guarded_folder.behind.settings.database_url)
    with catalog.read() as tx:
        for table in ("tokens", "events"):
            assert secret[4:] not in str(tx.connection.execute(text(f"SELECT * FROM {table}")).all())
    catalog.close()
    assert all(secret[4:] not in str(token) for token in root.tokens.list())


def test_its_last_use_is_written_down(guarded_folder: Guarded):
    guarded_folder.registry("reader").adapters()
    used = {token.name: token.last_used_at for token in guarded_folder.behind.tokens.list()}
    assert used["reader"] is not None
    assert used["stranger"] is None


def test_every_change_is_an_event_with_its_author(guarded_folder: Guarded):
    writer = guarded_folder.registry("writer")
    writer.tag("team/science:v1", "canary")
    writer.add_metrics("team/science:v1", ["accuracy=0.5"])
    writer.yank("team/science:v1", reason="leak")
    writer.untag("team/science", "canary")
    guarded_folder.registry("owner").namespaces.set_public("team", True)
    seen = [(event.author, event.action) for event in guarded_folder.behind.events().items][:5]
    assert seen == [
        ("owner", "namespace"),
        ("writer", "untag"),
        ("writer", "yank"),
        ("writer", "metric"),
        ("writer", "tag"),
    ]


@pytest.mark.parametrize("scope", ["team", "write", "write:", "all:team", "write:../x", "write:a b"])
def test_scopes_that_are_none(guarded_folder: Guarded, scope: str):
    with pytest.raises(UsageError, match="invalid scope"):
        guarded_folder.behind.tokens.create("x", [scope])
    response = guarded_folder.http("root").post("/api/v1/tokens", json={"name": "x", "scopes": [scope]})
    assert response.status_code == 400
