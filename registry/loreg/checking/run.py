"""Running every rule on one adapter."""

from __future__ import annotations

from collections.abc import Iterable

import loreg.checking.beside
import loreg.checking.fit
import loreg.checking.saving
import loreg.checking.structure  # noqa: F401  these four declare their rules
from loreg.adapters.scan import scan_numbers
from loreg.adapters.structure import AdapterStructure
from loreg.checking.findings import RULES, Subject, findings_of
from loreg.entities import Finding
from loreg.errors import CheckFailedError


def run(subject: Subject) -> tuple[Finding, ...]:
    """Every finding on the adapter, in the order of the rules' codes."""
    return findings_of(subject, (rule for _, rule in sorted(RULES.items())))


def read_weights(layout: AdapterStructure, files: Iterable[str] = ()) -> Subject:
    """The adapter with all of its numbers looked at once."""
    return Subject(layout, dict(scan_numbers(layout.weights, layout.tensors)), tuple(files))


def refuse_errors(name: str, findings: tuple[Finding, ...]) -> None:
    """Raise CheckFailedError with the first error and how many more there are; nothing if there is none."""
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise CheckFailedError(f"{name}: {errors[0].code} {errors[0].message}{more}", hint=errors[0].remedy)
