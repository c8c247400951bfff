"""The folder of an exported adapter: plan its files, write them, and compare stored files with the plan."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from loreg.adapters.card import CARD_NAME
from loreg.adapters.config import CONFIG_NAME
from loreg.adapters.structure import WEIGHTS_NAME, AdapterStructure, read_remote_structure, read_structure
from loreg.bases.compatibility import BaseTensors
from loreg.canonical_json import canonical_json
from loreg.checking.profile import Profile, check_profile
from loreg.checking.run import check_adapter, scan_adapter
from loreg.entities import BaseModel, ExportSummary, Severity
from loreg.errors import CheckFailedError, IntegrityError, NotFoundError
from loreg.exporting.export import Plan, plan_export
from loreg.exporting.factor_writer import write_weights
from loreg.manifest import File, Manifest
from loreg.storage import BlobTransfer

FILE_NAME = "loreg_export.json"
SCHEMA = "loreg.export/3"
_MAX_REPORT_BYTES = 64 * 1024**2


@dataclass(frozen=True)
class ExportSource:
    """The adapter that an export is made of: ``label`` names it in messages, ``digest`` is that of its manifest."""

    label: str
    digest: str
    structure: AdapterStructure


@dataclass(frozen=True)
class PlannedExport:
    """What the files of an export must be: everything but the numbers follows from headers."""

    source: ExportSource
    profile: Profile
    base: BaseTensors | None
    plan: Plan

    @property
    def report(self) -> dict[str, object]:
        """The content of :data:`FILE_NAME`, but for the certificate."""
        return {
            "schema": SCHEMA,
            "source": {"label": self.source.label, "digest": self.source.digest},
            "profile": _profile_to_json(self.profile),
            "base": self.base.base.digest if self.base else None,
            "changes": [*_describe_peft_names(self.source.structure), *self.plan.changes],
        }


def read_export_source(store: BlobTransfer, label: str, digest: str, files: Mapping[str, File]) -> ExportSource:
    """Read a version with these ``files`` by its headers; no weight is read. Raises what reading an adapter raises."""
    weights = files[WEIGHTS_NAME]
    configuration = store.read(files[CONFIG_NAME].sha256)

    def read(start: int, size: int) -> bytes:
        return store.read_part(weights.sha256, start, size)

    return ExportSource(label, digest, read_remote_structure(Path(label), configuration, weights.size, read))


def plan_for_profile(
    source: ExportSource, profile: Profile, base: BaseTensors | None, dtype: str | None = None
) -> PlannedExport:
    """Decide what the adapter becomes for the server. Raises CheckFailedError where a shape is not known."""
    plan = plan_export(source.structure, profile, base.tensor_digests if base else None, dtype)
    return PlannedExport(source, profile, base, plan)


def digest_request(profile: Profile, base: BaseModel | None) -> str:
    """Return a digest of all that the files of an export depend on beside the version.

    The field names of :class:`Profile` and its rules are part of it: to rename one makes every export anew.
    """
    request = {"schema": SCHEMA, "profile": asdict(profile), "base": base.digest if base else None}
    return hashlib.sha256(canonical_json(request)).hexdigest()


def write_folder(planned: PlannedExport, folder: Path) -> ExportSummary:
    """Write the files into the existing ``folder``. Raises CheckFailedError if a check still finds an error in them."""
    weights = planned.source.structure.weights
    certificate = write_weights(folder / WEIGHTS_NAME, planned.plan, weights)
    (folder / CONFIG_NAME).write_bytes(planned.plan.config_bytes)
    card = weights.with_name(CARD_NAME)
    if card.is_file():
        shutil.copyfile(card, folder / CARD_NAME)
    _refuse_remaining_errors(planned, folder)
    document = {**planned.report, "certificate": certificate}
    (folder / FILE_NAME).write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return read_summary(folder)


def read_summary(folder: Path) -> ExportSummary:
    """Read what the file beside an exported adapter says of it."""
    document = json.loads((folder / FILE_NAME).read_bytes())
    moved = document["certificate"]["modules"]
    worst = max(moved, key=lambda module: module["epsilon"], default=None)
    return ExportSummary(
        server=f"{document['profile']['title']} {document['profile']['release']}",
        changes=tuple(document["changes"]),
        epsilon=document["certificate"]["epsilon"],
        moved=len(moved),
        worst=worst["module"] if worst else "",
        worst_epsilon=worst["epsilon"] if worst else 0.0,
    )


def is_as_planned(store: BlobTransfer, manifest: Manifest, planned: PlannedExport, source: Mapping[str, File]) -> bool:
    """Tell whether stored files are those of the plan, as far as can be told without the numbers of the adapter.

    Compared are names and sizes, the configuration and the card to the byte, every tensor's name, dtype and shape, and
    what the files say of themselves. ``source`` are the files that the adapter was pushed with.
    """
    files = {file.path: file for file in manifest.files}
    expected = {CONFIG_NAME, WEIGHTS_NAME, FILE_NAME, *({CARD_NAME} & source.keys())}
    if files.keys() != expected or files[FILE_NAME].size > _MAX_REPORT_BYTES:
        return False
    if CARD_NAME in source and files[CARD_NAME].sha256 != source[CARD_NAME].sha256:
        return False
    header = planned.plan.header
    if files[CONFIG_NAME].sha256 != hashlib.sha256(planned.plan.config_bytes).hexdigest():
        return False
    try:
        report = json.loads(store.read(files[FILE_NAME].sha256))
        certificate = report.pop("certificate")
        stored_header = store.read_part(files[WEIGHTS_NAME].sha256, 0, len(header))
    except (NotFoundError, IntegrityError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
    same_tensors = stored_header == header and files[WEIGHTS_NAME].size == planned.plan.size
    return same_tensors and report == planned.report and _is_certificate(certificate, planned.plan)


def _is_certificate(certificate: Any, plan: Plan) -> bool:
    """Tell whether it has an ε for every module that it says has moved, and names none that the plan only copies."""
    try:
        moved = {entry["module"]: entry for entry in certificate["modules"]}
        numbers = [certificate["epsilon"], *(entry["epsilon"] for entry in moved.values())]
    except (KeyError, TypeError):
        return False
    return all(isinstance(number, float) for number in numbers) and all(
        name in plan.after.modules and not _is_unmoved(plan, name) for name in moved
    )


def _is_unmoved(plan: Plan, name: str) -> bool:
    module = plan.after.modules[name]
    return not module.origin or (not module.is_recomputed and module.scale == plan.before.modules[module.origin].scale)


def _describe_peft_names(structure: AdapterStructure) -> Iterator[str]:
    """Yield in words what is written otherwise than it was read because PEFT writes it so."""
    naming = structure.naming
    removed = [*naming.wrappers, *([f".{naming.adapter}"] if naming.adapter else [])]
    if removed or naming.wrapped:
        without = f" without {', '.join(removed)}" if removed else ""
        yield f"tensors have the names that PEFT gives them{without}"
    if naming.dropped:
        yield f"{len(naming.dropped)} copies in PEFT's wrappers left out, e.g. {naming.dropped[0]}"
    stacked = [module for module in structure.modules.values() if module.shape is not None and module.shape.stacked]
    if stacked:
        yield f"{len(stacked)} stacks of experts written as target_parameters, e.g. {stacked[0].name}"


def _refuse_remaining_errors(planned: PlannedExport, folder: Path) -> None:
    label = planned.source.label
    files = [*sorted(path.name for path in folder.iterdir()), FILE_NAME]
    subject = replace(scan_adapter(read_structure(folder), files), base=planned.base)
    bake = f"loreg bake {label} --base PATH --to DIR serves it as a model of its own"
    findings = [(finding, finding.remedy) for finding in check_adapter(subject)]
    findings += [(finding, bake) for finding in check_profile(planned.profile, subject)]
    errors = [(finding, hint) for finding, hint in findings if finding.severity == Severity.ERROR]
    if errors:
        first, hint = errors[0]
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise CheckFailedError(f"{label} cannot be exported: {first.code} {first.message}{more}", hint=hint)


def _profile_to_json(profile: Profile) -> dict[str, object]:
    return {
        "name": profile.name,
        "title": profile.title,
        "release": profile.release,
        "parameters": dict(profile.parameters),
    }
