"""Every page is valid HTML, and axe finds nothing on it, in light and in dark."""

from __future__ import annotations

import html5lib
import pytest
from axe_playwright_python.sync_playwright import Axe

from pages.conftest import Site, Someone

PAGES = (
    "/", "/?task=qa&metric=accuracy>=0.1", "/?text=nothing+like+it", "/facets", "/start", "/sign-in", "/deployments",
    "/audit", "/team/news", "/team/news/v1", "/team/news/v1/inside", "/team/news/v1/spectra", "/team/both/v1",
    "/lab/history",
    "/team/news/diff/v1..v2", "/team/both/v1/lineage", "/lab/history/v1/lineage", "/bases",
    "/compare", "/compare?source=team/science:v1&source=lab/history:v1&source=team/both:v1&compute=1", "/merge?find=qa",
    "/jobs", "/jobs/1", "/admin", "/admin?storage=1", "/checks", "/checks?more=1",
    "/checks?missing=base", "/checks?code=LR017",
    "/merge", "/merge?source=team/science:v1&source=lab/history:v1&weight=0.7&weight=0.3&rank=8&compute=1",
)  # fmt: skip
BROKEN = ("/nowhere", "/team/nothing", "/?rank=x", "/team/news/diff", "/team/news/diff/v1..v9", "/jobs/9")
WIDTHS = (360, 1440)


def list_pages(site: Site) -> tuple[str, ...]:
    """All pages, those of bases too."""
    return (*PAGES, *(f"/bases/{base.digest}" for base in site.behind.bases.list()))


def test_every_page_is_valid_html(site: Site):
    with site.visit("root") as client:
        for path in (*list_pages(site), *BROKEN):
            html5lib.HTMLParser(strict=True).parse(client.get(path).text)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(site: Site, someone: Someone, scheme: str):
    person = someone(site.endpoint, color_scheme=scheme)
    person.sign_in(site.tokens["root"])
    for path in list_pages(site):
        report = Axe().run(person.go(path))
        assert report.response["violations"] == [], path


@pytest.mark.parametrize("width", WIDTHS)
def test_no_page_is_wider_than_the_window(site: Site, someone: Someone, width: int):
    person = someone(site.endpoint, viewport={"width": width, "height": 800})
    person.sign_in(site.tokens["root"])
    for path in list_pages(site):
        assert person.go(path).evaluate("document.documentElement.scrollWidth") <= width, path
