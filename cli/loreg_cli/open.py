"""``loreg open``: the page of an adapter, where there is one."""

from __future__ import annotations

import sys

import click

from loreg_cli.options import open_registry
from loreg_cli.output import echo, warn

_HUB = "https://huggingface.co"


@click.command()
@click.argument("ref", metavar="REF|hf:NAME")
def open(ref: str) -> None:  # noqa: A001
    """Print where a version can be looked at, and open it in a browser if it is a page for people.

    That is the model page of hf:NAME. A loreg server has no pages for people yet: what its API answers is printed,
    and of a registry on this machine the folder.

    \b
    loreg open team/news:prod
    loreg open hf:org/adapter
    """
    if ref.startswith("hf:"):
        url = f"{_HUB}/{ref.removeprefix('hf:').replace('@', '/tree/', 1)}"
        echo(url)
        if sys.stdout.isatty():
            click.launch(url)
        return
    registry = open_registry()
    version = registry.show(ref).version
    settings = registry.settings
    if settings.endpoint:
        from loreg.refs import NO_NAMESPACE
        from loreg.settings import mask_url

        adapter = version.adapter
        place = f"{adapter.namespace or NO_NAMESPACE}/{adapter.name}/versions/v{version.number}"
        echo(f"{mask_url(settings.endpoint).rstrip('/')}/api/v1/adapters/{place}")
        warn("this server has no pages for people yet: that is what its API answers")
    else:
        echo(str(settings.home))
        warn(f"{version.ref} is in the registry of that folder, which no server shows; loreg pull {version.ref}")
