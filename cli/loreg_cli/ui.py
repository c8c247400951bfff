"""``loreg ui``: the pages of the registry on this machine, in a browser."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import click

from loreg_cli.browser import open_page, print_url_option
from loreg_cli.options import open_registry, read_settings
from loreg_cli.output import warn

#: A browser gets its arguments where everybody on the machine reads them: so it gets a file that is yours alone.
_REDIRECT = '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url={url}"><title>loreg</title>'


@click.command()
@click.argument("ref", metavar="[REF]", default="")
@click.option("--port", default=0, metavar="N", type=click.IntRange(0, 65535), help="Listen there; 0 takes a free one.")
@print_url_option
def ui(ref: str, port: int, print_url: bool) -> None:
    """Show the registry of this machine in a browser, to you alone, until Ctrl-C.

    The address that is printed holds once: who opens it is you from then on, and nobody else on this machine sees
    anything. A registry behind a server has pages there: loreg open.

    \b
    loreg ui
    loreg ui team/news
    """
    from urllib.parse import urlencode

    from loreg.errors import MissingExtraError, UsageError
    from loreg.refs import page_path

    settings = read_settings()
    if settings.endpoint:
        raise UsageError("this registry is behind a server, which has the pages", hint=f"loreg open {ref}".strip())
    path = "/"
    if ref:
        version = open_registry().show(ref).version
        path = page_path(version.adapter, version.number)
    try:
        from loreg.server.run import serve_person
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"the pages need {error.name}, which is not installed", hint="pip install 'loreg[server]'"
        ) from error

    with _private_file() as file:

        def show(server: str, invitation: str) -> None:
            url = f"{server}/_/invitation?{urlencode({'key': invitation, 'next': path})}"
            file.write_text(_REDIRECT.format(url=url.replace("&", "&amp;")), encoding="utf-8")
            open_page(url, print_url, opened=file.as_uri())
            warn("the address holds once; Ctrl-C ends it")

        serve_person(settings, port, show)


@contextlib.contextmanager
def _private_file() -> Iterator[Path]:
    """Yield the path of a file in a folder of this user alone, which goes with it."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="loreg-ui-") as folder:
        yield Path(folder) / "open.html"
