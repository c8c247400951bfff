"""Read which versions are kept: the table ``[retention]`` of loreg.toml, or of the user's file."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated

import msgspec
from msgspec import Meta

from loreg.decoding import decode
from loreg.entities import Retention, RetentionRules
from loreg.errors import UsageError
from loreg.parsing import parse_span
from loreg.refs import NO_NAMESPACE, parse_adapter_name

_EXAMPLE = "write [retention] with keep_last = 5 into loreg.toml"


class _Rules(msgspec.Struct, forbid_unknown_fields=True):
    """The rules as people write them, see :class:`loreg.entities.RetentionRules`."""

    keep_last: Annotated[int, Meta(ge=1)] | None = None
    keep_newer: str | None = None
    keep_every: Annotated[int, Meta(ge=1)] | None = None
    keep_yanked: str | None = None


class _Table(_Rules, forbid_unknown_fields=True):
    """The table ``[retention]``: the rules, and those of namespaces that have rules of their own."""

    namespace: dict[str, _Rules] = msgspec.field(default_factory=dict)


def read_retention(table: Mapping[str, object], origin: str) -> Retention:
    """Read the table ``[retention]`` of the file ``origin``. Raises UsageError with file and key, or if it is empty."""
    if not table:
        raise UsageError("no file says which versions are kept: there is no [retention]", hint=_EXAMPLE)
    try:
        written = decode(table, _Table)
        namespaces = {}
        for name, rules in written.namespace.items():
            if name != NO_NAMESPACE and parse_adapter_name(name).namespace:
                raise ValueError(f"namespace.{name} is no namespace")
            namespaces["" if name == NO_NAMESPACE else name] = _to_rules(rules)
        return Retention(_to_rules(written), namespaces)
    except (ValueError, UsageError) as error:
        what = error.message if isinstance(error, UsageError) else error
        raise UsageError(f"{origin}: [retention] {what}", hint=f"mend {origin}") from error


def _to_rules(rules: _Rules) -> RetentionRules:
    return RetentionRules(rules.keep_last, _to_span(rules.keep_newer), rules.keep_every, _to_span(rules.keep_yanked))


def _to_span(text: str | None) -> timedelta | None:
    return parse_span(text) if text is not None else None
