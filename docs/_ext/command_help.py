"""Give sphinx-click the help of commands as reStructuredText: examples as code, and nothing taken for markup."""

from __future__ import annotations

import re

import click
from docutils import nodes
from sphinx.application import Sphinx

from reference_pages.commands import list_commands

_MARKUP = re.compile(r"([*`|\\]|_(?!\w))")


def describe(app: Sphinx, context: click.Context, lines: list[str]) -> None:
    """Make a block of code of lines that are not to be wrapped, in which a command's help has its examples."""
    text: list[str] = []
    in_block = False
    for line in lines:
        if line.startswith("| "):
            text += [] if in_block else [".. code-block:: console", ""]
            text.append(f"   $ {line[2:]}" if line.startswith("| loreg") else f"   {line[2:]}")
        else:
            text += ["", _escape(line)] if in_block and line else [_escape(line)]
        in_block = line.startswith("| ")
    lines[:] = text


def escape_options(app: Sphinx, context: click.Context, lines: list[str]) -> None:
    """Escape the help of options, and leave their names and fields as they are; ``<format_>`` becomes ``<format>``."""
    lines[:] = [line.replace("_>", ">") if re.match(r"\s*(\.\.|:\w+:)", line) else _escape(line) for line in lines]


def name_sections(app: Sphinx, document: nodes.document) -> None:
    """Give the section of a command in a group the title that is typed: ``loreg base add``, not ``add``."""
    commands = {typed.replace(" ", "-"): typed for typed in list_commands()}
    for section in document.findall(nodes.section):
        typed = next((commands[name] for name in section["ids"] if name in commands), None)
        if typed and isinstance(section[0], nodes.title):
            section[0].replace_self(nodes.title(typed, typed))


def _escape(text: str) -> str:
    return _MARKUP.sub(r"\\\1", text)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to sphinx-click."""
    app.connect("sphinx-click-process-description", describe)
    app.connect("sphinx-click-process-options", escape_options)
    app.connect("doctree-read", name_sections)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
