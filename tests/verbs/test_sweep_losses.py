"""A sweep by a function that gives the loss of each token: a softmax whose logits are linear in the weights."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest

from deployments import empty_home
from factories import train
from loreg.entities import SweepOptions
from loreg.errors import UsageError
from loreg.registry import Registry, connect

TOKENS, WORDS, BEST = 3000, 6, (0.55, 0.2)


@pytest.fixture
def local_registry(tmp_path: Path) -> Registry:
    return connect(home=empty_home(tmp_path / "home"))


def weights_of(folder: Path) -> list[float]:
    """Return what each source was multiplied with in the merged adapter in ``folder``."""
    recipe = json.loads((folder / "loreg_merge.json").read_bytes())["recipe"]
    return [recipe["lambda"] * source["weight"] for source in recipe["sources"]]


class Program:
    """What a program prints of a merged adapter; the words are drawn as the weights ``BEST`` have them."""

    def __init__(self, tokens: int = TOKENS) -> None:
        generator = np.random.default_rng(4)
        self.moves = generator.normal(size=(2, tokens, WORDS)) * 1.5
        self.words = np.array([generator.choice(WORDS, p=p) for p in np.exp(self.log_p(BEST))])
        self.calls: list[list[float]] = []

    def log_p(self, weights: tuple[float, ...] | list[float]) -> np.ndarray:
        logits = np.tensordot(weights, self.moves, 1)
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True))

    def __call__(self, folder: Path) -> dict[str, dict[str, list[float]]]:
        weights = weights_of(folder)
        self.calls.append(weights)
        losses = -np.take_along_axis(self.log_p(weights), self.words[:, None], -1)[:, 0]
        return {"losses": {"odd": losses[1::2].tolist(), "even": losses[::2].tolist()}}


def test_a_handful_of_evaluations_finds_the_weights(local_registry: Registry, tmp_path: Path):
    folders = [train(tmp_path / f"source{i}", i) for i in range(2)]
    program = Program()
    result = local_registry.sweep(folders, program, options=SweepOptions(methods=()))
    assert result.answer.candidate.what == "a weight for each"
    assert result.answer.candidate.weights == pytest.approx(BEST, abs=0.12)
    # two along one strength, two more round it, three candidates, the base and each source
    assert result.evaluations == len(program.calls) == 10
    base, *alone = result.baselines
    assert base.candidate.what == "base"
    assert [trial.candidate.what for trial in alone] == [f"{source} alone" for source in result.sources]
    assert program.calls[-3:] == [[0, 0], [1, 0], [0, 1]]
    assert base.confirmed["odd"] == pytest.approx(np.log(WORDS))
    assert (result.metric, result.higher_is_better, result.tasks) == ("nll", False, ("even", "odd"))
    assert all(comparison.difference.low > 0 for comparison in result.comparisons)
    again = local_registry.sweep(folders, program, options=SweepOptions(methods=()))
    assert len(program.calls) == 10
    assert [trial.version for trial in again.trials] == [trial.version for trial in result.trials]


def test_what_does_not_depend_on_each_other_is_evaluated_side_by_side(tmp_path: Path):
    folders = [train(tmp_path / f"source{i}", i) for i in range(2)]
    one_by_one, two_by_two = (connect(home=empty_home(tmp_path / name)) for name in ("one", "two"))
    program, both = Program(), Barrier(2)

    def waiting(folder: Path) -> dict[str, dict[str, list[float]]]:
        if sorted(weights_of(folder)) == [0, 1]:  # each source alone waits for the other
            both.wait(60)
        return program(folder)

    expected = one_by_one.sweep(folders, program, options=SweepOptions(methods=("tsv",)))
    count = len(program.calls)
    result = two_by_two.sweep(folders, waiting, options=SweepOptions(methods=("tsv",), jobs=2))
    assert len(program.calls) == 2 * count
    assert result.comparisons == expected.comparisons


def test_a_program_that_cannot_take_the_base_is_told_and_the_sweep_goes_on(local_registry: Registry, tmp_path: Path):
    folders = [train(tmp_path / f"source{i}", i) for i in range(2)]
    program = Program()

    def refuses_the_base(folder: Path) -> dict[str, dict[str, list[float]]]:
        losses = program(folder)
        if program.calls[-1] == [0, 0]:
            raise ValueError("an adapter of nothing")
        return losses

    result = local_registry.sweep(folders, refuses_the_base, options=SweepOptions(methods=()))
    assert len(result.baselines) == 2
    assert any("base was not evaluated: " in note and "an adapter of nothing" in note for note in result.notes)


def test_what_is_no_better_than_before_is_told(local_registry: Registry, tmp_path: Path):
    folders = [train(tmp_path / f"source{i}", i) for i in range(2)]
    size = np.random.default_rng(1).uniform(0.5, 1.5, 2000)

    def better_without(folder: Path) -> dict[str, dict[str, list[float]]]:
        weights = weights_of(folder)
        return {"losses": {"all": (2 + size * sum(weight**2 for weight in weights)).tolist()}}

    result = local_registry.sweep(folders, better_without, options=SweepOptions(methods=()))
    assert result.baselines[0].confirmed["all"] < result.answer.confirmed["all"]
    assert any(note.startswith("base is better than what is taken: -") for note in result.notes)
    assert not any("source1 alone" in note for note in result.notes)
    worth_it = local_registry.sweep(folders, Program(), options=SweepOptions(methods=()))
    assert not any("what is taken" in note for note in worth_it.notes)


def test_what_an_earlier_run_measured_and_what_the_budget_did_not_reach_are_told(
    local_registry: Registry, tmp_path: Path
):
    folders = [train(tmp_path / f"source{i}", i) for i in range(2)]
    program = Program()
    options = SweepOptions(methods=("ties", "tsv"), budget=8)
    first = local_registry.sweep(folders, program, options=options)
    assert "not tried, for the budget had ended: ties, tsv" in first.notes
    assert not any("measured before" in note for note in first.notes)
    again = local_registry.sweep(folders, program, options=options)
    assert "8 of 8 trials were measured before and are not again; --seed 1 begins anew" in again.notes


def test_losses_are_recorded_under_no_metric_of_which_more_is_better(local_registry: Registry, tmp_path: Path):
    folders = [train(tmp_path / f"source{i}", i) for i in range(2)]
    with pytest.raises(UsageError, match="prints losses, and of accuracy more is better"):
        local_registry.sweep(folders, Program(), options=SweepOptions(metric="accuracy"))


def test_too_few_tokens_to_choose_by_are_refused(local_registry: Registry, tmp_path: Path):
    folders = [train(tmp_path / f"source{i}", i) for i in range(2)]
    # Of 900 tokens every other block of 64 chooses: seven whole ones, and the last, of four.
    with pytest.raises(UsageError, match="the task 'even' has 452 tokens to choose by"):
        local_registry.sweep(folders, Program(1800), options=SweepOptions(methods=()))
