"""An administrator makes and revokes tokens, opens namespaces and sees what is stored; nobody else sees any of it."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from pages.conftest import Site, Someone, form_token, sign_in

FORMS = {
    "/_/token-create": {"name": "mine", "scopes": "admin:*"},
    "/_/token-revoke": {"token": "1"},
    "/_/namespace-set": {"namespace": "team", "visibility": "public"},
}


def post(client: httpx.Client, path: str, fields: dict[str, str]) -> httpx.Response:
    token = form_token(client.get("/").text)
    origin = {"Origin": str(client.base_url).rstrip("/")}
    return client.post(path, data={"form_token": token, **fields}, headers=origin)


def test_the_secret_of_a_new_token_is_shown_once(own: Site, someone: Someone, caplog: pytest.LogCaptureFixture):
    person = someone(own.endpoint)
    person.sign_in(own.tokens["root"])
    page = person.go("/admin")
    page.get_by_label("Name", exact=True).fill("ci-bot")
    page.get_by_label("It may").fill("write:team read:lab")
    page.get_by_label("For how long").fill("30d")
    with caplog.at_level(logging.DEBUG):
        page.get_by_role("button", name="Make it").click()
        page.locator("#secret").wait_for()
    secret = page.locator("#secret").inner_text()
    token = own.behind.tokens.list()[0]
    assert (token.name, dict(token.grants)) == ("ci-bot", {"team": "write", "lab": "read"})
    assert token.expires_at is not None
    with httpx.Client(base_url=own.endpoint) as client:
        assert sign_in(client, secret).status_code == 303
    assert secret not in page.url
    assert secret not in caplog.text
    assert secret not in page.evaluate("JSON.stringify([history.state, {...localStorage}, {...sessionStorage}])")
    assert secret not in json.dumps([dict(event.detail) for event in own.behind.events()])
    assert secret not in person.go("/admin").content()


def test_a_token_is_revoked(own: Site, someone: Someone):
    person = someone(own.endpoint)
    person.sign_in(own.tokens["root"])
    person.go("/admin").get_by_role("button", name="Revoke reader").click()
    expect(person.page.get_by_text("1 that does not hold")).to_be_visible()
    assert [token.name for token in own.behind.tokens.list() if token.revoked_at] == ["reader"]
    with httpx.Client(base_url=own.endpoint) as client:
        assert sign_in(client, own.tokens["reader"]).status_code == 401


def test_the_last_administrator_stays(own: Site):
    (root,) = [token for token in own.behind.tokens.list() if token.name == "root"]
    with own.visit("root") as client:
        answer = post(client, "/_/token-revoke", {"token": str(root.id)})
        assert answer.status_code == 403
        assert "last administrator" in answer.text
        assert client.get("/admin").status_code == 200


def test_a_namespace_is_opened_and_closed(own: Site, someone: Someone):
    person = someone(own.endpoint)
    person.sign_in(own.tokens["root"])
    page = person.go("/admin")
    page.get_by_role("button", name="Make public team").click()
    page.get_by_role("button", name="Make private team").wait_for()
    with own.visit() as client:
        assert client.get("/team/news").status_code == 200
    page.get_by_role("button", name="Make private team").click()
    page.get_by_role("button", name="Make public team").wait_for()
    page.get_by_role("button", name="Make private lab").click()
    page.get_by_role("button", name="Make public lab").wait_for()
    with own.visit() as client:
        assert client.get("/team/news").status_code == client.get("/lab/history").status_code == 404
    page.get_by_label("Namespace", exact=True).fill("open")
    page.get_by_role("button", name="Let everybody read it").click()
    page.get_by_role("button", name="Make private open").wait_for()
    assert {row.name: row.public for row in own.behind.namespaces.list()} == {
        "": False, "lab": False, "open": True, "team": False,
    }  # fmt: skip


def test_storage_is_what_du_says_with_the_last_verification_and_backup(
    on_either: Site, someone: Someone, tmp_path: Path
):
    registry = on_either.behind
    person = someone(on_either.endpoint)
    person.sign_in(on_either.tokens["root"])
    upkeep = person.go("/admin").get_by_role("region", name="Upkeep")
    expect(upkeep.get_by_role("row").filter(has_text="verify").get_by_text("never")).to_have_count(1)
    registry.verify(["team/news"])  # a part is not the whole
    registry.backup(tmp_path / "backup")
    upkeep = person.go("/admin").get_by_role("region", name="Upkeep")
    expect(upkeep.get_by_role("row").filter(has_text="verify").get_by_text("never")).to_have_count(1)
    assert f"to {tmp_path}" in upkeep.get_by_role("row").filter(has_text="backup").inner_text()
    report = registry.verify()
    upkeep = person.go("/admin").get_by_role("region", name="Upkeep")
    row = upkeep.get_by_role("row").filter(has_text="verify").inner_text()
    assert f"0 of {report.references} broken, {report.orphan_count} orphans" in row
    assert "within a day" in row
    shown = person.page.get_by_role("region", name="Bytes by namespace").get_by_role("row").all_inner_texts()[1:]
    names = [re.split(r"\s", text)[0] for text in shown]
    assert names == [usage.name for usage in registry.usage().items]


def test_without_javascript_a_link_counts_what_is_stored(own: Site, someone: Someone):
    person = someone(own.endpoint, java_script_enabled=False)
    person.sign_in(own.tokens["root"])
    page = person.go("/admin")
    page.get_by_role("link", name="Count what is stored").click()
    expect(page.get_by_role("region", name="Bytes by namespace")).to_have_count(1)


@pytest.mark.parametrize("path", FORMS)
def test_nobody_else_changes_anything(own: Site, path: str):
    before = [event.id for event in own.behind.events()]
    for role in ("reader", "stranger"):
        with own.visit(role) as client:
            assert post(client, path, FORMS[path]).status_code == 403
            assert '"/admin"' not in client.get("/").text
    with own.visit("root") as client:
        token = form_token(client.get("/admin").text)
        for fields, origin in (({"form_token": token}, "https://evil.example"), ({}, own.endpoint)):
            answer = client.post(path, data={**FORMS[path], **fields}, headers={"Origin": origin})
            assert answer.status_code == 403
    assert [event.id for event in own.behind.events()] == before


@pytest.mark.parametrize(
    ("path", "fields", "status"),
    [
        ("/_/token-create", {"name": "x", "scopes": ""}, 400),
        ("/_/token-create", {"name": "x", "scopes": "write:team", "expires": "soon"}, 400),
        ("/_/token-create", {"name": "", "scopes": "write:team"}, 400),
        ("/_/token-create", {"name": "reader", "scopes": "write:team"}, 409),
        ("/_/token-revoke", {"token": "9" * 5000}, 404),
        ("/_/token-revoke", {"token": "77"}, 404),
        ("/_/namespace-set", {"namespace": "a b", "visibility": "public"}, 400),
        ("/_/namespace-set", {"namespace": "team", "visibility": "secret"}, 400),
    ],
)
def test_what_is_not_understood_is_said_and_changes_nothing(site: Site, path: str, fields: dict[str, str], status: int):
    before = site.behind.tokens.list()
    with site.visit("root") as client:
        assert post(client, path, fields).status_code == status
    assert [(token.id, token.revoked_at) for token in site.behind.tokens.list()] == [
        (token.id, token.revoked_at) for token in before
    ]
