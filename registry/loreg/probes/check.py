"""The probe ``check``: which rules an adapter breaks, and those of which servers it meets with, by its header alone."""

from __future__ import annotations

from collections.abc import Iterable

from loreg.checking.profile import check_profile
from loreg.checking.rules import Subject
from loreg.checking.run import check_adapter
from loreg.checking.servers import installed_profiles
from loreg.entities import Finding
from loreg.probes.adapter import ProbedAdapter

NAME = "check"
_MAX_MESSAGE = 300  # characters of a message, which may quote the adapter


def check(adapter: ProbedAdapter) -> dict[str, object]:
    """Return every finding on the adapter alone and in every server, by its code.

    Base and numbers of the weights are not looked at: rules about them find nothing.
    """
    subject = Subject(adapter.structure, None, adapter.files)
    return check_subject(subject, check_adapter(subject))


def check_subject(subject: Subject, findings: Iterable[Finding]) -> dict[str, object]:
    """Return the same of an adapter whose ``findings`` by the rules are known already."""
    by_code: dict[str, dict[str, str]] = {}
    in_servers = (finding for profile in installed_profiles() for finding in check_profile(profile, subject))
    for finding in (*findings, *in_servers):
        first = {"severity": str(finding.severity), "message": finding.message[:_MAX_MESSAGE]}
        by_code.setdefault(finding.code, first)
    return {"findings": by_code}
