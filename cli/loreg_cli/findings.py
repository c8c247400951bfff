"""``loreg findings``: which rules are broken, in which namespaces, by how many versions."""

from __future__ import annotations

import click

from loreg_cli.options import format_option, open_registry, table_options
from loreg_cli.output import echo, print_json, print_table, warn


@click.command()
@click.argument("pattern", metavar="[PATTERN]", default="*")
@table_options
@format_option
def findings(pattern: str, format_: str) -> None:
    """Count the versions that break a rule, by rule and namespace; yanked ones are not counted.

    loreg check says more of one version, loreg check --explain of one rule.

    \b
    loreg findings 'team/*'
    """
    counts = open_registry().count_findings(pattern)
    if format_ == "json":
        print_json(counts)
        return
    if format_ == "quiet":
        for code in dict.fromkeys(count.code for count in counts.findings):
            echo(code)
    else:
        rows = [(count.code, count.severity, count.namespace, f"{count.versions:,}") for count in counts.findings]
        print_table(["RULE", "SEVERITY", "NAMESPACE", "VERSIONS"], rows, right=["VERSIONS"], drop=["SEVERITY"])
    versions = sum(count.versions for count in counts.namespaces)
    checked = sum(count.checked - count.stale for count in counts.namespaces)
    if checked < versions:
        warn(f"{checked:,} of {versions:,} versions were checked by the rules of now; loreg map check does the rest")
