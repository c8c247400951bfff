"""What a team's policy says before one of its aliases moves."""

from __future__ import annotations

import contextlib

from loreg.catalog import versions
from loreg.catalog.projection import Found
from loreg.catalog.transaction import Transaction
from loreg.checking import policy
from loreg.checking.policy import Policy
from loreg.checking.run import refuse_errors
from loreg.errors import NotFoundError


def guard_alias(tx: Transaction, asked: Policy, found: Found, alias: str) -> None:
    """Raise CheckFailedError if the policy guards the alias and the version breaks it."""
    if alias not in asked.aliases:
        return
    version, other = found.version, None
    if ref := policy.held_against(asked.against, version.adapter):
        with contextlib.suppress(NotFoundError):
            other = versions.resolve(tx, ref).version
    candidate = policy.candidate(version, versions.card(tx, found), other)
    refuse_errors(f"{version.ref} cannot become {alias!r}", policy.findings(asked, candidate))
