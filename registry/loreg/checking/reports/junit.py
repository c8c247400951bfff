"""JUnit XML: a test suite for each adapter, a failed test for each error.

Format: https://github.com/testmoapp/junitxml, what Jenkins, GitLab and others read.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from loreg.entities import CheckReport, Severity


def junit(reports: Sequence[CheckReport]) -> str:
    """Return the whole document. Warnings are in ``system-out``: JUnit knows only failures."""
    root = ElementTree.Element("testsuites", name="loreg check")
    for report in reports:
        errors = [finding for finding in report.findings if finding.severity == Severity.ERROR]
        warnings = [finding for finding in report.findings if finding.severity == Severity.WARNING]
        count = max(1, len(errors))
        suite = ElementTree.SubElement(
            root, "testsuite", name=report.name, tests=str(count), failures=str(len(errors)), errors="0", skipped="0"
        )
        for finding in errors:
            case = ElementTree.SubElement(
                suite, "testcase", classname=report.name, name=f"{finding.code} {finding.message}"
            )
            ElementTree.SubElement(case, "failure", message=finding.message, type=finding.code).text = finding.remedy
        if not errors:
            ElementTree.SubElement(suite, "testcase", classname=report.name, name="loreg check")
        if warnings:
            lines = [f"{finding.code} {finding.message}: {finding.remedy}" for finding in warnings]
            ElementTree.SubElement(suite, "system-out").text = "\n".join(lines)
    for element in root.iter():
        element.attrib = {name: _printable(value) for name, value in element.attrib.items()}
        element.text = _printable(element.text) if element.text else None
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode")


def _printable(text: str) -> str:
    """Replace the control characters that XML cannot hold."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
