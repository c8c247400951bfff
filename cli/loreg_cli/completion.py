"""``loreg completion``: the completion script of a shell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

import click

from loreg_cli.options import open_registry

if TYPE_CHECKING:
    from loreg.entities import Page

T = TypeVar("T")
_MAX_PAGES = 5  # of 1000 adapters or bases that are cached


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.option("--refresh", is_flag=True, help="Print nothing: ask the server for the names that are completed.")
@click.pass_context
def completion(context: click.Context, shell: str, refresh: bool) -> None:
    """Print the script that lets a shell complete commands, refs, aliases, tasks, bases, methods and profiles.

    Names of a server come from a cache, which is asked for anew beside the shell when it is older than a minute.

    \b
    loreg completion bash >> ~/.bashrc
    loreg completion zsh >> ~/.zshrc
    loreg completion fish > ~/.config/fish/completions/loreg.fish
    """
    if refresh:
        _refresh()
        return
    from click.shell_completion import get_completion_class

    from loreg_cli.completing import add_shells

    add_shells()
    kind = get_completion_class(shell)
    if kind is None:  # click knows all three
        raise click.UsageError(f"no completion for {shell}")
    root = context.find_root()
    click.echo(kind(root.command, {}, "loreg", "_LOREG_COMPLETE").source())


def _refresh() -> None:
    """Write the names of the registry in force to the cache."""
    from loreg.completions import Names, write_cache

    registry = open_registry()
    adapters = {
        str(entry.adapter): [*entry.aliases, *([f"v{entry.newest}"] if entry.newest else [])]
        for entry in _pages(registry.adapters)
    }
    words = registry.context.backend.search_words()
    bases = {*words.bases, *(name for base in _pages(registry.bases.list) for name in base.names)}
    by_kind = {
        "tasks": sorted(words.tasks),
        "metrics": sorted(words.metrics),
        "modules": sorted(words.modules),
        "bases": sorted(bases),
    }
    write_cache(registry.settings, Names(adapters, by_kind))


def _pages(fetch: Callable[..., Page[T]]) -> Iterator[T]:
    """Yield the items of the first pages."""
    cursor = None
    for _ in range(_MAX_PAGES):
        page = fetch(limit=1000, cursor=cursor)
        yield from page.items
        cursor = page.cursor
        if cursor is None:
            return
