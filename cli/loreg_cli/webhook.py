"""``loreg webhook``: tell other programs of what happens."""

from __future__ import annotations

import click

from loreg_cli.options import format_option, open_registry, page_options, table_options
from loreg_cli.output import echo, print_json, print_page, print_table, warn

_ID = click.IntRange(1, 2**31 - 1)


@click.group()
def webhook() -> None:
    """Tell other programs of what happens, by signed requests to their URLs.

    \b
    loreg webhook add https://ci.example.com/loreg --pattern 'team/*'
    """


@webhook.command("add")
@click.argument("url")
@click.option("--pattern", "patterns", multiple=True, metavar="PATTERN", help="Of these adapters; may be repeated.")
@click.option("--action", "actions", multiple=True, metavar="A,B,…", help="Of these actions; default: all.")
@click.option("--name", default="", metavar="TEXT", help="What it is for.")
def add(url: str, patterns: tuple[str, ...], actions: tuple[str, ...], name: str) -> None:
    """Tell URL of events from now on, and print the secret that signs them, this once.

    For administrators of the patterns' namespaces; without a pattern, of everything.

    \b
    loreg webhook add https://ci.example.com/loreg --pattern 'team/*'
    """
    words = [word.strip() for text in actions for word in text.split(",") if word.strip()]
    made, secret = open_registry().webhooks.add(url, patterns=patterns, actions=words, name=name)
    warn(f"webhook {made.id}; its secret cannot be shown again")
    click.echo(secret)


@webhook.command("ls")
@table_options
@format_option
def webhooks(format_: str) -> None:
    """List webhooks, without their secrets.

    \b
    loreg webhook ls
    """
    entries = open_registry().webhooks.list()
    if format_ == "json":
        print_json(list(entries))
        return
    if format_ == "quiet":
        for entry in entries:
            click.echo(entry.id)
        return
    rows = []
    for entry in entries:
        state = "disabled" if entry.disabled_at else "fails" if entry.failing_since else "ok"
        secrets = "2 secrets" if entry.has_old_secret else ""
        cells = (" ".join(entry.patterns) or "everything", ",".join(entry.actions) or "all", entry.author)
        rows.append((str(entry.id), entry.name, entry.url, *cells, " ".join(filter(None, (state, secrets)))))
    print_table(
        ["ID", "NAME", "URL", "OF", "ACTIONS", "MADE BY", "STATE"],
        rows,
        right=["ID"],
        prose=["URL"],
        drop=["MADE BY", "NAME"],
    )


@webhook.command("remove")
@click.argument("webhook_id", metavar="ID", type=_ID)
def remove(webhook_id: int) -> None:
    """Remove a webhook, and what waits to be sent to it.

    \b
    loreg webhook remove 3
    """
    open_registry().webhooks.remove(webhook_id)
    echo(f"webhook {webhook_id} is removed")


@webhook.command("rotate")
@click.argument("webhook_id", metavar="ID", type=_ID)
@click.option("--drop-old", is_flag=True, help="Sign with the newest secret alone from now on.")
def rotate(webhook_id: int, drop_old: bool) -> None:
    """Print another secret; the one before signs beside it until --drop-old.

    \b
    loreg webhook rotate 3
    loreg webhook rotate 3 --drop-old
    """
    secret = open_registry().webhooks.rotate(webhook_id, drop_old=drop_old)
    if drop_old:
        echo(f"webhook {webhook_id} signs with its newest secret alone")
        return
    warn(f"the secret before signs, too, until loreg webhook rotate {webhook_id} --drop-old")
    click.echo(secret)


@webhook.command("enable")
@click.argument("webhook_id", metavar="ID", type=_ID)
def enable(webhook_id: int) -> None:
    """Tell a webhook that was disabled of events again, from now on.

    \b
    loreg webhook enable 3
    """
    open_registry().webhooks.enable(webhook_id)
    echo(f"webhook {webhook_id} is told of events")


@webhook.command("test")
@click.argument("webhook_id", metavar="ID", type=_ID)
def test(webhook_id: int) -> None:
    """Have a ping sent, and say what came of it.

    \b
    loreg webhook test 3
    """
    from loreg.entities import DeliveryState
    from loreg.errors import UnavailableError

    delivery = open_registry().webhooks.test(webhook_id)
    if delivery.state != DeliveryState.DELIVERED:
        raise UnavailableError(
            f"the ping failed: {delivery.error}; it is tried again", hint=f"loreg webhook deliveries {webhook_id}"
        )
    echo(f"delivered: HTTP {delivery.status}")


@webhook.command("deliveries")
@click.argument("webhook_id", metavar="ID", type=_ID)
@page_options
@table_options
@format_option
def deliveries(webhook_id: int, limit: int, cursor: str | None, format_: str) -> None:
    """List what was sent to a webhook and waits to be, the newest first.

    \b
    loreg webhook deliveries 3 --limit 10
    """
    page = open_registry().webhooks.deliveries(webhook_id, limit=limit, cursor=cursor)
    if format_ == "table" and page.items:
        rows = [
            (
                str(item.id),
                f"{item.created_at:%Y-%m-%d %H:%M:%S}",
                item.event,
                item.ref,
                item.state,
                str(item.attempts),
                item.error or (f"HTTP {item.status}" if item.status else ""),
            )
            for item in page.items
        ]
        columns = ["ID", "AT (UTC)", "EVENT", "REF", "STATE", "TRIES", "LAST ANSWER"]
        print_table(columns, rows, right=["ID", "TRIES"], prose=["LAST ANSWER"], drop=["AT (UTC)"])
    print_page(page, format_, [str(item.id) for item in page.items])


@webhook.command("redeliver")
@click.argument("webhook_id", metavar="ID", type=_ID)
@click.argument("delivery_id", metavar="DELIVERY", type=click.IntRange(1, 2**53 - 1))
def redeliver(webhook_id: int, delivery_id: int) -> None:
    """Have a delivery sent again, under the same id.

    \b
    loreg webhook redeliver 3 41
    """
    open_registry().webhooks.redeliver(webhook_id, delivery_id)
    echo(f"delivery {delivery_id} is sent again")
