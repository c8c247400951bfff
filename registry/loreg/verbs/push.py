"""push: store a folder as a version. All blobs first, then one commit: a push that dies leaves no version."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import msgspec

from loreg.adapters.structure import WEIGHTS_NAME
from loreg.base_names import is_hub_name
from loreg.bases.compatibility import BaseTensors, refuse_mismatch
from loreg.bases.identify import Identity, identify
from loreg.entities import BaseModel, Commit, Metric, Progress, PushResult, VersionMetadata, no_progress
from loreg.errors import NotFoundError, explain_os_errors
from loreg.identity.sketch import sketch_adapter
from loreg.merging import provenance
from loreg.parsing import parse_word
from loreg.refs import AdapterName, is_path, parse_adapter_name, parse_alias
from loreg.storage import Blob, UploadReserver, put_bytes
from loreg.storage.collected import attempts_to_commit
from loreg.verbs.metrics import parse_metrics
from loreg.workspace.base_lookup import base_of_identity, load_base
from loreg.workspace.context import Context
from loreg.workspace.inspect import InspectedAdapter, inspect_adapter


def push(
    context: Context,
    folder: Path | str,
    name: str,
    metadata: VersionMetadata = VersionMetadata(),
    *,
    base: str | None = None,
    checkpoint: str = "",
    progress: Progress = no_progress,
) -> PushResult:
    """Store the adapter in ``folder`` as the next version of ``name``. See :meth:`loreg.registry.Registry.push`."""
    adapter = parse_adapter_name(name)
    checked = _parse_metadata(context, metadata)
    if not checkpoint:
        with inspect_adapter(Path(folder), progress) as inspected:
            return store_version(context, inspected, adapter, checked, base=base, progress=progress)
    from loreg.workspace.checkpoints import select_checkpoint  # only a run needs what reads runs

    state, read = select_checkpoint(context, Path(folder), checkpoint)
    with state.files.open_folder() as at, inspect_adapter(at, progress) as inspected:
        return store_version(context, inspected, adapter, _complete(checked, read), base=base, progress=progress)


def _parse_metadata(context: Context, metadata: VersionMetadata) -> VersionMetadata:
    """Return the metadata with its texts parsed. Raises UsageError for one that is not understood."""
    metrics = parse_metrics(context.backend, metadata.metrics)
    tasks = tuple(parse_word(task, "task") for task in metadata.tasks)
    aliases = tuple(parse_alias(alias) for alias in metadata.aliases)
    return VersionMetadata(tasks, metrics, metadata.labels, aliases, metadata.message)


def _complete(stated: VersionMetadata, read: VersionMetadata) -> VersionMetadata:
    """Return what the caller says of a version, and of what the caller does not say what the trainer wrote."""
    return VersionMetadata(
        tasks=stated.tasks or read.tasks,
        metrics=stated.metrics or read.metrics,
        labels={**read.labels, **stated.labels},
        aliases=stated.aliases,
        message=stated.message or read.message,
    )


def store_version(
    context: Context,
    inspected: InspectedAdapter,
    adapter: AdapterName,
    metadata: VersionMetadata,
    *,
    base: str | None,
    progress: Progress,
) -> PushResult:
    """Store what was inspected as the next version of ``adapter``, all blobs first and then the commit.

    The metrics of ``metadata`` are parsed already: what is wrong with one is told before anything is read.
    """
    identity = _identify_base(context, base, inspected, progress)
    if identity is not None:
        refuse_mismatch(inspected.structure, _named_as_given(context, identity, base))  # before anything is sent
    _refuse_foreign_provenance(inspected)
    commit = Commit(
        adapter=adapter,
        manifest=inspected.manifest,
        base=identity.base if isinstance(identity, Identity) else identity,
        base_hint=inspected.structure.config.base_hint,
        message=metadata.message,
        tasks=tuple(metadata.tasks),
        labels=metadata.labels,
        metrics=tuple(metric for metric in metadata.metrics if isinstance(metric, Metric)),
        aliases=tuple(metadata.aliases),
    )
    with ThreadPoolExecutor(1) as pool:  # while the files are on their way
        sketching = pool.submit(sketch_adapter, inspected.structure)
        for attempt in attempts_to_commit():
            with attempt:
                _store(context, inspected, identity, progress)
                committed = context.backend.commit(msgspec.structs.replace(commit, sketch=sketching.result()))
    return PushResult(committed.version, committed.created, inspected.left_out, (*inspected.notes, *committed.notes))


def _identify_base(
    context: Context, base: str | None, inspected: InspectedAdapter, progress: Progress
) -> Identity | BaseModel | None:
    """Hash the base at a path, or find the one that a name or digest means."""
    if base is None:
        return None
    if is_path(base):
        path = Path(base).expanduser()
        hint = inspected.structure.config.base_hint
        name = hint if is_hub_name(hint) else path.resolve().name
        with explain_os_errors(path, "check the folder of the base and its permissions"):
            return identify(path, (name,), progress, context.base_cache)
    try:
        return context.backend.base(base).base
    except NotFoundError as error:
        if Path(base).exists():
            raise NotFoundError(error.message, hint=f"for the folder of that name: --base ./{base}") from error
        raise


def _named_as_given(context: Context, identity: Identity | BaseModel, base: str | None) -> BaseTensors:
    """Return the tensors of the base, under the name of its folder if a path was given.

    It is recorded under the name that the adapter has for its base. A base that is refused is not that one.
    """
    if not isinstance(identity, Identity):
        return load_base(context, identity)
    name = Path(base or "").expanduser().resolve().name
    return base_of_identity(replace(identity, base=msgspec.structs.replace(identity.base, names=(name,))))


def _refuse_foreign_provenance(inspected: InspectedAdapter) -> None:
    """Raise AdapterFormatError for a record of a merge that loreg did not write."""
    if path := inspected.files.get(provenance.FILE_NAME):
        weights = next(file.sha256 for file in inspected.manifest.files if file.path == WEIGHTS_NAME)
        provenance.read(path.read_bytes(), weights)


def _store(
    context: Context, inspected: InspectedAdapter, identity: Identity | BaseModel | None, progress: Progress
) -> None:
    total, done = inspected.manifest.size, 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        progress("storing", done, total)

    blobs = {file.path: Blob(file.sha256, file.size) for file in inspected.manifest.files}
    tensor_list = [identity.base.digest] if isinstance(identity, Identity) else []
    context.backend.lease([*(blob.sha256 for blob in blobs.values()), *tensor_list, inspected.manifest.digest])
    if isinstance(context.store, UploadReserver):
        context.store.reserve_uploads(tuple(blobs.values()))
    for name, blob in blobs.items():
        path = inspected.files[name]
        with explain_os_errors(path, "check the folder and its permissions"):
            context.store.put(blob, path, count)
    if isinstance(identity, Identity):
        put_bytes(context.store, identity.tensor_list)
