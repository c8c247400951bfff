"""A person moves sliders and sees what the merge would keep: the figures, the command and the job are of one merge."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest
from playwright.sync_api import expect

from deployments import command_line, empty_folders
from loreg.entities import MergePreview
from pages.conftest import Site, Someone, form_token, open_site

SOURCES = ["team/science:v1", "lab/history:v1"]
QUESTION = urlencode(
    [("source", SOURCES[0]), ("source", SOURCES[1]), ("weight", "0.7"), ("weight", "0.3"), ("rank", "8")]
)
PATH = f"/merge?{QUESTION}"


def shown(page) -> tuple[str, list[str]]:
    """ε, and what is kept of each source, as the page says."""
    kept = [cell.inner_text() for cell in page.locator("td.kept").all()]
    return page.locator("#epsilon").inner_text(), kept


def as_shown(preview: MergePreview) -> tuple[str, list[str]]:
    from loreg.entities.display.text import format_error, format_share

    return format_error(preview.total.epsilon), [format_share(kept) for kept in preview.total.retention]


def test_the_numbers_follow_the_slider(site: Site, someone: Someone):
    person = someone(site.endpoint)
    person.sign_in(site.tokens["reader"])
    page = person.go(PATH)
    assert shown(page) == as_shown(site.behind.preview_merge(SOURCES, [0.7, 0.3], rank=8))
    slider = page.get_by_role("slider", name="Weight 1")
    slider.focus()
    with page.expect_response(lambda answer: "weight=0.71" in answer.url):
        page.keyboard.press("ArrowRight")
    page.get_by_text("--weights 0.71,0.3").first.wait_for()
    assert page.get_by_label("Weight of team/science:v1").input_value() == "0.71"
    assert shown(page) == as_shown(site.behind.preview_merge(SOURCES, [0.71, 0.3], rank=8))
    page.get_by_label("Rank of the result").fill("3")
    page.get_by_text("--rank 3").first.wait_for()
    assert shown(page) == as_shown(site.behind.preview_merge(SOURCES, [0.71, 0.3], rank=3))
    page.wait_for_url("**weight=0.71*rank=3*")


@pytest.mark.parametrize("has_scripts", [True, False])
def test_the_enter_key_asks_and_removes_nothing(site: Site, someone: Someone, has_scripts: bool):
    person = someone(site.endpoint, java_script_enabled=has_scripts)
    person.sign_in(site.tokens["reader"])
    page = person.go(PATH + "&compute=1")
    for label, value in (("Weight of team/science:v1", "0.9"), ("Rank of the result", "4"), ("Add an adapter", "qa")):
        page.get_by_label(label).fill(value)
        with page.expect_navigation():
            page.get_by_label(label).press("Enter")
        expect(page.get_by_label("Weight of team/science:v1")).to_have_value("0.9")
        expect(page.get_by_label("Weight of lab/history:v1")).to_have_value("0.3")


def test_the_form_does_the_same_without_javascript(site: Site, someone: Someone):
    person = someone(site.endpoint, java_script_enabled=False)
    person.sign_in(site.tokens["reader"])
    page = person.go("/team/science/v1")
    page.get_by_role("link", name="Merge with…").click()
    page.get_by_label("Add an adapter").fill("lab/history:v1")
    page.get_by_role("button", name="Show").click()
    page.get_by_label("Weight of lab/history:v1").fill("0.4")
    page.get_by_role("button", name="Show").click()
    if page.get_by_role("link", name="Read the adapters").count():
        page.get_by_role("link", name="Read the adapters").click()
    assert shown(page) == as_shown(site.behind.preview_merge(SOURCES, [1, 0.4]))
    page.get_by_role("button", name="Remove lab/history:v1").click()
    expect(page.get_by_label("Weight of lab/history:v1")).to_have_count(0)


def test_the_command_that_is_shown_gives_the_certificate_that_is_shown(site: Site):
    settings = site.behind.settings
    environment = {
        "LOREG_DATABASE_URL": settings.database_url, "LOREG_STORAGE_URL": settings.storage_url, "LOREG_AUTHOR": "ada",
    }  # fmt: skip
    with site.visit("reader") as client:
        html = client.get(PATH, params=[*httpx.QueryParams(QUESTION).multi_items(), ("compute", "1")]).text
    (text,) = re.findall(r'class="command" data-copy><code>(loreg merge .*?)</code>', html)
    outcome = command_line(environment)(*shlex.split(text)[1:], "--format", "json")
    assert outcome.exit_code == 0, outcome.stderr
    epsilon = re.search(r'id="epsilon">(.*?)<', html)
    total = site.behind.preview_merge(SOURCES, [0.7, 0.3], rank=8).total
    assert epsilon is not None
    assert f'"epsilon": {total.epsilon:.10f}'[:20] in outcome.stdout
    assert as_shown(site.behind.preview_merge(SOURCES, [0.7, 0.3], rank=8))[0] == epsilon[1]


def test_the_recipe_is_a_file_that_merge_takes(site: Site, tmp_path: Path):
    from loreg.workspace.recipe_file import read_recipe_file

    with site.visit("reader") as client:
        answer = client.get("/_/merge.toml?" + QUESTION)
    assert "attachment" in answer.headers["Content-Disposition"]
    assert tomllib.loads(answer.text) == {"sources": SOURCES, "weights": [0.7, 0.3], "rank": 8}
    (tmp_path / "merge.toml").write_text(answer.text)
    assert read_recipe_file(tmp_path / "merge.toml")["weights"] == [0.7, 0.3]


class TestJob:
    @pytest.fixture
    def own(self, tmp_path: Path):
        with open_site(empty_folders(tmp_path)) as site:
            yield site

    def test_a_writer_has_it_merged_by_a_worker(self, own: Site, someone: Someone):
        person = someone(own.endpoint)
        person.sign_in(own.tokens["root"])
        page = person.go(PATH)
        page.get_by_label("Push it as").fill("team/blend")
        page.get_by_role("button", name="Let a worker merge it").click()
        page.wait_for_url("**/jobs/*")
        (job,) = own.behind.jobs.list()
        assert (
            job.request["sources"] == [own.behind.show(ref).version.pinned for ref in SOURCES] or job.request["sources"]
        )
        assert (job.request["weights"], job.request["rank"], job.request["name"]) == ([0.7, 0.3], 8, "team/blend")
        assert "job submit" in {event.action for event in own.behind.events()}
        assert f"Job {job.id}" in page.get_by_role("heading", level=1).inner_text()

    def test_a_reader_cannot(self, own: Site):
        with own.visit("reader") as client:
            html = client.get(PATH + "&compute=1").text
            answer = post(client, own, form_token(html))
        assert answer.status_code == 403
        assert not own.behind.jobs.list()

    @pytest.mark.parametrize(("token", "origin"), [("", None), ("0" * 40, None), (None, "https://evil.example")])
    def test_a_form_from_elsewhere_is_not_taken(self, own: Site, token: str | None, origin: str | None):
        with own.visit("root") as client:
            html = client.get(PATH + "&compute=1").text
            answer = post(client, own, form_token(html) if token is None else token, origin)
        assert answer.status_code == 403
        assert not own.behind.jobs.list()


def post(client: httpx.Client, site: Site, token: str, origin: str | None = None) -> httpx.Response:
    fields = {"form_token": token, "question": QUESTION, "name": "team/blend"}
    return client.post("/_/merge-job", data=fields, headers={"Origin": origin or site.endpoint})


def test_what_may_not_be_read_is_not_previewed(site: Site):
    with site.visit("stranger") as client:
        assert client.get(PATH).status_code == 404
        assert client.get(PATH + "&compute=1").status_code == 404


@pytest.mark.parametrize(
    "query", ["weight=nan&source=a/b", "rank=0", "rank=x", "&".join(["source=a/b"] * 9), "rank=" + "9" * 5000]
)
def test_a_question_that_cannot_be_is_said_to_be_so(site: Site, query: str):
    with site.visit("root") as client:
        assert client.get("/merge?" + query).status_code == 400


def test_what_cannot_be_merged_is_said_with_the_way_out(site: Site):
    with site.visit("root") as client:
        html = client.get("/merge?source=team/science:v1&source=team/news:v1&compute=1").text
    assert "different bases" in html
    assert 'id="epsilon"' not in html
