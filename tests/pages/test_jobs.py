"""A person follows jobs in a browser: they move by themselves, lead to what they made, and are cancelled by who may."""

from __future__ import annotations

import re

import httpx
import pytest
from playwright.sync_api import expect

from loreg.entities import JobState
from loreg.worker import Worker
from pages.conftest import Site, Someone, form_token, sign_in
from pages.test_merge import PATH as MERGE

REQUEST = {"sources": ["team/science:v1", "lab/history:v1"], "weights": [0.7, 0.3], "rank": 8, "name": "team/blend"}


def work(site: Site) -> int:
    return Worker(site.behind.settings, None, None, "cpu").work(until_idle=True)


def post(client: httpx.Client, path: str, job: int | str) -> httpx.Response:
    fields = {"form_token": form_token(client.get("/jobs").text), "job": job}
    return client.post(path, data=fields, headers={"Origin": str(client.base_url).rstrip("/")})


def test_a_merge_begun_on_its_page_is_followed_to_the_version_that_it_made(on_either: Site, someone: Someone):
    person = someone(on_either.endpoint)
    person.sign_in(on_either.tokens["root"])
    page = person.go(MERGE)
    page.get_by_label("Push it as").fill("team/blend")
    page.get_by_role("button", name="Let a worker merge it").click()
    page.wait_for_url("**/jobs/1")
    expect(page.get_by_role("status")).to_contain_text("waits for a worker")
    assert work(on_either) == 1
    page.get_by_role("link", name="team/blend:v1").click()  # nobody has loaded the page again
    expect(page.get_by_role("heading", level=1)).to_contain_text("blend v1")


def test_the_list_follows_too_and_asks_no_more_when_all_have_ended(own: Site, someone: Someone):
    person = someone(own.endpoint)
    person.sign_in(own.tokens["reader"])
    own.behind.jobs.submit("merge", **REQUEST)
    page = person.go("/jobs")
    expect(page.locator("#jobs")).to_contain_text("queued")
    expect(page.locator("#jobs[hx-trigger]")).to_have_count(1)
    own.behind.jobs.cancel(1)
    expect(page.locator("#jobs")).to_contain_text("cancelled")
    expect(page.locator("#jobs[hx-trigger]")).to_have_count(0)


def test_without_javascript_a_link_loads_the_page_again(own: Site, someone: Someone):
    person = someone(own.endpoint, java_script_enabled=False)
    person.sign_in(own.tokens["reader"])
    own.behind.jobs.submit("merge", **REQUEST)
    page = person.go("/jobs/1")
    assert work(own) == 1
    page.get_by_role("link", name="Refresh").click()
    expect(page.get_by_role("link", name="team/blend:v1")).to_have_count(1)


def test_a_failed_job_says_why_and_can_be_asked_for_again(own: Site, someone: Someone):
    own.behind.jobs.submit("merge", **{**REQUEST, "sources": ["team/nothing"], "weights": [1.0]})
    assert work(own) == 1
    person = someone(own.endpoint)
    person.sign_in(own.tokens["root"])
    page = person.go("/jobs/1")
    assert own.behind.jobs.show(1).error["message"] in page.get_by_role("status").inner_text()
    page.get_by_role("button", name="Again").click()
    page.wait_for_url("**/jobs/2")
    first, second = own.behind.jobs.show(1), own.behind.jobs.show(2)
    assert (second.kind, second.request, second.author) == (first.kind, first.request, "root")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("status")).to_contain_text("was cancelled")
    assert own.behind.jobs.show(2).state == JobState.CANCELLED


def test_who_may_not_write_there_changes_no_job(own: Site):
    own.behind.jobs.submit("merge", **REQUEST)
    with own.visit("reader") as client:
        html = client.get("/jobs").text + client.get("/jobs/1").text
        assert "team/science:v1" in html
        assert "/_/job-" not in html
        assert post(client, "/_/job-cancel", 1).status_code == 403
        assert post(client, "/_/job-again", 1).status_code == 403
    with own.visit("stranger") as client:
        assert "team" not in re.sub("<nav.*</nav>|placeholder=.*", "", client.get("/jobs").text, flags=re.DOTALL)
        assert client.get("/jobs/1").status_code == 404
        assert post(client, "/_/job-cancel", 1).status_code == 404
        assert post(client, "/_/job-again", 1).status_code == 404
    (job,) = own.behind.jobs.list()
    assert job.state == JobState.QUEUED


def test_a_form_from_elsewhere_is_not_taken(own: Site):
    own.behind.jobs.submit("merge", **REQUEST)
    with own.visit("root") as client:
        token = form_token(client.get("/jobs").text)
        for fields, origin in (({"form_token": token}, "https://evil.example"), ({}, own.endpoint)):
            answer = client.post("/_/job-cancel", data={"job": 1, **fields}, headers={"Origin": origin})
            assert answer.status_code == 403
    assert own.behind.jobs.show(1).state == JobState.QUEUED


def test_upkeep_is_an_administrators_alone(own: Site):
    own.behind.jobs.submit("gc")
    with own.visit("reader") as client:
        assert client.get("/jobs/1").status_code == 404
        assert "There are no jobs" in client.get("/jobs").text
    with own.visit("root") as client:
        assert "the whole registry" in client.get("/jobs/1").text


@pytest.mark.parametrize("number", ["0", "9" * 10, "9" * 5000, "-1", "1.5"])
def test_a_number_that_no_job_has_is_not_there(site: Site, number: str):
    with site.visit("root") as client:
        assert client.get(f"/jobs/{number}").status_code == 404
        assert post(client, "/_/job-cancel", number).status_code == 404


def test_a_job_about_what_may_not_be_read_is_not_repeated(own: Site):
    """Who may write where the result goes may cancel it, and learns no name of a source."""
    own.behind.namespaces.set_public("lab", False)
    _, secret = own.behind.tokens.create("writer", ["write:team"])
    own.behind.jobs.submit("merge", **REQUEST)
    own.behind.jobs.cancel(1)
    with httpx.Client(base_url=own.endpoint, headers={"Accept": "text/html"}) as client:
        sign_in(client, secret)
        page = client.get("/jobs/1").text
        assert "lab/history" not in page
        assert "/_/job-again" not in page
        assert post(client, "/_/job-again", 1).status_code == 403
    assert len(own.behind.jobs.list().items) == 1
