"""How precisely the code is typed: what mypy cannot say, because ``Any`` satisfies it."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: ``Any`` per 1000 lines that the code may have, beside the imports of it.
MOST = 8


def any_names(source: str) -> Iterator[int]:
    """Yield the line of each ``Any``, also in an annotation that is a text."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isprintable():
            try:
                inner = ast.walk(ast.parse(node.value, mode="eval")) if "Any" in node.value else ()
            except SyntaxError:
                continue
            yield from (node.lineno for name in inner if isinstance(name, ast.Name) and name.id == "Any")
        if (isinstance(node, ast.Name) and node.id == "Any") or (
            isinstance(node, ast.Attribute) and node.attr == "Any"
        ):
            yield node.lineno


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("from typing import Any\n\nx: Any = 1\n", [3]),
        ("import typing\ndef f(x: list[typing.Any]) -> dict[str, typing.Any]: ...\n", [2, 2]),
        ('def f(x: "Any") -> "list[Any]": ...\n', [1, 1]),
        ('"""Any text, and Anything."""\nAnything = 1\n', []),
    ],
)
def test_any_is_counted_where_it_is_used(source: str, lines: list[int]) -> None:
    assert sorted(any_names(source)) == lines


def test_any_is_rare() -> None:
    counts: Counter[str] = Counter()
    lines = 0
    for path in (*ROOT.glob("registry/**/*.py"), *ROOT.glob("cli/**/*.py")):
        source = path.read_text(encoding="utf-8")
        lines += source.count("\n")
        counts[str(path.relative_to(ROOT))] += sum(1 for _ in any_names(source))
    assert lines > 10_000, "the code was not found"
    assert 1000 * counts.total() / lines < MOST, counts.most_common(10)
