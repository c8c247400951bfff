"""A new user's questions are answered by the mouse alone, from the first page on, with at most three clicks each."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from pages.conftest import Site, Someone

PAGE_OF_PAGES = Path(__file__).parents[2] / "docs" / "how-to" / "pages.md"
_MAX_CLICKS = 3


@dataclass
class Mouse:
    """A mouse on the first page, and what was clicked."""

    page: Page
    clicked: list[str] = field(default_factory=list)

    def click(self, target: Locator) -> None:
        self.clicked.append(target.inner_text().strip() or target.get_attribute("aria-label") or "")
        target.click()
        expect(self.page.locator("[hx-trigger=load]")).to_have_count(0)

    def link(self, name: str) -> None:
        self.click(self.page.get_by_role("main").get_by_role("link", name=name, exact=True).first)

    def facet(self, value: str) -> None:
        self.click(self.page.get_by_role("complementary").get_by_role("link", name=value).first)

    def menu(self, name: str) -> None:
        self.click(self.page.get_by_role("navigation").get_by_role("link", name=name, exact=True))

    def version(self, adapter: str, number: int) -> None:
        row = self.page.locator("tbody tr").filter(has=self.page.get_by_role("link", name=adapter, exact=True))
        self.click(row.get_by_role("link", name=f"v{number}", exact=True))

    def sees(self, text: str) -> None:
        expect(self.page.get_by_text(text).first).to_be_visible()


def find_for_task_and_base(mouse: Mouse) -> None:
    mouse.facet("qa")
    mouse.facet("HuggingFaceTB/SmolLM2")
    mouse.sees("loreg search --task qa --base HuggingFaceTB/SmolLM2-135M-Instruct")
    expect(mouse.page.locator("tbody tr").first).to_contain_text("team/both")


def find_best(mouse: Mouse) -> None:
    mouse.facet("accuracy")
    expect(mouse.page.locator("tbody tr").first).to_contain_text("0.95")


def read_how_to_use(mouse: Mouse) -> None:
    mouse.link("team/news")
    mouse.click(mouse.page.get_by_text("vLLM", exact=True))
    mouse.sees("vllm serve")


def look_inside(mouse: Mouse) -> None:
    mouse.version("team/both", 1)
    mouse.sees("Rank by module and layer")


def see_servers(mouse: Mouse) -> None:
    mouse.facet("vllm")
    expect(mouse.page.locator("tbody tr").first).to_be_visible()
    mouse.sees("loreg search --loads-in vllm")


def compare_versions(mouse: Mouse) -> None:
    mouse.link("team/news")
    mouse.link("since v1")
    mouse.sees("0.95")


def see_lineage(mouse: Mouse) -> None:
    mouse.version("team/both", 1)
    mouse.link("Lineage")
    expect(mouse.page.locator("svg.lineage")).to_contain_text("team/science:v1")


def preview_blend(mouse: Mouse) -> None:
    mouse.version("team/science", 1)
    mouse.link("Merge with…")
    mouse.click(mouse.page.get_by_role("button", name="+ lab/history:v1"))
    mouse.sees("of the merged delta's energy is kept")


def compare_adapters(mouse: Mouse) -> None:
    for adapter in ("team/science", "lab/history"):
        row = mouse.page.locator("tbody tr").filter(has=mouse.page.get_by_role("link", name=adapter, exact=True))
        mouse.click(row.get_by_role("checkbox"))
    mouse.click(mouse.page.get_by_role("button", name="Compare what is marked"))
    mouse.sees("loreg compare lab/history:v1 team/science:v1")


def find_on_base(mouse: Mouse) -> None:
    mouse.menu("Bases")
    mouse.link("HuggingFaceTB/SmolLM2-135M-Instruct")
    expect(mouse.page.locator("tbody tr").first).to_contain_text("team/both")


def see_who_moved(mouse: Mouse) -> None:
    mouse.menu("Audit")
    row = mouse.page.locator("tbody tr").filter(has_text="alias=prod")
    expect(row).to_contain_text("team/news:v1")


def open_page(name: str, text: str) -> Callable[[Mouse], None]:
    def ask(mouse: Mouse) -> None:
        mouse.menu(name)
        mouse.sees(text)

    return ask


QUESTIONS: dict[str, Callable[[Mouse], None]] = {
    "What is there for my task on my base?": find_for_task_and_base,
    "Which is best?": find_best,
    "How do I use it in vLLM?": read_how_to_use,
    "What exactly is inside?": look_inside,
    "What loads in vLLM?": see_servers,
    "What changed since the version before?": compare_versions,
    "From what was it made, and into what?": see_lineage,
    "What do I lose if I blend these two?": preview_blend,
    "Are these alike?": compare_adapters,
    "What is trained on this model?": find_on_base,
    "What is broken?": open_page("Checks", "What it is about"),
    "Who moved prod, and when?": see_who_moved,
    "What runs where?": open_page("Deployments", "loreg deployments"),
    "Is my merge done?": open_page("Jobs", "loreg job ls"),
    "How do I begin?": open_page("Start here", "loreg login"),
}


def read_documented_clicks() -> dict[str, int]:
    rows = re.findall(r"^\| (.+\?) \| (\d) \|", PAGE_OF_PAGES.read_text(encoding="utf-8"), re.M)
    return {question: int(clicks) for question, clicks in rows}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_is_answered_with_as_many_clicks_as_the_docs_say(site: Site, someone: Someone, question: str):
    person = someone(site.endpoint)
    person.sign_in(site.tokens["root"])
    mouse = Mouse(person.go("/"))
    QUESTIONS[question](mouse)
    print(f"{question} {len(mouse.clicked)}: {' → '.join(mouse.clicked)}")
    assert len(mouse.clicked) == read_documented_clicks()[question] <= _MAX_CLICKS


def test_the_docs_have_these_questions():
    assert list(read_documented_clicks()) == list(QUESTIONS)
