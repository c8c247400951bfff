"""Which functions are the same evaluation, and which are not, though their source text is one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from loreg.sweeping.function_identity import identify_function

TARGET = 0.5


def score(folder: Path, target: float = 0.0) -> float:
    return target


def reads_a_global(folder: Path) -> float:
    return TARGET


class Scorer:
    def __init__(self, target: object) -> None:
        self.target = target
        self.calls = 0

    def __call__(self, folder: Path) -> object:
        self.calls += 1
        return self.target

    def score(self, folder: Path) -> object:
        return self.target


def of_closure(target: object) -> Callable[[Path], object]:
    return lambda folder: target


def of_default(target: object) -> Callable[..., object]:
    return lambda folder, target=target: target


def test_functions_of_one_text_differ_by_what_they_carry():
    for kind in (
        of_closure,
        of_default,
        Scorer,
        lambda target: Scorer(target).score,
        lambda target: functools.partial(score, target=target),
        lambda target: of_closure(functools.partial(score, target=target)),
    ):
        first, same, other = kind(0.2), kind(0.2), kind(0.9)
        assert identify_function(first) == identify_function(first)
        assert identify_function(first) != identify_function(other)
        if kind in (of_closure, of_default):
            assert identify_function(first) == identify_function(same)


def test_objects_that_may_change_are_told_apart_and_known_again():
    for make in (list, dict, object):
        one, two = make(), make()
        assert identify_function(of_closure(one)) == identify_function(of_closure(one))
        assert identify_function(of_closure(one)) != identify_function(of_closure(two))
    calls: list[int] = []
    counting = of_closure(calls)
    before = identify_function(counting)
    calls.append(1)
    assert identify_function(counting) == before


def test_no_object_is_taken_for_one_that_is_gone():
    identities = {tuple(identify_function(Scorer(object()))) for _ in range(50)}
    assert len(identities) == 50


def test_a_global_that_is_read_counts_and_one_that_is_counted_up_does_not(monkeypatch):
    before = identify_function(reads_a_global)
    monkeypatch.setitem(globals(), "TARGET", 0.7)
    assert identify_function(reads_a_global) != before

    count = 0

    def counts(folder: Path) -> int:
        nonlocal count
        count += 1
        return count

    for counting in (counts, Scorer(0.2)):
        before = identify_function(counting)
        counting(Path())
        assert identify_function(counting) == before


def test_a_function_that_carries_itself_is_identified():
    def again(folder: Path) -> object:
        return again

    assert identify_function(again) == identify_function(again)
    assert identify_function(print) == identify_function(print)
