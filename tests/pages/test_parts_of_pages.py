"""Parts of a page that come after it leave the rest as it is, and say what is wrong where they would have stood."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from deployments import empty_folders
from live_server import live_server
from pages.conftest import Person, Site, Someone

_SAYS_STATUS = "the server responded with a status of 401"  # Chromium's own line, which no page can prevent
_NO_ANSWER = ("net::ERR_", "htmx:sendError", "htmx:afterRequest")


def end_session(own: Site, role: str) -> None:
    """Revoke the token of a role, as an administrator does while somebody looks at a page."""
    (token,) = [token for token in own.behind.tokens.list() if token.name == role]
    own.behind.tokens.revoke(token.id)


def sit_down(own: Site, someone: Someone, path: str, *expected: str) -> Person:
    person = someone(own.endpoint, expected=expected)
    person.sign_in(own.tokens["reader"])
    person.go(path)
    return person


@pytest.mark.parametrize(
    ("path", "title"),
    [
        ("/", "Browse"),
        ("/team/both/v1", "team/both:v1"),
        ("/checks", "Checks"),
        ("/compare?source=team/news&source=team/science", "Compare"),
        ("/merge?source=team/science&source=lab/history", "Merge"),
    ],
)
def test_a_page_keeps_its_title_when_a_part_of_it_has_come(site: Site, someone: Someone, path: str, title: str):
    person = someone(site.endpoint)
    person.sign_in(site.tokens["reader"])
    assert person.go(path).title() == f"{title} · loreg"


def test_from_the_list_a_link_leads_to_its_json(site: Site, someone: Someone):
    page = someone(site.endpoint).go("/")
    with page.expect_navigation():
        page.get_by_role("link", name="JSON").first.click()
    assert page.evaluate("JSON.parse(document.body.innerText).items[0].adapter.name") == "history"


def test_the_page_that_is_shown_is_the_one_that_is_marked_in_the_menu(tmp_path: Path, someone: Someone):
    with live_server(empty_folders(tmp_path)) as endpoint:
        page = someone(endpoint).go("/")
        page.get_by_role("main").get_by_role("link", name="How to push").click()
        expect(page.get_by_role("navigation").locator("[aria-current=page]")).to_have_text("Start here")


def test_a_session_that_has_ended_is_said_where_a_link_would_lead(own: Site, someone: Someone):
    page = sit_down(own, someone, "/", _SAYS_STATUS).page
    end_session(own, "reader")
    page.get_by_role("link", name="rank", exact=True).click()
    expect(page.get_by_role("heading", name="Sign in again")).to_have_count(1)
    expect(page.get_by_role("link", name="team/news")).to_have_count(0)
    page.get_by_role("main").get_by_role("link", name="Sign in").click()
    expect(page.locator("input[name=next]")).to_have_value("/?sort=rank")


def test_a_session_that_has_ended_leaves_no_old_figures_beside_a_slider(own: Site, someone: Someone):
    path = "/merge?source=team/science:v1&source=lab/history:v1&compute=1"
    page = sit_down(own, someone, path, _SAYS_STATUS).page
    end_session(own, "reader")
    page.get_by_role("slider", name="Weight 1").press("ArrowRight")
    expect(page.locator("#numbers .error")).to_contain_text("expired or revoked")
    expect(page.locator("#epsilon")).to_have_count(0)
    page.locator("#numbers").get_by_role("link", name="Sign in").click()
    expect(page.locator("input[name=next]")).to_have_value(path)


def test_a_list_that_follows_by_itself_ends_with_the_session(own: Site, someone: Someone):
    own.behind.jobs.submit("merge", sources=["team/science:v1"], weights=[1.0], name="team/blend")
    page = sit_down(own, someone, "/jobs/1", _SAYS_STATUS).page
    end_session(own, "reader")
    expect(page.locator(".error")).to_contain_text("expired or revoked")
    expect(page.locator("[hx-trigger^=every]")).to_have_count(0)


def test_figures_are_faint_while_no_number_is_typed(site: Site, someone: Someone):
    person = someone(site.endpoint)
    person.sign_in(site.tokens["reader"])
    page = person.go("/merge?source=team/science:v1&source=lab/history:v1&compute=1")
    page.get_by_label("Weight of team/science:v1").fill("")
    expect(page.locator("#numbers.stale #epsilon")).to_have_count(1)
    page.get_by_label("Weight of team/science:v1").fill("0.5")
    expect(page.locator("#numbers:not(.stale) #epsilon")).to_have_count(1)


def test_a_server_that_is_gone_is_said_beside_the_slider(site: Site, someone: Someone):
    person = someone(site.endpoint, expected=_NO_ANSWER)
    person.sign_in(site.tokens["reader"])
    page = person.go("/merge?source=team/science:v1&source=lab/history:v1&compute=1")
    page.route("**/merge?*", lambda route: route.abort())
    page.get_by_role("slider", name="Weight 1").press("ArrowRight")
    expect(page.locator("#numbers")).to_have_text("The server does not answer.")
    page.unroute("**/merge?*")
    page.get_by_role("slider", name="Weight 1").press("ArrowRight")
    expect(page.locator("#epsilon")).to_have_count(1)
