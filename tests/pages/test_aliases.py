"""Who may write there moves an alias on the adapter's page, and finds the move in the audit."""

from __future__ import annotations

import httpx
import pytest

from loreg.errors import NotFoundError
from pages.conftest import Site, Someone, form_token


def move(client: httpx.Client, token: str, **fields: str) -> httpx.Response:
    seen = {"adapter": "team/news", "alias": "prod", "version": "2", "seen": "prod=1 staging=2", "reason": ""}
    sent = {"form_token": token, **seen, **fields}
    return client.post("/_/alias-move", data=sent, headers={"Origin": str(client.base_url).rstrip("/")})


def number_of(site: Site, alias: str) -> int:
    return site.behind.show(f"team/news:{alias}").version.number


def test_a_person_moves_an_alias_and_sees_it_in_the_audit(on_either: Site, someone: Someone):
    person = someone(on_either.endpoint)
    person.sign_in(on_either.tokens["root"])
    page = person.go("/team/news")
    form = page.get_by_role("form", name="Move an alias")
    form.get_by_label("Let").fill("prod")
    form.get_by_label("mean").select_option("v2")
    form.get_by_label("because").fill("accuracy 0.95")
    form.get_by_role("button", name="Move").click()
    page.get_by_role("link", name="prod → v2").wait_for()
    assert number_of(on_either, "prod") == 2
    page = person.go("/audit?action=tag")
    assert "accuracy 0.95" in page.get_by_role("row").nth(1).inner_text()


def test_a_new_alias_is_made_without_javascript(own: Site, someone: Someone):
    person = someone(own.endpoint, java_script_enabled=False)
    person.page.goto(own.endpoint + "/sign-in")
    person.page.get_by_label("Token").fill(own.tokens["root"])
    person.page.get_by_role("main").get_by_role("button", name="Sign in").click()
    page = person.go("/team/news")
    form = page.get_by_role("form", name="Move an alias")
    form.get_by_label("Let").fill("eu-prod")
    form.get_by_role("button", name="Move").click()
    page.get_by_role("link", name="eu-prod → v2").wait_for()


def test_an_alias_that_moved_since_the_page_was_drawn_is_not_moved(own: Site):
    with own.visit("root") as client:
        token = form_token(client.get("/team/news").text)
        own.behind.tag("team/news:v2", "prod")
        answer = move(client, token, version="1")
        assert answer.status_code == 412
        assert "means v2 by now, not v1: nothing was moved" in answer.text
        answer = move(client, token, alias="staging", seen="prod=1")
        assert "means v2 by now, not nothing" in answer.text
    assert number_of(own, "prod") == 2


def test_who_may_not_write_there_moves_nothing(own: Site):
    for role, status in (("reader", 403), ("stranger", 404)):
        with own.visit(role) as client:
            assert "alias-move" not in client.get("/team/news").text
            token = form_token(client.get("/").text)
            assert move(client, token).status_code == status
    with own.visit() as client:
        assert move(client, "").status_code == 403
    assert number_of(own, "prod") == 1


def test_a_form_of_another_site_moves_nothing(own: Site):
    with own.visit("root") as client:
        token = form_token(client.get("/team/news").text)
        assert move(client, "0" * 40).status_code == 403
        fields = {"form_token": token, "adapter": "team/news", "alias": "prod", "version": "2", "seen": "prod=1"}
        answer = client.post("/_/alias-move", data=fields, headers={"Origin": "https://evil.example"})
        assert answer.status_code == 403
    assert number_of(own, "prod") == 1


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"version": "two"}, 400),
        ({"version": "9"}, 404),
        ({"version": ""}, 400),
        ({"adapter": "../etc"}, 400),
        ({"alias": "v7"}, 400),
        ({"alias": "<b>"}, 400),
        ({"seen": "prod=x =1 prod"}, 412),
    ],
)
def test_what_cannot_be_is_said_to_be_so(own: Site, fields: dict[str, str], status: int):
    with own.visit("root") as client:
        answer = move(client, form_token(client.get("/team/news").text), **fields)
        assert answer.status_code == status
        assert "<h1" in answer.text
    assert number_of(own, "prod") == 1
    with pytest.raises(NotFoundError):
        own.behind.show("team/news:v7")


def test_an_alias_that_moved_long_ago_is_shown_and_can_be_moved(own: Site):
    """Details have the newest 1,000 moves of all aliases together."""
    for i in range(1001):
        own.behind.tag(f"team/news:v{1 + i % 2}", "nightly")
    with own.visit("root") as client:
        html = client.get("/team/news").text
        assert "prod → v1" in html
        assert "All moves" in html
        assert move(client, form_token(html), seen=seen_on(html)).status_code == 303
    assert number_of(own, "prod") == 2


def test_of_many_aliases_the_last_that_moved_are_shown_first_and_each_can_be_moved(own: Site):
    names = [f"{i:03}-{'a' * 80}" for i in range(100)]
    for name in names:
        own.behind.tag("team/news:v1", name)
    with own.visit("root") as client:
        html = client.get("/team/news").text
        shown, _, more = html.partition("72 more aliases")
        assert f"{names[-1]} → v1" in shown
        assert f"{names[0]} → v1" in more
        token, seen = form_token(html), seen_on(html)
        for alias, number in ((names[-1], 1), (names[0], 1), ("prod", 1)):
            assert move(client, token, alias=alias, seen=seen).status_code == 303, alias
            assert number_of(own, alias) == 1 + number
        own.behind.tag("team/news:v1", names[-1])
        own.behind.tag("team/news:v2", names[-2])
        assert move(client, token, alias=names[-2], version="1", seen=seen).status_code == 412


def seen_on(html: str) -> str:
    return html.partition('name="seen" value="')[2].partition('"')[0]
