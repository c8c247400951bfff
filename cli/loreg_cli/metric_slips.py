"""Ask about metrics whose names look like a slip of a name in use: on a terminal before, in a script by a note."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from loreg.single_line import single_line
from loreg_cli.output import warn

if TYPE_CHECKING:
    from loreg.registry import Registry


def ask_about_slips(registry: Registry, metrics: Sequence[str], ref: str) -> None:
    """Ask whether each slip is meant, no by default: then UsageError is raised, and nothing is recorded.

    Where nobody can be asked, a note says what would mend it.
    """
    if not metrics:
        return
    from loreg.errors import UsageError

    slips = registry.find_metric_slips(metrics)
    for name, meant in slips.items():
        mended = [text.replace(name, meant, 1) for text in metrics if text.startswith(name)]
        if not sys.stdin.isatty():
            warn(
                f"no metric is called {name!r} so far; if {meant!r} is meant: "
                f"loreg metric add {shlex.quote(ref)} {shlex.join(mended)}"
            )
            continue
        question = f"no metric is called {name!r} so far, did you mean {meant!r}? Record it as {name!r} all the same?"
        if not click.confirm(single_line(question), default=False, err=True):
            raise UsageError("nothing was recorded", hint=f"{shlex.join(mended)} in place of it")
