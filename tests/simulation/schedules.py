"""One schedule: actors that a seed chooses, run in a world of their own, and the shortest one that still fails."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import random
import tempfile
import types
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import tenacity.nap
from sqlalchemy import Connection, MetaData

import loreg.catalog.collection
import loreg.catalog.dump
import loreg.catalog.removal_lock
import loreg.local.commit
import loreg.local.deletion
import loreg.local.exports
import loreg.local.uploads
import loreg.storage.removal
import loreg.verbs.gc
import loreg.verbs.push
import loreg.workspace.blob_copies
from loreg.adapters.structure import AdapterStructure
from loreg.entities import Details, no_progress
from loreg.errors import ConflictError, LoregError, NotAllowedError, NotFoundError
from loreg.local.commit import _CommitBlobs
from loreg.manifest import File, Manifest
from loreg.storage import Blob, BlobStore, BlobTransfer, put_bytes
from loreg.verbs.gc import gc
from loreg.verbs.verify import Selection, verify
from loreg.workspace.inspect import InspectedAdapter, inspect_adapter
from simulation.actors import ACTORS, VERSIONS, ActorSpec, Place
from simulation.inputs import HISTORY, Orphans, folder_in_memory, inputs, root_of, start
from simulation.invariants import Watch, look, look_at_backup, look_at_the_end
from simulation.store import SimulatedBackup, SimulatedSigningStore, SimulatedStore
from simulation.world import Choices, Faults, World, closing, weights

T = TypeVar("T")
GRACE = 24 * 3600.0
CLAIM = 15 * 60.0
#: The assumption of catalog/garbage.py: a request that a collector sent reaches the store within half of its claim.
LONGEST_WAY = CLAIM / 2
#: The other one: nobody commits what he looked for a week ago, when a collected blob is forgotten.
MAX_PUSH_SECONDS = 5.5 * 86400
_ROOT_SEED = 2**32
_SAME = 0.6
_BESIDE_A_BACKUP = 0.2
_NEWEST = 5  # of ``VERSIONS``, whose number nobody must get
_SHARING = 9  # the number of the adapter that has a file which is the newest one's alone
_NEW = len(VERSIONS)  # the number of the adapter that the registry with a history has not
_NEVER = timedelta(days=10_000)
_REFUSALS = {error.code for error in (NotAllowedError, NotFoundError, ConflictError)}


@dataclass(frozen=True)
class Kind:
    """How a schedule goes: which pauses there are, whether anything fails, and the grace of its collections."""

    name: str
    pauses: tuple[float, ...]
    pause_weights: tuple[float, ...]
    fails: bool
    grace: float = GRACE


#: Nothing fails and nobody is slow: whatever ends otherwise than well is wrong.
GENTLE = Kind("gentle", (0.0, 0.01, 0.05), weights(0.3, 0.1), fails=False)
#: Answers take seconds or minutes, and things fail.
BUSY = Kind("busy", (0.0, 0.05, 3.0, 60.0, 400.0), weights(0.15, 0.1, 0.04, 0.03), fails=True)
#: Some answers take longer than a claim, or than a grace.
SLOW = Kind("slow", (0.0, 2.0, 300.0, 1000.0, 0.4 * GRACE, 1.05 * GRACE), weights(0.12, 0.05, 0.05, 0.025, 0.025), True)
#: The grace is hardly longer than a claim, and so are many pauses: pushes and collectors meet all the time.
DENSE = Kind("dense", (0.0, 10.0, 200.0, 1000.0, 1300.0), weights(0.1, 0.08, 0.06, 0.03), True, grace=1200.0)
#: A few answers take longer than a claim, and a few long enough for somebody else.
LATE = Kind("late", (0.0, 10.0, 1000.0), weights(0.05, 0.05), fails=True, grace=DENSE.grace)
KINDS = (GENTLE, BUSY, SLOW, DENSE)
_HOW_OFTEN = (2, 2, 3, 5)


@dataclass(frozen=True)
class Schedule:
    """A schedule, which is the same each time: who is at work, what they find, and what decides the rest.

    ``has_orphans``: the store has orphans, of which the catalog knows what ``orphans`` says. ``signs``: it is like S3.
    ``has_mark``: the store is marked as the first registry's. ``is_whole``: adapters are read and checked each time,
    and at the end ``verify`` looks, too. ``is_collected``: at the end all garbage is collected.
    """

    seed: int
    kind: Kind
    parts: tuple[ActorSpec, ...]
    has_orphans: bool = True
    orphans: Orphans = Orphans.MARKED
    signs: bool = False
    begins: float = 0.0
    longest_way: float = LONGEST_WAY
    patience: float = MAX_PUSH_SECONDS
    has_mark: bool = True
    is_whole: bool = True
    is_collected: bool = True
    choices: tuple[int, ...] | None = None


@dataclass
class Outcome:
    """What came of a schedule."""

    schedule: Schedule
    violation: str
    trace: list[tuple[float, str, str]]
    choices: tuple[int, ...]
    outcomes: dict[str, str]
    counts: Counter[str] = field(default_factory=Counter)

    def describe(self) -> str:
        """Return the trace as text: a line for each thing that happened, with hours since the beginning."""
        plan = ", ".join(f"{part.kind} of adapter {part.adapter}" for part in self.schedule.parts)
        lines = [f"{self.violation or 'all is well'}", f"seed {self.schedule.seed}, {self.schedule.kind.name}: {plan}"]
        lines += [f"{at / 3600:10.4f} h  {who:10} {what}" for at, who, what in self.trace]
        return "\n".join(lines)


def plan(seed: int) -> Schedule:
    """Return the schedule that a seed makes."""
    chance = random.Random(seed + _ROOT_SEED)
    if seed % 12 == 4:
        return _late(seed, chance)
    if seed % 3 == 1:
        return _duel(seed, chance)
    if seed % 3 == 2:
        return _farewell(seed, chance)
    kinds = [name for name, (_, weight) in ACTORS.items() for _ in range(weight)]
    kind = chance.choices(KINDS, _HOW_OFTEN)[0]
    count = chance.randint(1, 3)
    names = ["gc", chance.choice(["push", "server", "hub"]), *(chance.choice(kinds) for _ in range(count))]
    afters = [0.0, 1.0, 30.0, 0.1 * kind.grace, 0.6 * kind.grace]
    parts = tuple(
        ActorSpec(name, chance.choice(afters), chance.randint(1, 4), chance.randint(0, 2), may_fail=kind.fails)
        for name in names
    )
    return Schedule(
        seed,
        kind,
        parts,
        has_orphans=chance.random() < 0.8,
        orphans=Orphans.MARKED if chance.random() < 0.6 else Orphans.UNKNOWN,
        signs=chance.random() < 0.5,
        begins=kind.grace * chance.choice([0.5, 0.9999, 1.1]),
        is_whole=seed % 16 == 0,
        is_collected=seed % 4 == 0,
    )


def _duel(seed: int, chance: random.Random) -> Schedule:
    """Return a schedule of few actors who are after the same blobs within minutes: two collectors and their pushes."""
    adapter = chance.randint(1, 4)
    sender = chance.choice(["push", "server", "hub", "export"])
    parts = (
        ActorSpec("gc", 0.0, chance.randint(1, 4), chance.randint(0, 1)),
        ActorSpec("gc", chance.choice([0.0, 100.0, CLAIM, 1.2 * CLAIM]), chance.randint(1, 4), chance.randint(0, 2)),
        ActorSpec("push", chance.choice([0.0, 1.0, 300.0]), adapter, 2 * chance.randint(0, 1)),
        ActorSpec(sender, chance.choice([1.0, 300.0, CLAIM, 1.2 * CLAIM]), adapter, chance.randint(0, 2)),
    )
    begins = DENSE.grace * chance.choice([0.9, 1.1])
    signs, is_whole = chance.random() < 0.5, seed % 16 == 0
    return Schedule(seed, DENSE, parts, signs=signs, begins=begins, is_whole=is_whole, is_collected=seed % 4 == 0)


def _late(seed: int, chance: random.Random) -> Schedule:
    """Return a schedule of few choices about a claim that runs out: of a collector that is late, or that died."""
    adapter, is_claimed = chance.randint(1, 4), chance.random() < 0.5
    afters = [0.0, 0.01, 0.02] if is_claimed else [CLAIM + 2, CLAIM + 60]
    parts = (
        ActorSpec("gc", 0.0, 1, 0, may_fail=False, may_pause=not is_claimed),
        ActorSpec("push", chance.choice(afters), adapter, 0, may_fail=False, may_pause=is_claimed),
    )
    begins, orphans = (CLAIM + 1, Orphans.CLAIMED) if is_claimed else (1.1 * DENSE.grace, Orphans.MARKED)
    signs, is_whole = chance.random() < 0.5, seed % 16 == 0
    return Schedule(seed, LATE, parts, signs=signs, orphans=orphans, begins=begins, is_whole=is_whole)


def _farewell(seed: int, chance: random.Random) -> Schedule:
    """Return a schedule of few actors in which versions go, while others push, collect and back up."""
    kind = chance.choices(KINDS, (2, 3, 2, 6))[0]
    target = chance.choice([_NEWEST, chance.randrange(len(VERSIONS))])
    if chance.random() < _BESIDE_A_BACKUP:
        parts = [
            ActorSpec("backup", chance.choice([0.0, 0.06, 0.09, 0.12]), registry=HISTORY, may_fail=False),
            ActorSpec("again", chance.choice([0.0, 0.01]), _NEW, registry=HISTORY, may_fail=False),
            ActorSpec("delete", chance.choice([0.05, 0.1, 0.2]), target, registry=HISTORY, may_fail=False),
        ]
        if seed % 5 == 0:  # what is deleted is pushed with another adapter before the backup ends
            parts[0] = replace(parts[0], after=chance.choice([0.0, 0.02, 0.05]))
            parts[1] = replace(parts[1], kind="push", after=chance.choice([0.2, 0.3, 0.4]), adapter=_SHARING)
            parts[2] = replace(parts[2], adapter=_NEWEST)
        return Schedule(seed, GENTLE, tuple(parts), has_orphans=False, signs=False, is_whole=False)
    names = [chance.choice(["delete", "delete", "prune", "backup"]), chance.choice(["again", "push", "server", "hub"])]
    names += [chance.choice(["delete", "prune", "backup", "again", "gc", "gc", "worker", "export"]) for _ in range(2)]
    at_once, spread = [0.0, 0.0, 0.01, 1.0], [0.0, 1.0, 30.0, 0.5 * CLAIM, 1.2 * CLAIM, 1.05 * kind.grace]
    afters = at_once if chance.random() < _SAME else spread
    parts = []
    for name in names:
        # a deletion that died is begun again, and what is deleted is what is pushed again
        adapter = target if name == "delete" or chance.random() < _SAME else chance.randrange(_NEW + 1)
        adapter = adapter if name in ("delete", "again", "push", "server", "hub") else 1 + adapter % 4
        parts.append(ActorSpec(name, chance.choice(afters), adapter, chance.randint(0, 3), HISTORY, kind.fails))
    return Schedule(
        seed,
        kind,
        tuple(parts),
        has_orphans=chance.random() < _SAME,
        orphans=Orphans.MARKED if chance.random() < _SAME else Orphans.UNKNOWN,
        signs=chance.random() < _SAME,
        begins=kind.grace * chance.choice([0.5, 1.1]),
        is_whole=seed % 16 == 0,
        is_collected=seed % 4 == 0,
    )


def run(schedule: Schedule) -> Outcome:
    """Run a schedule to its end, or to the first thing that must not happen."""
    faults = Faults(schedule.kind.pauses, schedule.kind.pause_weights, schedule.longest_way)
    world = World(Choices(schedule.seed, schedule.choices), faults, now=schedule.begins)
    first = start(min(part.registry for part in schedule.parts))
    objects = {**first.objects, **first.orphans} if schedule.has_orphans else first.objects
    mark = first.catalog.registry_id if schedule.has_mark else ""
    store = (SimulatedSigningStore if schedule.signs else SimulatedStore)(world, objects, mark)
    if isinstance(store, SimulatedSigningStore):
        store.copies = dict(first.copies)
    catalogs = {number: start(number).catalog for number in sorted({part.registry for part in schedule.parts})}
    watches: dict[int, Watch] = {}
    backup = SimulatedBackup(world)
    backup.on_document = functools.partial(look_at_backup, backup, world)

    def look_everywhere() -> None:
        for number, catalog in catalogs.items():
            look(catalog, store, world)
            if number == HISTORY:
                watches[number].look()

    for number, catalog in catalogs.items():
        catalog.load(start(number).images[schedule.orphans if schedule.has_orphans else Orphans.UNKNOWN], world)
        catalog.on_commit, catalog.is_whole = look_everywhere, schedule.is_whole
        watches[number] = Watch(catalog, store, world)
    store.on_delete = look_everywhere
    with closing(world), virtual(world, is_whole=schedule.is_whole):
        for number, part in enumerate(schedule.parts):
            place = Place(
                world, catalogs[part.registry], store, part, schedule.kind.grace, backup, watches[part.registry]
            )
            act = functools.partial(ACTORS[part.kind][0], place)
            patience = schedule.patience if part.may_pause else 0.0
            world.spawn(f"{part.kind}-{number}", part.after, act, may_fail=part.may_fail, patience=patience)
        world.run()
        if not world.violation and schedule.is_collected:
            try:
                _end(world, place, schedule)
            except LoregError as error:
                world.violate(f"the last collection fails: {error.message}")
        outcomes = {actor.name: actor.outcome for actor in world.actors}
        if not world.violation and not schedule.kind.fails:
            for name, outcome in outcomes.items():
                if outcome != "done" and not (_is_refused(name, outcome) and place.part.registry == HISTORY):
                    world.violate(f"{name} ends with {outcome}, though nothing failed")
    for catalog in catalogs.values():
        catalog.world = None
    counts = Counter(world.counts)
    counts["schedules"] += 1
    counts["steps"] += world.steps
    counts["violations"] += bool(world.violation)
    return Outcome(schedule, world.violation, world.trace, tuple(world.choices.made), outcomes, counts)


def _is_refused(name: str, outcome: str) -> bool:
    """Return whether an actor ends so for good reason where versions go: its content was deleted, or yanked."""
    return outcome in _REFUSALS and name.partition("-")[0] not in ("gc", "prune", "backup")


def _end(world: World, place: Place, schedule: Schedule) -> None:
    """Let the last requests arrive and the last claims run out, and collect what is left, a grace apart."""
    world.is_calm = True
    world.now += 7 * 86400 + CLAIM  # uploads are no references any more
    if place.watch.removed_at_once:  # what was deleted for good has no grace
        gc(place.context, grace=_NEVER)
        place.watch.look_at_banned()
    for _ in range(2):
        gc(place.context, grace=timedelta(seconds=schedule.kind.grace))
        world.now = round(world.now + schedule.kind.grace + 1, 3)
    look_at_the_end(place.catalog, place.store, world)
    place.watch.look_at_copies()
    if schedule.is_whole:
        report = verify(place.context, Selection())
        if not report.ok or report.orphan_count:
            world.violate(f"verify finds {report.damage_count} damages and {report.orphan_count} orphans")


def shrink(failed: Outcome, budget: int = 400) -> Outcome:
    """Return a shorter schedule that fails, too: without actors and choices that it does not need."""
    best, left = failed, budget

    def fails(schedule: Schedule) -> bool:
        nonlocal best, left
        left -= 1
        outcome = run(schedule)
        if outcome.violation:
            best = outcome
        return bool(outcome.violation)

    for number in reversed(range(len(failed.schedule.parts))):
        parts = best.schedule.parts
        fewer = parts[:number] + parts[number + 1 :]
        if len(fewer) == 0:
            continue
        seeds = itertools.chain([(best.schedule.seed, best.choices)], ((seed, None) for seed in range(20)))
        for seed, choices in seeds:
            if left > 0 and fails(replace(best.schedule, seed=seed, parts=fewer, choices=choices)):
                break
    size = max(len(best.choices) // 2, 1)
    while size >= 1 and left > 0:
        at = 0
        while at < len(best.choices) and left > 0:
            made = best.choices
            zeros = (0,) * len(made[at : at + size])
            if any(made[at : at + size]):
                fails(replace(best.schedule, choices=made[:at] + zeros + made[at + size :]))
            at += size
        size //= 2
    return best


@contextlib.contextmanager
def virtual(world: World, *, is_whole: bool) -> Iterator[None]:
    """Let the world's time be that of everything that waits or measures, and take out what is random."""
    ids = itertools.count()
    clock = types.SimpleNamespace(
        monotonic=lambda: world.now, time=lambda: world.now, sleep=world.sleep, perf_counter=lambda: world.now
    )
    secrets = types.SimpleNamespace(token_urlsafe=lambda size: f"upload-{next(ids)}")
    patches = [
        (tempfile, "tempdir", folder_in_memory()),
        (tenacity.nap, "time", clock),
        (loreg.storage.removal, "time", clock),
        (loreg.verbs.gc, "ThreadPoolExecutor", _OneByOne),
        (loreg.verbs.gc, "list_temporary", lambda cache: iter(())),
        (loreg.local.deletion, "ThreadPoolExecutor", _OneByOne),
        (loreg.workspace.blob_copies, "ThreadPoolExecutor", _OneByOne),
        (loreg.catalog.removal_lock, "_file_of", lambda engine, lock: root_of(inputs()) / lock.suffix[1:]),
        (loreg.local.uploads, "secrets", secrets),
        (loreg.local.exports, "build_export", _build_export),
        (loreg.local.exports, "profile_for", lambda text, request, details: None),
    ]
    if not is_whole:
        patches += [*_SHORTCUTS, (loreg.catalog.collection, "database_time", lambda tx: world.time)]
    before = [(module, name, getattr(module, name)) for module, name, _ in patches]
    for module, name, value in patches:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


