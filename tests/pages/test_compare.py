"""A person marks versions and sees how alike they are: the figures are those that ``loreg compare`` prints."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from playwright.sync_api import expect

from deployments import HISTORY, NEWS, SCIENCE, Deployment, command_line, empty_folders
from factories import copy
from live_server import live_server
from loreg.entities import Metric
from loreg.local import reduced_versions
from loreg.registry import Registry, connect
from pages.conftest import Site, Someone

SOURCES = ["team/science:v1", "lab/history:v1", "team/both:v1"]


def path_of(sources: list[str], **options: str) -> str:
    return "/compare?" + urlencode([*(("source", source) for source in sources), *options.items()])


def shown_pairs(page) -> list[list[str]]:
    rows = page.locator(".pair-row").all()
    return [[cell.inner_text() for cell in row.locator("th, td").all()][:7] for row in rows]


def test_the_figures_are_those_that_the_command_beside_prints(site: Site, someone: Someone):
    person = someone(site.endpoint)
    person.sign_in(site.tokens["reader"])
    page = person.go(path_of(SOURCES))
    command = page.locator(".command code").inner_text()
    settings = site.behind.settings
    environment = {
        "LOREG_DATABASE_URL": settings.database_url, "LOREG_STORAGE_URL": settings.storage_url,
    }  # fmt: skip
    _, *words = shlex.split(command)
    _, _, *printed = command_line(environment)(*words).stdout.partition("\n\n")[0].splitlines()
    assert [re.split(r"\s{2,}", line.strip()) for line in printed] == shown_pairs(page)
    cells = [title.text_content() for title in page.locator(".likeness").first.locator("title").all()]
    expected = site.behind.compare(SOURCES, device="cpu").matrix("cosine")
    assert [float(cell.rpartition(": ")[2]) for cell in cells] == [
        pytest.approx(expected[i][j], abs=0.0006) for i in range(3) for j in range(3) if i != j
    ]


@pytest.mark.parametrize("has_scripts", [True, False])
def test_what_is_marked_in_a_list_is_compared(site: Site, someone: Someone, has_scripts: bool):
    person = someone(site.endpoint, java_script_enabled=has_scripts)
    person.sign_in(site.tokens["reader"])
    page = person.go("/team/news")
    page.get_by_label("Compare v1").check()
    page.get_by_label("Compare v2").check()
    page.get_by_role("button", name="Compare what is marked").click()
    if page.get_by_role("link", name="Read the adapters").count() and not has_scripts:
        page.get_by_role("link", name="Read the adapters").click()
    page.get_by_role("heading", name="How alike they are").wait_for()
    assert [pair[:2] for pair in shown_pairs(page)] == [["team/news:v2", "team/news:v1"]]
    expect(page.get_by_role("cell", name="0.95 best")).to_have_count(1)
    assert page.get_by_role("link", name="What changed").get_attribute("href") == "/team/news/diff/v1..v2"
    assert page.get_by_role("link", name="Merge these").get_attribute("href").startswith("/merge?source=team/news:v")
    page = person.go("/")
    expect(page.get_by_label(re.compile("^Compare team/"))).to_have_count(3)


@pytest.mark.parametrize("has_scripts", [True, False])
def test_one_more_is_found_by_a_word(site: Site, someone: Someone, has_scripts: bool):
    person = someone(site.endpoint, java_script_enabled=has_scripts)
    person.sign_in(site.tokens["reader"])
    page = person.go("/team/science/v1")
    page.get_by_role("link", name="Compare with…").click()
    page.get_by_label("Add an adapter").press_sequentially("history")
    if not has_scripts:
        page.get_by_role("button", name="Show").click()
    page.get_by_role("button", name="+ lab/history:v1").click()
    page.get_by_role("link", name="lab/history:v1").wait_for()
    expect(page.locator(".sources li")).to_have_count(2)
    page.get_by_role("button", name="Remove team/science:v1").click()
    page.get_by_text("Add two versions or more").wait_for()


def test_the_enter_key_adds_one_and_removes_nothing(site: Site, someone: Someone):
    person = someone(site.endpoint)
    person.sign_in(site.tokens["reader"])
    page = person.go(path_of(SOURCES[:2]))
    page.get_by_label("Add an adapter").fill(SOURCES[2])
    with page.expect_navigation():
        page.get_by_label("Add an adapter").press("Enter")
    expect(page.locator(".sources li")).to_have_count(3)


class TestDuplicates:
    @pytest.fixture
    def duplicated(self, tmp_path: Path) -> Iterator[tuple[Registry, str]]:
        deployment = empty_folders(tmp_path)
        with connect(**deployment.settings) as registry, live_server(deployment) as endpoint:
            registry.push(SCIENCE, "team/a", metrics=[Metric("loss", 0.3, higher_is_better=False)])
            again = copy(SCIENCE, tmp_path / "again")
            (again / "README.md").write_text("# another card")
            registry.push(again, "team/b", metrics=[Metric("loss", 0.2, higher_is_better=False)])
            registry.push(HISTORY, "team/c")
            registry.push(NEWS, "team/news")
            yield registry, endpoint

    def test_are_marked(self, duplicated: tuple[Registry, str], someone: Someone):
        page = someone(duplicated[1]).go(path_of(["team/a", "team/b", "team/c"]))
        assert "Same numbers: the weights of team/a:v1, team/b:v1 are one file." in page.locator("main").inner_text()
        assert "Near duplicate: team/a:v1, team/b:v1 are nearly the same" in page.locator("#likeness").inner_text()
        expect(page.get_by_role("cell", name="0.2 best")).to_have_count(1)  # of a loss the least

    def test_other_bases_are_refused_and_the_rest_is_shown(self, duplicated: tuple[Registry, str], someone: Someone):
        page = someone(duplicated[1]).go(path_of(["team/a", "team/news"]))
        assert "have no module in common" in page.locator("#likeness").inner_text()
        expect(page.get_by_role("rowheader", name="Rank", exact=True)).to_have_count(1)

    def test_while_others_are_read_the_page_asks_again_by_itself(
        self, duplicated: tuple[Registry, str], someone: Someone, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(reduced_versions, "_MAX_WAIT", 0.01)
        with reduced_versions.one_at_a_time():
            page = someone(duplicated[1]).go(path_of(["team/a", "team/c"]))
            page.get_by_role("status").get_by_text("the registry reads other adapters now").wait_for()
        page.get_by_role("heading", name="How alike they are").wait_for()


def test_on_postgresql_and_s3(someone: Someone, deployment: Deployment):
    """On each deployment the page shows what the registry behind it computes."""
    with connect(**deployment.settings) as registry:
        refs = [registry.push(folder, f"team/{folder.name}").version.ref for folder in (SCIENCE, HISTORY)]
        expected = registry.compare(refs, device="cpu")[0]
        if deployment.endpoint:
            page = someone(deployment.endpoint).go(path_of(refs))
        else:
            with live_server(deployment) as endpoint:
                page = someone(endpoint).go(path_of(refs))
        assert shown_pairs(page)[0][2:5] == [
            f"{figure:.3f}" for figure in (expected.cosine, expected.left_overlap, expected.right_overlap)
        ]
