"""The folder of an exported adapter: its files, what they say of themselves, and whether others are these."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loreg.adapters.card import CARD_NAME
from loreg.adapters.config import CONFIG_NAME
from loreg.adapters.structure import WEIGHTS_NAME, AdapterStructure, read_remote_structure, read_structure
from loreg.bases.compatibility import BaseTensors
from loreg.checking import profile as serving
from loreg.checking.profile import Profile
from loreg.checking.rules import Subject
from loreg.checking.run import check_adapter, read_weights
from loreg.entities import BaseModel, ExportSummary
from loreg.errors import CheckFailedError, IntegrityError, NotFoundError
from loreg.exporting.export import Plan, plan_export
from loreg.exporting.factor_writer import write_weights
from loreg.manifest import File, Manifest
from loreg.storage import BlobStore

FILE_NAME = "loreg_export.json"
SCHEMA = "loreg.export/3"
_MOST_REPORT_BYTES = 64 * 1024**2


@dataclass(frozen=True)
class ExportSource:
    """The adapter that an export is made of: ``label`` names it for others, ``digest`` is its manifest's."""

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
    def report(self) -> dict[str, Any]:
        """What the file beside the adapter says, but for the certificate."""
        return {
            "schema": SCHEMA,
            "source": {"label": self.source.label, "digest": self.source.digest},
            "profile": _identity(self.profile),
            "base": self.base.base.digest if self.base else None,
            "changes": [*_as_peft_writes(self.source.structure), *self.plan.changes],
        }


def read_headers(store: BlobStore, label: str, digest: str, files: Mapping[str, File]) -> ExportSource:
    """A version with these ``files``, to be planned for; no weight is read. Raises what reading an adapter raises."""
    weights = files[WEIGHTS_NAME]
    configuration = store.read(files[CONFIG_NAME].sha256)

    def read(start: int, size: int) -> bytes:
        return store.read_part(weights.sha256, start, size)

    return ExportSource(label, digest, read_remote_structure(Path(label), configuration, weights.size, read))


def plan_for_profile(
    source: ExportSource, profile: Profile, base: BaseTensors | None, dtype: str | None = None
) -> PlannedExport:
    """Decide what the adapter becomes for the server. Raises CheckFailedError for what cannot be mended."""
    return PlannedExport(
        source, profile, base, plan_export(source.structure, profile, base.tensor_digests if base else None, dtype)
    )


def digest_request(profile: Profile, base: BaseModel | None) -> str:
    """A digest of all that the files of an export depend on beside the version."""
    asked = {"schema": SCHEMA, "profile": asdict(profile), "base": base.digest if base else None}
    return hashlib.sha256(json.dumps(asked, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_folder(made: PlannedExport, folder: Path) -> ExportSummary:
    """Write the files into the existing ``folder``. Raises CheckFailedError if the server would mind them still."""
    weights = made.source.structure.weights
    certificate = write_weights(folder / WEIGHTS_NAME, made.plan, weights)
    (folder / CONFIG_NAME).write_bytes(made.plan.configuration)
    card = weights.with_name(CARD_NAME)
    if card.is_file():
        shutil.copyfile(card, folder / CARD_NAME)
    _refuse_what_it_minds_still(made, folder)
    document = {**made.report, "certificate": certificate}
    (folder / FILE_NAME).write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return read_summary(folder)


def read_summary(folder: Path) -> ExportSummary:
    """What the file beside an exported adapter says of it."""
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


def is_as_planned(store: BlobStore, files: Manifest, made: PlannedExport, source: Mapping[str, File]) -> bool:
    """Whether stored files are those of the plan, as far as that can be told without the numbers of the adapter.

    Their names and sizes, the configuration and the card to the byte, every tensor's name, dtype and shape, and what
    they say of themselves. ``source`` are the files that the adapter was pushed with.
    """
    found = {file.path: file for file in files.files}
    expected = {CONFIG_NAME, WEIGHTS_NAME, FILE_NAME, *({CARD_NAME} & source.keys())}
    if found.keys() != expected or found[FILE_NAME].size > _MOST_REPORT_BYTES:
        return False
    if CARD_NAME in source and found[CARD_NAME].sha256 != source[CARD_NAME].sha256:
        return False
    configuration, header = made.plan.configuration, made.plan.header
    if found[CONFIG_NAME].sha256 != hashlib.sha256(configuration).hexdigest():
        return False
    try:
        report = json.loads(store.read(found[FILE_NAME].sha256))
        certificate = report.pop("certificate")
        begin = store.read_part(found[WEIGHTS_NAME].sha256, 0, len(header))
    except (NotFoundError, IntegrityError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
    same = begin == header and found[WEIGHTS_NAME].size == made.plan.size
    return same and report == made.report and _is_certificate(certificate, made.plan)


def _is_certificate(found: Any, plan: Plan) -> bool:
    """Whether it has an ε for every module that it says has moved, and none of a module that was only copied."""
    try:
        moved = {entry["module"]: entry for entry in found["modules"]}
        numbers = [found["epsilon"], *(entry["epsilon"] for entry in moved.values())]
    except (KeyError, TypeError):
        return False
    return all(isinstance(number, float) for number in numbers) and all(
        name in plan.editable.modules and not _is_untouched(plan, name) for name in moved
    )


def _is_untouched(plan: Plan, name: str) -> bool:
    module = plan.editable.modules[name]
    return not module.origin or (not module.computed and module.scale == plan.before.modules[module.origin].scale)


def _as_peft_writes(structure: AdapterStructure) -> Iterator[str]:
    """What is written otherwise than it was read because PEFT writes it so."""
    naming = structure.naming
    taken_out = [*naming.wrappers, *([f".{naming.adapter}"] if naming.adapter else [])]
    if taken_out or naming.wrapped:
        told = f" without {', '.join(taken_out)}" if taken_out else ""
        yield f"tensors have the names that PEFT gives them{told}"
    if naming.dropped:
        yield f"{len(naming.dropped)} copies in PEFT's wrappers left out, e.g. {naming.dropped[0]}"
    stacked = [module for module in structure.modules.values() if module.shape is not None and module.shape.stacked]
    if stacked:
        yield f"{len(stacked)} stacks of experts written as target_parameters, e.g. {stacked[0].name}"


def _refuse_what_it_minds_still(made: PlannedExport, folder: Path) -> None:
    label = made.source.label
    seen = read_weights(read_structure(folder), [*sorted(path.name for path in folder.iterdir()), FILE_NAME])
    subject = Subject(seen.structure, seen.scans, seen.files, made.base)
    mended = f"loreg bake {label} --base PATH --to DIR serves it as a model of its own"
    findings = [(f, f.remedy) for f in check_adapter(subject)] + [
        (f, mended) for f in serving.findings(made.profile, subject)
    ]
    errors = [(finding, hint) for finding, hint in findings if finding.severity == "error"]
    if errors:
        first, hint = errors[0]
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise CheckFailedError(f"{label} cannot be exported: {first.code} {first.message}{more}", hint=hint)


def _identity(profile: Profile) -> dict[str, Any]:
    return {
        "name": profile.name,
        "title": profile.title,
        "release": profile.release,
        "parameters": dict(profile.parameters),
    }
