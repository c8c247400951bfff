"""The simulation finds each fault that somebody might make: else that no schedule breaks a rule would mean little."""

from __future__ import annotations

import pytest

from simulation import actors
from simulation.actors import ActorSpec
from simulation.faults import FAULTS, late_deadlines
from simulation.schedules import CLAIM, DENSE, Schedule, plan, run, shrink

#: The first of the schedules that are tried: a rare fault has hundreds before it that do not show it.
FIRST = {"no_second_look": 430, "no_respect_for_claims": 220, "endless_claims": 400, "old_listings": 40}
WITHIN = 60


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found(name: str):
    with FAULTS[name]():
        for seed in range(FIRST.get(name, 0), FIRST.get(name, 0) + WITHIN):
            outcome = run(plan(seed))
            if outcome.violation:
                return
    pytest.fail(f"{WITHIN} schedules from seed {FIRST.get(name, 0)} on, and {name} breaks no rule in any")


def test_a_claim_that_is_counted_from_its_late_answer_is_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(actors, "_AGAIN", 6)
    with late_deadlines():
        for seed in range(170, 170 + WITHIN):
            parts = (
                ActorSpec("gc", 0.0),
                ActorSpec("gc", CLAIM + seed % 5 * 60),
                ActorSpec("push", 100.0),
                ActorSpec("push", CLAIM + seed % 7 * 70),
            )
            schedule = Schedule(seed, DENSE, parts, begins=1.1 * DENSE.grace, is_whole=False, is_collected=False)
            if run(schedule).violation:
                return
    pytest.fail(f"{WITHIN} schedules break no rule")


def test_the_shortest_schedule_breaks_the_rule_by_itself():
    with FAULTS["catalog_before_blobs"]():
        failed = next(outcome for outcome in map(run, map(plan, range(WITHIN))) if outcome.violation)
        short = shrink(failed, budget=60)
        assert short.violation
        assert len(short.trace) <= len(failed.trace)
        assert run(short.schedule).violation == short.violation