@functools.cache
def _inspect(folder: Path) -> InspectedAdapter:
    with inspect_adapter(folder, no_progress) as inspected:
        return inspected


@contextlib.contextmanager
def _inspect_once(folder: Path, progress: object) -> Iterator[InspectedAdapter]:
    yield _inspect(folder)


_structures: dict[str, AdapterStructure] = {}


def _read_structure_once(blobs: _CommitBlobs, name: str, config: bytes, weights: File) -> AdapterStructure:
    key = hashlib.sha256(config + weights.sha256.encode()).hexdigest()
    if key not in _structures:
        _structures[key] = _READ_STRUCTURE(blobs, name, config, weights)
    blobs.read_part(weights, 0, 8)
    return _structures[key]


@functools.cache
def _written(content: bytes) -> Path:
    path = root_of(inputs()) / hashlib.sha256(content).hexdigest()
    path.write_bytes(content)
    return path


def _put_bytes_once(store: BlobTransfer, content: bytes) -> Blob:
    if not isinstance(store, SimulatedStore):  # one that takes the file away
        return put_bytes(store, content)
    path = _written(content)
    blob = Blob(path.name, len(content))
    store.put(blob, path)
    return blob


_reflected: dict[frozenset[str], MetaData] = {}


def _reflect_once(connection: Connection, names: frozenset[str]) -> MetaData:
    if names not in _reflected:
        _reflected[names] = _REFLECT(connection, names)
    return _reflected[names]


