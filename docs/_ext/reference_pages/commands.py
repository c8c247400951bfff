"""``cli/``: a page for each command, which sphinx-click fills, and a table of all."""

from __future__ import annotations

import click

from loreg_cli.main import _FILES, cli

_INDEX = """\
The command line
================

Every command prints the digest that a ref resolved to. Data goes to stdout, everything else to stderr; ``--help`` after
a command prints what stands on its page. :doc:`../errors` lists the exit codes.

.. list-table::
   :header-rows: 1
   :widths: 20 80

   * - Command
     - What it does
{rows}

Options before the command
--------------------------

They say which registry is meant: ``loreg --home DIR ls``. :doc:`../configuration` says what holds without them.

.. click:: loreg_cli.main:cli
   :prog: loreg
   :nested: none

.. toctree::
   :hidden:

   {pages}
"""
_COMMAND = """\
.. click:: loreg_cli.{file}:{function}
   :prog: loreg {name}
   :nested: full
"""


def list_commands(group: click.Group = cli, path: str = "loreg") -> list[str]:
    """Return every command as it is typed, groups too: ``loreg base``, ``loreg base add``."""
    context = click.Context(group)
    typed = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        typed.append(f"{path} {name}")
        if isinstance(command, click.Group):
            typed += list_commands(command, f"{path} {name}")
    return typed


def render() -> dict[str, str]:
    """Return the pages of the commands by their paths."""
    context = click.Context(cli)
    names = cli.list_commands(context)
    rows = []
    for name in names:
        command = cli.get_command(context, name)
        assert command is not None  # noqa: S101
        rows.append(f"   * - :doc:`loreg {name} <{name}>`\n     - {_escape(command.get_short_help_str(200))}")
    pages = {
        f"cli/{name}.rst": _COMMAND.format(file=_FILES.get(name, name), function=name, name=name) for name in names
    }
    index = _INDEX.format(rows="\n".join(rows), pages="\n   ".join(names))
    return pages | {"cli/index.rst": index}


def _escape(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "*`|_" else letter for letter in text)
