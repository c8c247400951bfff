"""Make and change webhooks: for administrators of the namespaces that their patterns name, of everything for others."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from loreg.catalog import Catalog, Transaction, webhook_deliveries, webhooks
from loreg.entities import Access, Page, Role, Webhook, WebhookDelivery
from loreg.entities.webhooks import ACTIONS
from loreg.errors import NotFoundError, QuotaError, UsageError
from loreg.local.authorization import require, require_somewhere
from loreg.local.webhook_events import queue
from loreg.refs import parse_adapter_pattern
from loreg.suggestions import suggest
from loreg.webhooks import new_secret

_MAX_WEBHOOKS = 100
_MAX_PATTERNS = 20
_MAX_URL = 2048
_EVERYTHING = "*"


def list_webhooks(catalog: Catalog, access: Access) -> tuple[Webhook, ...]:
    """Return the webhooks that the caller may change, the newest first. Raises NotAllowedError for no administrator."""
    require_somewhere(access, Role.ADMIN)
    with catalog.read(access) as tx:
        return tuple(webhook for webhook in webhooks.list_all(tx) if _may_change(access, webhook.patterns))


def add(
    catalog: Catalog, access: Access, url: str, patterns: Sequence[str], actions: Sequence[str], name: str
) -> tuple[Webhook, str]:
    """Make a webhook; return it with its secret. Raises UsageError, NotAllowedError, QuotaError."""
    validate_url(url)
    _validate_name(name)
    if len(patterns) > _MAX_PATTERNS:
        raise UsageError(f"{len(patterns)} patterns: a webhook has {_MAX_PATTERNS} at most", hint="--pattern 'team/*'")
    parsed = tuple(str(parse_adapter_pattern(pattern)) for pattern in patterns)
    for action in actions:
        if action not in ACTIONS:
            hint = "loreg webhook add --help"
            raise UsageError(f"nothing is called {action!r}", hint=hint, suggestion=suggest(action, ACTIONS))
    for namespace in _namespaces(parsed):
        require(access, Role.ADMIN, namespace)
    secret = new_secret()
    with catalog.write(access) as tx:
        if len(webhooks.list_all(tx)) >= _MAX_WEBHOOKS:
            raise QuotaError(f"there are {_MAX_WEBHOOKS} webhooks, and no more may be", hint="loreg webhook ls")
        return webhooks.add(tx, name, url, parsed, tuple(dict.fromkeys(actions)), secret), secret


def remove(catalog: Catalog, access: Access, webhook_id: int) -> None:
    """Remove a webhook. Raises NotFoundError, also for one that the caller may not change."""
    with catalog.write(access) as tx:
        webhooks.remove(tx, find(tx, access, webhook_id).id)


def rotate(catalog: Catalog, access: Access, webhook_id: int, *, drop_old: bool) -> tuple[Webhook, str]:
    """Give a webhook another secret, beside the one before, and return it; or, ``drop_old``, drop the older one."""
    with catalog.write(access) as tx:
        webhook = find(tx, access, webhook_id)
        if drop_old:
            return webhooks.drop_old_secret(tx, webhook), ""
        secret = new_secret()
        return webhooks.rotate(tx, webhook, secret), secret


def enable(catalog: Catalog, access: Access, webhook_id: int) -> Webhook:
    """Let a webhook that was disabled be told of events again, as the caller may read them."""
    with catalog.write(access) as tx:
        webhook_deliveries.hasten(tx, webhook_id)
        return webhooks.enable(tx, find(tx, access, webhook_id))


def ping(catalog: Catalog, access: Access, webhook_id: int) -> int:
    """Queue a ping for a webhook; return the id of the delivery."""
    registry = catalog.registry_id
    with catalog.write(access) as tx:
        webhook = find(tx, access, webhook_id)
        if webhook.disabled_at is not None:
            raise UsageError(f"webhook {webhook_id} is disabled", hint=f"loreg webhook enable {webhook_id}")
        webhook_deliveries.hasten(tx, webhook_id)
        webhooks.log(tx, "webhook ping", webhook_id)
        return queue(tx, webhook_id, registry, None)


def list_deliveries(
    catalog: Catalog, access: Access, webhook_id: int, limit: int, cursor: str | None
) -> Page[WebhookDelivery]:
    """Return a page of what was sent to a webhook, the newest first."""
    with catalog.read(access) as tx:
        find(tx, access, webhook_id, for_update=False)
        return webhook_deliveries.list_page(tx, webhook_id, limit, cursor)


def redeliver(catalog: Catalog, access: Access, webhook_id: int, delivery_id: int) -> WebhookDelivery:
    """Queue a delivery once more."""
    with catalog.write(access) as tx:
        find(tx, access, webhook_id)
        return webhook_deliveries.redeliver(tx, webhook_id, delivery_id)


def find(tx: Transaction, access: Access, webhook_id: int, *, for_update: bool = True) -> Webhook:
    """Return a webhook that the caller may change, locked. Raises NotFoundError, NotAllowedError."""
    require_somewhere(access, Role.ADMIN)
    webhook = webhooks.find(tx, webhook_id, for_update=for_update)
    if not _may_change(access, webhook.patterns):
        raise NotFoundError(f"there is no webhook {webhook_id}", hint="loreg webhook ls")
    return webhook


def validate_url(url: str) -> None:
    """Raise UsageError unless ``url`` is one that can be told of events; no message repeats it: it may be a secret."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = "", urlsplit("")
    is_plain = url.isascii() and url.isprintable() and " " not in url and "\\" not in url and len(url) <= _MAX_URL
    if not is_plain or parts.scheme not in ("http", "https") or not host or parts.fragment:
        raise UsageError(
            f"a webhook has a URL that begins with https:// or http://, in ASCII, of {_MAX_URL} letters at most",
            hint="loreg webhook add https://ci.example.com/hooks/loreg",
        )
    if "@" in parts.netloc:
        raise UsageError("a URL with a user and a password is refused: what is sent is signed", hint="take it away")


def _validate_name(name: str) -> None:
    if len(name) > 128 or not name.isprintable():
        raise UsageError(f"invalid name of a webhook {name[:140]!r}", hint="--name ci")


def _may_change(access: Access, patterns: Sequence[str]) -> bool:
    return all(access.may(Role.ADMIN, namespace) for namespace in _namespaces(patterns))


def _namespaces(patterns: Sequence[str]) -> tuple[str, ...]:
    """Return the namespaces that the patterns name, ``*`` where they may be any."""
    names = [parse_adapter_pattern(pattern).namespace for pattern in patterns]
    return tuple(_EVERYTHING if set(name) & set("*?[") else name for name in names) or (_EVERYTHING,)
