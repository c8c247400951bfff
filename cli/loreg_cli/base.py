"""``loreg base``: add, attach, list, show, match, relate and upgrade base models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from loreg_cli.merge_options import device_option
from loreg_cli.options import format_option, open_registry, page_options, table_options, wide_options
from loreg_cli.output import echo, print_json, print_page, print_pairs, print_table, warn
from loreg_cli.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loreg.entities import BaseAttachment, BaseEdge, BaseModel, BaseUpgrade


_MAX_SHOWN = 10  # refs, or reasons
_OUTCOMES = {
    "attached": "attached to {name}",
    "left": "left as they are, though {name} fits",
    "mismatch": "left as they are, for {name} does not fit",
    "detached": "detached",
    "kept": "left as they are",
    "refused": "left as they are, for the policy",
}


@click.group()
def base() -> None:
    """Add, list, match, relate and upgrade base models, by content.

    \b
    loreg base add ./models/llama --name llama
    """


@base.command("add")
@click.argument("where", metavar="PATH|hf:NAME[@REV]", required=False)
@click.option("--header-only", metavar="PATH", help="Take names and shapes alone; no weight is read.")
@click.option("--name", "names", multiple=True, metavar="NAME", help="What people call it; may be repeated.")
@click.option("--no-attach", is_flag=True, help="Leave the versions that declare it as they are.")
@format_option
def add(where: str | None, header_only: str | None, names: tuple[str, ...], no_attach: bool, format_: str) -> None:
    """Make a base known by content, whatever it is called and however it is cut into files.

    It becomes the base of your versions that were pushed without --base, call their base by one of its names, and fit.

    \b
    loreg base add ./models/llama --name meta-llama/Llama-3.1-8B
    loreg base add hf:HuggingFaceTB/SmolLM2-135M
    """
    if (where is None) == (header_only is None):
        raise click.UsageError("expected one of PATH, hf:NAME and --header-only PATH")
    with progress_bar() as progress:
        result = open_registry().bases.add(
            where or header_only or "",
            names,
            header_only=header_only is not None,
            attach=not no_attach,
            progress=progress,
        )
    for text in result.notes:
        warn(text)
    if format_ == "json":
        print_json(result)
    elif format_ == "quiet":
        click.echo(result.base.digest)
    else:
        state = "added" if result.created else "known already:"
        echo(f"{state} {result.base.title}: {_summary(result.base)}")
        _print_attachments(result.attachments, result.base.names[0] if result.base.names else result.base.digest[:12])


@base.command("attach")
@click.argument("name", metavar="BASE")
@click.argument("refs", metavar="[REF]...", nargs=-1)
@format_option
def attach(name: str, refs: tuple[str, ...], format_: str) -> None:
    """Make BASE the base of versions that were pushed without one: of those that call it so and fit, or of each REF.

    A base that a version was pushed with stays. You must be allowed to write where the version is.

    \b
    loreg base attach meta-llama/Llama-3.1-8B
    loreg base attach meta-llama/Llama-3.1-8B team/qa:v1
    """
    with progress_bar() as progress:
        results = open_registry().bases.attach(name, refs, progress=progress)
    _print_results(results, name, format_)


@base.command("detach")
@click.argument("refs", metavar="[REF]...", nargs=-1)
@click.option("--base", "name", metavar="BASE", default="", help="Of all versions that it was attached to.")
@format_option
def detach(refs: tuple[str, ...], name: str, format_: str) -> None:
    """Take back what add or attach recorded: what a version was pushed with stays.

    \b
    loreg base detach team/qa:v1
    loreg base detach --base meta-llama/Llama-3.1-8B
    """
    with progress_bar() as progress:
        results = open_registry().bases.detach(refs, base=name, progress=progress)
    _print_results(results, name, format_)


@base.command("ls")
@page_options
@table_options
@format_option
def ls(limit: int, cursor: str | None, format_: str) -> None:
    """The bases that the registry knows, the newest first.

    \b
    loreg base ls
    """
    page = open_registry().bases.list(limit=limit, cursor=cursor)
    if format_ == "table" and page.items:
        rows = [
            (model.digest[:12], ", ".join(model.names), f"{model.tensors:,}", f"{model.parameters:,}", _known_by(model))
            for model in page.items
        ]
        columns = ["DIGEST", "NAMES", "TENSORS", "PARAMETERS", "KNOWN BY"]
        print_table(columns, rows, right=["TENSORS", "PARAMETERS"], drop=["KNOWN BY", "TENSORS", "PARAMETERS"])
    print_page(page, format_, [model.digest for model in page.items])


@base.command("show")
@click.argument("name", metavar="NAME|DIGEST")
@wide_options
@format_option
def show(name: str, format_: str) -> None:
    """All that is known of a base: its digests, names, what it came from, and its upgrades.

    \b
    loreg base show llama
    """
    details = open_registry().bases.show(name)
    if format_ == "json":
        print_json(details)
        return
    if format_ == "quiet":
        click.echo(details.base.digest)
        return
    print_pairs(
        [
            ("content" if details.base.complete else "headers", f"sha256:{details.base.digest}"),
            ("struct", f"sha256:{details.base.struct}" if details.base.struct else ""),
            ("names", ", ".join(details.base.names)),
            ("size", _summary(details.base)),
            ("versions", f"{details.versions} trained on it"),
            *(("file", f"{file} sha256:{digest}") for file, digest in details.files.items()),
        ]
    )
    if details.edges:
        click.echo()
        print_table(
            ["BASE", "CAME BY", "FROM", "HOW", "KNOWN"],
            [_edge_row(edge) for edge in details.edges],
            prose=["HOW", "KNOWN"],
        )
    if details.upgrades:
        click.echo()
        print_table(["UPGRADE FROM", "TO", "CHANGED", "BY", "ON"], list(map(_upgrade_row, details.upgrades)))


@base.command("match")
@click.argument("source", metavar="REF|DIR")
@table_options
@format_option
def match(source: str, format_: str) -> None:
    """Which known bases fit an adapter, the best first, and why.

    A folder is written like a path: ./runs/42. From strong to weak: exact, target-exact (what it touches is the same),
    verified-derived, declared-derived, struct-only (shapes alone), mismatch.

    \b
    loreg base match ./runs/42
    """
    from loreg.entities import VerdictKind

    with progress_bar() as progress:
        matches = open_registry().bases.match(source, progress=progress)
    if format_ == "json":
        print_json(list(matches))
    elif format_ == "quiet":
        for candidate in matches:
            if candidate.verdict.kind != VerdictKind.MISMATCH:
                click.echo(candidate.base.digest)
    elif matches:
        rows = [(m.verdict.kind, m.base.title, m.verdict.reason) for m in matches]
        print_table(["VERDICT", "BASE", "WHY"], rows, prose=["WHY"])
    else:
        warn("no base is known yet: loreg base add PATH --name NAME")


@base.command("relate")
@click.argument("child", metavar="BASE")
@click.argument("parent", metavar="FROM")
@click.option("--kind", required=True, metavar="KIND", help="cast_of, quantized_from, renamed_from or finetuned_from.")
@click.option("--method", metavar="METHOD", help="Of a quantisation, e.g. gptq.")
@click.option("--bits", type=click.IntRange(1, 16), metavar="N", help="Of a quantisation.")
@click.option("--group", type=click.IntRange(1), metavar="N", help="Of a quantisation: weights that share a scale.")
@format_option
def relate(
    child: str, parent: str, kind: str, method: str | None, bits: int | None, group: int | None, format_: str
) -> None:
    """Say that BASE came from FROM. What the two contents prove is recorded as verified, else as declared.

    \b
    loreg base relate llama-awq llama --kind quantized_from --bits 4
    """
    options = {"method": method, "bits": bits, "group": group}
    detail = {name: value for name, value in options.items() if value is not None}
    edge = open_registry().bases.relate(child, parent, kind, detail)
    if format_ == "json":
        print_json(edge)
    elif format_ == "quiet":
        click.echo(edge.child)
    elif edge.child == edge.parent:
        echo(f"{child} and {parent} are one base: their content is the same")
    else:
        echo(f"{child} {kind} {parent}: {'verified' if edge.verified else 'declared'}")


@base.command("upgrade")
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@click.argument("selection", metavar="[SELECTOR]...", nargs=-1)
@click.option("--move", is_flag=True, help="Record those that move exactly or can be copied as versions on NEW.")
@click.option("--also", multiple=True, metavar="REF", help="With --move: this one too, whatever its verdict.")
@click.option("--probe-set", metavar="FILE", help="Texts to measure on, before and after: JSON Lines, or plain.")
@device_option
@table_options
@format_option
@click.pass_context
def upgrade(
    context: click.Context,
    old: str,
    new: str,
    selection: tuple[str, ...],
    move: bool,
    also: tuple[str, ...],
    probe_set: str | None,
    device: str,
    format_: str,
) -> None:
    """What an upgrade from OLD to NEW means for the adapters of OLD: move exactly, copy, or train again.

    Folders of the models are compared by weights, names or digests that the registry knows by digests alone. The
    verdicts are kept if it knows both: base show names the upgrade, which has a page. Exit code 5 if some must be
    trained again or are not known, 1 if something could not be read or moved.

    \b
    loreg base upgrade ./llama ./llama-2
    loreg base upgrade ./llama ./llama-2 'team/*:prod' --move
    """
    from loreg_cli.base_upgrade import print_upgrade

    with progress_bar() as progress:
        report = open_registry().upgrade_base(
            old, new, selection, move=move, also=also, probe_set=probe_set, device=device, progress=progress
        )
    context.exit(print_upgrade(report, format_))


def _print_results(results: Sequence[BaseAttachment], name: str, format_: str) -> None:
    from loreg.entities import AttachmentOutcome

    if format_ == "json":
        print_json(list(results))
    elif format_ == "quiet":
        for result in results:
            if result.outcome in (AttachmentOutcome.ATTACHED, AttachmentOutcome.DETACHED):
                click.echo(result.ref)
    elif results:
        _print_attachments(results, name)
    else:
        warn(f"no version without a base calls it {name}" if name else "no version was named")


def _print_attachments(results: Sequence[BaseAttachment], name: str) -> None:
    """Print a line for each outcome, with the first refs, and a line for each reason of what was not done."""
    from loreg.entities import AttachmentOutcome as Outcome

    for outcome in Outcome:
        group = [result for result in results if result.outcome == outcome]
        if not group:
            continue
        versions = f"{len(group)} version{'s' if len(group) > 1 else ''}"
        echo(f"{versions} {_OUTCOMES[outcome].format(name=name)}: {_first_refs(group)}")
        if outcome in (Outcome.ATTACHED, Outcome.DETACHED):
            continue
        for reason in dict.fromkeys(result.reason for result in group[:_MAX_SHOWN]):
            echo(f"  {reason}: {_first_refs([result for result in group if result.reason == reason])}")
    if any(result.outcome == Outcome.ATTACHED for result in results):
        warn(f"names and shapes say so, not the weights; loreg base detach --base {name} takes it back")


def _first_refs(results: Sequence[BaseAttachment]) -> str:
    more = [f"and {len(results) - _MAX_SHOWN} more"] if len(results) > _MAX_SHOWN else []
    return ", ".join([*(result.ref for result in results[:_MAX_SHOWN]), *more])


def _summary(model: BaseModel) -> str:
    return f"{model.tensors:,} tensors, {model.parameters:,} parameters, by {_known_by(model)}"


def _known_by(model: BaseModel) -> str:
    return "content" if model.complete else "headers"


def _edge_row(edge: BaseEdge) -> tuple[str, ...]:
    detail = " ".join(f"{name} {value}" for name, value in edge.detail.items())
    known_by = "verified" if edge.verified else f"declared by {edge.author}"
    return edge.child[:12], edge.kind, edge.parent[:12], detail, known_by


def _upgrade_row(upgrade: BaseUpgrade) -> tuple[str, ...]:
    changed = f"{upgrade.changed:,} of {upgrade.tensors:,} tensors"
    share = "" if upgrade.change is None else f", by {100 * upgrade.change:.3g} %"
    titles = (upgrade.old.title, upgrade.new.title)
    return *titles, f"{changed}{share}", upgrade.author, f"{upgrade.at:%Y-%m-%d}"
