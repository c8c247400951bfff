"""No schedule of pushes, collections, crashes and lost answers loses a blob that something refers to."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest

from loreg.catalog import garbage
from loreg.catalog.garbage import StaleSightingError
from loreg.errors import CollectedError
from loreg.verbs.push import push
from simulation.actors import ActorSpec, Place
from simulation.batch import explain, run_chunk
from simulation.faults import FAULTS
from simulation.inputs import ACCESS, start
from simulation.invariants import look, references
from simulation.schedules import DENSE, GRACE, SLOW, Schedule, plan, run, shrink, virtual
from simulation.store import SimulatedStore
from simulation.world import Choices, Faults, World

FAST = 150
SLOW_SEEDS = range(1_000_000, 1_004_000)


def test_no_schedule_breaks_a_rule():
    counts, broken = run_chunk(range(FAST))
    assert not broken, explain(broken[0]).describe()
    # and enough went on in them
    for what in ("pushes", "collections", "removed blobs", "exports", "crashes", "lost answers", "bases"):
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
    first.catalog.load(first.images[True], world)
    first.catalog.on_commit = lambda: look(first.catalog, store, world)
    return Place(world, first.catalog, store, ActorSpec("push", 0.0, adapter=1), GRACE)


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
