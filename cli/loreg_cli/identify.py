"""``loreg identify``: what a file is, by its content."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from loreg_cli.options import format_option, open_registry
from loreg_cli.output import echo, print_json, print_pairs, print_table, warn
from loreg_cli.progress import progress_bar

if TYPE_CHECKING:
    from loreg.entities import Identification, Kinship

_NOT_KNOWN = 3


@click.command()
@click.argument("source", metavar="[DIR|FILE|REF|hf:ORG/NAME|HASH]", required=False)
@click.option("--fill", is_flag=True, help="Read the weights of versions that have no sketch yet.")
@format_option
@click.pass_context
def identify(context: click.Context, source: str | None, fill: bool, format_: str) -> None:
    """Say what an adapter is to those that the registry has, whatever it is called.

    The same; the same numbers in another precision; scaled; out of other factors; at other ranks; a merge, of which
    versions with which weights; or trained on from one; else its nearest relatives. A HASH is the beginning of the
    sha256 of a file (AutoV2), of its tensors alone (AutoV3) or of a manifest. Exits with 3 if nothing like it is
    known.

    \b
    loreg identify ./downloaded-adapter
    loreg identify team/sentiment:v3
    loreg identify A711A901DA
    """
    registry = open_registry()
    if fill == (source is not None):
        raise click.UsageError("give either what is to be identified, or --fill")
    if source is None:
        with progress_bar() as progress:
            report = registry.sketch_missing(progress=progress)
        for ref, reason in report.failed:
            warn(f"{ref}: {reason}")
        if format_ == "json":
            print_json(report)
        else:
            echo(str(report.sketched) if format_ == "quiet" else f"{report.sketched:,} versions sketched")
        return
    with progress_bar() as progress:
        identification = registry.identify(source, progress=progress)
    for text in identification.notes:
        warn(text)
    if format_ == "json":
        print_json(identification, auto_v2=identification.auto_v2, auto_v3=identification.auto_v3)
    elif format_ == "quiet":
        for answer in identification.answers[:1]:
            echo(f"{answer.relation} {answer.ref}")
    else:
        _print_identification(identification)
    if not identification.answers:
        context.exit(_NOT_KNOWN)


def _print_identification(identification: Identification) -> None:
    if not identification.answers:
        echo(f"unknown: nothing in the registry is like {identification.name}")
    for place, answer in enumerate(identification.answers):
        if place == 0 or answer.relation != identification.answers[0].relation:
            echo(f"{identification.name} {_sentence(answer)}")
        else:
            echo(f"also: {_sentence(answer)}")
        if answer.sources:
            shares = [(share.ref, f"{share.weight:.4g}") for share in answer.sources]
            print_table(["SOURCE", "WEIGHT"], shares, right=["WEIGHT"])
        for text in answer.notes:
            echo(f"  {text}")
        if answer.also:
            echo(f"  the same weights: {', '.join(answer.also)}")
    if not identification.data:  # a hash was asked for, and is all that there is
        return
    click.echo()
    print_pairs(
        [
            ("sha256", identification.sha256),
            ("AutoV2", identification.auto_v2),
            ("AutoV3", identification.auto_v3),
            ("norm", f"{identification.norm:.4g}" if identification.norm else ""),
        ]
    )


def _sentence(answer: Kinship) -> str:
    """Return what an adapter is to a version, with the numbers that say so."""
    error = f"relative error {answer.error:.1e}"
    ref, scale = answer.ref, f"{answer.scale:.6g}"
    if answer.relation == "hash":
        return f"has the {', '.join(answer.hashes)} hash of {ref}"
    if answer.relation == "merged":
        return f"is a weighted sum of {len(answer.sources)} versions, with {error}:"
    if answer.relation == "reranked":
        low, high = ("it", ref) if answer.is_source else (ref, "it")
        return f"and {ref}: {low} is the best approximation of {high} at a lower rank, and keeps {answer.retention:.2%}"
    return {
        "same": f"is {ref}: every file is the same",
        "weights": f"has the weights of {ref}: every number of the factors is the same",
        "precision": f"is {ref} in another precision: every number is the same, rounded; {error}",
        "scaled": f"is {ref} scaled by {scale}, with {error}",
        "refactored": f"has the deltas of {ref} out of other factors, with {error}",
        "near": f"and {ref} are two states of one training: cosine {answer.cosine:.4f}, norm × {scale}",
        "related": f"is a relative of {ref}: cosine {answer.cosine:.3f}",
    }[answer.relation]
