"""The simulation finds each fault that somebody might make: else that no schedule breaks a rule would mean little."""

from __future__ import annotations

import pytest

from simulation.faults import FAULTS
from simulation.schedules import plan, run, shrink

#: The first of the schedules that are tried: a rare fault has hundreds before it that do not show it.
FIRST = {"no_second_look": 430, "no_respect_for_claims": 220, "endless_claims": 400}
WITHIN = 60
#: Not found in hundreds of schedules: tests/simulation/test_simulation.py goes through it step by step.
RARE = {"old_listings"}


@pytest.mark.parametrize("name", sorted(FAULTS.keys() - RARE))
def test_a_fault_is_found(name: str):
    with FAULTS[name]():
        for seed in range(FIRST.get(name, 0), FIRST.get(name, 0) + WITHIN):
            outcome = run(plan(seed))
            if outcome.violation:
                return
    pytest.fail(f"{WITHIN} schedules from seed {FIRST.get(name, 0)} on, and {name} breaks no rule in any")


def test_the_shortest_schedule_breaks_the_rule_by_itself():
    with FAULTS["catalog_before_blobs"]():
        failed = next(outcome for outcome in map(run, map(plan, range(WITHIN))) if outcome.violation)
        short = shrink(failed, budget=60)
        assert short.violation
        assert len(short.trace) <= len(failed.trace)
        assert run(short.schedule).violation == short.violation
