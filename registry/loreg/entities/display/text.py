"""Values in one line: what ``repr`` says of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import singledispatch
from typing import Any

from loreg.entities.bases import BaseModel
from loreg.entities.comparison import AdapterComparison
from loreg.entities.live import SyncedAdapter, SyncReport
from loreg.entities.queries import Page
from loreg.entities.results import AdapterSimilarity, MergeResult, PullResult, PushResult
from loreg.entities.sweeps import SweepResult
from loreg.entities.versions import AdapterEntry, Details, Provenance, Version
from loreg.single_line import single_line

_MAX_CHARACTERS = 120  # of a text that others wrote
_MAX_METRICS = 3
_ROUNDING = 1e-12  # below it an error is that of computing in float64


def printable(text: object, limit: int = _MAX_CHARACTERS) -> str:
    """Return text of others in one line, without characters that move a cursor or turn a line round, and not too long.

    >>> printable("a\\x1b[2Jb\\u202e"), printable("abcdefgh", 5)
    ('a�[2Jb�', 'ab…gh')
    """
    return shorten_middle(single_line(str(text)), limit)


def shorten_middle(text: str, limit: int) -> str:
    """Return the text with its middle left out, so that it has ``limit`` characters: names differ at both ends."""
    if len(text) <= limit:
        return text
    head = limit // 2
    return f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"


@singledispatch
def describe(value: object) -> str:
    """Return one line on a value that is displayed."""
    raise TypeError(f"nothing says how a {type(value).__name__} is described")


@describe.register
def _describe_version(version: Version) -> str:
    return f"Version({_summary(version)})"


@describe.register
def _describe_details(details: Details) -> str:
    made = "moved" if details.provenance and details.provenance.is_move else "merged"
    merged = f", {made} from {_count(details.provenance.sources, 'source')}" if details.provenance else ""
    return f"Details({_summary(details.version)}, {_count(details.files, 'file')}{merged})"


@describe.register
def _describe_page(page: Page) -> str:  # type: ignore[type-arg]
    if not page.items:
        return f"{type(page).__name__}(empty)"
    more = ", and there are more" if page.cursor is not None else ""
    return f"{type(page).__name__}({len(page)} × {type(page[0]).__name__}, the first {_title(page[0])}{more})"


@describe.register
def _describe_merge(result: MergeResult) -> str:
    place = f", pushed as {result.pushed.version.ref!r}" if result.pushed else ""
    place = f", in {printable(result.folder)!r}" if result.folder else place
    return f"MergeResult({_outcome(result.provenance)}{place})"


@describe.register
def _describe_provenance(provenance: Provenance) -> str:
    return f"Provenance({_outcome(provenance)})"


@describe.register
def _describe_push(result: PushResult) -> str:
    return f"PushResult({'created' if result.created else 'already there'}: {_summary(result.version)})"


@describe.register
def _describe_pull(result: PullResult) -> str:
    return f"PullResult({result.version.ref!r} in {printable(result.folder)!r}, {result.downloaded:,} bytes downloaded)"


@describe.register
def _describe_synced(adapter: SyncedAdapter) -> str:
    before = f", before it {printable(adapter.previous)!r}" if adapter.previous else ""
    return f"SyncedAdapter({printable(adapter.name)!r} is {printable(adapter.ref)!r}{before})"


@describe.register
def _describe_sync(report: SyncReport) -> str:
    counts = f"{_count(report.adapters, 'adapter')}, {len(report.updated)} new, {len(report.removed)} removed"
    problems = f", {_count(report.problems, 'problem')}" if report.problems else ""
    return f"SyncReport({printable(report.folder)!r}: {counts}{problems})"


@describe.register
def _describe_entry(entry: AdapterEntry) -> str:
    newest = f", newest v{entry.newest}" if entry.newest is not None else ""
    aliases = "".join(f", {printable(alias)} → v{number}" for alias, number in entry.aliases.items())
    return f"AdapterEntry({str(entry.adapter)!r}, {entry.versions} versions{newest}{aliases})"


@describe.register
def _describe_similarity(pair: AdapterSimilarity) -> str:
    figures = f"cosine {pair.cosine:.3f}, columns {pair.left_overlap:.3f}, rows {pair.right_overlap:.3f}"
    return f"AdapterSimilarity({printable(pair.a)!r} and {printable(pair.b)!r}: {figures})"


@describe.register
def _describe_comparison(comparison: AdapterComparison) -> str:
    if not comparison:
        return "AdapterComparison(empty)"
    if len(comparison) == 1:
        return f"AdapterComparison({comparison[0]!r})"
    cosines = [pair.cosine for pair in comparison]
    return f"AdapterComparison({len(comparison.labels)} adapters, cosines {min(cosines):.3f} to {max(cosines):.3f})"


@describe.register
def _describe_sweep(result: SweepResult) -> str:
    best = result.answer
    scores = ", ".join(f"{printable(task)} {value:.4g}" for task, value in (best.confirmed or best.scores).items())
    weights = ", ".join(f"{weight:g}" for weight in best.candidate.strengths)
    recipe = f"{best.candidate.method} {weights}"
    return f"SweepResult({recipe}: {result.metric} {scores}; {_count(result.trials, 'trial')})"


@describe.register
def _describe_base(base: BaseModel) -> str:
    names = f"{printable(base.names[0])!r}, " if base.names else ""
    headers = "" if base.complete else ", of headers alone"
    return f"BaseModel({names}sha256:{base.digest[:12]}, {base.parameters:,} parameters{headers})"


def tell_apart(a: float, b: float, digits: int = 6) -> tuple[str, str]:
    """Return two numbers with ``digits`` significant digits, or more if they would else look the same.

    >>> tell_apart(0.5, 0.25), tell_apart(0.912345671, 0.912345678)
    (('0.5', '0.25'), ('0.91234567', '0.91234568'))
    """
    for precision in range(digits, 18):  # 17 digits tell any two apart
        texts = f"{a:.{precision}g}", f"{b:.{precision}g}"
        if a == b or texts[0] != texts[1]:
            break
    return texts


def format_ranks(version: Version) -> str:
    """Return ``8``, or ``8-16`` where modules differ."""
    low, high = version.facts.rank_min, version.facts.rank_max
    return f"{low}" if low == high else f"{low}-{high}"


def format_share(share: float | None, digits: int = 4) -> str:
    """Return a share as the command line prints it: ``99.66 %``, or a dash for none."""
    return "–" if share is None else f"{100 * share:.{digits}g} %"


def format_error(error: float) -> str:
    """Return a relative error as the command line prints it; one below that of computing in float64 is 0."""
    return f"{error:.1e}" if error > _ROUNDING else "0"


def read_total(provenance: Provenance) -> Mapping[str, Any]:
    """Return the figures of all modules together; empty for a certificate that has none."""
    total = provenance.certificate.get("total")
    return total if isinstance(total, Mapping) else {}


def _summary(version: Version) -> str:
    metrics = [printable(metric) for metric in version.metrics[:_MAX_METRICS]]
    metrics += ["…"] if len(version.metrics) > _MAX_METRICS else []
    yanked = ["yanked"] if version.yanked else []
    return ", ".join([repr(version.ref), f"rank {format_ranks(version)}", *metrics, *yanked])


def _outcome(provenance: Provenance) -> str:
    total = read_total(provenance)
    method = printable(provenance.recipe.get("method", "merge"))
    sources = " + ".join(f"{source.weight:g} × {printable(source.label, 40)}" for source in provenance.sources[:3])
    sources += f" and {len(provenance.sources) - 3} more" if len(provenance.sources) > 3 else ""
    if not total:
        return f"{method}: {sources}"
    kept = ", ".join(format_share(share) for share in total["retention"][:3])
    return f"{method}: {sources}; rank {total['rank']} of {total['rank_in']}, ε = {total['epsilon']:.2g}, keeps {kept}"


def _title(item: object) -> str:
    """Return what names an item: its ref, name or number."""
    if isinstance(item, Version):
        return repr(item.ref)
    for name in ("adapter", "name", "ref", "id", "digest"):
        if hasattr(item, name):
            return repr(printable(getattr(item, name)))
    return printable(repr(item))


def _count(items: Iterable[object], word: str) -> str:
    number = len(tuple(items))
    return f"{number} {word}{'' if number == 1 else 's'}"
