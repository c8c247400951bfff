"""export: an adapter as one server takes it, checked again, with what was changed and how far its delta moved."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loreg.adapters.card import CARD_NAME
from loreg.adapters.layout import read_layout
from loreg.bases.verdict import Known
from loreg.checking import profile as serving
from loreg.checking.findings import Subject
from loreg.checking.profile import Profile, read_profile
from loreg.checking.run import read_weights, run
from loreg.errors import CheckFailedError, NotAllowedError, UsageError
from loreg.manifest import Manifest
from loreg.records import ExportResult, Fitted, Progress, Version, no_progress
from loreg.refs import parse_ref
from loreg.storage import Blob
from loreg.verbs.context import Context
from loreg.verbs.fit import candidate, known
from loreg.verbs.merge import new_folder, refuse_wrong_target
from loreg.verbs.prepare import hash_files
from loreg.verbs.sources import Opened, open_sources, require_torch

FILE_NAME = "loreg_export.json"
SCHEMA = "loreg.export/2"
_DTYPES = ("float32", "float16", "bfloat16")
#: Rules that what is written keeps, whether the source does or not.
_MENDED = ("LR019",)


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
    """Write the adapter of a ref or folder to the new ``folder`` as the server of ``profile`` takes it.

    Only what that server refuses or gets silently wrong is changed: scales go into B, ranks are padded or cut down,
    missing modules become zeros, names become the base's, fields that it does not read are left out. Names of wrappers
    and adapters, and stacked experts, become what PEFT writes, for every server. ``base`` is the
    model's path or a name that the registry knows; by default the one that the version was pushed with. ``dtype`` is
    float32, float16 or bfloat16, by default that of each tensor. ``loreg_export.json`` says what was done, and how far
    each delta moved. Raises CheckFailedError for what cannot be mended, UsageError, NotFoundError and what pulling
    raises; then nothing is written.
    """
    server = read_profile(profile)
    if dtype is not None and dtype not in _DTYPES:
        raise UsageError(f"dtype is {dtype!r}, expected one of {', '.join(_DTYPES)}", hint="--dtype bfloat16")
    target = Path(folder)
    refuse_wrong_target(None, target, FILE_NAME)
    require_torch()
    model = candidate(context, base) if base is not None else None
    with open_sources(context, [source], progress, _MENDED) as (opened,), new_folder(target) as staging:
        if model is None and opened.base is not None:
            model = known(context, opened.base)
        fitted = _write(opened, server, model, dtype, staging)
    return ExportResult(opened.label, target, fitted)


@dataclass(frozen=True)
class Exported:
    """The files of a version as a server takes it; in ``folder`` if they were made just now, else in the store."""

    manifest: Manifest
    folder: Path | None


@contextlib.contextmanager
def exported(context: Context, version: Version, profile: Profile, progress: Progress) -> Iterator[Exported]:
    """The version as the server takes it: what was stored for the first who asked, or made now and stored.

    Who may only read keeps what he made to himself. Raises what exporting raises; MissingExtraError without torch only
    if it has to be made.
    """
    request, ref = _request(profile, version), parse_ref(version.ref)
    if (found := context.ledger.export(ref, request)) is not None:
        yield Exported(found, None)
        return
    require_torch()
    model = known(context, version.base) if version.base else None
    with open_sources(context, [version.ref], progress) as (opened,), new_folder(None) as staging:
        _write(opened, profile, model, None, staging)
        files = {path.name: path for path in staging.iterdir()}
        manifest = hash_files(files, progress)
        with contextlib.suppress(NotAllowedError):
            blobs = {file.path: Blob(file.sha256, file.size) for file in manifest.files}
            context.store.announce(tuple(blobs.values()))
            for name, blob in blobs.items():
                context.store.put(blob, files[name])
            context.ledger.record_export(ref, request, manifest)
        yield Exported(manifest, staging)


def read_fitted(folder: Path) -> Fitted:
    """What the file beside an exported adapter says of it."""
    document = json.loads((folder / FILE_NAME).read_bytes())
    moved = document["certificate"]["modules"]
    worst = max(moved, key=lambda module: module["epsilon"], default=None)
    return Fitted(
        server=f"{document['profile']['title']} {document['profile']['release']}",
        changes=tuple(document["changes"]),
        epsilon=document["certificate"]["epsilon"],
        moved=len(moved),
        worst=worst["module"] if worst else "",
        worst_epsilon=worst["epsilon"] if worst else 0.0,
    )


def _write(opened: Opened, profile: Profile, base: Known | None, dtype: str | None, staging: Path) -> Fitted:
    """Write the files into ``staging``. Raises CheckFailedError if the server would mind them still."""
    from loreg.adapters.tensors import write_files
    from loreg.exporting.export import export as fit

    made = fit(opened.layout, profile, base.leaves if base else None, dtype)
    write_files(staging, made.tensors, made.document)
    card = opened.layout.weights.with_name(CARD_NAME)
    if card.is_file():
        shutil.copyfile(card, staging / CARD_NAME)
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "source": {"label": opened.label, "digest": opened.digest},
        "profile": _identity(profile),
        "base": base.base.digest if base else None,
        "changes": (*_as_peft_writes(opened), *made.changes),
        "certificate": made.certificate,
    }
    (staging / FILE_NAME).write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    _refuse_what_it_minds_still(opened, profile, base, staging)
    return read_fitted(staging)


def _as_peft_writes(opened: Opened) -> Iterator[str]:
    """What is written otherwise than it was read because PEFT writes it so."""
    naming = opened.layout.naming
    taken_out = [*naming.wrappers, *([f".{naming.adapter}"] if naming.adapter else [])]
    if taken_out or naming.wrapped:
        told = f" without {', '.join(taken_out)}" if taken_out else ""
        yield f"tensors have the names that PEFT gives them{told}"
    if naming.dropped:
        yield f"{len(naming.dropped)} copies in PEFT's wrappers left out, e.g. {naming.dropped[0]}"
    stacked = [module for module in opened.layout.modules.values() if module.form is not None and module.form.stacked]
    if stacked:
        yield f"{len(stacked)} stacks of experts written as target_parameters, e.g. {stacked[0].name}"


def _refuse_what_it_minds_still(opened: Opened, profile: Profile, base: Known | None, staging: Path) -> None:
    seen = read_weights(read_layout(staging), sorted(path.name for path in staging.iterdir()))
    subject = Subject(seen.layout, seen.scans, seen.files, base)
    mended = f"loreg bake {opened.label} --base PATH --to DIR serves it as a model of its own"
    findings = [(f, f.remedy) for f in run(subject)] + [(f, mended) for f in serving.findings(profile, subject)]
    errors = [(finding, hint) for finding, hint in findings if finding.severity == "error"]
    if errors:
        first, hint = errors[0]
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise CheckFailedError(f"{opened.label} cannot be exported: {first.code} {first.message}{more}", hint=hint)


def _identity(profile: Profile) -> dict[str, Any]:
    return {
        "name": profile.name,
        "title": profile.title,
        "release": profile.release,
        "parameters": dict(profile.parameters),
    }


def _request(profile: Profile, version: Version) -> str:
    """A digest of all that the files of an export depend on beside the version."""
    asked = {"schema": SCHEMA, "profile": asdict(profile), "base": version.base.digest if version.base else None}
    return hashlib.sha256(json.dumps(asked, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
