"""``loreg import``: bring in the adapters of trees of training runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from loreg.byte_sizes import format_size
from loreg_cli.options import format_option, open_registry, read_labels, refuse_empty, table_options
from loreg_cli.output import echo, print_json, print_table, warn
from loreg_cli.progress import progress_bar

if TYPE_CHECKING:
    from loreg.entities import ImportPlan, ImportReport, PlannedVersion
    from loreg.verbs.import_runs import PlannedImport

_FAILED = 5


@click.command(name="import")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--namespace", default="", metavar="TEAM", help="Goes before every name.")
@click.option("--name", default="", metavar="NAME", help="The name of a single adapter; default: from its folder.")
@click.option(
    "--checkpoints",
    default="all",
    show_default=True,
    metavar="WHICH",
    help="best,last or steps such as 200,400, where not all are wanted.",
)
@click.option("--task", "tasks", multiple=True, metavar="TASK", help="What they are for; may be repeated.")
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="KEY=VALUE",
    callback=read_labels,
    help="Anything else; may be repeated.",
)
@click.option("-m", "--message", default="", metavar="TEXT", help="What is new; default: which moment of which run.")
@click.option(
    "--base", metavar="PATH|NAME|DIGEST", help="The base model that all of them were trained on.", callback=refuse_empty
)
@click.option("--mend", is_flag=True, help="Put names right that keep PEFT from reading a file.")
@click.option("--dry-run", is_flag=True, help="Show the plan, and leave.")
@click.option("--yes", is_flag=True, help="Do not ask; needed where there is no terminal.")
@format_option
@table_options
@click.pass_context
def import_command(
    context: click.Context,
    paths: tuple[Path, ...],
    namespace: str,
    name: str,
    checkpoints: str,
    tasks: tuple[str, ...],
    labels: dict[str, str],
    message: str,
    base: str | None,
    mend: bool,
    dry_run: bool,
    yes: bool,
    format_: str,
) -> None:
    """Bring in every adapter at or below PATH: runs with their checkpoints, named adapters, trees of hundreds.

    PATH is a folder, or on the Hub: hf:ORG/NAME[@REV], hf:ORG for all of its adapters, hf:collections/SLUG; or on the
    server of MLFLOW_TRACKING_URI: mlflow:RUN, mlflow:experiments/NAME, mlflow:models/NAME.

    Metrics, task, dataset, seed and arguments are read from what the trainer wrote; the best and the last checkpoint
    get the aliases best and last. A second import takes only what is new. Exit code 5 if something did not come in.

    \b
    loreg import ./runs --namespace team --dry-run
    loreg import ./runs --namespace team --task sentiment --yes
    loreg import hf:ORG --namespace team --dry-run
    """
    from loreg.entities import ImportOptions, ImportStatus

    options = ImportOptions(name, namespace, tasks, labels, message, base, checkpoints, mend)
    registry = open_registry()
    with progress_bar() as progress:
        planned = registry.plan_import(paths, options, progress=progress)
    is_asked = not (yes or dry_run) and _can_ask()
    if format_ == "table":
        _print_plan(planned.plan)
    if is_asked and not mend and planned.plan.with_status(ImportStatus.MENDABLE) and _asks_to_mend(planned.plan):
        import msgspec

        planned = registry.plan_import(paths, msgspec.structs.replace(options, mend=True))
    if dry_run:
        _print_dry_run(context, planned.plan, format_)
        return
    new = planned.plan.with_status(ImportStatus.NEW)
    if new and not yes:
        _ask(context, len(new), is_asked)
    _print_report(context, planned.plan, _run(planned), format_)


globals()["import"] = import_command  # the name that is typed, which no statement can bind


def _run(planned: PlannedImport) -> ImportReport:
    with progress_bar() as progress:
        return planned.run(progress)


def _can_ask() -> bool:
    return sys.stdin.isatty()


def _ask(context: click.Context, count: int, is_terminal: bool) -> None:
    """Ask whether to go on. Raises NotAllowedError, with the command as its hint, if nobody can be asked."""
    from loreg.errors import NotAllowedError

    what = _count(count, "version")
    if not is_terminal:
        raise NotAllowedError(
            f"there is no terminal to ask whether to import {what}: nothing was stored",
            hint=f"{_typed(context)} --yes",
        )
    click.confirm(f"Import {what}?", default=True, abort=True, err=True)


def _typed(context: click.Context) -> str:
    """Return the command as it was typed, but for the order of its options."""
    import shlex

    words = [] if context.parent is None else [_typed(context.parent)]
    words.append(context.info_name or "loreg" if context.parent is not None else "loreg")
    arguments: list[str] = []
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        if not value or value == parameter.default:
            continue
        if isinstance(parameter, click.Argument):
            arguments += map(str, value)
        elif isinstance(parameter, click.Option) and parameter.is_flag:
            arguments.append(parameter.opts[-1])
        else:
            values = [f"{key}={text}" for key, text in value.items()] if isinstance(value, dict) else value
            for text in values if isinstance(values, list | tuple) else [values]:
                arguments += [parameter.opts[-1], str(text)]
    return " ".join([*words, *map(shlex.quote, arguments)])


def _asks_to_mend(plan: ImportPlan) -> bool:
    from loreg.entities import ImportStatus

    what = _count(len(plan.with_status(ImportStatus.MENDABLE)), "adapter")
    return click.confirm(f"Mend {what} on the way? The folders are not changed", default=True, err=True)


def _print_plan(plan: ImportPlan) -> None:
    """Print what becomes of each state: a table of what comes in or is there, what is not and why, and the notes."""
    from loreg.entities import ImportStatus

    shown = [version for version in plan.versions if version.status in (ImportStatus.NEW, ImportStatus.PRESENT)]
    if shown:
        rows = [(_becomes(version), _what(version), _measured(version), _short(version)) for version in shown]
        print_table(("BECOMES", "STATUS", "MEASURED", "FROM"), rows, paths=["FROM"], drop=["MEASURED", "STATUS"])
    for version in plan.versions:
        if version.status == ImportStatus.REFUSED:
            echo(f"refused: {_short(version)}: {version.code} {version.reason}".replace(":  ", ": "))
            echo(f"  → {version.hint}") if version.hint else None
        elif version.mend:
            verb = "mended" if version.status == ImportStatus.NEW else "can be mended (--mend)"
            echo(f"{verb}: {_short(version)}: {version.code} {version.mend}")
    for text in plan.notes:
        warn(text)


def _becomes(version: PlannedVersion) -> str:
    ref = version.ref or f"{version.adapter}:v{version.number}"
    return f"{ref} ({', '.join(version.aliases)})" if version.aliases else ref


def _what(version: PlannedVersion) -> str:
    return "already there" if version.ref else f"new, {format_size(version.size)}"


def _measured(version: PlannedVersion) -> str:
    """Return the number that says most of a state: one of an evaluation before one of training."""
    measured = sorted(
        version.metrics, key=lambda metric: (not metric.name.startswith("eval"), metric.name == "eval_loss")
    )
    return f"{measured[0].name}={measured[0].value:.4g}" if measured else ""


def _short(version: PlannedVersion) -> str:
    """Return where the adapter lies, as a path that is relative where that is shorter."""
    path = Path(version.source)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _print_dry_run(context: click.Context, plan: ImportPlan, format_: str) -> None:
    from loreg.entities import ImportStatus

    if format_ == "json":
        print_json(plan)
    elif format_ == "quiet":
        for version in plan.with_status(ImportStatus.NEW):
            click.echo(f"{version.adapter}:v{version.number}")
    else:
        echo(f"{_summarize(plan)}; nothing was stored")
    refused = plan.with_status(ImportStatus.REFUSED) or plan.with_status(ImportStatus.MENDABLE)
    context.exit(_FAILED if refused else 0)


def _summarize(plan: ImportPlan) -> str:
    from loreg.entities import ImportStatus

    new = plan.with_status(ImportStatus.NEW)
    size = format_size(sum(version.size for version in new))
    versions = _count(len(new), "new version"), _count(len({version.adapter for version in new}), "adapter")
    return "; ".join([f"{' of '.join(versions)}, {size}", *_counts(plan)])


def _count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {what}s"


def _counts(plan: ImportPlan) -> list[str]:
    from loreg.entities import ImportStatus

    words = {
        ImportStatus.PRESENT: "already there",
        ImportStatus.MENDABLE: "can be mended (--mend)",
        ImportStatus.REFUSED: "refused",
    }
    return [f"{len(versions)} {words[status]}" for status in words if (versions := plan.with_status(status))]


def _print_report(context: click.Context, plan: ImportPlan, report: ImportReport, format_: str) -> None:
    from loreg.entities import ImportStatus

    for text in report.notes:
        if format_ != "table" or text not in plan.notes:  # those were printed with the plan, before anything was asked
            warn(text)
    if format_ == "json":
        print_json(report)
    elif format_ == "quiet":
        for ref in report.created:
            click.echo(ref.partition("@")[0])
    else:
        adapters = len({ref.partition(":")[0] for ref in report.created})
        versions = _count(len(report.created), "version"), _count(adapters, "adapter")
        parts = [f"imported {' of '.join(versions)}, {format_size(report.bytes_sent)}"] if report.created else []
        parts += [f"{len(report.present)} already there"] if report.present else []
        parts += [f"{len(report.failures)} not imported"] if report.failures else []
        echo("; ".join(parts) or "nothing to import")
    unplanned = (ImportStatus.NEW, ImportStatus.PRESENT)
    shown = {version.source for version in plan.versions if format_ == "table" and version.status not in unplanned}
    for failure in report.failures:
        if failure.source not in shown:  # the plan says what else does not come in, and why
            hint = f". Hint: {failure.hint}" if failure.hint else ""
            warn(f"not imported: {failure.source}: {failure.message}{hint}")
    context.exit(_FAILED if report.failures else 0)
