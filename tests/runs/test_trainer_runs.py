"""What a run of transformers' Trainer leaves is read as Trainer meant it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from factories import change_config
from loreg.errors import NotFoundError
from loreg.runs.digests import DigestMemory
from loreg.runs.folders import FolderSource
from loreg.runs.metadata import describe_state
from loreg.runs.source import RunAdapter
from runs.training import BASE, STEPS, train_run, write_adapter


def read(*paths: Path) -> list[RunAdapter]:
    return list(FolderSource(paths, DigestMemory(paths[0].parent / "memory.json")).adapters())


def read_one(path: Path) -> RunAdapter:
    (adapter,) = read(path)
    return adapter


def evaluations(run: Path) -> dict[int, float]:
    """The loss that Trainer logged first at each step, read from the file by hand."""
    history = json.loads((run / "trainer_state.json").read_text())["log_history"]
    return {e["step"]: e["eval_loss"] for e in reversed(history) if "eval_loss" in e}


class TestStates:
    def test_every_checkpoint_is_a_state_the_oldest_first(self, run: Path):
        assert [state.step for state in read_one(run).states] == list(STEPS)

    def test_the_adapter_is_named_after_the_run(self, run: Path):
        assert read_one(run).name == "lr-1e-2"
        assert [adapter.name for adapter in read(run.parent)] == ["lr-1e-2"]

    def test_the_final_folder_is_the_checkpoint_that_it_is_a_copy_of(self, run: Path):
        last = read_one(run).states[-1]
        assert (last.label, last.files.location) == ("checkpoint-6", str(run))

    def test_a_final_state_that_no_checkpoint_has_comes_last(self, run: Path):
        shutil.rmtree(run / "checkpoint-6")
        states = read_one(run).states
        assert [state.label for state in states] == ["checkpoint-2", "checkpoint-4", ""]
        assert states[-1].is_last

    def test_what_was_measured_is_of_its_own_checkpoint(self, run: Path):
        by_hand = evaluations(run)
        for state in read_one(run).states:
            assert state.numbers["eval_loss"] == by_hand[state.step]
            assert state.epoch == state.step / 2

    def test_speed_and_schedule_are_no_metrics(self, run: Path):
        assert {name for state in read_one(run).states for name in state.numbers} == {"eval_loss", "loss", "train_loss"}


class TestBestAndLast:
    def test_the_best_is_the_runs_own_choice(self, run: Path):
        path = run / "trainer_state.json"
        state = json.loads(path.read_text())
        path.write_text(json.dumps({**state, "best_model_checkpoint": "/home/ada/elsewhere/checkpoint-4"}))
        assert [state.label for state in read_one(run).states if state.is_best] == ["checkpoint-4"]

    def test_a_best_model_that_was_loaded_at_the_end_leaves_last_where_it_was(self, tmp_path: Path):
        train_run(tmp_path / "run", greater_is_better=True)  # of the loss, so that the first is the best
        states = read_one(tmp_path / "run").states
        losses = {state.label: state.numbers["eval_loss"] for state in states}
        best = max(losses, key=lambda label: losses[label])
        assert best == "checkpoint-2", losses
        assert [state.label for state in states if state.is_best] == [best]
        assert [state.label for state in states if state.is_last] == ["checkpoint-6"]
        assert [state.label for state in states if state.files.location == str(tmp_path / "run")] == [best]

    def test_the_best_model_that_is_left_alone_has_its_own_numbers(self, tmp_path: Path):
        run = tmp_path / "run"
        train_run(run, greater_is_better=True)
        by_hand = evaluations(run)
        for path in [*run.glob("checkpoint-*"), *run.glob("*_results.json")]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        (final,) = read_one(run).states
        assert final.numbers["eval_loss"] == pytest.approx(by_hand[2], abs=1e-6)
        assert final.numbers["eval_loss"] != pytest.approx(by_hand[6], abs=1e-6)

    def test_without_a_choice_the_lowest_evaluation_is_the_best(self, tmp_path: Path):
        train_run(tmp_path / "run", load_best_model_at_end=False, metric_for_best_model=None)
        states = read_one(tmp_path / "run").states
        assert [state.label for state in states if state.is_best] == ["checkpoint-6"]

    def test_without_evaluations_there_is_no_best(self, tmp_path: Path):
        options = {"eval_strategy": "no", "load_best_model_at_end": False, "metric_for_best_model": None}
        run = tmp_path / "run"
        train_run(run, **options)
        states = read_one(run).states
        assert [state.is_best for state in states] == [False, False, False]
        assert [state.is_last for state in states] == [False, False, True]

    def test_an_adapter_that_is_no_run_has_neither(self, tmp_path: Path):
        (state,) = read_one(write_adapter(tmp_path / "plain")).states
        assert (state.is_best, state.is_last, state.step, state.numbers) == (False, False, None, {})


class TestMetadata:
    def test_what_the_card_of_the_run_says_is_of_every_checkpoint(self, run: Path):
        adapter = read_one(run)
        for state in adapter.states:
            metadata = describe_state(adapter, state)
            assert metadata.tasks == ("text-generation",)
            assert {m.dataset for m in metadata.metrics} == {"imdb"}
            expected = {
                "seed": "7", "learning_rate": "0.01", "dataset": "imdb", "trainer": "transformers Trainer",
                "run": "lr-1e-2", "step": str(state.step), "checkpoint": state.label,
            }  # fmt: skip
            assert expected.items() <= metadata.labels.items()

    def test_versions_of_frameworks_are_labels(self, run: Path):
        import peft
        import torch
        import transformers

        adapter = read_one(run)
        labels = describe_state(adapter, adapter.states[-1]).labels
        assert labels["transformers_version"] == transformers.__version__
        assert labels["peft_version"] == peft.__version__
        assert labels["torch_version"] == torch.__version__

    def test_losses_are_better_when_lower(self, run: Path):
        adapter = read_one(run)
        assert not any(m.higher_is_better for m in describe_state(adapter, adapter.states[0]).metrics)

    def test_the_numbers_of_the_finished_run_are_those_of_its_files(self, run: Path):
        (run / "eval_results.json").write_text(json.dumps({"eval_accuracy": 0.93, "eval_runtime": 3.1, "epoch": 3.0}))
        adapter = read_one(run)
        of_last = {m.name: m.value for m in describe_state(adapter, adapter.states[-1]).metrics}
        assert of_last["eval_accuracy"] == 0.93
        assert "eval_runtime" not in of_last
        assert "eval_accuracy" not in {m.name for m in describe_state(adapter, adapter.states[0]).metrics}

    def test_a_number_that_the_card_repeats_is_there_once(self, run: Path):
        adapter = read_one(run)
        names = [m.name for m in describe_state(adapter, adapter.states[-1]).metrics]
        assert sorted(names) == ["eval_loss", "loss", "train_loss"]

    def test_no_path_of_the_trainers_machine_is_in_it(self, run: Path, tmp_path: Path):
        for path in (run, *run.glob("checkpoint-*")):
            change_config(path, base_model_name_or_path="/home/ada/llama")
        card = (run / "README.md").read_text()
        (run / "README.md").write_text(card.replace("- imdb", "- /home/ada/data/reviews.jsonl"))
        adapter = read_one(run)
        for state in adapter.states:
            metadata = describe_state(adapter, state)
            assert "/home" not in repr(metadata) + repr(tmp_path.name)
            assert metadata.labels["dataset"] == "reviews.jsonl"


class TestWhatIsBroken:
    @pytest.mark.parametrize("content", ["", "{", "[]", '{"global_step": "6"}', '{"global_step": 6, "log_history": 3}'])
    def test_a_state_that_cannot_be_read_is_no_reason_to_fail(self, run: Path, content: str):
        for path in run.rglob("trainer_state.json"):
            path.write_text(content)
        assert [state.label for state in read_one(run).states] == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]

    def test_a_pickle_is_not_opened(self, run: Path):
        for path in run.rglob("*.bin"):
            path.write_bytes(b"cos\nsystem\n(S'touch /tmp/opened'\ntR.")
        assert len(read_one(run).states) == 3

    def test_a_folder_without_an_adapter_is_told(self, tmp_path: Path):
        (tmp_path / "empty").mkdir()
        with pytest.raises(NotFoundError, match="there is no PEFT adapter"):
            read(tmp_path / "empty")
        with pytest.raises(NotFoundError, match="does not exist"):
            read(tmp_path / "nothing")


def test_the_base_is_what_peft_wrote(run: Path):
    assert {state.facts.base for state in read_one(run).states} == {BASE}
