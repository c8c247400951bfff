"""Record what probes say of versions, and tell it: a client's word for it is not taken."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from loreg.catalog import Transaction, facts
from loreg.checking.rules import Subject
from loreg.checking.servers import rules_release
from loreg.entities import Finding, FindingCounts, NewFacts, Severity, VersionFacts
from loreg.probes import check
from loreg.refs import AdapterPattern


def check_facts(subject: Subject, findings: tuple[Finding, ...]) -> NewFacts:
    """Return what the probe ``check`` says of an adapter whose ``findings`` by the rules are known."""
    return NewFacts(check.NAME, rules_release(), check.check_subject(subject, findings))


def record_facts(tx: Transaction, version_id: int, new: NewFacts) -> None:
    """Record what a probe says of a version, in place of what it said before."""
    facts.put(tx, version_id, new)
    if new.probe == check.NAME:
        by_code: Any = new.value.get("findings", {})
        facts.put_findings(tx, version_id, {code: Severity(finding["severity"]) for code, finding in by_code.items()})


def read_facts(tx: Transaction, version_id: int) -> tuple[VersionFacts, ...]:
    """Return what probes said of a version, by the probes' names."""
    return tuple(
        replace(recorded, is_stale=recorded.probe == check.NAME and recorded.release != rules_release())
        for recorded in facts.find(tx, version_id)
    )


def count_findings(tx: Transaction, pattern: AdapterPattern) -> FindingCounts:
    """Count findings; see :meth:`loreg.backend.Backend.count_findings`."""
    return FindingCounts(
        facts.count_findings(tx, pattern), facts.count_checked(tx, pattern, check.NAME, rules_release())
    )
