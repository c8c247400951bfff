"""Say by findings which versions load in a server: those of its profile's rules that none of them may break."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType

from msgspec.structs import replace

from loreg.entities import Query
from loreg.errors import UsageError
from loreg.suggestions import suggest


@functools.cache
def findings_by_server() -> Mapping[str, tuple[str, ...]]:
    """Return the codes of the findings with which a server refuses an adapter, or answers wrongly, by its profile."""
    from loreg.checking.profile import Effect, list_profiles
    from loreg.checking.servers import effects_by_code, installed_profiles

    return MappingProxyType(
        {
            name: tuple(code for code, effect in effects_by_code(profile).items() if effect != Effect.SLOW)
            for name, profile in zip(list_profiles(), installed_profiles(), strict=True)
        }
    )


def with_findings_of_server(query: Query) -> Query:
    """Return the query with the findings that must not be there for what it is to load in. Raises UsageError."""
    if not query.loads_in:
        return query
    servers = findings_by_server()
    if query.loads_in not in servers:
        raise UsageError(
            f"there is no profile {query.loads_in!r} of a server",
            hint=f"--loads-in {' | '.join(servers)}",
            suggestion=suggest(query.loads_in, servers),
        )
    return replace(query, without_findings=servers[query.loads_in])
