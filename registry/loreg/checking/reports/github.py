"""Workflow commands of GitHub Actions: annotations on the page of a run.

Format: https://docs.github.com/actions/reference/workflow-commands-for-github-actions
"""

from __future__ import annotations

from collections.abc import Sequence

from loreg.entities import CheckReport


def github(reports: Sequence[CheckReport]) -> str:
    """Return one workflow command a line, one for each finding."""
    return "".join(
        f"::{finding.severity} file={_property(report.path or report.name)},title={_property(finding.code)}::"
        f"{_data(f'{report.name}: {finding.message}. {finding.remedy}')}\n"
        for report in reports
        for finding in report.findings
    )


def _data(text: str) -> str:
    """Escape as GitHub asks; write other control characters, which an uploaded name may have, as Python does."""
    printable = "".join(c if c.isprintable() or c in "\r\n" else repr(c)[1:-1] for c in text)
    return printable.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
