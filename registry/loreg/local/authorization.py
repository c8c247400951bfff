"""Refuse what a caller may not do. What the caller may not even read is not found: catalog queries see to that."""

from __future__ import annotations

from loreg.entities import Access, Role
from loreg.errors import LoregError, NotAllowedError, UnauthenticatedError
from loreg.refs import NO_NAMESPACE


def require(access: Access, role: Role, namespace: str) -> None:
    """Raise NotAllowedError unless ``access`` has the role in the namespace; UnauthenticatedError without a token."""
    if not access.may(role, namespace):
        where = f"in the namespace {namespace!r}" if namespace else "among adapters without a namespace"
        raise _not_allowed(access, f"{role} {where}", f"{role}:{namespace or NO_NAMESPACE}")


def require_somewhere(access: Access, role: Role) -> None:
    """Raise NotAllowedError unless ``access`` has the role in some namespace; UnauthenticatedError without a token."""
    if not access.may_somewhere(role):
        raise _not_allowed(access, f"{role} anywhere", f"{role}:NAMESPACE")


def _not_allowed(access: Access, what: str, scope: str) -> LoregError:
    if not access.permissions:
        return UnauthenticatedError(f"without a token nobody may {what}", hint="loreg login --help")
    return NotAllowedError(f"{access.author} may not {what}", hint=f"ask for a token with --scope {scope}")
