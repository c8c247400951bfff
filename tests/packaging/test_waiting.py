"""What a browser shows is waited for: an assertion that looks once sees the page before, or half of the next one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PAGES = Path(__file__).parents[1] / "pages"

#: What looks once, by the assertion of Playwright that waits.
LOOKS_ONCE = {
    "count": "expect(…).to_have_count(…)",
    "url": "expect(page).to_have_url(…)",
}


def looks(source: str) -> list[str]:
    equal = [
        node.test.left
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assert) and isinstance(node.test, ast.Compare) and isinstance(node.test.ops[0], ast.Eq)
    ]
    attributes = [node.func if isinstance(node, ast.Call) and not node.args else node for node in equal]
    return [
        f"line {node.lineno}: {LOOKS_ONCE[node.attr]}"
        for node in attributes
        if isinstance(node, ast.Attribute) and node.attr in LOOKS_ONCE
    ]


@pytest.mark.parametrize("path", sorted(PAGES.glob("test_*.py")), ids=lambda path: path.stem)
def test_what_a_page_shows_is_waited_for(path: Path):
    assert looks(path.read_text(encoding="utf-8")) == []


def test_a_look_is_seen():
    assert looks("assert rows.count() == 1\nassert page.url == there\nassert text.count('a') == 1") == [
        "line 1: expect(…).to_have_count(…)",
        "line 2: expect(page).to_have_url(…)",
    ]
