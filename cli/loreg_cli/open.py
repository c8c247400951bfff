"""``loreg open``: the page of the registry, of an adapter or of a version."""

from __future__ import annotations

import click

from loreg_cli.browser import open_page, print_url_option
from loreg_cli.options import open_registry, read_settings

_HUB = "https://huggingface.co"


@click.command()
@click.argument("ref", metavar="[REF|hf:NAME]", default="")
@print_url_option
def open(ref: str, print_url: bool) -> None:  # noqa: A001
    """Open the page of a version in a browser, or of the whole registry; print its address where there is none.

    It is a page of the server that is used; of hf:NAME the model page there. A registry on this machine has no server:
    loreg ui shows it.

    \b
    loreg open
    loreg open team/news:prod --print-url
    loreg open hf:org/adapter
    """
    if ref.startswith("hf:"):
        open_page(f"{_HUB}/{ref.removeprefix('hf:').replace('@', '/tree/', 1)}", print_url)
        return
    from loreg.errors import UsageError
    from loreg.refs import page_path
    from loreg.settings import mask_url

    endpoint = read_settings().endpoint
    if not endpoint:
        raise UsageError("this registry is on this machine, and no server shows it", hint=f"loreg ui {ref}".strip())
    path = "/"
    if ref:
        version = open_registry().show(ref).version
        path = page_path(version.adapter, version.number)
    open_page(mask_url(endpoint).rstrip("/") + path, print_url)
