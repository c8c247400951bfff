"""``loreg completion``: the completion script of a shell."""

from __future__ import annotations

import click

from loreg_cli.options import open_registry

_MAX_PAGES = 5  # of 1000 adapters that are cached


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
    adapters: dict[str, list[str]] = {}
    cursor = None
    for _ in range(_MAX_PAGES):
        page = registry.adapters(limit=1000, cursor=cursor)
        for entry in page.items:
            newest = [f"v{entry.newest}"] if entry.newest else []
            adapters[str(entry.adapter)] = [*entry.aliases, *newest]
        cursor = page.cursor
        if cursor is None:
            break
    versions = registry.search(limit=1000).items
    words = {
        "tasks": sorted({task for version in versions for task in version.tasks}),
        "metrics": sorted({metric.name for version in versions for metric in version.metrics}),
        "modules": sorted({kind.name for version in versions for kind in version.facts.module_types}),
        "bases": sorted({name for base in registry.bases.list(limit=1000).items for name in base.names}),
    }
    write_cache(registry.settings, Names(adapters, words))
