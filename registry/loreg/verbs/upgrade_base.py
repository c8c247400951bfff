"""upgrade: what a new base means for the adapters of the old one, and their versions on it."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from loreg.adapters.stored import read_stored_structure
from loreg.adapters.structure import WEIGHTS_NAME, AdapterStructure
from loreg.entities import (
    AdapterUpgrade,
    Details,
    Progress,
    Query,
    UnreadableVersion,
    UpgradeReport,
    UpgradeVerdict,
    Version,
    no_progress,
)
from loreg.errors import LoregError, NotFoundError, UnavailableError, UsageError
from loreg.refs import Ref, parse_ref
from loreg.selectors import parse_selector
from loreg.storage import Blob, put_bytes
from loreg.storage.collected import attempts_to_commit
from loreg.upgrading.base_pass import BaseWeights, ComparedAdapter, measure_bases
from loreg.upgrading.touched_change import TouchedChange
from loreg.upgrading.touched_tensors import TensorState, TouchedTensor, pair_tensors, touched_tensors
from loreg.upgrading.verdict import assess_upgrade, order
from loreg.verbs.upgrade_move import move_version
from loreg.verbs.upgrade_record import record_report
from loreg.workspace.context import Context
from loreg.workspace.opened_base import OpenedBase, open_base

_MOVABLE = (UpgradeVerdict.EXACT, UpgradeVerdict.COPY)


@dataclass(frozen=True)
class _Candidate:
    """An adapter of the old base, its structure, and what has become of the tensors that it touches."""

    details: Details
    structure: AdapterStructure
    tensors: Sequence[TouchedTensor]

    @property
    def version(self) -> Version:
        return self.details.version

    @property
    def is_measurable(self) -> bool:
        """Whether weights would say more: factors are on tensors that changed, and all can be compared."""
        states = {tensor.state for tensor in self.tensors}
        changed = any(tensor.state == TensorState.CHANGED and tensor.target for tensor in self.tensors)
        return changed and not states & {TensorState.MISFIT, TensorState.UNKNOWN}


def upgrade_base(
    context: Context,
    old: str,
    new: str,
    selection: Sequence[str] = (),
    *,
    move: bool = False,
    also: Sequence[str] = (),
    probe_set: str | None = None,
    device: str = "auto",
    progress: Progress = no_progress,
) -> UpgradeReport:
    """Say what the upgrade means for each adapter. See :meth:`loreg.registry.Registry.upgrade_base`."""
    if also and not move:
        raise UsageError("--also names what is moved besides: expected --move too", hint="loreg base upgrade --help")
    asked = [parse_ref(ref) for ref in also]
    before, after = (open_base(context, text, progress) for text in (old, new))
    if probe_set is not None and (before.model is None or after.model is None):
        raise UsageError("a probe set needs both models: expected the folders of OLD and NEW", hint="./old ./new")
    if before.base.digest == after.base.digest:
        raise UsageError(f"{old} and {new} are one base: their tensors are the same", hint="loreg base ls")
    candidates, others, unreadable = _read_candidates(context, before, after, selection, progress)
    _refuse_unselected(asked, candidates)
    with tempfile.TemporaryDirectory(prefix="loreg-upgrade-") as name:
        has_weights = before.model is not None and after.model is not None
        measurable = {i for i, candidate in enumerate(candidates) if has_weights and candidate.is_measurable}
        wanted = measurable if probe_set is None else set(range(len(candidates)))
        stored = _download(context, candidates, wanted, Path(name), progress)
        changes, change = _measure(before, after, {i: stored[i] for i in sorted(measurable)}, progress)
        adapters = [
            assess_upgrade(candidate.version, candidate.structure.config, candidate.tensors, changes.get(i))
            for i, candidate in enumerate(candidates)
        ]
        if probe_set is not None:
            from loreg.verbs.upgrade_probe import probe_upgrade

            structures = [stored[i].structure for i in range(len(candidates))]
            adapters, problems = probe_upgrade(before, after, adapters, structures, probe_set, device, progress)
            unreadable += problems
    tensors, new_tensors = before.tensors.tensor_digests, after.tensors.tensor_digests
    pairs = pair_tensors(tensors, new_tensors)
    report = UpgradeReport(
        before.base,
        after.base,
        len(tensors),
        sum(new_name is None or tensors[name] != new_tensors[new_name] for name, new_name in pairs),
        change,
        tuple(sorted(adapters, key=order)),
        tuple(unreadable),
        tuple(others),
        _notes(before, after, adapters),
    )
    if not move:
        return _record(context, report, after)
    if any(_is_to_move(adapter, asked) for adapter in adapters):
        after = _make_known(context, after)
    report = _record(context, report, after)  # before anything moves: what has moved is not of the old base any more
    moved, problems = _move_all(context, before, after, candidates, adapters, asked, progress)
    return msgspec.structs.replace(
        report, adapters=tuple(sorted(moved, key=order)), unreadable=(*report.unreadable, *problems)
    )


def _make_known(context: Context, after: OpenedBase) -> OpenedBase:
    """Record the new base, unless the registry knows it or refuses it: why it does, each move says."""
    if after.identity is None or after.is_known:
        return after
    try:
        for attempt in attempts_to_commit():
            with attempt:
                context.backend.lease([after.base.digest])
                put_bytes(context.store, after.identity.tensor_list)
                context.backend.add_base(after.base)
    except UnavailableError:
        raise
    except LoregError:
        return after
    return replace(after, is_known=True)


def _record(context: Context, report: UpgradeReport, after: OpenedBase) -> UpgradeReport:
    """Record the report where the registry knows the new base; say in its notes what was not recorded."""
    if not report.adapters:
        return report
    if after.model is not None and not after.is_known:
        command = f"loreg base add {shlex.quote(str(after.model.path))}"
        note = f"the report was not recorded, for {after.base.title} is not known here: {command}"
        return msgspec.structs.replace(report, notes=(*report.notes, note))
    recorded, notes = record_report(context, report)
    return msgspec.structs.replace(report, recorded=recorded, notes=(*report.notes, *notes))


def _read_candidates(
    context: Context, before: OpenedBase, after: OpenedBase, selection: Sequence[str], progress: Progress
) -> tuple[list[_Candidate], list[UnreadableVersion], list[UnreadableVersion]]:
    """Return the selected adapters of the old base, the selected versions of other bases, and what cannot be read."""
    selectors = [parse_selector(text) for text in selection]
    query = None if selectors else Query(base=before.base.digest)
    selected = context.backend.select(selectors, query)
    candidates, others = list[_Candidate](), list[UnreadableVersion]()
    unreadable = [UnreadableVersion(missing.selector, missing.reason) for missing in selected.missing]
    for done, match in enumerate(selected.versions):
        progress("reading adapters", done, len(selected.versions))
        if reason := _why_other(match.version, before, after):
            others.append(UnreadableVersion(match.version.ref, reason))
            continue
        try:
            details = context.backend.show(parse_ref(match.version.ref))
            structure = _read_structure(context, details)
            tensors = touched_tensors(structure, before.tensors, after.tensors)
            candidates.append(_Candidate(details, structure, tensors))
        except UnavailableError:
            raise
        except LoregError as error:
            unreadable.append(UnreadableVersion(match.version.ref, error.message))
    if not candidates and not selected.versions and not before.is_known:
        raise NotFoundError(f"no version was trained on {before.base.title}", hint="loreg base ls")
    return candidates, others, unreadable


def _why_other(version: Version, before: OpenedBase, after: OpenedBase) -> str:
    """Return why a version is none of the old base; empty if it is."""
    if version.base is None:
        return "which base it was trained on is not known by content"
    if version.base.digest == after.base.digest:
        return "it is on the new base already"
    return "" if version.base.digest == before.base.digest else f"it was trained on {version.base.title}"


def _read_structure(context: Context, details: Details) -> AdapterStructure:
    """Read the header and the configuration of a version in the store; no weight is read."""
    return read_stored_structure(context.store, details.version.ref, {file.path: file for file in details.files})


def _refuse_unselected(asked: Sequence[Ref], candidates: Sequence[_Candidate]) -> None:
    for ref in asked:
        if not any(_means(ref, candidate.version) for candidate in candidates):
            raise NotFoundError(f"{ref} is not among the adapters of the old base", hint="loreg base upgrade --help")


def _is_to_move(adapter: AdapterUpgrade, asked: Sequence[Ref]) -> bool:
    return adapter.verdict in _MOVABLE or any(_means(ref, adapter.version) for ref in asked)


def _means(ref: Ref, version: Version) -> bool:
    """Return whether a ref that was typed is of the selected version: by its name, and its number if it has one."""
    return ref.adapter == version.adapter and ref.number in (None, version.number)


def _download(
    context: Context, candidates: Sequence[_Candidate], wanted: Collection[int], folder: Path, progress: Progress
) -> dict[int, ComparedAdapter]:
    """Fetch the weights of the adapters at the positions ``wanted``."""
    stored = {}
    for done, i in enumerate(sorted(wanted)):
        progress("fetching adapters", done, len(wanted))
        candidate = candidates[i]
        weights = next(file for file in candidate.details.files if file.path == WEIGHTS_NAME)
        path = folder / f"{i}.safetensors"
        context.store.get(Blob(weights.sha256, weights.size), path)
        stored[i] = ComparedAdapter(replace(candidate.structure, weights=path), candidate.tensors)
    return stored


def _measure(
    before: OpenedBase, after: OpenedBase, stored: dict[int, ComparedAdapter], progress: Progress
) -> tuple[dict[int, dict[str, TouchedChange]], float | None]:
    """Return the changes of each adapter's modules by its position, and that of the base; nothing without weights."""
    if before.model is None or after.model is None:
        return {}, None
    old, new = BaseWeights(before.tensors, before.model), BaseWeights(after.tensors, after.model)
    measured = measure_bases(old, new, list(stored.values()), progress)
    return {i: dict(changes) for i, changes in zip(stored, measured.adapters, strict=True)}, measured.change


