"""One schedule: actors that a seed chooses, run in a world of their own, and the shortest one that still fails."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import random
import types
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import tenacity.nap

import loreg.local.commit
import loreg.local.deletion
import loreg.local.exports
import loreg.local.uploads
import loreg.storage.removal
import loreg.verbs.gc
import loreg.verbs.push
from loreg.adapters.structure import AdapterStructure
from loreg.entities import Details, no_progress
from loreg.errors import LoregError
from loreg.local.commit import _CommitBlobs
from loreg.manifest import File, Manifest
from loreg.storage import Blob, BlobStore, BlobTransfer, put_bytes
from loreg.verbs.gc import gc
from loreg.verbs.verify import Selection, verify
from loreg.workspace.inspect import InspectedAdapter, inspect_adapter
from simulation.actors import ACTORS, ActorSpec, Place
from simulation.inputs import inputs, root_of, start
from simulation.invariants import look, look_at_the_end
from simulation.store import SimulatedSigningStore, SimulatedStore
from simulation.world import Choices, Faults, World, closing, weights

T = TypeVar("T")
GRACE = 24 * 3600.0
CLAIM = 15 * 60.0
#: The assumption of catalog/garbage.py: a request that a collector sent reaches the store within half of its claim.
LONGEST_WAY = CLAIM / 2
#: The other one: nobody commits what he looked for a week ago, when a collected blob is forgotten.
MAX_PUSH_SECONDS = 5.5 * 86400
_ROOT_SEED = 2**32


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
KINDS = (GENTLE, BUSY, SLOW, DENSE)
_HOW_OFTEN = (2, 2, 3, 5)


@dataclass(frozen=True)
class Schedule:
    """A schedule, which is the same each time: who is at work, what they find, and what decides the rest.

    ``is_marked``: the orphans in the store were marked at the time 0. ``signs``: the store is one like S3.
    ``has_mark``: the store is marked as the first registry's. ``is_whole``: adapters are read and checked each time,
    and at the end ``verify`` looks, too. ``is_collected``: at the end all garbage is collected.
    """

    seed: int
    kind: Kind
    parts: tuple[ActorSpec, ...]
    has_orphans: bool = True
    is_marked: bool = True
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
    if seed % 3 == 1:
        return _duel(seed, chance)
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
        is_marked=chance.random() < 0.6,
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


def run(schedule: Schedule) -> Outcome:
    """Run a schedule to its end, or to the first thing that must not happen."""
    faults = Faults(schedule.kind.pauses, schedule.kind.pause_weights, schedule.longest_way)
    world = World(Choices(schedule.seed, schedule.choices), faults, now=schedule.begins)
    first = start(0)
    objects = {**first.objects, **first.orphans} if schedule.has_orphans else first.objects
    mark = first.catalog.registry_id if schedule.has_mark else ""
    store = (SimulatedSigningStore if schedule.signs else SimulatedStore)(world, objects, mark)
    catalogs = {number: start(number).catalog for number in sorted({part.registry for part in schedule.parts})}

    def look_everywhere() -> None:
        for catalog in catalogs.values():
            look(catalog, store, world)

    for number, catalog in catalogs.items():
        catalog.load(start(number).images[schedule.has_orphans and schedule.is_marked], world)
        catalog.on_commit = look_everywhere
    store.on_delete = look_everywhere
    with closing(world), virtual(world, is_whole=schedule.is_whole):
        for number, part in enumerate(schedule.parts):
            place = Place(world, catalogs[part.registry], store, part, schedule.kind.grace)
            act = functools.partial(ACTORS[part.kind][0], place)
            world.spawn(f"{part.kind}-{number}", part.after, act, may_fail=part.may_fail, patience=schedule.patience)
        world.run()
        if not world.violation and schedule.is_collected:
            try:
                _end(world, place, schedule)
            except LoregError as error:
                world.violate(f"the last collection fails: {error.message}")
        outcomes = {actor.name: actor.outcome for actor in world.actors}
        if not world.violation and not schedule.kind.fails:
            for name, outcome in outcomes.items():
                if outcome != "done":
                    world.violate(f"{name} ends with {outcome}, though nothing failed")
    for catalog in catalogs.values():
        catalog.world = None
    counts = Counter(world.counts)
    counts["schedules"] += 1
    counts["steps"] += world.steps
    counts["violations"] += bool(world.violation)
    return Outcome(schedule, world.violation, world.trace, tuple(world.choices.made), outcomes, counts)


def _end(world: World, place: Place, schedule: Schedule) -> None:
    """Let the last requests arrive and the last claims run out, and collect what is left, a grace apart."""
    world.is_calm = True
    world.now += 7 * 86400 + CLAIM  # uploads are no references any more
    for _ in range(2):
        gc(place.context, grace=timedelta(seconds=schedule.kind.grace))
        world.now = round(world.now + schedule.kind.grace + 1, 3)
    look_at_the_end(place.catalog, place.store, world)
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
        (tenacity.nap, "time", clock),
        (loreg.storage.removal, "time", clock),
        (loreg.verbs.gc, "ThreadPoolExecutor", _OneByOne),
        (loreg.verbs.gc, "list_temporary", lambda cache: iter(())),
        (loreg.local.deletion, "ThreadPoolExecutor", _OneByOne),
        (loreg.local.uploads, "secrets", secrets),
        (loreg.local.exports, "build_export", _build_export),
        (loreg.local.exports, "profile_for", lambda text, request, details: None),
    ]
    patches += [] if is_whole else _SHORTCUTS
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


_READ_STRUCTURE = loreg.local.commit._read_structure
#: What makes a schedule quick: no adapter is read twice, and none checked; the store is asked for the same.
_SHORTCUTS = [
    (loreg.verbs.push, "inspect_adapter", _inspect_once),
    (loreg.local.commit, "_read_structure", _read_structure_once),
    (loreg.local.commit, "check_adapter", lambda subject: ()),
    (loreg.local.commit, "put_bytes", _put_bytes_once),
    (loreg.local.uploads, "put_bytes", _put_bytes_once),
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
