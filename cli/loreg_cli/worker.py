"""``loreg worker``: do the jobs that others asked for."""

from __future__ import annotations

from pathlib import Path

import click

from loreg_cli.options import read_settings, webhook_network_option
from loreg_cli.output import echo


@click.command()
@click.option(
    "--bases", type=click.Path(path_type=Path), metavar="DIR", help="Models that jobs may name as their base."
)
@click.option("--models", type=click.Path(path_type=Path), metavar="DIR", help="Where bakes write models to.")
@click.option(
    "--repair-from",
    "repair_sources",
    multiple=True,
    envvar="LOREG_REPAIR_FROM",
    metavar="DIR|REGISTRY|URL",
    help="A place that loreg repair may name through a server; may be repeated. [env: LOREG_REPAIR_FROM, with spaces]",
)
@click.option(
    "--backup-to",
    "backup_targets",
    multiple=True,
    envvar="LOREG_BACKUP_TO",
    metavar="DIR|s3://BUCKET/PREFIX",
    help="A place that loreg backup may name through a server; may be repeated. [env: LOREG_BACKUP_TO, with spaces]",
)
@webhook_network_option
@click.option("--on", default="", metavar="ray://HOST", help="Where maps, merges and bakes run; else here.")
@click.option("--device", default="auto", show_default=True, metavar="DEVICE", help="cpu, cuda or auto.")
@click.option("--until-idle", is_flag=True, help="Leave when there is no job.")
def worker(
    bases: Path | None,
    models: Path | None,
    repair_sources: tuple[str, ...],
    backup_targets: tuple[str, ...],
    webhook_networks: tuple[str, ...],
    on: str,
    device: str,
    until_idle: bool,
) -> None:
    """Do what was asked for with --remote, and verify, repair, gc, prune, backup and map through a server.

    As many workers as you like share the jobs. A worker needs the database and the store themselves. One that dies is
    noticed, and its job is done again.

    \b
    loreg worker --until-idle
    """
    import logging

    from loreg.worker import Worker

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    places = (repair_sources, backup_targets, " ".join(webhook_networks), on)
    count = Worker(read_settings(), bases, models, device, *places).work(until_idle=until_idle)
    echo(f"{count} job{'' if count == 1 else 's'} done")
