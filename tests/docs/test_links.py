"""Every link of the README and of the pages leads to a page, a file and a heading that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.test_code_blocks import PAGES, ROOT
from loreg import errors

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
#: Made from the code when the site is built; a checkout may not have them.
MADE_BY_THE_SITE = {
    *(f"docs/reference/{name}.md" for name in ("methods", "errors", "configuration", "files", "http")),
    *(f"docs/reference/{name}/index.md" for name in ("rules", "profiles")),
    "docs/reference/cli/index.rst",
    *(f"docs/gallery/{name}.png" for name in ("merge", "energy", "kept", "compare", "many")),
}


def headings(page: Path) -> set[str]:
    """The anchors of the page's headings, as GitHub and MyST make them."""
    text = _FENCED.sub("", page.read_text())
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [page for page in PAGES if not page.startswith("docs/reference/")])
def test_every_link_leads_somewhere(page: str):
    text = _FENCED.sub("", (ROOT / page).read_text())
    for link in _LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            assert link.startswith(("https://", "mailto:")), link
            continue
        name, _, anchor = link.partition("#")
        target = ((ROOT / page).parent / name).resolve() if name else ROOT / page
        if not target.exists():
            assert str(target.relative_to(ROOT)) in MADE_BY_THE_SITE, link
        elif anchor and not str(target.relative_to(ROOT)).startswith("docs/reference/"):
            assert anchor in headings(target), link


def test_every_error_is_explained_with_its_exit_code():
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.LoregError)]
    assert len(kinds) > 10
    for kind in kinds:
        assert f"| {kind.exit_code} | [`{kind.code}`](reference/errors.md#error-{kind.code}) |" in text
