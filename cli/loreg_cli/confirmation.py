"""Ask before something is gone for good: on a terminal twice, elsewhere only ``--yes`` will do."""

from __future__ import annotations

import sys

import click

from loreg.errors import NotAllowedError

yes_option = click.option("--yes", is_flag=True, help="Do not ask; needed where there is no terminal.")


def require_consent(question: str, word: str, command: str) -> None:
    """Ask the question, and then for ``word`` to be typed. Raises click.Abort for any other answer.

    Raises NotAllowedError, with ``command`` as the hint, if nobody can be asked.
    """
    if not sys.stdin.isatty():
        raise NotAllowedError("there is no terminal to ask whether this is meant: nothing was deleted", hint=command)
    click.confirm(question, abort=True, err=True)
    if click.prompt(f"type {word} to confirm", default="", show_default=False, err=True) != word:
        raise click.Abort
