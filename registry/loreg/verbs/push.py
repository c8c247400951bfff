"""push: a folder becomes a version. All blobs first, then one transaction: a push that dies leaves no version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from loreg.adapters.card import CARD_NAME, read_card
from loreg.adapters.config import is_hub_name
from loreg.adapters.layout import WEIGHTS_NAME
from loreg.bases.identify import Identity, identify
from loreg.bases.touched import target
from loreg.bases.verdict import Trained, judge
from loreg.catalog import bases, versions
from loreg.errors import CheckFailedError, NotFoundError, explain_os_errors
from loreg.expressions import parse_metric, parse_word
from loreg.records import BaseModel, Draft, Metric, Progress, Provenance, PushResult, no_progress
from loreg.refs import parse_adapter_name, parse_alias
from loreg.storage import Blob
from loreg.verbs import provenance
from loreg.verbs.context import Context, is_path, store_document
from loreg.verbs.fit import identified, known, names_that_are_taken
from loreg.verbs.prepare import Prepared, prepare
from loreg.verbs.tag import guard_alias


def push(
    context: Context,
    folder: Path | str,
    name: str,
    *,
    base: str | None = None,
    tasks: Sequence[str] = (),
    metrics: Sequence[str | Metric] = (),
    labels: Mapping[str, str] | None = None,
    aliases: Sequence[str] = (),
    message: str = "",
    progress: Progress = no_progress,
) -> PushResult:
    """Store the adapter in ``folder`` as the next version of ``name``.

    Content that ``name`` has already makes no new version; tasks, metrics, labels and aliases are then added to
    the one that is there. Raises UsageError, NotFoundError, AdapterFormatError, CheckFailedError, IntegrityError,
    ConflictError, NotAllowedError or UnavailableError; then nothing is recorded.
    """
    adapter = parse_adapter_name(name)
    measured = tuple(metric if isinstance(metric, Metric) else parse_metric(metric) for metric in metrics)
    tasks = tuple(parse_word(task, "task") for task in tasks)
    aliases = tuple(parse_alias(alias) for alias in aliases)
    with prepare(Path(folder), progress) as prepared:
        identity = _identity(context, base, prepared, progress)
        known_base = identity.base if isinstance(identity, Identity) else identity
        target_digest = _target(context, identity, prepared) if identity else None
        made_by, more_notes = _provenance(prepared)
        _store(context, prepared, identity, progress)
        draft = Draft(
            adapter=adapter,
            manifest=prepared.manifest,
            facts=prepared.layout.facts(),
            card=read_card(prepared.files[CARD_NAME]) if CARD_NAME in prepared.files else "",
            message=message.replace("\x00", ""),
            base=known_base,
            target=target_digest,
            tasks=tasks,
            labels=labels or {},
            metrics=measured,
            aliases=aliases,
            provenance=made_by,
        )
    notes = [*prepared.notes, *more_notes]
    with context.catalog.write(context.author) as tx:
        if isinstance(identity, Identity):
            bases.record(tx, identity.base, len(identity.leaves))
            notes += names_that_are_taken(bases.names_taken(tx, identity.base))
        version, created = versions.record(tx, draft)
        for alias in aliases:
            guard_alias(context, tx, version, alias)
    return PushResult(version, created, prepared.left_out, tuple(notes))


def _identity(
    context: Context, base: str | None, prepared: Prepared, progress: Progress
) -> Identity | BaseModel | None:
    """Hash the base at a path, or find the one that a name or digest means."""
    if base is None:
        return None
    if is_path(base):
        path = Path(base).expanduser()
        hint = prepared.layout.config.base_hint
        name = hint if is_hub_name(hint) else path.resolve().name
        with explain_os_errors(path, "check the folder of the base and its permissions"):
            return identify(path, (name,), progress, context.cache)
    try:
        with context.catalog.read() as tx:
            return bases.find(tx, base)
    except NotFoundError as error:
        if Path(base).exists():
            raise NotFoundError(error.message, hint=f"for the folder of that name: --base ./{base}") from None
        raise


def _target(context: Context, identity: Identity | BaseModel, prepared: Prepared) -> str | None:
    """The digest of the base's tensors that the adapter touches. Raises CheckFailedError if these do not fit it."""
    base = identified(identity) if isinstance(identity, Identity) else known(context, identity)
    verdict = judge(Trained(prepared.layout, None), base)
    if verdict.kind == "mismatch":
        raise CheckFailedError(
            f"base mismatch: {verdict.reason} ({base.base.title})", hint="--base names the model that it was trained on"
        )
    return target(base.leaves, prepared.layout) if base.base.complete else None


def _provenance(prepared: Prepared) -> tuple[Provenance | None, tuple[str, ...]]:
    """How the adapter was merged, if its folder says so and the weights are still those of the merge."""
    path = prepared.files.get(provenance.FILE_NAME)
    if path is None:
        return None, ()
    weights = next(file.sha256 for file in prepared.manifest.files if file.path == WEIGHTS_NAME)
    found = provenance.read(path, weights)
    if found is None:
        return None, (f"{provenance.FILE_NAME} is about other weights than these: no lineage is recorded",)
    return found, ()


def _store(context: Context, prepared: Prepared, identity: Identity | BaseModel | None, progress: Progress) -> None:
    total, done = prepared.manifest.size, 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        progress("storing", done, total)

    for file in prepared.manifest.files:
        path = prepared.files[file.path]
        with explain_os_errors(path, "check the folder and its permissions"):
            context.store.put(Blob(file.sha256, file.size), path, count)
    store_document(context, prepared.manifest.digest, prepared.manifest.to_bytes())
    if isinstance(identity, Identity):
        store_document(context, identity.base.digest, identity.leaves)
