"""Options that several commands share, and the registry that they open."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypedDict

import click

from loreg_cli.output import TABLE_OPTIONS, warn

if TYPE_CHECKING:
    from loreg.entities import Job
    from loreg.registry import Registry
    from loreg.settings import Settings

Command = Callable[..., Any]


def read_settings() -> Settings:
    """Return the settings in force, with the options before the command; warn of those that were ignored."""
    import os

    from loreg.settings import load

    settings = load(click.get_current_context().find_root().params, os.environ)
    for text in settings.notes:
        warn(text)
    return settings


on_option = click.option(
    "--on", default="", metavar="ray[://HOST]", help="As tasks on Ray: started here, or a cluster."
)


def open_registry() -> Registry:
    """Open the registry of the settings in force; it is closed when the command ends."""
    from loreg.registry import Registry

    registry = Registry(read_settings(), on_job=announce_job)
    click.get_current_context().call_on_close(registry.close)
    return registry


def announce_job(job: Job) -> None:
    """Say which job the command waits for."""
    warn(f"job {job.id} waits for a worker; loreg job cancel {job.id} gives it up")


format_option = click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "json", "quiet"]),
    default="table",
    help="Default: table. quiet: the names alone.",
)


token_env_option = click.option(
    "--token-env",
    default="",
    metavar="NAME",
    help="The environment's variable with the token of that server; default: what loreg login keeps for it.",
)


webhook_network_option = click.option(
    "--webhook-network",
    "webhook_networks",
    multiple=True,
    envvar="LOREG_WEBHOOK_NETWORK",
    metavar="CIDR",
    help="Webhooks may be in this network, though it is not public; repeatable. [env: LOREG_WEBHOOK_NETWORK]",
)


def _keep_table_option(context: click.Context, parameter: click.Parameter, value: object) -> None:
    context.meta.setdefault(TABLE_OPTIONS, {})[parameter.name] = value


def wide_options(command: Command) -> Command:
    """Add ``--wide`` and ``--no-truncate`` to a command that prints several tables; ``print_table`` obeys them."""
    for names, text in (
        ("--no-truncate", "Wrap long texts instead of ending in …."),
        ("--wide", "Every column whole, however wide it gets."),
    ):
        option = click.option(names, is_flag=True, expose_value=False, callback=_keep_table_option, help=text)
        command = option(command)
    return command


def table_options(command: Command) -> Command:
    """Add ``--columns``, ``--wide`` and ``--no-truncate`` to a command that prints one table."""

    def keep_columns(context: click.Context, parameter: click.Parameter, text: str | None) -> None:
        names = tuple(name.strip() for name in (text or "").split(",") if name.strip())
        _keep_table_option(context, parameter, names)

    columns = click.option(
        "--columns",
        metavar="A,B,…",
        expose_value=False,
        callback=keep_columns,
        help="Only these columns, in this order.",
    )
    return columns(wide_options(command))


def page_options(command: Command) -> Command:
    """Add ``--limit`` and ``--cursor``."""
    command = click.option("--cursor", metavar="CURSOR", help="Go on where an earlier page ended.")(command)
    return click.option("--limit", type=click.IntRange(1, 1000), default=50, help="Rows on a page. Default: 50.")(
        command
    )


class Metadata(TypedDict):
    """What ``push_options`` adds to a command: the fields of :class:`loreg.entities.VersionMetadata`."""

    tasks: tuple[str, ...]
    metrics: tuple[str, ...]
    labels: dict[str, str]
    aliases: tuple[str, ...]
    message: str


def push_options(command: Command) -> Command:
    """Add the metadata of a pushed version; the command takes them as ``**metadata: Unpack[Metadata]``."""
    for option in (
        click.option("-m", "--message", default="", metavar="TEXT", help="What is new in this version."),
        click.option(
            "--alias", "aliases", multiple=True, metavar="ALIAS", help="Point this alias to it; may be repeated."
        ),
        click.option(
            "--label",
            "labels",
            multiple=True,
            metavar="KEY=VALUE",
            callback=read_labels,
            help="Anything else; may be repeated.",
        ),
        click.option(
            "--metric",
            "metrics",
            multiple=True,
            metavar="NAME=VALUE[@DATA]",
            help="A measured number, @DATASET[:SPLIT].",
        ),
        click.option("--task", "tasks", multiple=True, metavar="TASK", help="What it is for; may be repeated."),
    ):
        command = option(command)
    return command


def refuse_empty(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Return the value of an option. Raises click.UsageError for one that was typed and is empty.

    A script whose variable is not set would otherwise ask for everything.
    """
    typed = value if isinstance(value, tuple) else (value,)
    is_default = context.get_parameter_source(parameter.name or "") == click.core.ParameterSource.DEFAULT
    if not is_default and any(text is not None and not text.strip() for text in typed):
        raise click.BadParameter("it is empty", context, parameter)
    return value


def read_labels(context: click.Context, parameter: click.Parameter, labels: tuple[str, ...]) -> dict[str, str]:
    """Return ``key=value`` texts of an option as a mapping. Raises click.UsageError for a key that is given twice."""
    if not labels:  # at a prompt nobody waits for what is imported below
        return {}
    from loreg.parsing import parse_label

    pairs = [parse_label(label) for label in labels]
    if len(dict(pairs)) < len(pairs):
        raise click.UsageError("a label is given twice; each key has one value")
    return dict(pairs)
