"""merge: several adapters become one, with a certificate and its lineage."""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loreg.adapters.layout import WEIGHTS_NAME, Layout, read_layout
from loreg.catalog import versions
from loreg.errors import (
    ConflictError,
    MergeError,
    MissingExtraError,
    NotFoundError,
    UsageError,
    explain_os_errors,
)
from loreg.merging.recipe import Recipe
from loreg.records import BaseModel, MergeResult, Metric, Progress, Provenance, Source, no_progress
from loreg.refs import parse_adapter_name, parse_ref
from loreg.storage import digest_of
from loreg.verbs import provenance
from loreg.verbs.context import Context, is_path
from loreg.verbs.place import is_free, move_into_place
from loreg.verbs.prepare import prepare
from loreg.verbs.pull import fetch
from loreg.verbs.push import push


def merge(
    context: Context,
    sources: Sequence[str],
    weights: Sequence[float],
    *,
    name: str | None = None,
    folder: Path | str | None = None,
    rank: int | None = None,
    extras: str | None = None,
    tasks: Sequence[str] = (),
    metrics: Sequence[str | Metric] = (),
    labels: Mapping[str, str] | None = None,
    aliases: Sequence[str] = (),
    message: str = "",
    progress: Progress = no_progress,
) -> MergeResult:
    """Merge the refs or folders ``sources``: the exact weighted sum of their deltas.

    Pushed as the next version of ``name``, or written to the new ``folder``; with neither, only certified. ``rank``
    None loses nothing. ``extras`` is the source whose whole tensors are taken where they differ. Raises UsageError,
    MergeError and what pushing and pulling raise; then nothing is written.
    """
    folder = Path(folder) if folder is not None else None
    _refuse_wrong_call(sources, weights, name, folder, rank)
    _require_torch()
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(_open(context, source, progress)) for source in sources]
        from loreg.adapters.tensors import write_adapter
        from loreg.merging.execute import execute

        base = _common_base(opened)
        recipe = Recipe(
            tuple(Source(s.label, s.digest, w) for s, w in zip(opened, weights, strict=True)),
            rank=rank,
            extras=_position(extras, sources, opened) if extras is not None else None,
        )
        merged = execute([source.layout for source in opened], recipe, progress)
        made_by = Provenance(recipe.sources, merged.recipe.to_json(), merged.certificate)
        notes = _notes(opened)
        if name is None and folder is None:
            return MergeResult(made_by, notes)
        with _new_folder(folder) as staging:
            write_adapter(staging, merged.adapter)
            provenance.write(staging, made_by, digest_of(staging / WEIGHTS_NAME).sha256)
            if name is None:
                return MergeResult(made_by, notes, folder=folder)
            pushed = push(
                context,
                staging,
                name,
                base=base.digest if base else None,
                tasks=tasks,
                metrics=metrics,
                labels=labels,
                aliases=aliases,
                message=message,
                progress=progress,
            )
            return MergeResult(made_by, notes, pushed=pushed)


@dataclass(frozen=True)
class _Opened:
    """A source on this machine. ``label`` names it for others: a pinned ref, or the last part of a folder's path."""

    label: str
    digest: str
    layout: Layout
    base: BaseModel | None
    others: tuple[str, ...]


@contextlib.contextmanager
def _open(context: Context, source: str, progress: Progress) -> Iterator[_Opened]:
    if is_path(source):
        folder = Path(source).expanduser()
        with prepare(folder, progress) as prepared:
            others = _not_the_adapters_own(prepared.files)
            yield _Opened(folder.resolve().name, prepared.manifest.digest, prepared.layout, None, others)
        return
    ref = parse_ref(source)
    with context.catalog.read() as tx:
        try:
            version = versions.resolve(tx, ref)
        except NotFoundError as error:
            if Path(source).is_dir():
                raise NotFoundError(error.message, hint=f"for the folder of that name: ./{source}") from None
            raise
        others = _not_the_adapters_own([file.path for file in versions.files(tx, version)])
    with tempfile.TemporaryDirectory(prefix="loreg-merge-") as name:
        fetch(context, version, Path(name), progress)
        layout = read_layout(Path(name))
        yield _Opened(version.ref, version.digest, layout, version.base, others)


def _refuse_wrong_call(
    sources: Sequence[str],
    weights: Sequence[float],
    name: str | None,
    folder: Path | None,
    rank: int | None,
) -> None:
    if len(sources) != len(weights):
        raise UsageError(
            f"{len(sources)} adapters and {len(weights)} weights: expected one weight for each adapter",
            hint=f"--weights {','.join(['1'] * len(sources))}",
        )
    if rank is not None and rank < 1:
        raise UsageError(f"rank {rank} is not possible: expected 1 or more", hint="--rank 16, or leave it out")
    if name is not None:
        parse_adapter_name(name)
    if folder is not None and not is_free(folder):
        raise ConflictError(f"{folder} is not empty; nothing was changed", hint="choose a new folder for --to")


def _position(extras: str, sources: Sequence[str], opened: Sequence[_Opened]) -> int:
    """Which source ``extras`` is: as it was typed, or as it is called in messages if that means one."""
    labels = [source.label for source in opened]
    if extras in sources:
        return list(sources).index(extras)
    if labels.count(extras) == 1:
        return labels.index(extras)
    raise UsageError(f"--extras {extras} is not one of the sources", hint=f"--extras {sources[0]}")


def _common_base(opened: Sequence[_Opened]) -> BaseModel | None:
    """The one base of all sources; None if it is not known of each. Raises MergeError if two differ.

    A source whose base is only declared counts if it declares a name of the known one.
    """
    known = [(source.base, source.label) for source in opened if source.base is not None]
    for base, label in known[1:]:
        if base.digest != known[0][0].digest:
            raise MergeError(
                f"different bases: {known[0][1]} was trained on {_name(known[0][0])}, {label} on {_name(base)}",
                hint="merge adapters of one base: loreg search --base " + known[0][0].digest[:12],
            )
    if known and all(s.base or s.layout.config.base_hint in known[0][0].names for s in opened):
        return known[0][0]
    return None


def _name(base: BaseModel) -> str:
    return f"{base.names[0] if base.names else 'a base'} (sha256:{base.digest[:12]})"


def _notes(opened: Sequence[_Opened]) -> tuple[str, ...]:
    notes = [f"not carried over from {s.label}: {', '.join(s.others)}" for s in opened if s.others]
    hints = {source.layout.config.base_hint for source in opened} - {""}
    if len(hints) > 1:
        notes.append("the sources name their base differently: only the shapes say that they fit together")
    return tuple(notes)


def _not_the_adapters_own(names: Sequence[str] | Mapping[str, Path]) -> tuple[str, ...]:
    own = (WEIGHTS_NAME, "adapter_config.json", "README.md", provenance.FILE_NAME)
    return tuple(sorted(name for name in names if name not in own))


@contextlib.contextmanager
def _new_folder(target: Path | None) -> Iterator[Path]:
    """A folder to write into: a temporary one, or the one that becomes ``target`` if all goes well."""
    parent = target.resolve().parent if target is not None else None
    hint = "choose another folder for --to" if target else "set TMPDIR to a folder with space that you may write"
    with explain_os_errors(target or "the temporary folder", hint):
        if parent is not None:
            parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".loreg-merge-", dir=parent) as name:
            staging = Path(name) / "adapter"
            staging.mkdir()
            yield staging
            if target is not None:
                move_into_place(staging, target)


def _require_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise MissingExtraError("merging needs torch, which is not installed", hint="pip install 'loreg[merge]'")
