"""SARIF 2.1.0 (OASIS), which code-scanning pages read: one run, a rule for each code, a result for each finding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from urllib.parse import quote

from loreg.entities import CheckReport, Finding

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def sarif(reports: Sequence[CheckReport], version: str) -> dict[str, object]:
    """Return the log as a JSON document; ``version`` is loreg's."""
    by_code = dict(sorted({finding.code: finding for report in reports for finding in report.findings}.items()))
    rule_indices = {code: index for index, code in enumerate(by_code)}
    rules = [
        {"id": code, "defaultConfiguration": {"level": finding.severity}, "help": {"text": finding.remedy}}
        for code, finding in by_code.items()
    ]
    results = [_result(report, finding, rule_indices) for report in reports for finding in report.findings]
    driver = {"name": "loreg", "version": version, "rules": rules}
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}


def _result(report: CheckReport, finding: Finding, rule_indices: dict[str, int]) -> dict[str, object]:
    # A log speaks of files of the repository that was checked: an absolute path is taken as it is.
    path = report.path or report.name
    uri = PurePath(path).as_uri() if PurePath(path).is_absolute() else quote(path)
    return {
        "ruleId": finding.code,
        "ruleIndex": rule_indices[finding.code],
        "level": finding.severity,
        "message": {"text": f"{report.name}: {finding.message}. {finding.remedy}"},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": uri}}}],
    }
