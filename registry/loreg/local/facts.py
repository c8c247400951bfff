"""Record what probes say of versions, and tell it: a client's word for it is not taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from loreg.catalog import Transaction, facts, sketches
from loreg.checking.rules import Subject
from loreg.checking.servers import rules_release
from loreg.entities import Finding, FindingCounts, NewFacts, Sketch, VersionFacts
from loreg.local.sketches import signs_of
from loreg.probes import check, sketch
from loreg.probes.probe import find_probe
from loreg.refs import AdapterPattern


def check_facts(subject: Subject, findings: tuple[Finding, ...]) -> NewFacts:
    """Return what the probe ``check`` says of an adapter whose ``findings`` by the rules are known.

    Where a server's rules cannot be asked, the facts say so: that is no reason to refuse the adapter.
    """
    return find_probe(check.NAME).call(lambda: check.check_subject(subject, findings))


def record_facts(tx: Transaction, version_id: int, new: NewFacts) -> None:
    """Record what a probe says of a version, in place of what it said before."""
    record_all_facts(tx, {version_id: new})


def record_all_facts(tx: Transaction, by_version: Mapping[int, NewFacts]) -> None:
    """Record what one probe says of versions, by their ids, in place of what it said before.

    A version without a sketch gets the one that the probe ``sketch`` made; of one that has it, what its pusher said
    stays.
    """
    facts.put_all(tx, {version_id: _without_vector(new) for version_id, new in by_version.items()})
    if checked := [version_id for version_id, new in by_version.items() if new.probe == check.NAME]:
        facts.derive_findings(tx, check.NAME, checked)
    for version_id, new in by_version.items():
        if new.probe == sketch.NAME and not new.error:
            _fill_in_sketch(tx, version_id, new.value)


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


def _without_vector(new: NewFacts) -> NewFacts:
    """Return facts as they are recorded: the numbers of a sketch lie in a table of their own."""
    if new.probe != sketch.NAME:
        return new
    return replace(new, value={name: part for name, part in new.value.items() if name != "vector"})


def _fill_in_sketch(tx: Transaction, version_id: int, value: Any) -> None:
    new = Sketch(value["data"], value["norm"], value["vector"])
    sketches.record(tx, version_id, new, signs_of(new))
