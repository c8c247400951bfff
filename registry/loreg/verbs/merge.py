"""merge and rerank: combine adapters into one, with a certificate and its lineage."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from loreg.adapters.structure import WEIGHTS_NAME
from loreg.entities import MergeOptions, MergeResult, Progress, Provenance, Source, VersionMetadata, no_progress
from loreg.entities.display.pictures import refuse_picture, save_picture
from loreg.errors import AdapterFormatError, ConflictError, NotFoundError, explain_os_errors
from loreg.fleet.executor import run_all
from loreg.fleet.merge_work import MergeWork, carry_merge
from loreg.fleet.ray_tasks import RayExecutor, parse_cluster
from loreg.merging import provenance
from loreg.merging.shared_modules import describe_shared_modules, refuse_different_bases
from loreg.refs import parse_adapter_name
from loreg.storage import digest_of
from loreg.verbs.push import push
from loreg.workspace.atomic_folder import (
    has_same_files,
    is_free,
    move_into_place,
    refuse_unless_free,
    temporary_staging,
)
from loreg.workspace.common_base import common_base, refuse_another_base
from loreg.workspace.context import Context
from loreg.workspace.resolve_sources import (
    ResolvedSource,
    describe_sources,
    find_position,
    merge_inputs,
    refuse_wrong_weights,
    require_torch,
    resolve_sources,
    source_weights,
)

if TYPE_CHECKING:
    from loreg.merging.execute import MergedAdapter
    from loreg.merging.inputs import MergeInput
    from loreg.merging.recipe import Recipe


def merge(
    context: Context,
    sources: Sequence[str],
    options: MergeOptions = MergeOptions(),
    *,
    base: Path | str | None = None,
    calibration: Path | str | None = None,
    device: str = "auto",
    name: str | None = None,
    metadata: VersionMetadata = VersionMetadata(),
    folder: Path | str | None = None,
    plot: Path | str | None = None,
    on: str = "",
    progress: Progress = no_progress,
) -> MergeResult:
    """Merge the refs or folders ``sources``; push the result, write it, or only certify it.

    See :meth:`loreg.registry.Registry.merge`.
    """
    folder = Path(folder) if folder is not None else None
    refuse_wrong_weights(sources, options)
    refuse_wrong_target(name, folder, provenance.FILE_NAME)
    refuse_picture(plot)
    cluster = parse_cluster(on) if on else None
    require_torch()
    with resolve_sources(context, [*sources, *options.initial], progress) as resolved:
        opened, initials = resolved[: len(sources)], resolved[len(sources) :]
        common, base_notes = common_base(context, opened, options.allow_derived)
        structures, labels = [source.structure for source in opened], [source.label for source in opened]
        if base is not None:
            refuse_another_base(context, base, opened)
        refuse_different_bases(structures, labels, one_base=common is not None or base is not None)
        recipe = recipe_of(options, sources, opened, initials, calibration)
        if folder is not None and not is_free(folder):
            _refuse_another_merge(folder, recipe)
        if cluster is None:
            merged = blend(opened, recipe, initials, base, calibration, device, progress)
        else:
            merged = _blend_on(cluster, merge_inputs(opened, initials, base), recipe, calibration, device, progress)
        made_by = Provenance(recipe.sources, merged.recipe.to_json(), merged.certificate)
        notes = (*describe_sources(opened), *base_notes, *describe_shared_modules(structures, labels), *merged.notes)
        result = MergeResult(made_by, notes, spectra=merged.sigmas)
        if plot is not None:
            save_picture(result.plot(), plot)
        if name is None and folder is None:
            return result
        with new_folder(folder) as staging:
            provenance.write_merged(staging, merged.adapter, made_by)
            if name is None:
                already = folder is not None and not is_free(folder)
                return replace(result, folder=folder, already=already)
            base_digest = common.digest if common else None
            pushed = push(context, staging, name, metadata, base=base_digest, progress=progress)
            return replace(result, pushed=pushed)


def recipe_of(
    options: MergeOptions,
    sources: Sequence[str],
    opened: Sequence[ResolvedSource],
    initials: Sequence[ResolvedSource],
    calibration: Path | str | None,
) -> Recipe:
    """Return the recipe of a merge of the resolved sources, which were typed as ``sources``."""
    from loreg.merging.ranks import read_rank_rule
    from loreg.merging.recipe import Recipe

    rank = {"fixed": options.rank} if isinstance(options.rank, int) else options.rank or {}
    weights = source_weights(sources, options)
    return Recipe(
        tuple(Source(s.label, s.digest, float(w)) for s, w in zip(opened, weights, strict=True)),
        method=options.method,
        parameters=options.parameters,
        weights_for={pattern: tuple(map(float, weights)) for pattern, weights in options.weights_for.items()},
        scale=float(options.scale),
        rank=read_rank_rule(rank),
        extras=find_position(options.extras, sources, opened) if options.extras is not None else None,
        initials=tuple(source.digest for source in initials),
        calibration=calibration_digest(calibration),
    )


def calibration_digest(path: Path | str | None) -> str:
    """Return the sha256 of a file of moments, empty without one. Raises NotFoundError where there is no such file."""
    if path is None:
        return ""
    if not Path(path).is_file():
        raise NotFoundError(f"there is no file {path}", hint="loreg.collect_calibration(model) in Python makes one")
    with explain_os_errors(path, "check its permissions"):
        return digest_of(Path(path)).sha256


def blend(
    opened: Sequence[ResolvedSource],
    recipe: Recipe,
    initials: Sequence[ResolvedSource],
    base: Path | str | None,
    calibration: Path | str | None,
    device: str,
    progress: Progress,
) -> MergedAdapter:
    """Merge the opened sources as the recipe says."""
    from loreg.merging.device import choose_device
    from loreg.merging.execute import execute_recipe

    inputs = merge_inputs(opened, initials, base)
    path = Path(calibration) if calibration is not None else None
    return execute_recipe(inputs, recipe, device=choose_device(device), calibration=path, progress=progress)


def _blend_on(
    cluster: str,
    inputs: Sequence[MergeInput],
    recipe: Recipe,
    calibration: Path | str | None,
    device: str,
    progress: Progress,
) -> MergedAdapter:
    """Merge as :func:`blend` does, on a machine of a cluster: one with a GPU if the device is one."""
    work = carry_merge(inputs, recipe, device, Path(calibration) if calibration is not None else None)
    executor: RayExecutor[MergeWork] = RayExecutor(cluster, gpus=int(device.startswith("cuda")))
    with contextlib.closing(executor):
        executor.require_capacity()
        ((_, merged),) = run_all(executor, [work], on_wait=lambda: progress("merging on the cluster", 0, 1))
        return merged  # type: ignore[no-any-return]


@contextlib.contextmanager
def new_folder(target: Path | None) -> Iterator[Path]:
    """Yield a folder to write into: a temporary one, or the one that becomes ``target`` if nothing is raised.

    A target that has the very files that were written stays as it is. Raises ConflictError for one that has others.
    """
    hint = "choose another folder for --to" if target else "set TMPDIR to a folder with space that you may write"
    with explain_os_errors(target or "the temporary folder", hint):
        if target is None:
            with tempfile.TemporaryDirectory(prefix=".loreg-merge-") as name:
                yield Path(name)
            return
        with temporary_staging(target) as staging:
            yield staging
            if is_free(target):
                move_into_place(staging, target)
            elif not has_same_files(staging, target):
                raise ConflictError(f"{target} holds something else; nothing was changed", hint=hint)


def refuse_wrong_target(name: str | None, folder: Path | None, record: str) -> None:
    """Raise UsageError for an invalid name, ConflictError for a folder with something in it but no file ``record``."""
    if name is not None:
        parse_adapter_name(name)
    if folder is not None:
        refuse_unless_free(folder, record)


def _refuse_another_merge(folder: Path, recipe: Recipe) -> None:
    """Raise ConflictError, before anything is computed, for a folder that was merged from other sources."""
    try:
        weights = digest_of(folder / WEIGHTS_NAME).sha256
        stored = provenance.read((folder / provenance.FILE_NAME).read_bytes(), weights)
    except (OSError, AdapterFormatError):
        stored = None
    expected = [(source.digest, source.weight) for source in recipe.sources]
    if stored is None or [(source.digest, source.weight) for source in stored.sources] != expected:
        raise ConflictError(f"{folder} holds something else; nothing was changed", hint="choose a new folder for --to")
