"""Run every rule on one adapter, and refuse it at the first error."""

from __future__ import annotations

from collections.abc import Iterable

import loreg.checking.base_fit
import loreg.checking.files
import loreg.checking.saving
import loreg.checking.structure  # noqa: F401  these four declare their rules
from loreg.adapters.scan import scan_numbers
from loreg.adapters.structure import AdapterStructure
from loreg.checking.findings import raise_first_error
from loreg.checking.rules import RULES, Subject, run_rules
from loreg.entities import Finding

#: The rule on tensors without numbers. Older releases stored these, and a merge would pass them on.
_EMPTY = "LR018"


def check_adapter(subject: Subject) -> tuple[Finding, ...]:
    """Return every finding on the adapter, in the order of the rules' codes."""
    return run_rules(subject, (rule for _, rule in sorted(RULES.items())))


def scan_adapter(structure: AdapterStructure, files: Iterable[str] = ()) -> Subject:
    """Read every number of the weights once, and return the adapter with what that showed, ready to be checked."""
    return Subject(structure, dict(scan_numbers(structure.weights, structure.tensors)), tuple(files))


def refuse_empty_tensors(name: str, structure: AdapterStructure) -> None:
    """Raise CheckFailedError, of the adapter ``name``, if a tensor has no numbers."""
    raise_first_error(name, tuple(run_rules(Subject(structure), [RULES[_EMPTY]])))
