"""What probes say of versions, and how many versions have which findings."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from loreg.entities.results import Severity
from loreg.value import Value


class NewFacts(Value, frozen=True):
    """What one probe says of an adapter: its ``value``, or in ``error`` why it can say nothing.

    ``release`` is that of the probe: another one may say something else.
    """

    probe: str
    release: str
    value: Mapping[str, object]
    error: str = ""


class VersionFacts(Value, frozen=True):
    """What one probe said of a version, at that time; ``is_stale`` if the registry has another release of it by now."""

    probe: str
    release: str
    value: dict[str, object]
    error: str
    at: datetime
    is_stale: bool = False


class FindingCount(Value, frozen=True):
    """How many versions of a namespace, not yanked, have a finding with this code."""

    code: str
    severity: Severity
    namespace: str
    versions: int


class CheckedCount(Value, frozen=True):
    """How many versions a namespace has that are not yanked, and of how many the probe ``check`` has said anything.

    ``stale`` of those were checked by other rules than the registry has by now, of ``failed`` it could say nothing.
    """

    namespace: str
    versions: int
    checked: int
    stale: int
    failed: int


class FindingCounts(Value, frozen=True):
    """What the versions that a caller may read have found, by code and namespace, and how many of them were checked."""

    findings: tuple[FindingCount, ...]
    namespaces: tuple[CheckedCount, ...]
