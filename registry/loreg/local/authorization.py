"""Refusing what somebody may not do. What he may not even read is not found, which catalog queries see to."""

from __future__ import annotations

from loreg.entities import Access, Role
from loreg.errors import LoregError, NotAllowedError, UnauthenticatedError
from loreg.refs import NO_NAMESPACE


def require(access: Access, role: Role, namespace: str) -> None:
    """Raise NotAllowedError unless that much is allowed in the namespace."""
    if not access.may(role, namespace):
        where = f"in the namespace {namespace!r}" if namespace else "among adapters without a namespace"
        raise _not_allowed(access, f"{role} {where}", f"{role}:{namespace or NO_NAMESPACE}")


def require_somewhere(access: Access, role: Role) -> None:
    """Raise NotAllowedError unless that much is allowed in some namespace."""
    if not access.may_somewhere(role):
        raise _not_allowed(access, f"{role} anywhere", f"{role}:NAMESPACE")


def _not_allowed(access: Access, what: str, scope: str) -> LoregError:
    if not access.permissions:
        return UnauthenticatedError(f"without a token nobody may {what}", hint="loreg login URL")
    return NotAllowedError(f"{access.author} may not {what}", hint=f"ask for a token with --scope {scope}")
