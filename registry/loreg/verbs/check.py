"""check: find what is wrong with adapters by themselves, on a base, in a server, in this registry, for this team."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from loreg.adapters.base_path import remove_base_path
from loreg.adapters.card import CARD_NAME, read_card
from loreg.adapters.config import CONFIG_NAME
from loreg.adapters.folder import select_files
from loreg.adapters.hub import read_hub_adapter
from loreg.adapters.hub_errors import HUB_PREFIX
from loreg.adapters.stored import read_stored_structure
from loreg.adapters.structure import WEIGHTS_NAME, AdapterStructure, read_structure
from loreg.bases.compatibility import BaseTensors
from loreg.checking import policy
from loreg.checking import profile as serving
from loreg.checking.profile import Profile, read_profile
from loreg.checking.rules import Subject
from loreg.checking.run import check_adapter, scan_adapter
from loreg.entities import AliasMove, CheckReport, Details, Finding, Progress, Severity, Version, no_progress
from loreg.errors import AdapterFormatError, IntegrityError, NotFoundError, UnavailableError, explain_os_errors
from loreg.refs import is_path, parse_ref
from loreg.storage import digest_of
from loreg.workspace.base_lookup import assess_fit, find_base, trained_adapter
from loreg.workspace.context import Context, show_version
from loreg.workspace.download import download_to_temporary

_HEADER_ONLY = "NaN, zero and huge numbers were not looked for: they need the weights"
_MAX_COMPARED = 20  # versions of the same weights whose configuration is asked for


@dataclass(frozen=True)
class _InspectedSource:
    """What was read of one adapter: the rules' subject, bytes of all files, card.

    ``weights`` and ``config`` are the sha256 of the files as push stores them, empty where they are not known.
    """

    subject: Subject
    size: int
    card: str
    weights: str
    config: str = ""
    version: Version | None = None
    moves: Sequence[AliasMove] = ()


def check(
    context: Context,
    sources: Sequence[str],
    *,
    base: str | None = None,
    profiles: Sequence[str] = (),
    against: str = "",
    header_only: bool = False,
    progress: Progress = no_progress,
) -> tuple[CheckReport, ...]:
    """Report every finding on adapters. See :meth:`loreg.registry.Registry.check`."""
    servers = [read_profile(text) for text in profiles]
    model = find_base(context, base) if base is not None else None
    against = against or context.policy.against
    if ":" in against:
        context.backend.show(parse_ref(against))
    reports = []
    for done, source in enumerate(sources):
        reports.append(_check(context, source, model, servers, against, header_only))
        progress("checking", done + 1, len(sources))
    return tuple(reports)


def _check(
    context: Context,
    source: str,
    model: BaseTensors | None,
    servers: Sequence[Profile],
    against: str,
    header_only: bool,
) -> CheckReport:
    name, path, folder, stored = _resolve(context, source)
    try:
        if folder is not None:
            inspected = _inspect_folder(folder, header_only)
        elif stored is not None:
            inspected = _inspect_version(context, stored, header_only)
        else:
            inspected = _inspect_hub(source)
        verdict = None
        if model is not None:
            trained_on = stored.version.base if stored else None
            adapter = trained_adapter(context, inspected.subject.structure, trained_on)
            verdict = assess_fit(context, adapter, model)
    except (AdapterFormatError, IntegrityError, NotFoundError) as error:
        return CheckReport(name, path, (Finding("LR000", Severity.ERROR, error.message, error.hint),))
    copies, notes = _find_copies(context, inspected)
    seen = inspected.subject
    subject = Subject(seen.structure, seen.scans, seen.files, model, verdict, copies)
    findings = check_adapter(subject)
    for server in servers:
        findings += serving.check_profile(server, subject)
    findings += policy.check_policy(context.policy, _policy_candidate(context, inspected, model, against))
    return CheckReport(name, path, findings, (*notes, *([_HEADER_ONLY] if seen.scans is None else [])))


def _resolve(context: Context, source: str) -> tuple[str, str, Path | None, Details | None]:
    """Return the name and path for the report, and the folder or the version; neither for an adapter on the Hub."""
    if source.startswith(HUB_PREFIX):
        return source, "", None, None
    if is_path(source) or Path(source).name == CONFIG_NAME:  # a hook is given the files that changed
        folder = Path(source).expanduser()
        folder = folder.parent if folder.name == CONFIG_NAME else folder
        return folder.name, str(folder), folder, None
    details = show_version(context, source)
    return details.version.ref, "", None, details


def _inspect_folder(folder: Path, header_only: bool) -> _InspectedSource:
    with explain_os_errors(folder, "check the folder and its permissions"):
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "does not exist"
            raise NotFoundError(f"{folder} {what}, expected the folder of an adapter", hint="loreg check --help")
        selected = select_files(folder).files
        files = tuple(sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()))
        subject = _read(read_structure(folder), files, header_only)
        size = sum(path.stat().st_size for path in selected.values())
        card, config = read_card(folder / CARD_NAME), selected[CONFIG_NAME]
        if header_only:
            return _InspectedSource(subject, size, card, "")
        cleaned = remove_base_path({CONFIG_NAME: config}, subject.structure.config.base_hint)
        stored_config = hashlib.sha256(cleaned.get(CONFIG_NAME) or config.read_bytes()).hexdigest()
        return _InspectedSource(subject, size, card, digest_of(folder / WEIGHTS_NAME).sha256, stored_config)


def _inspect_version(context: Context, stored: Details, header_only: bool) -> _InspectedSource:
    """Read a version: its headers alone in the store, or all of it, downloaded."""
    version, files = stored.version, {file.path: file for file in stored.files}
    weights, names = files[WEIGHTS_NAME], tuple(files)
    if header_only:
        structure = read_stored_structure(context.store, version.ref, files)
        return _InspectedSource(
            Subject(structure, None, names), version.size, stored.card, weights.sha256, "", version, stored.alias_moves
        )
    with tempfile.TemporaryDirectory(prefix="loreg-check-") as name:
        download_to_temporary(context, stored.files, Path(name), no_progress)
        subject = _read(read_structure(Path(name)), names, header_only=False)
    return _InspectedSource(subject, version.size, stored.card, weights.sha256, "", version, stored.alias_moves)


def _inspect_hub(source: str) -> _InspectedSource:
    hub_adapter = read_hub_adapter(source)
    return _InspectedSource(
        Subject(hub_adapter.structure, None, hub_adapter.files), hub_adapter.size, hub_adapter.card, hub_adapter.sha256
    )


def _read(structure: AdapterStructure, files: tuple[str, ...], header_only: bool) -> Subject:
    return Subject(structure, None, files) if header_only else scan_adapter(structure, files)


def _find_copies(context: Context, inspected: _InspectedSource) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the refs of versions of other adapters with the same weights, and a note if the backend does not answer.

    A catalog that does not exist yet is not created for this question.
    """
    if not inspected.weights or not context.backend.is_there():
        return (), ()
    try:
        refs = context.backend.with_file(inspected.weights)
        itself = inspected.version.ref if inspected.version else _find_itself(context, refs, inspected.config)
    except UnavailableError as error:
        return (), (f"whether these weights are in the registry already is not known: {error.message}",)
    adapter = parse_ref(itself).adapter if itself else None
    return tuple(ref for ref in refs if parse_ref(ref).adapter != adapter), ()


def _find_itself(context: Context, refs: Sequence[str], config: str) -> str | None:
    """Return the first of the refs whose version has that configuration."""
    for ref in refs[:_MAX_COMPARED] if config else ():
        files = context.backend.show(parse_ref(ref)).files
        if any(file.path == CONFIG_NAME and file.sha256 == config for file in files):
            return ref
    return None


def _policy_candidate(
    context: Context, inspected: _InspectedSource, model: BaseTensors | None, against: str
) -> policy.Candidate:
    if inspected.version is not None:
        reference = policy.find_reference_version(
            against, inspected.version, inspected.moves, lambda ref: context.backend.show(ref).version
        )
        candidate = policy.build_candidate(inspected.version, inspected.card, reference)
        if candidate.base_license or model is None:
            return candidate
        return msgspec.structs.replace(candidate, base_license=model.base.license)
    structure, license_ = inspected.subject.structure, model.base.license if model else ""
    rank = max(module.rank for module in structure.modules.values())
    return policy.Candidate(rank, structure.config.base_hint, inspected.size, inspected.card, None, license_)
