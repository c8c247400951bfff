"""``loreg check``: findings on adapters, for people and for CI systems."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import click

import loreg
from loreg_cli.options import open_registry, refuse_empty
from loreg_cli.output import echo, print_json, print_pairs, warn
from loreg_cli.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loreg.entities import CheckReport

_COLOURS = {"error": "red", "warning": "yellow"}
_FAILED = 5
_MAX_MESSAGES = 5  # of one rule on one adapter


@click.command()
@click.argument("sources", metavar="[REF|DIR|hf:NAME]...", nargs=-1)
@click.option(
    "--base",
    metavar="NAME|PATH",
    help="The model that it is to meet; of a path only headers are read.",
    callback=refuse_empty,
)
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    metavar="SERVER",
    help="What it is to be served with: vllm, vllm:max_lora_rank=64, sglang, lorax, tgi, … or ./mine.toml; repeatable.",
)
@click.option("--against", metavar="ALIAS|REF", help="No metric may be worse than that version's.")
@click.option("--header-only", is_flag=True, help="Read no weights: NaN and zero are then not looked for.")
@click.option("--strict", is_flag=True, help="Warnings fail too.")
@click.option("--explain", metavar="CODE", help="Say what a rule is about, and leave.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "json", "junit", "sarif", "github"]),
    default="text",
    show_default=True,
    help="For people, for programs, or for a CI system.",
)
@click.pass_context
def check(
    context: click.Context,
    sources: tuple[str, ...],
    base: str | None,
    profiles: tuple[str, ...],
    against: str | None,
    header_only: bool,
    strict: bool,
    explain: str | None,
    format_: str,
) -> None:
    """Say what is wrong with adapters: by themselves, on a base, in a server. Exit code 5 if something is.

    \b
    loreg check ./runs/42 --base ./models/llama --profile vllm --profile sglang
    loreg check team/news:prod --profile vllm:max_lora_rank=64 --format github
    loreg check team/news --against prod
    loreg check hf:org/adapter --profile sglang
    """
    if explain is not None:
        _explain(explain)
        return
    if not sources:
        raise click.UsageError("expected refs or folders to check, or --explain CODE")
    with progress_bar() as progress:
        reports = open_registry().check(
            sources,
            base=base,
            profiles=profiles,
            against=against or "",
            header_only=header_only,
            progress=progress,
        )
    _print(reports, format_)
    from loreg.entities import Severity

    failed = sum(report.count(Severity.ERROR) + (report.count(Severity.WARNING) if strict else 0) for report in reports)
    context.exit(_FAILED if failed else 0)


def _print(reports: Sequence[CheckReport], format_: str) -> None:
    if format_ == "json":
        print_json(list(reports))
    elif format_ == "junit":
        from loreg.checking.reports.junit import junit

        click.echo(junit(reports))
    elif format_ == "sarif":
        from loreg.checking.reports.sarif import sarif

        print_json(sarif(reports, loreg.__version__))
    elif format_ == "github":
        from loreg.checking.reports.github import github

        click.echo(github(reports), nl=False)
    else:
        for report in reports:
            _print_report(report)
        for text in dict.fromkeys(text for report in reports for text in report.notes):  # once, not for each adapter
            warn(text)


def _print_report(report: CheckReport) -> None:
    """Print the adapter, how many findings there are by severity, each finding, and its remedy."""
    by_severity = Counter(finding.severity for finding in report.findings)
    counts = ", ".join(
        f"{count} {severity}{'s' if count > 1 else ''}" for severity, count in sorted(by_severity.items())
    )
    echo(f"{report.name}: {counts or 'nothing to object to'}")
    for severity, colour in _COLOURS.items():
        remedies: dict[tuple[str, str], list[str]] = {}
        for finding in report.findings:
            if finding.severity == severity:
                remedies.setdefault((finding.code, finding.remedy), []).append(finding.message)
        for (code, remedy), messages in remedies.items():
            for message in messages[:_MAX_MESSAGES]:
                click.echo(f"  {click.style(severity, fg=colour)} {code} ", nl=False)
                echo(message)
            if len(messages) > _MAX_MESSAGES:
                click.echo(f"  and {len(messages) - _MAX_MESSAGES} more of {code}")
            echo(f"    → {remedy}")


def _explain(code: str) -> None:
    from loreg.checking.explain import explain

    rule = explain(code)
    print_pairs(
        [
            ("code", rule.code),
            ("severity", rule.severity),
            ("about", rule.about),
            ("remedy", rule.remedy),
            ("source", rule.source),
        ]
    )
