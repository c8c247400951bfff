"""Running every rule on one adapter."""

from __future__ import annotations

import loreg.checking.structure  # noqa: F401  declares its rules
from loreg.adapters.layout import Layout
from loreg.adapters.scan import scan
from loreg.checking.findings import RULES, Finding, Subject
from loreg.errors import CheckFailedError


def run(layout: Layout) -> tuple[Finding, ...]:
    """Every finding on the adapter, in the order of the rules' codes. Reads all weights once."""
    subject = Subject(layout, dict(scan(layout.weights, layout.tensors)))
    return tuple(
        Finding(rule.code, rule.severity, message, rule.remedy)
        for _, rule in sorted(RULES.items())
        for message in rule.find(subject)
    )


def refuse_errors(name: str, findings: tuple[Finding, ...]) -> None:
    """Raise CheckFailedError with the first error and how many more there are; nothing if there is none."""
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise CheckFailedError(f"{name}: {errors[0].code} {errors[0].message}{more}", hint=errors[0].remedy)
