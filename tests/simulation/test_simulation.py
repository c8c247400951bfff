"""No schedule of pushes, collections, crashes and lost answers loses a blob that something refers to."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest

from loreg.catalog import collection, garbage
from loreg.catalog.garbage import StaleSightingError
from loreg.checking.policy import Policy
from loreg.errors import CollectedError, NotAllowedError
from loreg.local import deletion
from loreg.refs import parse_ref
from loreg.storage.blobs import MAX_DOCUMENT, missing_error
from loreg.verbs.backup import backup
from loreg.verbs.gc import gc
from loreg.verbs.push import push
from loreg.workspace.context import Context
from simulation.actors import ActorSpec, Place, _ServerBackend, _ServerStore, prune_versions
from simulation.batch import explain, run_chunk
from simulation.faults import FAULTS
from simulation.inputs import ACCESS, HISTORY, Orphans, inputs, start
from simulation.invariants import Watch, look, references
from simulation.schedules import DENSE, GRACE, SLOW, Schedule, plan, run, shrink, virtual
from simulation.store import SimulatedBackup, SimulatedStore
from simulation.world import Choices, Faults, World

FAST = 150
SLOW_SEEDS = range(1_000_000, 1_000_750)  # a minute on one core


def test_no_schedule_breaks_a_rule():
    counts, broken = run_chunk(range(FAST))
    assert not broken, explain(broken[0]).describe()
    # and enough went on in them
    seen = ("pushes", "collections", "removed blobs", "exports", "bases", "deletions", "prunings", "backups")
    for what in (*seen, "crashes", "lost answers"):
        assert counts[what] > 0, what


@pytest.mark.slow
def test_no_schedule_of_thousands_breaks_a_rule():
    counts, broken = run_chunk(SLOW_SEEDS)
    assert not broken, explain(broken[0]).describe()
    assert counts["commits sent back"] > 0


def test_the_same_seed_makes_the_same_trace():
    for seed in range(20):
        assert run(plan(seed)).trace == run(plan(seed)).trace


def test_the_choices_of_a_run_make_its_trace_again():
    first = run(plan(5))
    assert run(replace(first.schedule, choices=first.choices)).trace == first.trace


@pytest.fixture
def world() -> World:
    """A world in which nothing fails and everything takes no time but what a test lets pass."""
    return World(Choices(0), Faults((0.0,), (1.0,), 0.0), now=1.1 * GRACE, is_calm=True)


@pytest.fixture
def workplace(world: World) -> Place:
    """A registry in whose store what dead pushes left has been marked for longer than the grace."""
    first = start(0)
    store = SimulatedStore(world, {**first.objects, **first.orphans}, first.catalog.registry_id)
    first.catalog.load(first.images[Orphans.MARKED], world)
    first.catalog.on_commit = lambda: look(first.catalog, store, world)
    watch = Watch(first.catalog, store, world)
    return Place(world, first.catalog, store, ActorSpec("push", 0.0, adapter=1), GRACE, SimulatedBackup(world), watch)


def test_a_slow_collector_does_not_settle_what_another_is_removing(world: World, workplace: Place):
    upkeep, grace = workplace.backend.upkeep(), timedelta(seconds=GRACE)
    slow = upkeep.claim_garbage(grace, 100)
    for blob in slow.blobs:
        workplace.store.delete(blob.sha256)
    with virtual(world, is_whole=True):
        world.now += 600
        with pytest.raises(CollectedError):  # but its blobs are stored again
            push(workplace.context, workplace.folder, "team/new")
        world.now += 400
        other = upkeep.claim_garbage(grace, 100)
        upkeep.settle_garbage([blob.sha256 for blob in slow.blobs], slow.at)
        with pytest.raises(CollectedError, match="is being removed"):
            push(workplace.context, workplace.folder, "team/new")
        for blob in other.blobs:
            workplace.store.delete(blob.sha256)
        upkeep.settle_garbage([blob.sha256 for blob in other.blobs], other.at)
        push(workplace.context, workplace.folder, "team/new")
    assert world.violation == ""
    assert references(workplace.catalog, world).keys() <= workplace.store.objects.keys()


@pytest.mark.parametrize("is_broken", [False, True])
def test_a_listing_from_before_a_collection_is_no_sighting(workplace: Place, is_broken: bool):
    upkeep, grace = workplace.backend.upkeep(), timedelta(seconds=GRACE)
    listed_at = upkeep.now()
    workplace.world.now += 60
    claim = upkeep.claim_garbage(grace, 100)
    sizes = {blob.sha256: blob.size for blob in claim.blobs}
    upkeep.settle_garbage(sizes.keys(), claim.at)
    with FAULTS["old_listings"]() if is_broken else contextlib.nullcontext():
        upkeep.mark_garbage(sizes, listed_at)
    refused = contextlib.nullcontext() if is_broken else pytest.raises(StaleSightingError, match="was removed")
    with refused, workplace.catalog.write(ACCESS) as tx:
        garbage.protect(tx, sizes.keys())


def test_a_hub_client_can_send_again_what_was_collected():
    parts = (ActorSpec("gc", 0.0, 1, 0, may_fail=False), ActorSpec("hub", 60.0, 2, 0, may_fail=False))
    outcome = run(Schedule(0, replace(DENSE, pauses=(0.0,), pause_weights=(1.0,)), parts, begins=1.1 * DENSE.grace))
    assert outcome.outcomes == {"gc-0": "done", "hub-1": "done"}


def test_of_two_catalogs_on_one_store_one_is_refused():
    seen: Counter[str] = Counter()
    for seed in range(40):
        parts = (
            ActorSpec("push", 0.0, 1, 0),
            ActorSpec("gc", 1.0, 1, 1),
            ActorSpec("push", 0.0, 2, 0, registry=1),
            ActorSpec("gc", 2.0, 1, 1, registry=1),
        )
        outcome = run(Schedule(seed, SLOW if seed % 2 else DENSE, parts, has_mark=False, is_collected=False))
        assert not outcome.violation, shrink(outcome).describe()
        for registry, names in enumerate((("push-0", "gc-1"), ("push-2", "gc-3"))):
            seen.update(f"{registry} {outcome.outcomes[name]}" for name in names)
        done = {name for name, how in outcome.outcomes.items() if how == "done"}
        assert not (done & {"push-0", "gc-1"} and done & {"push-2", "gc-3"}), outcome.describe()
    for registry in range(2):
        assert seen[f"{registry} done"] > 0
        assert seen[f"{registry} conflict"] > 0


@pytest.fixture
def with_history(world: World) -> Place:
    """A registry with versions that may be pruned."""
    first = start(HISTORY)
    store = SimulatedStore(world, first.objects, first.catalog.registry_id)
    first.catalog.load(first.images[Orphans.UNKNOWN], world)
    watch = Watch(first.catalog, store, world)
    return Place(world, first.catalog, store, ActorSpec("delete", 0.0, adapter=1), GRACE, SimulatedBackup(world), watch)


def test_a_version_that_is_pruned_while_it_is_deleted_is_deleted_all_the_same(with_history: Place, monkeypatch):
    find_left = deletion._find_left
    prunings = iter([prune_versions])

    def prune_then(*arguments):
        left = find_left(*arguments)
        for act in prunings:
            act(with_history)
        return left

    monkeypatch.setattr(deletion, "_find_left", prune_then)
    digest = inputs().manifests[6].digest
    with virtual(with_history.world, is_whole=True):
        deleted = with_history.backend.delete(parse_ref("team/m:v1"), "asked to")
    assert with_history.catalog.ask("SELECT number, is_banned FROM tombstones WHERE digest = ?", digest) == [(1, 1)]
    assert digest not in with_history.store.objects
    assert deleted.removed == deleted.blobs > 0


def test_a_refused_push_does_not_save_what_was_deleted(with_history: Place):
    ref, digest = parse_ref("team/a:v2"), inputs().manifests[1].digest
    # one who deletes it dies when he has claimed the manifest
    with with_history.catalog.write(ACCESS) as tx:
        deletion._remove(tx, ref, "asked to", None)
        assert [blob.sha256 for blob in collection.claim_deleted(tx, 10).blobs] == [digest]
    with_history.world.now += 1000
    with virtual(with_history.world, is_whole=True):
        store = _ServerStore(with_history, is_inline=True)
        context = Context(_ServerBackend(with_history, store), store, with_history.context.base_cache, Policy())
        with pytest.raises(NotAllowedError, match="was deleted from the registry"):
            push(context, with_history.folder, "team/new")
        gc(with_history.context, grace=timedelta(days=1000))
    assert digest not in with_history.store.objects


def test_a_backup_copies_what_was_deleted_and_is_stored_again(with_history: Place, monkeypatch):
    digest, missed = inputs().manifests[5].digest, iter([True])
    read = with_history.store.read

    def read_too_early(sha256: str, most: int = MAX_DOCUMENT) -> bytes:
        if sha256 == digest and next(missed, False):
            raise missing_error(with_history.store.url, sha256)
        return read(sha256, most)

    monkeypatch.setattr(with_history.store, "read", read_too_early)
    with virtual(with_history.world, is_whole=True):
        report = backup(with_history.context, with_history.backup)
    assert report.ok
    assert with_history.backup.objects[digest] == with_history.store.objects[digest]
