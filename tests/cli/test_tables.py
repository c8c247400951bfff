"""Tables in a pipe: aligned as rich aligns them, without rich."""

from __future__ import annotations

import contextlib
import io

from hypothesis import example, given
from hypothesis import strategies as st
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loreg_cli.output import print_table

NAMES = ["NAME", "NEWEST", ""]
narrow = st.characters(min_codepoint=ord(" "), max_codepoint=0x2FF, exclude_categories=["C", "Z"])
cells = st.one_of(
    st.text(narrow, max_size=30),
    st.sampled_from(
        ["", "v1", "prod → v1", "日本語", "e\N{COMBINING ACUTE ACCENT}", "[bold]x[/]", ":smile:", "x" * 500]
    ),
)


def rich_table(rows: list[tuple[str, ...]], right: list[str]) -> str:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for name in NAMES:
        table.add_column(name, justify="right" if name in right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in row))
    console = Console(file=io.StringIO(), force_terminal=False, width=10_000, highlight=False)
    with console.capture() as printed:
        console.print(table)
    return printed.get()


@given(st.lists(st.tuples(cells, cells, cells), max_size=4), st.lists(st.sampled_from(NAMES), unique=True))
@example([("", "", "")], [])
def test_a_table_in_a_pipe_is_as_rich_would_print_it(rows: list[tuple[str, ...]], right: list[str]):
    with contextlib.redirect_stdout(io.StringIO()) as pipe:
        print_table(NAMES, rows, right=right)
    assert pipe.getvalue() == rich_table(rows, right)


def test_a_column_that_others_have_named_moves_no_cursor():
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        print_table(["NAME", "\x1b[2J\u202eQA"], [("news", "1")], right=["\x1b[2J\u202eQA"])
    head, _, row = printed.getvalue().splitlines()
    assert head.isprintable()
    assert head.endswith("QA")
    assert row.endswith("1")
