"""A sweep without any evaluation: moments rank the recipes by their output error."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from deployments import command_line, empty_home
from factories import change_tensors
from loreg.entities import SweepOptions
from loreg.errors import NotFoundError, UsageError
from loreg.registry import Registry, connect
from merging.test_cross_moments import adapters, collect, inputs_by_hand, texts
from merging.test_output_error import deltas


@pytest.fixture
def local_registry(tmp_path: Path) -> Registry:
    return connect(home=empty_home(tmp_path / "home"))


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    return adapters(tmp_path)


@pytest.fixture
def moments(folders: dict[str, Path], tmp_path: Path) -> Path:
    collect(folders).save(tmp_path / "moments.safetensors")
    return tmp_path / "moments.safetensors"


def output_errors(folders: dict[str, Path], merged: dict[str, torch.Tensor]) -> dict[str, float]:
    """By task: how far the outputs of the merged deltas are from those of its adapter, in means of their energies."""
    errors, energies = {}, []
    for task, folder in folders.items():
        own, seen = deltas(folder), inputs_by_hand(folder, texts()[task])
        error = energy = 0.0
        for module, delta in merged.items():
            x = seen[module].flatten(0, -2)
            right = x @ own.get(module, torch.zeros_like(delta)).T
            error += float((x @ delta.T - right).square().sum())
            energy += float(right.square().sum())
        errors[task] = error / len(x)
        energies.append(energy / len(x))
    return {task: error * len(energies) / sum(energies) for task, error in errors.items()}


def test_the_least_output_error_is_taken_and_is_that_of_the_outputs(
    local_registry: Registry, folders: dict[str, Path], moments: Path, tmp_path: Path
):
    options = SweepOptions(methods=("regmean", "ties", "tsv"))
    result = local_registry.sweep([*folders.values()], options=options, calibration=moments)
    assert (result.metric, result.higher_is_better, result.evaluations) == ("output_error", False, 0)
    assert {trial.candidate.what for trial in result.trials} == {
        "equal mixture", "one strength for all", "a weight for each", "regmean", "tsv"
    }  # fmt: skip
    assert any(note.startswith("ties was not tried: the delta of") for note in result.notes)
    means = {trial.candidate.what: sum(trial.scores.values()) for trial in result.trials}
    assert means[result.answer.candidate.what] == min(means.values())
    assert means["a weight for each"] < means["one strength for all"] < means["equal mixture"]
    for trial in result.trials:
        folder = local_registry.pull(trial.version, tmp_path / f"trial{trial.number}").folder
        assert trial.scores == pytest.approx(output_errors(folders, deltas(folder)), rel=1e-2)


def test_other_moments_are_refused_and_a_missing_file_too(
    local_registry: Registry, folders: dict[str, Path], moments: Path, tmp_path: Path
):
    one, two, three = folders.values()
    with pytest.raises(UsageError, match="in another order"):
        local_registry.sweep([two, one, three], calibration=moments)
    with pytest.raises(NotFoundError, match="there is no file"):
        local_registry.sweep([one, two], calibration=tmp_path / "none.safetensors")


def test_an_adapter_that_is_there_twice_or_puts_out_nothing_is_refused_by_name(
    local_registry: Registry, folders: dict[str, Path], tmp_path: Path
):
    one, two, _ = folders.values()
    collect({"news": one, "chat": one}).save(tmp_path / "twice.safetensors")
    with pytest.raises(UsageError, match="is there twice"):
        local_registry.sweep([one, one], calibration=tmp_path / "twice.safetensors")
    factors = load_file(two / "adapter_model.safetensors")
    nothing = change_tensors(two, {name: torch.zeros_like(b) for name, b in factors.items() if "lora_B" in name})
    collect({"news": one, "chat": nothing}).save(tmp_path / "nothing.safetensors")
    with pytest.raises(UsageError, match="puts out nothing on its own text"):
        local_registry.sweep([one, nothing], calibration=tmp_path / "nothing.safetensors")


def test_options_that_moments_alone_do_not_use_are_refused(tmp_path: Path, folders: dict[str, Path], moments: Path):
    run = command_line({"LOREG_HOME": str(empty_home(tmp_path / "home"))})
    for option in (("--metric", "accuracy"), ("--jobs", "2"), ("--budget", "9"), ("--seed", "1")):
        result = run("sweep", *folders.values(), "--calibration", moments, *option)
        assert result.exit_code == 2
        assert f"{option[0]}" in result.stderr


def test_moments_give_a_sweep_by_losses_its_regmean(local_registry: Registry, folders: dict[str, Path], moments: Path):
    def losses(folder: Path) -> dict[str, dict[str, list[float]]]:
        return {"losses": {"all": [1 + 0.001 * (i % 7) for i in range(2000)]}}

    options = SweepOptions(methods=("regmean",), budget=30)
    with_moments = local_registry.sweep([*folders.values()], losses, options=options, calibration=moments)
    assert "regmean" in {trial.candidate.method for trial in with_moments.trials}
    without = local_registry.sweep([*folders.values()], losses, options=options)
    assert "regmean" not in {trial.candidate.method for trial in without.trials}
    assert any(note.startswith("regmean was not tried") for note in without.notes)


def test_the_command_says_that_nothing_was_evaluated(tmp_path: Path, folders: dict[str, Path], moments: Path):
    run = command_line({"LOREG_HOME": str(empty_home(tmp_path / "home"))})
    result = run("sweep", *folders.values(), "--calibration", moments, "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert "nothing was evaluated" in result.stderr
    assert "0 evaluations" in result.stdout
