"""export: write an adapter as one server takes it, with what was changed and how far each delta moved."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from loreg.adapters.config import CONFIG_NAME
from loreg.adapters.structure import WEIGHTS_NAME
from loreg.checking.profile import read_profile
from loreg.entities import Details, ExportResult, Progress, no_progress
from loreg.errors import ConflictError, IntegrityError, NotAllowedError, UnavailableError, UsageError
from loreg.exporting.export import EXPORT_DTYPES
from loreg.exporting.folder import (
    FILE_NAME,
    ExportSource,
    PlannedExport,
    digest_request,
    is_as_planned,
    plan_for_profile,
    read_export_source,
    write_folder,
)
from loreg.manifest import Manifest
from loreg.refs import parse_ref
from loreg.verbs.merge import new_folder, refuse_wrong_target
from loreg.workspace.base_lookup import find_base, load_base
from loreg.workspace.context import Context, show_version
from loreg.workspace.inspect import hash_files
from loreg.workspace.resolve_sources import ResolvedSource, resolve_sources

#: Rules that the source may break: what is written keeps them.
_MENDED_RULES = ("LR019",)


def export(
    context: Context,
    source: str,
    profile: str,
    folder: Path | str,
    *,
    base: str | None = None,
    dtype: str | None = None,
    progress: Progress = no_progress,
) -> ExportResult:
    """Write an adapter as the server of ``profile`` takes it. See :meth:`loreg.registry.Registry.export`."""
    server = read_profile(profile)
    if dtype is not None and dtype not in EXPORT_DTYPES:
        raise UsageError(f"dtype is {dtype!r}, expected one of {', '.join(EXPORT_DTYPES)}", hint="--dtype bfloat16")
    target = Path(folder)
    refuse_wrong_target(None, target, FILE_NAME)
    model = find_base(context, base) if base is not None else None
    with resolve_sources(context, [source], progress, _MENDED_RULES) as (opened,), new_folder(target) as staging:
        if model is None and opened.base is not None:
            model = load_base(context, opened.base)
        fitted = write_folder(plan_for_profile(_export_source(opened), server, model, dtype), staging)
    return ExportResult(opened.label, target, fitted)


def drop_export(context: Context, ref: str, profile: str) -> None:
    """Forget an export of a version. See :meth:`loreg.registry.Registry.drop_export`."""
    version = show_version(context, ref).version
    context.backend.drop_export(parse_ref(version.ref), digest_request(read_profile(profile), version.base))


@dataclass(frozen=True)
class ExportedFiles:
    """The files of a version as a server takes it; in ``folder`` if they were made just now, else in the store."""

    manifest: Manifest
    folder: Path | None


@contextlib.contextmanager
def export_for_profile(
    context: Context, details: Details, profile: str, verify: bool, progress: Progress, *, rebuild: bool = False
) -> Iterator[ExportedFiles]:
    """Yield the version's files as the server of ``profile`` takes them: those that the registry made, or made here.

    A stored export is taken if it is what the headers say that it must be. If there is none, the registry makes it,
    provided that the caller may write there; else it is made here and not stored. ``verify`` and ``rebuild`` always
    make it here; ``rebuild`` says that the stored one is lost or damaged, and lets the registry make it again. Raises
    what exporting raises; with ``verify`` IntegrityError if what is stored is not the same.
    """
    server, version = read_profile(profile), details.version
    model = load_base(context, version.base) if version.base else None
    files = {file.path: file for file in details.files}
    planned = plan_for_profile(read_export_source(context.store, version.ref, version.digest, files), server, model)
    if not (verify or rebuild) and (stored := _find_or_request_export(context, details, profile, planned)) is not None:
        yield ExportedFiles(stored, None)
        return
    if rebuild:
        _request_export(context, details, profile, planned)
    with resolve_sources(context, [version.ref], progress) as (opened,), new_folder(None) as staging:
        write_folder(plan_for_profile(_export_source(opened), server, model), staging)
        manifest = hash_files({path.name: path for path in staging.iterdir()}, progress)
        if verify:
            stored = context.backend.export(parse_ref(version.ref), digest_request(server, version.base))
            _refuse_different(stored, manifest, planned, profile)
        yield ExportedFiles(manifest, staging)


def _export_source(opened: ResolvedSource) -> ExportSource:
    return ExportSource(opened.label, opened.digest, opened.structure)


def _find_or_request_export(
    context: Context, details: Details, profile: str, planned: PlannedExport
) -> Manifest | None:
    """Return the export that the registry has made, or makes now; None if it makes none, or has something else."""
    ref, request = parse_ref(details.version.ref), digest_request(planned.profile, details.version.base)
    source = {file.path: file for file in details.files}
    stored = context.backend.export(ref, request)
    if stored is None or not is_as_planned(context.store, stored, planned, source):
        stored = _request_export(context, details, profile, planned)
    return stored if stored is not None and is_as_planned(context.store, stored, planned, source) else None


def _request_export(context: Context, details: Details, profile: str, planned: PlannedExport) -> Manifest | None:
    """Let the registry make the export, in place of the one that it has; None if it does not, so it is made here.

    It does not for a caller who may only read, and where a server has too much to do, or is of another release.
    """
    ref, request = parse_ref(details.version.ref), digest_request(planned.profile, details.version.base)
    with contextlib.suppress(NotAllowedError, ConflictError, UsageError, UnavailableError):
        return context.backend.record_export(ref, request, profile)
    return None


def _refuse_different(stored: Manifest | None, manifest: Manifest, planned: PlannedExport, profile: str) -> None:
    """Raise IntegrityError if what is stored has other tensors, or another configuration, than what was made here."""
    if stored is None or planned.plan.is_machine_dependent:  # the last bits of what is cut down are each machine's own
        return
    source, server = planned.source.label, planned.profile.title
    stored_digests, digests = ({file.path: file.sha256 for file in files.files} for files in (stored, manifest))
    for name in (WEIGHTS_NAME, CONFIG_NAME):
        if stored_digests.get(name) != digests[name]:
            raise IntegrityError(
                f"{name} that the registry has of {source} for {server} is not what the version becomes for it",
                hint=f"loreg export {source} --profile {profile} --drop",
            )
