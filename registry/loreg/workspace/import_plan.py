"""Plan an import: what each saved state becomes, told from headers and digests before anything is stored."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from loreg.adapters.base_path import remove_base_path
from loreg.adapters.card import CARD_NAME
from loreg.adapters.config import CONFIG_NAME
from loreg.adapters.structure import WEIGHTS_NAME, AdapterStructure
from loreg.checking.rules import Subject
from loreg.checking.run import check_adapter
from loreg.entities import (
    ImportOptions,
    ImportPlan,
    ImportStatus,
    Metric,
    PlannedVersion,
    Progress,
    Severity,
    VersionMetadata,
)
from loreg.errors import LoregError, NotFoundError, UsageError
from loreg.refs import AdapterName, Ref, parse_adapter_name, parse_ref
from loreg.runs.card import write_card
from loreg.runs.metadata import describe_state
from loreg.runs.source import FileDigests, RunAdapter, RunSource, SavedState
from loreg.storage import digest_of
from loreg.workspace.checkpoints import notes_on_best, select_states
from loreg.workspace.context import Context
from loreg.workspace.import_aliases import AdapterAliases
from loreg.workspace.mending import describe_mend, write_mended
from loreg.workspace.metric_directions import declared_directions, directed

_AT_ONCE = 8
_MAX_SHOWN = 3  # examples in a note
_MAX_COMPARED = 20  # versions of the same weights whose configuration is asked for


@dataclass(frozen=True)
class PlannedState:
    """A saved state, what becomes of it, and what is written anew for it: the card, and with ``mend`` its files.

    ``moves`` are the aliases to set, each with the number of the version that it means before, 0 for none.
    """

    state: SavedState
    planned: PlannedVersion
    metadata: VersionMetadata
    card: str = ""
    moves: Mapping[str, int] = field(default_factory=dict)


@dataclass
class _Taken:
    """The contents that a plan has seen in each scope, the next number and the aliases of each adapter.

    ``directions`` are those that are declared of metrics, ``elsewhere`` the contents that other namespaces have too.
    """

    refs: dict[tuple[str, FileDigests], str] = field(default_factory=dict)
    numbers: dict[AdapterName, int] = field(default_factory=dict)
    aliases: dict[AdapterName, AdapterAliases] = field(default_factory=dict)
    directions: dict[str, bool] = field(default_factory=dict)
    elsewhere: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def plan_import(
    context: Context, source: RunSource, options: ImportOptions, progress: Progress
) -> tuple[ImportPlan, list[list[PlannedState]]]:
    """Return the plan, and the planned states of each adapter, the oldest first.

    Raises NotFoundError if there is nothing to import, UsageError for options that do not fit.
    """
    adapters = list(source.adapters())
    if options.name and len(adapters) > 1:
        places = ", ".join(adapter.name for adapter in adapters[:6])
        raise UsageError(
            f"there are {len(adapters)} adapters ({places}{', …' if len(adapters) > 6 else ''}), --name is for one",
            hint="--namespace NAME goes before all of their names",
        )
    states = [(adapter, state) for adapter in adapters for state in select_states(adapter, options.checkpoints)]
    looked_at: list[_Inspected] = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for inspected in pool.map(lambda pair: _inspect(context, pair[0], pair[1], options), states):
            looked_at.append(inspected)
            progress("reading", len(looked_at), len(states))
    taken = _Taken(directions=declared_directions(context.backend))
    groups: dict[int, list[PlannedState]] = {}
    for inspected in looked_at:
        groups.setdefault(id(inspected.adapter), []).append(_decide(context, inspected, options, taken))
    versions = tuple(planned.planned for group in groups.values() for planned in group)
    notes = (
        *source.notes,
        *_notes_on_pickles(adapters),
        *notes_on_best(adapters, options.checkpoints),
        *_notes_on_copies(taken.elsewhere),
        *taken.notes,
    )
    plan = ImportPlan(versions, notes)
    return plan, list(groups.values())


def _notes_on_pickles(adapters: Sequence[RunAdapter]) -> tuple[str, ...]:
    """Say of how many runs the arguments are in a pickle alone that could not be read."""
    count = sum(any(state.has_pickled_arguments for state in adapter.states) for adapter in adapters)
    if not count:
        return ()
    of = "1 run are" if count == 1 else f"{count} runs are"
    return (f"seed and arguments of {of} in training_args.bin alone, which could not be read: give --label",)


def _notes_on_copies(elsewhere: Sequence[str]) -> tuple[str, ...]:
    """Say what comes in though another namespace has it."""
    if not elsewhere:
        return ()
    are = "1 version is" if len(elsewhere) == 1 else f"{len(elsewhere)} versions are"
    more = f" and {len(elsewhere) - _MAX_SHOWN} more" if len(elsewhere) > _MAX_SHOWN else ""
    return (f"{are} also elsewhere: {', '.join(elsewhere[:_MAX_SHOWN])}{more}",)


@dataclass(frozen=True)
class _Inspected:
    """What was read of a state: its content, or the error or finding that keeps it from being a version.

    ``ref`` is the version that has the content where it is to be, ``elsewhere`` one that has it in another namespace.
    """

    adapter: RunAdapter
    state: SavedState
    structure: AdapterStructure | None = None
    size: int = 0
    has_card: bool = False
    digests: FileDigests | None = None
    ref: str = ""
    elsewhere: str = ""
    mend: str = ""
    code: str = ""
    reason: str = ""
    hint: str = ""


def _inspect(context: Context, adapter: RunAdapter, state: SavedState, options: ImportOptions) -> _Inspected:
    """Read header and configuration of a state, check them, and ask whether the registry has it."""
    try:
        files = state.files.list_files()  # first, for it says what is wrong with a folder that lacks one
        structure = state.files.read_structure()
        findings = check_adapter(Subject(structure, None, tuple(files)))
        errors = [finding for finding in findings if finding.severity == Severity.ERROR and finding.code != "LR015"]
        mend = describe_mend(structure, errors)
        if errors and not mend:
            more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
            first = errors[0]
            return _Inspected(adapter, state, code=first.code, reason=first.message + more, hint=first.remedy)
        digests = _mended_digests(state, structure) if mend else state.files.digests()
    except LoregError as error:  # also of a checkpoint that the trainer removes meanwhile: the others go on
        return _Inspected(adapter, state, reason=error.message, hint=error.hint)
    stored = _find_stored(context, digests, _target(adapter, options))
    ref = next((str(ref) for ref in stored if _is_there(ref, adapter, options)), "")
    return _Inspected(
        adapter, state, structure, sum(files.values()), CARD_NAME in files and bool(state.facts.card), digests,
        ref, "" if ref or not stored else str(stored[0]), mend, errors[0].code if mend else "",
    )  # fmt: skip


def _mended_digests(state: SavedState, structure: AdapterStructure) -> FileDigests:
    with tempfile.TemporaryDirectory(prefix="loreg-push-") as name:
        folder = Path(name)
        write_mended(structure, state.files.location, folder)
        cleaned = remove_base_path({CONFIG_NAME: folder / CONFIG_NAME}, structure.config.base_hint)
        config = cleaned.get(CONFIG_NAME) or (folder / CONFIG_NAME).read_bytes()
        return FileDigests(digest_of(folder / WEIGHTS_NAME).sha256, hashlib.sha256(config).hexdigest())


def _find_stored(context: Context, digests: FileDigests, target: AdapterName) -> list[Ref]:
    """Return the versions with this content, those of the adapter ``target`` first, then those of its namespace.

    A catalog that does not exist yet is not created for this question.
    """
    if not context.backend.is_there():
        return []
    refs = [parse_ref(ref) for ref in context.backend.with_file(digests.weights)]
    refs.sort(key=lambda ref: (ref.adapter != target, ref.adapter.namespace != target.namespace))
    return [ref for ref in refs[:_MAX_COMPARED] if _has_config(context, ref, digests.config)]


def _has_config(context: Context, ref: Ref, sha256: str) -> bool:
    try:
        files = context.backend.show(ref).files
    except NotFoundError:  # it was deleted since
        return False
    return any(file.path == CONFIG_NAME and file.sha256 == sha256 for file in files)


def _is_there(ref: Ref, adapter: RunAdapter, options: ImportOptions) -> bool:
    """Return whether a version is where the caller wants one of this content: in the adapter or, unnamed, beside it."""
    target = _target(adapter, options)
    return ref.adapter == target or (not options.name and ref.adapter.namespace == target.namespace)


def _target(adapter: RunAdapter, options: ImportOptions) -> AdapterName:
    name = options.name or adapter.name
    return parse_adapter_name(f"{options.namespace}/{name}" if options.namespace and "/" not in name else name)


def _decide(context: Context, inspected: _Inspected, options: ImportOptions, taken: _Taken) -> PlannedState:
    """Say what becomes of a state, given what the plan has decided of others."""
    adapter, state = inspected.adapter, inspected.state
    target = _target(adapter, options)
    metadata = _metadata(adapter, state, options, taken.directions)
    planned = PlannedVersion(
        source=state.files.location,
        adapter=target,
        status=ImportStatus.REFUSED,
        checkpoint=state.label,
        aliases=tuple(metadata.aliases),
        size=inspected.size,
        tasks=tuple(metadata.tasks),
        labels=metadata.labels,
        metrics=tuple(metric for metric in metadata.metrics if isinstance(metric, Metric)),
        message=metadata.message,
        has_new_card=not inspected.has_card,
        mend=inspected.mend,
        code=inspected.code,
        reason=inspected.reason,
        hint=inspected.hint,
    )
    if inspected.digests is None or inspected.structure is None:
        return PlannedState(state, planned, metadata)
    ref = inspected.ref or taken.refs.get((target.namespace, inspected.digests), "")
    if ref:
        moves = _aliases_of(context, target, taken).plan_moves(metadata.aliases, parse_ref(ref), taken.notes)
        present = msgspec.structs.replace(
            planned, status=ImportStatus.PRESENT, ref=ref, mend="", code="", aliases=tuple(moves)
        )
        return PlannedState(state, present, metadata, moves=moves)
    if inspected.mend and not options.mend:
        mendable = msgspec.structs.replace(planned, status=ImportStatus.MENDABLE)
        return PlannedState(state, mendable, metadata)
    number = taken.numbers[target] = taken.numbers.get(target) or _aliases_of(context, target, taken).newest + 1
    taken.numbers[target] += 1
    taken.refs[target.namespace, inspected.digests] = f"{target}:v{number}"
    if inspected.elsewhere:
        taken.elsewhere.append(f"{target}:v{number} as {inspected.elsewhere}")
    moves = _aliases_of(context, target, taken).plan_moves(metadata.aliases, Ref(target, number=number), taken.notes)
    card = "" if inspected.has_card else write_card(adapter, state, target.name, inspected.structure, metadata)
    new = msgspec.structs.replace(planned, status=ImportStatus.NEW, number=number, aliases=tuple(moves))
    return PlannedState(state, new, metadata, card, moves)


def _aliases_of(context: Context, target: AdapterName, taken: _Taken) -> AdapterAliases:
    if target not in taken.aliases:
        taken.aliases[target] = AdapterAliases(context, target, _newest_number(context, target))
    return taken.aliases[target]


def _metadata(
    adapter: RunAdapter, state: SavedState, options: ImportOptions, directions: dict[str, bool]
) -> VersionMetadata:
    """Return what the trainer wrote, with what the caller says in place of it."""
    read = describe_state(adapter, state)
    return VersionMetadata(
        tasks=tuple(options.tasks) or read.tasks,
        metrics=directed([metric for metric in read.metrics if isinstance(metric, Metric)], directions),
        labels={**read.labels, **options.labels},
        aliases=read.aliases,
        message=options.message or read.message,
    )


def _newest_number(context: Context, adapter: AdapterName) -> int:
    if not context.backend.is_there():
        return 0
    try:
        page = context.backend.versions(adapter, 1, None)
    except NotFoundError:
        return 0
    return page.items[0].number if page.items else 0
