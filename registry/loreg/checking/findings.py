"""What becomes of findings: an error where one of them is an error. Nothing of the rules is imported."""

from __future__ import annotations

from collections.abc import Sequence

from loreg.entities import Finding, Severity
from loreg.errors import CheckFailedError


def raise_first_error(name: str, findings: Sequence[Finding]) -> None:
    """Raise CheckFailedError with the first error of ``name`` and how many more there are; nothing if there is none."""
    errors = [finding for finding in findings if finding.severity == Severity.ERROR]
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise CheckFailedError(f"{name}: {errors[0].code} {errors[0].message}{more}", hint=errors[0].remedy)
