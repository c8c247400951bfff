"""A sweep by scores asks a program how good a merge is; whatever the program does, nothing measured is lost."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from deployments import empty_folders, empty_home
from factories import deltas_by_hand, train, write_base
from loreg.entities import SweepOptions, SweepResult
from loreg.errors import EvaluationError, UsageError
from loreg.registry import Registry, connect

Scorer = Callable[[Path], object]


@pytest.fixture
def local_registry(tmp_path: Path) -> Registry:
    return connect(home=empty_home(tmp_path / "home"))


def sources(folder: Path, count: int, **options: object) -> list[Path]:
    return [train(folder / f"source{i}", i, **options) for i in range(count)]


def weights_of(folder: Path, folders: list[Path]) -> torch.Tensor:
    """The weights that the adapter in ``folder`` was merged by, from its deltas alone: least squares."""
    merged = deltas_by_hand(folder)
    columns = [torch.cat([deltas_by_hand(f)[m].flatten() for m in sorted(merged)]) for f in folders]
    whole = torch.cat([merged[m].flatten() for m in sorted(merged)])
    return torch.linalg.lstsq(torch.stack(columns, 1), whole[:, None]).solution[:, 0]


def quadratic(folders: list[Path], best: list[float]) -> Scorer:
    """A scorer whose accuracy is a quadratic of the weights, 0.9 at ``best``."""
    size = len(best)
    bend = torch.eye(size, dtype=torch.float64) + 0.3

    def score(folder: Path) -> float:
        away = weights_of(folder, folders) - torch.tensor(best, dtype=torch.float64)
        return 0.9 - float(away @ bend @ away)

    return score


def run_sweep(registry: Registry, folders: list[Path], score: Scorer | str, **options: object) -> SweepResult:
    dry_run = bool(options.pop("dry_run", False))
    return registry.sweep(folders, score, options=SweepOptions(**options), dry_run=dry_run)


@pytest.mark.parametrize("best", [[0.45, 0.3], [0.2, 0.5, 0.35]])
def test_the_best_weights_of_a_quadratic_are_measured(local_registry: Registry, tmp_path: Path, best: list[float]):
    folders = sources(tmp_path, len(best))
    result = run_sweep(local_registry, folders, quadratic(folders, best), dry_run=True)
    assert result.answer.candidate.weights == pytest.approx(best, abs=0.02)
    assert result.answer.scores["score"] == pytest.approx(0.9, abs=0.002)
    assert len(result.trials) <= 20
    assert result.higher_is_better


def test_of_a_loss_the_least_is_taken(local_registry: Registry, tmp_path: Path):
    folders = sources(tmp_path, 2)
    accuracy = quadratic(folders, [0.45, 0.3])
    result = run_sweep(local_registry, folders, lambda folder: 0.9 - accuracy(folder), metric="loss", dry_run=True)
    assert not result.higher_is_better
    assert result.answer.candidate.weights == pytest.approx([0.45, 0.3], abs=0.02)


def harness_results(values: dict[str, float], *, higher_is_better: bool) -> dict[str, object]:
    """The results that lm-evaluation-harness gives of one task, in what a sweep reads of them."""
    metrics = {f"{name},none": value for name, value in values.items()}
    directions = {"own": dict.fromkeys(values, higher_is_better)}
    return {
        "results": {"own": {"alias": "own", **metrics}},
        "configs": {},
        "versions": {"own": 1.0},
        "higher_is_better": directions,
    }


def test_what_the_harness_measures_has_its_name_and_its_direction(local_registry: Registry, tmp_path: Path):
    folders = sources(tmp_path, 2)
    accuracy = quadratic(folders, [0.45, 0.3])

    def score(folder: Path) -> dict[str, object]:
        return harness_results({"badness": 0.9 - accuracy(folder)}, higher_is_better=False)

    for _ in range(2):  # the second time from what was kept
        result = run_sweep(local_registry, folders, score)
        assert (result.metric, result.higher_is_better, result.tasks) == ("badness", False, ("own",))
        assert result.answer.candidate.weights == pytest.approx([0.45, 0.3], abs=0.02)
    (metric,) = local_registry.show(result.answer.version).version.metrics
    assert (metric.name, metric.dataset, metric.higher_is_better) == ("badness", "own", False)
    as_asked = run_sweep(local_registry, folders, score, higher_is_better=True, dry_run=True, budget=6)
    assert as_asked.higher_is_better


def test_a_metric_of_the_harness_that_is_no_word_is_recorded_as_one(local_registry: Registry, tmp_path: Path):
    folders = sources(tmp_path, 2)
    result = run_sweep(
        local_registry,
        folders,
        lambda folder: harness_results({"pass@1": 0.5, "acc": 0.5}, higher_is_better=True),
        metric="pass@1",
        budget=3,
    )
    assert result.metric == "pass-1"
    assert [m.name for m in local_registry.show(result.answer.version).version.metrics] == ["pass-1"]


def test_a_metric_that_the_harness_does_not_give_ends_the_sweep_at_the_first_trial(
    local_registry: Registry, tmp_path: Path
):
    calls: list[Path] = []

    def score(folder: Path) -> dict[str, object]:
        calls.append(folder)
        return harness_results({"acc": 0.5}, higher_is_better=True)

    with pytest.raises(UsageError, match="own has no metric 'acc_norm', only acc"):
        run_sweep(local_registry, sources(tmp_path, 2), score, metric="acc_norm")
    assert len(calls) == 1


def test_tasks_count_by_their_importance(local_registry: Registry, tmp_path: Path):
    folders = sources(tmp_path, 2)
    one, two = quadratic(folders, [0.5, 0.2]), quadratic(folders, [0.2, 0.5])

    def score(folder: Path) -> dict[str, object]:
        return {"one": one(folder), "two": two(folder)}

    even = run_sweep(local_registry, folders, score, dry_run=True)
    assert even.answer.candidate.weights == pytest.approx([0.35, 0.35], abs=0.02)
    uneven = run_sweep(local_registry, folders, score, dry_run=True, importance={"one": 1, "two": 0})
    assert uneven.answer.candidate.weights == pytest.approx([0.5, 0.2], abs=0.02)
    huge = run_sweep(local_registry, folders, score, dry_run=True, importance={"one": 1.5e308, "two": 1.5e308})
    assert huge.answer.candidate.weights == even.answer.candidate.weights
    three_to_one = run_sweep(local_registry, folders, score, dry_run=True, importance={"one": 3})
    assert three_to_one.answer.candidate.weights == pytest.approx([0.425, 0.275], abs=0.02)


def test_seven_sources_are_searched_within_the_budget(local_registry: Registry, tmp_path: Path):
    folders = sources(tmp_path, 7, r=1)
    score = quadratic(folders, [0.4] * 4 + [0.1] * 3)
    result = run_sweep(local_registry, folders, score, budget=40, dry_run=True)
    assert len(result.trials) <= 40
    equal = [t.scores["score"] for t in result.trials if len(set(t.candidate.weights)) == 1]
    assert result.answer.scores["score"] > max(equal)


def failing_at(numbers: set[int], failure: Scorer, score: Scorer) -> Scorer:
    calls = iter(range(1000))
    return lambda folder: failure(folder) if next(calls) in numbers else score(folder)


def raise_error(folder: Path) -> object:
    raise RuntimeError("out of memory")


FAILURES = {
    "raise": (raise_error, "out of memory"),
    "return no number": (lambda folder: float("nan"), "nan"),
    "return other tasks": (lambda folder: {"other": 1.0}, "scored other, the others score"),
}


@pytest.mark.parametrize(("failure", "named"), FAILURES.values(), ids=FAILURES.keys())
def test_trials_that_fail_are_told_and_end_nothing(
    local_registry: Registry, tmp_path: Path, failure: Scorer, named: str
):
    folders = sources(tmp_path, 2)
    score = failing_at({1, 4}, failure, quadratic(folders, [0.45, 0.3]))
    result = run_sweep(local_registry, folders, score)
    assert [t.number for t in result.trials if t.error] == [1, 4]
    assert all(named in result.trials[i].error and not result.trials[i].version for i in (1, 4))
    assert sum(named in note for note in result.notes) == 2
    assert result.answer.candidate.weights == pytest.approx([0.45, 0.3], abs=0.02)


def test_a_trial_that_hangs_is_told_and_ends_nothing(local_registry: Registry, tmp_path: Path):
    folders = sources(tmp_path, 2)
    command = f"if mkdir {tmp_path}/first 2>/dev/null; then sleep 1000; fi; test -d {{dir}} && echo 0.5"
    result = run_sweep(local_registry, folders, command, timeout=1, budget=4)
    assert [t.error for t in result.trials] == ["no answer after 1 seconds", "", "", ""]


def test_if_all_trials_fail_it_says_so_once_and_soon(local_registry: Registry, tmp_path: Path):
    folders = sources(tmp_path, 2)
    command = f"echo x >> {tmp_path}/runs; test -f {{dir}} || {{ echo no GPU is free >&2; exit 3; }}"
    with pytest.raises(EvaluationError, match="no trial could be evaluated: exit code 3: no GPU is free") as caught:
        run_sweep(local_registry, folders, command)
    assert caught.value.exit_code == 1
    assert len((tmp_path / "runs").read_text().split()) == 3
    assert list(local_registry.adapters()) == []
    words = shlex.split(caught.value.hint.split(": ", 1)[1])  # the hint is a command
    merged = subprocess.run([sys.executable, "-m", "loreg_cli.main", *words[1:]], cwd=tmp_path, capture_output=True)
    assert merged.returncode == 0, merged.stderr
    assert (tmp_path / "merged" / "adapter_model.safetensors").is_file()


def test_what_cannot_be_pushed_ends_the_sweep_at_the_first_trial(local_registry: Registry, tmp_path: Path):
    folders = sources(tmp_path, 2)
    calls: list[Path] = []

    def score(folder: Path) -> dict[str, float]:
        calls.append(folder)
        return {"qa": 0.5}

    for options in ({"importance": {"other": 2.0}}, {"metric": "exact match"}):
        calls.clear()
        with pytest.raises(UsageError):
            run_sweep(local_registry, folders, score, **options)
        assert len(calls) <= 1


def test_trials_are_versions_with_recipe_certificate_and_numbers(registry: Registry, tmp_path: Path):
    base = write_base(tmp_path / "base")
    for name, folder in zip(("news", "movies"), sources(tmp_path, 2), strict=True):
        registry.push(folder, f"team/{name}", base=base)
    numbers = iter([0.1, 0.7, 0.4])

    def score(folder: Path) -> dict[str, float]:
        first = next(numbers)
        return {"Fragen & Antworten": first, "sum": 0.5}

    options = SweepOptions(budget=3, metric="accuracy")
    result = registry.sweep(["team/news", "team/movies"], score, options=options, name="team/swept")
    assert [trial.version for trial in result.trials] == [f"team/swept:v{i}" for i in (1, 2, 3)]
    assert result.best == 1
    assert result.promote == "loreg tag team/swept:v2 prod"
    for trial in result.trials:
        details = registry.show(trial.version)
        assert {(m.name, m.dataset, m.split, m.value) for m in details.version.metrics} == {
            ("accuracy", "Fragen-Antworten", "dev", trial.scores["Fragen & Antworten"]),
            ("accuracy", "sum", "dev", 0.5),
        }
        assert details.version.labels["sweep"] == result.id
        assert details.provenance.certificate is not None
        kept = [(source.label, source.weight) for source in details.provenance.sources]
        assert [label for label, _ in kept] == ["team/news:v1", "team/movies:v1"]
        assert [weight for _, weight in kept] == list(trial.candidate.weights)
        assert details.provenance.recipe["method"] == "linear"


def test_names_of_tasks_that_become_one_word_are_kept_apart(local_registry: Registry, tmp_path: Path):
    folders = sources(tmp_path, 2)
    tasks = {"a b": 0.1, "a-b": 0.2, "a  b": 0.3, "": 0.4, "task": 0.5, "質問": 0.6, "x" * 500: 0.7, "\x1b[31m": 0.8}
    result = run_sweep(local_registry, folders, lambda folder: tasks, budget=3)
    metrics = local_registry.show(result.answer.version).version.metrics
    assert sorted(metric.value for metric in metrics) == sorted(tasks.values())
    assert len({metric.dataset for metric in metrics}) == len(tasks)


def test_the_same_call_measures_nothing_again(local_registry: Registry, tmp_path: Path):
    folders = sources(tmp_path, 2)
    calls: list[Path] = []
    score = quadratic(folders, [0.45, 0.3])

    def counting(folder: Path) -> object:
        calls.append(folder)
        return score(folder)

    first = run_sweep(local_registry, folders, counting)
    count = len(calls)
    assert count == len(first.trials)
    second = run_sweep(local_registry, folders, counting)
    assert len(calls) == count
    assert [(t.candidate, t.scores, t.version) for t in second.trials] == [
        (t.candidate, t.scores, t.version) for t in first.trials
    ]
    assert any("measured before" in note for note in second.notes)
    assert not any("measured before" in note for note in first.notes)


def test_functions_of_one_text_that_carry_other_values_are_other_sweeps(local_registry: Registry, tmp_path: Path):
    folders = sources(tmp_path, 2)

    def scorer(value: float) -> Scorer:
        return lambda folder: value

    results = [run_sweep(local_registry, folders, scorer(value), budget=3) for value in (0.25, 0.75)]
    assert [result.answer.scores for result in results] == [{"score": 0.25}, {"score": 0.75}]


def test_trials_are_versions_of_each_registry_that_is_swept_in_and_what_is_deleted_stays_so(tmp_path: Path):
    folders, home = sources(tmp_path, 2), empty_home(tmp_path / "home")
    other = empty_folders(tmp_path / "other")
    for registry in (connect(home=home), connect(home=home, **other.settings)):
        result = run_sweep(registry, folders, no_difference, budget=3)
        assert registry.show(result.answer.version).version.labels["sweep"] == result.id
    registry.delete(result.answer.version, "a mistake")
    again = run_sweep(registry, folders, no_difference, budget=3)
    assert not again.answer.version and not again.promote
    assert any("trial 0 is no version any more: this content was deleted" in note for note in again.notes)
    assert all(registry.show(trial.version) for trial in again.trials if trial.number != again.best)


def no_difference(folder: Path) -> float:
    return 0.5


def test_another_function_of_the_same_name_is_another_sweep(local_registry: Registry, tmp_path: Path):
    folders = sources(tmp_path, 2)

    def first() -> Scorer:
        def score(folder: Path) -> float:
            return 0.25

        return score

    def second() -> Scorer:
        def score(folder: Path) -> float:
            return 0.75

        return score

    assert run_sweep(local_registry, folders, first(), budget=3).answer.scores == {"score": 0.25}
    assert run_sweep(local_registry, folders, second(), budget=3).answer.scores == {"score": 0.75}


def test_a_larger_budget_goes_on(local_registry: Registry, tmp_path: Path):
    folders = sources(tmp_path, 2)
    command = f"echo x >> {tmp_path}/runs; wc -c < {{dir}}/adapter_config.json"
    small = run_sweep(local_registry, folders, command, budget=3)
    large = local_registry.resume_sweep(small.id, budget=8)
    assert large.id == small.id
    assert len(large.trials) > 3
    assert len((tmp_path / "runs").read_text().split()) == len(
        {t.candidate.weights for t in (*small.trials, *large.trials)}
    )


def test_a_dry_run_pushes_nothing_and_the_sweep_itself_then_measures_nothing(registry: Registry, tmp_path: Path):
    folders = sources(tmp_path, 2)
    base = write_base(tmp_path / "base")
    command = f"echo x >> {tmp_path}/runs; test -d {{dir}} && echo 0.5"
    dry = registry.sweep(folders, command, options=SweepOptions(budget=3), base=base, dry_run=True)
    assert list(registry.adapters()) == []
    assert dry.promote == ""
    assert dry.answer.version == ""
    real = registry.sweep(folders, command, options=SweepOptions(budget=3), base=base)
    assert real.id == dry.id
    assert all(trial.version for trial in real.trials)
    assert len((tmp_path / "runs").read_text().split()) == 3


def test_trials_that_score_the_same_are_told_by_their_numbers(local_registry: Registry, tmp_path: Path):
    folders = [train(tmp_path / f"source{i}", i) for i in range(2)]
    scores = iter([0.5, 0.75, 0.75, 0.6, 0.75])
    result = local_registry.sweep(folders, lambda folder: next(scores), options=SweepOptions(budget=5))
    assert result.best == 1
    assert "trial 1 scores exactly as 2, 4: the evaluation does not tell them apart, more data may" in result.notes
    rising = iter(range(5))
    untied = local_registry.sweep(folders, lambda folder: next(rising), options=SweepOptions(budget=5))
    assert not any("scores exactly as" in note for note in untied.notes)


def test_several_trials_run_side_by_side(local_registry: Registry, tmp_path: Path):
    folders = sources(tmp_path, 2)
    for name in ("a", "b"):
        os.mkfifo(tmp_path / name)
    # The first goes alone. Of the next, each waits for the other: one that makes a folder, and one that finds it.
    command = (
        f"if mkdir {tmp_path}/alone 2>/dev/null; then :; "
        f"elif mkdir {tmp_path}/first 2>/dev/null; then echo x > {tmp_path}/a; cat {tmp_path}/b > /dev/null; "
        f"elif mkdir {tmp_path}/second 2>/dev/null; then cat {tmp_path}/a > /dev/null; echo x > {tmp_path}/b; fi; "
        "wc -c < {dir}/adapter_config.json"
    )
    result = run_sweep(local_registry, folders, command, jobs=2, budget=4, timeout=60)
    assert [trial.error for trial in result.trials] == [""] * 4
    assert [trial.version for trial in result.trials] == [f"sweep-{result.id}:v{i + 1}" for i in range(4)]


def test_a_source_that_is_named_twice_has_both_of_its_weights(local_registry: Registry, tmp_path: Path):
    folders = sources(tmp_path, 1)

    def score(folder: Path) -> float:
        return -abs(float(weights_of(folder, folders)) - 0.8)

    result = run_sweep(local_registry, [folders[0], folders[0]], score)
    assert sum(result.answer.candidate.weights) == pytest.approx(0.8, abs=0.1)