def _move_all(
    context: Context,
    before: OpenedBase,
    after: OpenedBase,
    candidates: Sequence[_Candidate],
    adapters: Sequence[AdapterUpgrade],
    asked: Sequence[Ref],
    progress: Progress,
) -> tuple[list[AdapterUpgrade], list[UnreadableVersion]]:
    """Move what can be moved and what was asked for, one commit each; name what cannot be moved, and go on."""
    moved, problems = list[AdapterUpgrade](), list[UnreadableVersion]()
    for done, (candidate, adapter) in enumerate(zip(candidates, adapters, strict=True)):
        progress("moving", done, len(adapters))
        if not _is_to_move(adapter, asked):
            moved.append(adapter)
            continue
        try:
            ref = move_version(context, candidate.details, before.base, after)
            moved.append(msgspec.structs.replace(adapter, moved_to=ref))
        except UnavailableError:
            raise
        except LoregError as error:
            moved.append(adapter)
            problems.append(UnreadableVersion(candidate.version.ref, f"it was not moved: {error.message}"))
    return moved, problems


def _notes(before: OpenedBase, after: OpenedBase, adapters: Sequence[AdapterUpgrade]) -> tuple[str, ...]:
    notes = []
    if not adapters:
        notes.append(f"no selected version was trained on {before.base.title}")
    elif before.model is None or after.model is None:
        notes.append("digests alone were compared: how much changed, the folders of both models tell")
    if any(adapter.verdict == UpgradeVerdict.EXACT for adapter in adapters):
        notes.append("what moves exactly meets a base that changed elsewhere: --probe-set measures what that costs")
    return tuple(notes)
