"""Hints: one that is a command can be typed as it stands."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import loreg
import loreg_cli
from loreg_cli.main import cli

PLACEHOLDER = re.compile(r"\b[A-Z]+(?:-[A-Z]+)*\b(?!=)|…|<\w+>")
VALUE = "x"  # stands for what is only known when the error is raised


def texts(node: ast.expr) -> Iterator[str]:
    """The texts that an expression may be, without what is only known when it runs."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else VALUE for part in node.values)
    elif isinstance(node, ast.IfExp):
        yield from texts(node.body)
        yield from texts(node.orelse)


def hinted_commands() -> Iterator[tuple[str, str]]:
    """Where each hint is that begins with a command, and the hint."""
    for package in (loreg, loreg_cli):
        root = Path(str(package.__file__)).parent
        for path in sorted(root.rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.keyword) and node.arg == "hint":
                    for text in texts(node.value):
                        if text.startswith("loreg "):
                            yield f"{path.relative_to(root)}:{node.value.lineno}", text


HINTS = list(hinted_commands())


@pytest.mark.parametrize("text", [text for _, text in HINTS], ids=[place for place, _ in HINTS])
def test_a_command_in_a_hint_has_no_gap_and_is_one_of_loregs(text: str):
    assert not PLACEHOLDER.search(text), "a person would have to know what belongs there"
    command: click.Command = cli
    words = re.split("[,;:] ", text)[0].removeprefix("loreg ").split()
    if words[0] == VALUE:
        return
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        inner = command.get_command(click.Context(command), words.pop(0))
        assert inner is not None, text
        command = inner
    options = {name for parameter in (*cli.params, *command.params) for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= {*options, "--help"}, text


def test_there_are_such_hints():
    assert len(HINTS) > 100