_READ_STRUCTURE = loreg.local.commit._read_structure
_REFLECT = loreg.catalog.dump._reflect
#: What makes a schedule quick: no adapter is read twice, and none checked; the store is asked for the same. What the
#: clock says is not asked of the database.
_SHORTCUTS = [
    (loreg.verbs.push, "inspect_adapter", _inspect_once),
    (loreg.local.commit, "_read_structure", _read_structure_once),
    (loreg.local.commit, "check_adapter", lambda subject: ()),
    (loreg.local.commit, "put_bytes", _put_bytes_once),
    (loreg.local.uploads, "put_bytes", _put_bytes_once),
    (loreg.catalog.dump, "_reflect", _reflect_once),
]


class _OneByOne:
    """Does what a pool of threads does, one thing after the other."""

    def __init__(self, size: int) -> None:
        pass

    def __enter__(self) -> _OneByOne:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    @staticmethod
    def submit(action: Callable[..., T], *arguments: object) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(action(*arguments))
        except LoregError as error:
            future.set_exception(error)
        return future


def _build_export(
    store: BlobStore,
    details: Details,
    profile: object,
    recorded: Manifest | None,
    lease: Callable[[Collection[str]], None],
) -> Manifest:
    """Do with the store what :func:`loreg.local.exports.build_export` does, and take the files from the inputs."""
    if recorded is not None and loreg.local.exports._is_stored(store, recorded):
        return recorded
    return loreg.local.exports._store_files(store, inputs().export, lease)
