"""What a report of a deployment may say: names that a table can show, each once."""

from __future__ import annotations

from loreg.catalog.selections import MAX_SELECTED
from loreg.entities import DeploymentReport
from loreg.errors import UsageError

_MAX_WORD, _MAX_KIND, _MAX_NAME = 128, 16, 200  # characters


def validate_report(report: DeploymentReport) -> None:
    """Raise UsageError for a name that is empty, too long or not to be printed, or that is there twice."""
    versions = report.versions or ()
    texts = [
        ("server", report.server, _MAX_WORD),
        ("replica", report.replica, _MAX_WORD),
        ("kind", report.kind, _MAX_KIND),
        *(("name", version.name, _MAX_NAME) for version in versions),
    ]
    for what, text, most in texts:
        if not 0 < len(text) <= most or not text.isprintable():
            raise UsageError(
                f"the {what} {text[:50]!r} is none: expected 1 to {most} characters that can be printed",
                hint="name it as people do, e.g. vllm-1",
            )
    if len({version.name for version in versions}) < len(versions):
        raise UsageError("one name has two versions", hint="tell for each name what it means now")
    if len(versions) > MAX_SELECTED:
        raise UsageError(f"{len(versions):,} versions are told, expected {MAX_SELECTED:,} at most", hint="loreg ls")
