"""``loreg serve``: start the HTTP server."""

from __future__ import annotations

import click

from loreg_cli.options import read_settings, webhook_network_option


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Where to listen.")
@click.option("--port", default=8470, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--processes", default=1, show_default=True, type=click.IntRange(1, 64), help="How many answer at once.")
@click.option("--init", is_flag=True, help="Make the first token that may do everything, print it, and leave.")
@click.option("--require-tokens", is_flag=True, help="On loopback too, where nobody needs one otherwise.")
@click.option("--allow-anonymous", is_flag=True, help="Everybody who reaches the server may do everything.")
@webhook_network_option
def serve(
    host: str,
    port: int,
    processes: int,
    init: bool,
    require_tokens: bool,
    allow_anonymous: bool,
    webhook_networks: tuple[str, ...],
) -> None:
    """Answer over HTTP: everybody's loreg, training jobs and CI share one registry.

    \b
    loreg serve --init                # once: the administrator's token
    loreg serve --host 0.0.0.0        # behind a proxy with TLS
    loreg login http://127.0.0.1:8470 # on another machine
    """
    import os

    from loreg.errors import MissingExtraError

    try:
        from loreg.server import run as serving
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"the server needs {error.name}, which is not installed", hint="pip install 'loreg[server]'"
        ) from error
    settings = read_settings()
    if init:
        click.echo(serving.make_administrator(settings, os.environ.get("LOREG_ADMIN_TOKEN", "")))
        return
    serving.serve(
        settings,
        host=host,
        port=port,
        processes=processes,
        require_tokens=require_tokens,
        allow_anonymous=allow_anonymous,
        webhook_networks=" ".join(webhook_networks),
    )
