"""Refuse what no registry says of a version that is mirrored: times without a zone, numbers and texts that none has."""

from __future__ import annotations

import json
import re
from datetime import datetime

from loreg.adapters.header import is_unicode
from loreg.entities import Origin, OriginEvent
from loreg.errors import UsageError
from loreg.refs import parse_alias

MAX_EVENTS = 1000
_MAX_NUMBER = 10**9  # as a ref can name it
_MAX_AUTHOR = 128
_MAX_REGISTRY = 512
_MAX_DETAIL = 256 * 1024  # characters of JSON
_ACTION = re.compile("[a-z][a-z ]{0,31}")


def validate_origin(origin: Origin) -> None:
    """Raise UsageError for an origin that cannot be one."""
    _require(0 < len(origin.registry) <= _MAX_REGISTRY and origin.registry.isprintable(), "the registry's name")
    _require(0 < origin.number < _MAX_NUMBER, "the number")
    _require(0 <= origin.previous < origin.number, "the number of the version before")
    _validate_author(origin.author)
    _validate_time(origin.created_at)
    if origin.yanked_at is not None:
        _validate_time(origin.yanked_at)
    _require(len(origin.events) <= MAX_EVENTS, f"the number of events, {MAX_EVENTS:,} at most,")
    for event in origin.events:
        _validate_event(event)
    _require(len(origin.aliases) <= MAX_EVENTS, "the number of aliases")
    for alias in origin.aliases:
        parse_alias(alias.alias)
        _require(0 <= alias.number < _MAX_NUMBER, "the number of an alias")
    _require(len(origin.canaries) <= MAX_EVENTS, "the number of canaries")
    for canary in origin.canaries:
        parse_alias(canary.alias)
        _require(0 <= canary.number < _MAX_NUMBER, "the number of a canary")
        _require(0 < canary.share < 1, "the share of a canary")
        _validate_author(canary.author)
        _validate_time(canary.at)


def _validate_event(event: OriginEvent) -> None:
    _validate_author(event.author)
    _validate_time(event.at)
    _require(_ACTION.fullmatch(event.action) is not None, "the action of an event")
    _require(event.number is None or 0 < event.number < _MAX_NUMBER, "the version of an event")
    if event.action in ("tag", "untag") and not event.is_emptied:
        parse_alias(str(event.detail.get("alias", "")))
    try:
        text = json.dumps(dict(event.detail), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        text = "\x00"
    _require(len(text) <= _MAX_DETAIL and "\x00" not in text and is_unicode(text), "the detail of an event")


def _validate_author(author: str) -> None:
    _require(len(author) <= _MAX_AUTHOR and author.isprintable() and is_unicode(author), "an author")


def _validate_time(time: datetime) -> None:
    _require(time.tzinfo is not None and time.year >= 2000, "a time")


def _require(is_sound: bool, what: str) -> None:
    if not is_sound:
        raise UsageError(f"{what} of the origin is none that a registry has", hint="loreg mirror reads it from one")
