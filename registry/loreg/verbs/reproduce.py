"""reproduce: repeat a stored merge from its recipe and compare the result with what is stored."""

from __future__ import annotations

import tempfile
from pathlib import Path

from loreg.adapters.structure import WEIGHTS_NAME, read_structure
from loreg.entities import HIDDEN_SOURCE, Progress, Provenance, ReproduceResult, Version, no_progress
from loreg.errors import IntegrityError, NotFoundError, UsageError
from loreg.merging import provenance
from loreg.refs import parse_ref
from loreg.storage import digest_of
from loreg.sweeping.journal import MOMENTS, SWEEP_LABEL, is_identity, sweeps_folder
from loreg.verbs.merge import blend, calibration_digest, new_folder
from loreg.workspace.context import Context
from loreg.workspace.download import download_to_temporary
from loreg.workspace.resolve_sources import require_torch, resolve_sources

#: Relative difference of a delta up to which two merges are the same, by what the result was stored in.
_TOLERANCE = {"F64": 1e-6, "F32": 1e-6, "F16": 4e-3, "BF16": 3e-2}


def reproduce(
    context: Context,
    ref: str,
    folder: Path | str | None = None,
    *,
    base: Path | str | None = None,
    calibration: Path | str | None = None,
    device: str = "auto",
    progress: Progress = no_progress,
) -> ReproduceResult:
    """Merge again what a version was merged from. See :meth:`loreg.registry.Registry.reproduce`."""
    require_torch()
    folder = Path(folder) if folder is not None else None
    details = context.backend.show(parse_ref(ref))
    version, made_by = details.version, details.provenance
    if made_by is None:
        raise UsageError(f"{version.ref} was not merged: it has no recipe", hint=f"loreg show {version.ref}")
    if made_by.is_move:
        origin = made_by.sources[0].label
        raise UsageError(
            f"{version.ref} was moved from {origin}, whose weights it has: nothing was merged",
            hint=f"loreg show {version.ref}",
        )
    initials = [str(digest) for digest in made_by.recipe.get("initials", ())]
    labels = [(source.digest, source.label) for source in made_by.sources] + [(d, d[:12]) for d in initials]
    refs = []
    for digest, label in labels:
        source = context.backend.with_content(digest)
        if source is None:
            raise _missing_error(version, label, digest)
        refs.append(f"{source.ref}@sha256:{source.digest}")
    with (
        resolve_sources(context, refs, progress) as resolved,
        tempfile.TemporaryDirectory(prefix="loreg-reproduce-") as name,
    ):
        from loreg.merging.compare import largest_difference
        from loreg.merging.inputs import MergeInput
        from loreg.merging.recipe import read_recipe

        recipe = read_recipe(made_by.recipe)
        calibration = calibration or _moments_of_sweep(context, version, recipe.calibration)
        _refuse_other_calibration(recipe.calibration, calibration, version)
        count = len(made_by.sources)
        merged = blend(resolved[:count], recipe, resolved[count:], base, calibration, device, progress)
        with new_folder(folder) as staging:
            redone = Provenance(recipe.sources, merged.recipe.to_json(), merged.certificate)
            provenance.write_merged(staging, merged.adapter, redone)
            stored = Path(name)
            download_to_temporary(context, details.files, stored, progress)
            if digest_of(staging / WEIGHTS_NAME) == digest_of(stored / WEIGHTS_NAME):
                return ReproduceResult(version, True, 0.0, folder)
            again, before = (
                MergeInput(read_structure(path), version.ref, version.digest) for path in (staging, stored)
            )
            difference = largest_difference(before, again)
            if difference > _TOLERANCE.get(version.facts.dtype, 1e-6):
                raise IntegrityError(
                    f"{version.ref} is not what its recipe makes: a delta differs by {difference:.1e} of its norm",
                    hint=f"loreg show {version.ref} --format json has the recipe",
                )
            return ReproduceResult(version, False, difference, folder)


def _missing_error(version: Version, label: str, digest: str) -> NotFoundError:
    if label == HIDDEN_SOURCE:
        return NotFoundError(
            f"{version.ref} was merged from a source that is gone, or not yours to see (sha256:{digest[:12]})",
            hint=f"loreg lineage {version.ref}",
        )
    return NotFoundError(
        f"{version.ref} was merged from {label} (sha256:{digest[:12]}), which is not in the registry",
        hint=f"push the folder that it was: loreg push DIR NAME, then loreg reproduce {version.ref}",
    )


def _moments_of_sweep(context: Context, version: Version, expected: str) -> Path | None:
    """Return the moments that the sweep of a version collected, where it ran on this machine and they are the same."""
    identity = version.labels.get(SWEEP_LABEL, "")
    if not expected or not is_identity(identity):
        return None
    path = sweeps_folder(context.base_cache) / identity / MOMENTS
    return path if path.is_file() and calibration_digest(path) == expected else None


def _refuse_other_calibration(expected: str, path: Path | str | None, version: Version) -> None:
    if calibration_digest(path) != expected:
        what = f"the file with sha256 {expected[:12]}…" if expected else "none"
        sweep = version.labels.get(SWEEP_LABEL)
        where = f": where the sweep ran, it kept it beside its cache as sweeps/{sweep}/{MOMENTS}" if sweep else ""
        raise UsageError(f"the recipe's calibration is {what}, not {path or 'none'}", hint=f"--calibration FILE{where}")
