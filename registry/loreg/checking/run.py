"""Running every rule on one adapter."""

from __future__ import annotations

from collections.abc import Iterable

import loreg.checking.base_fit
import loreg.checking.files
import loreg.checking.saving
import loreg.checking.structure  # noqa: F401  these four declare their rules
from loreg.adapters.scan import scan_numbers
from loreg.adapters.structure import AdapterStructure
from loreg.checking.rules import RULES, Subject, run_rules
from loreg.entities import Finding
from loreg.errors import CheckFailedError


def check_adapter(subject: Subject) -> tuple[Finding, ...]:
    """Every finding on the adapter, in the order of the rules' codes."""
    return run_rules(subject, (rule for _, rule in sorted(RULES.items())))


def read_weights(structure: AdapterStructure, files: Iterable[str] = ()) -> Subject:
    """The adapter with all of its numbers looked at once."""
    return Subject(structure, dict(scan_numbers(structure.weights, structure.tensors)), tuple(files))


def raise_first_error(name: str, findings: tuple[Finding, ...]) -> None:
    """Raise CheckFailedError with the first error and how many more there are; nothing if there is none."""
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise CheckFailedError(f"{name}: {errors[0].code} {errors[0].message}{more}", hint=errors[0].remedy)
