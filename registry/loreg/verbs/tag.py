"""tag, untag, yank, unyank and metric add: what may be said of a version after it was pushed."""

from __future__ import annotations

from collections.abc import Sequence

from loreg.entities import Metric, Version
from loreg.errors import UsageError
from loreg.parsing import parse_metric
from loreg.refs import parse_adapter_name, parse_alias, parse_ref
from loreg.workspace.context import Context


def tag(context: Context, ref: str, alias: str, *, expected: int | None = None) -> Version:
    """Let ``alias`` mean the version of ``ref`` from now on.

    With ``expected`` only if it still means the version of that number (0: if there is no such alias yet); raises
    ConflictError if somebody else moved it. Raises NotAllowedError if the version is yanked, CheckFailedError if it
    breaks the policy that guards the alias.
    """
    if expected is not None and expected < 0:
        raise UsageError(f"an alias cannot mean v{expected}", hint="expected is the number of a version, or 0")
    return context.backend.tag(parse_ref(ref), parse_alias(alias), expected)


def untag(context: Context, name: str, alias: str) -> None:
    """Forget an alias of the adapter ``name``; its history stays. Raises NotFoundError."""
    context.backend.untag(parse_adapter_name(name), parse_alias(alias))


def yank(context: Context, ref: str, *, reason: str = "") -> Version:
    """Hide a version from search, aliases and refs without a version; an exact ref still pulls it."""
    return context.backend.set_yanked(parse_ref(ref), True, reason)


def unyank(context: Context, ref: str) -> Version:
    """Show a yanked version again."""
    return context.backend.set_yanked(parse_ref(ref), False, "")


def add_metrics(context: Context, ref: str, metrics: Sequence[str | Metric]) -> Version:
    """Record measured numbers of a version; one measured on the same data before is replaced."""
    measured = tuple(metric if isinstance(metric, Metric) else parse_metric(metric) for metric in metrics)
    return context.backend.add_metrics(parse_ref(ref), measured)
