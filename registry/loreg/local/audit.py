"""Read which pulls are events: the table ``[audit]`` of loreg.toml, or of the user's file."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from loreg.decoding import decode
from loreg.errors import UsageError
from loreg.refs import AdapterPattern, parse_adapter_pattern


class _Table(msgspec.Struct, forbid_unknown_fields=True):
    """The table ``[audit]``: ``pulls`` are patterns of adapters."""

    pulls: tuple[str, ...] = ()


def read_audited_pulls(table: Mapping[str, object], origin: str) -> tuple[AdapterPattern, ...]:
    """Return the patterns of the adapters of which every pull is an event. Raises UsageError with file and key."""
    try:
        return tuple(map(parse_adapter_pattern, decode(table, _Table).pulls))
    except (ValueError, UsageError) as error:
        what = error.message if isinstance(error, UsageError) else error
        raise UsageError(f"{origin}: [audit] {what}", hint=f"mend {origin}") from error
