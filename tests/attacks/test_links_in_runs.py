"""A run may come from anybody: no link in it makes an import read, and store, what lies elsewhere on this machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from transformers import TrainingArguments

from deployments import empty_home
from loreg.registry import Registry, connect
from runs.training import write_adapter

SECRET = "hunter2"


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """What whoever made the tree would like to have: files that read like those of a run, with a secret in each."""
    folder = tmp_path / "private"
    folder.mkdir()
    (folder / "lr").write_text(SECRET)
    (folder / "run.yml").write_text(f"base_model: org/m\nadapter: lora\noptimizer: {SECRET}\n")
    (folder / "card.md").write_text(f"---\ndatasets: [{SECRET}]\n---\n# {SECRET}\n")
    (folder / "loss").write_text("1 4711 0\n")
    (folder / "numbers.json").write_text(json.dumps({"eval_accuracy": 4711}))
    (folder / "summary.json").write_text(json.dumps({"eval_loss": 4711}))
    log = [{"step": 3, "eval_loss": 4711}]
    (folder / "state.json").write_text(json.dumps({"global_step": 3, "log_history": log}))
    (folder / "log.jsonl").write_text(json.dumps({"current_steps": 3, "eval_loss": 4711}) + "\n")
    (folder / "tune.yaml").write_text(f"seed: 4711\noptimizer: {SECRET}\n")
    (folder / "wandb.yaml").write_text(f"learning_rate: {{value: {SECRET}}}\n")
    (folder / "name").write_text(SECRET)
    return folder


def tracked_run(run: Path, *parts: str) -> Path:
    """A run of MLflow in the folder of the run."""
    folder = run.joinpath("mlruns", "0", "abc")
    folder.mkdir(parents=True)
    (folder / "meta.yaml").write_text("run_id: abc\n")
    for part in parts:
        (folder / part).mkdir()
    return folder


def wandb_run(run: Path) -> Path:
    folder = run / "wandb" / "run-1" / "files"
    folder.mkdir(parents=True)
    return folder


def files_of(run: Path, checkpoint: str = "checkpoint-3") -> list[Path]:
    """The files of the run, with a folder beside them that is a checkpoint's."""
    files = list(run.iterdir())
    (run / checkpoint).mkdir()
    return files


def link_folder(run: Path, private: Path, name: str, inner: str, files: dict[str, str]) -> None:
    """A tracker's folder somewhere else, and a link to it in the run."""
    elsewhere = private / "tracker" / inner
    elsewhere.mkdir(parents=True)
    (elsewhere / "meta.yaml").write_text("run_id: abc\n")
    for target, source in files.items():
        (elsewhere / target).parent.mkdir(exist_ok=True)
        shutil.copy(private / source, elsewhere / target)
    place = run / name
    place.parent.mkdir(parents=True, exist_ok=True)
    depth = len(Path(name).parts)
    place.symlink_to(private.joinpath("tracker", *Path(inner).parts[: depth - 1]))


LINKS: dict[str, Callable[[Path, Path], object]] = {
    "a parameter": lambda run, private: (tracked_run(run, "params") / "params" / "learning_rate").symlink_to(
        private / "lr"
    ),
    "a metric": lambda run, private: (tracked_run(run, "metrics") / "metrics" / "loss").symlink_to(private / "loss"),
    "all parameters": lambda run, private: (
        (private / "learning_rate").write_text(SECRET),
        (tracked_run(run) / "params").symlink_to(private),
    ),
    "all metrics": lambda run, private: (tracked_run(run) / "metrics").symlink_to(private),
    "an experiment": lambda run, private: link_folder(
        run, private, "mlruns/0", "0/abc", {"params/learning_rate": "lr", "metrics/loss": "loss"}
    ),
    "all experiments": lambda run, private: link_folder(
        run, private, "mlruns", "0/abc", {"params/learning_rate": "lr", "metrics/loss": "loss"}
    ),
    "wandb's configuration": lambda run, private: (wandb_run(run) / "config.yaml").symlink_to(private / "wandb.yaml"),
    "wandb's summary": lambda run, private: (wandb_run(run) / "wandb-summary.json").symlink_to(
        private / "summary.json"
    ),
    "wandb's runs": lambda run, private: link_folder(
        run, private, "wandb", "run-1/files", {"config.yaml": "wandb.yaml"}
    ),
    "the results": lambda run, private: (run / "eval_results.json").symlink_to(private / "numbers.json"),
    "the history": lambda run, private: (run / "trainer_state.json").symlink_to(private / "state.json"),
    "LLaMA-Factory's log": lambda run, private: (
        [path.rename(run / "checkpoint-3" / path.name) for path in files_of(run)],
        (run / "trainer_log.jsonl").symlink_to(private / "log.jsonl"),
    ),
    "axolotl's configuration": lambda run, private: (run / "axolotl.yml").symlink_to(private / "run.yml"),
    "torchtune's configuration": lambda run, private: (run / "torchtune_config.yaml").symlink_to(private / "tune.yaml"),
    "torchtune's log": lambda run, private: (
        [path.rename(run / "epoch_0" / path.name) for path in files_of(run, "epoch_0")],
        (run / "torchtune_config.yaml").write_text("epochs: 1\nlog_every_n_steps: 1\n"),
        (private / "log_1.txt").write_text("Step 1 | loss:4711 \n"),
        (run / "logs").symlink_to(private),
    ),
    "Trainer's arguments": lambda run, private: (
        torch.save(TrainingArguments(str(run), seed=4711, use_cpu=True, report_to=[]), private / "args.bin"),
        (run / "training_args.bin").symlink_to(private / "args.bin"),
    ),
    "the card": lambda run, private: (
        (run / "README.md").unlink(missing_ok=True),
        (run / "README.md").symlink_to(private / "card.md"),
    ),
    "a link to a link": lambda run, private: (
        (run / "there").symlink_to(private),
        (run / "eval_results.json").symlink_to(run / "there" / "numbers.json"),
    ),
}


@pytest.fixture
def local_registry(tmp_path: Path) -> Registry:
    return connect(home=empty_home(tmp_path / "home"))


def imported(registry: Registry, folder: Path) -> str:
    """All that a version says of itself after an import."""
    report = registry.import_runs([folder])
    assert (len(report.created), report.failures) == (1, ())
    details = registry.show(report.created[0].partition("@")[0])
    return msgspec.json.encode(details).decode()


@pytest.mark.parametrize("link", LINKS)
def test_a_link_out_of_a_run_is_not_read(local_registry: Registry, tmp_path: Path, private: Path, link: str):
    run = write_adapter(tmp_path / "tree" / "run")
    LINKS[link](run, private)
    text = imported(local_registry, tmp_path / "tree")
    assert SECRET not in text
    assert "4711" not in text


@pytest.mark.parametrize("link", LINKS)
def test_every_one_of_them_would_have_been_read_as_a_file(
    local_registry: Registry, tmp_path: Path, private: Path, link: str
):
    """The proof that the test above tests something: the same tree with what the links lead to in their place."""
    run = write_adapter(tmp_path / "tree" / "run")
    LINKS[link](run, private)
    copied = shutil.copytree(tmp_path / "tree", tmp_path / "copied")
    text = imported(local_registry, copied)
    assert SECRET in text or "4711" in text


def test_nothing_is_read_of_the_run_that_an_artifact_is_of(local_registry: Registry, tmp_path: Path, private: Path):
    tracked = tmp_path / "mlruns" / "0" / "abc"
    write_adapter(tracked / "artifacts" / "model")
    (tracked / "meta.yaml").write_text("run_name: mine\n")
    (tracked / "tags").mkdir()
    (tracked / "tags" / "mlflow.runName").symlink_to(private / "name")
    (tracked / "params").symlink_to(private)
    (private / "learning_rate").write_text(SECRET)
    assert SECRET not in imported(local_registry, tmp_path / "mlruns")
    assert [str(entry.adapter) for entry in local_registry.adapters().items] == ["mine"]


def test_the_plan_says_which_links_were_not_followed(local_registry: Registry, tmp_path: Path, private: Path):
    run = write_adapter(tmp_path / "tree" / "run")
    (run / "eval_results.json").symlink_to(private / "numbers.json")
    (run / "dataset").symlink_to(private)  # nothing is ever read there
    (note,) = local_registry.plan_import([tmp_path / "tree"]).plan.notes
    assert note == f"1 link leads out of a run and was not followed: {run / 'eval_results.json'}"


class TestLinksThatArePeoplesOwn:
    def test_the_folder_that_is_named_may_be_one(self, local_registry: Registry, tmp_path: Path):
        run = write_adapter(tmp_path / "disk" / "run")
        (run / "eval_results.json").write_text(json.dumps({"eval_accuracy": 0.75}))
        (tmp_path / "link").symlink_to(run)
        assert "eval_accuracy" in imported(local_registry, tmp_path / "link")

    def test_a_folder_above_may_be_one(self, local_registry: Registry, tmp_path: Path):
        run = write_adapter(tmp_path / "disk" / "run")
        (run / "eval_results.json").write_text(json.dumps({"eval_accuracy": 0.75}))
        (tmp_path / "link").symlink_to(tmp_path / "disk")
        assert "eval_accuracy" in imported(local_registry, tmp_path / "link" / "run")

    def test_the_best_checkpoint_may_be_one(self, local_registry: Registry, tmp_path: Path):
        run = tmp_path / "run"
        for step, size in ((200, 0.01), (300, 0.02)):
            write_adapter(run / f"checkpoint-{step}", size)
        log = [{"step": step, "eval_accuracy": step / 1000} for step in (200, 300)]
        (run / "checkpoint-300" / "trainer_state.json").write_text(json.dumps({"global_step": 300, "log_history": log}))
        (run / "checkpoint-best").symlink_to("checkpoint-300")
        (run / "checkpoint-200" / "trainer_state.json").symlink_to("../checkpoint-300/trainer_state.json")
        planned = local_registry.plan_import([run])
        assert planned.plan.notes == ()
        assert [version.metrics[0].value for version in planned.plan.versions] == [0.2, 0.3]
        assert "eval_accuracy" in imported(local_registry, run / "checkpoint-best")

    def test_one_to_the_records_of_a_tracker_is_named(self, local_registry: Registry, tmp_path: Path):
        """Nobody can tell it from a stranger's: the tracker's folder may be copied, or be that of the runs."""
        run = write_adapter(tmp_path / "runs" / "mine")
        (tmp_path / "disk").mkdir()
        (tmp_path / "runs" / "wandb").symlink_to(tmp_path / "disk")
        (note,) = local_registry.plan_import([run]).plan.notes
        assert note == f"1 link leads out of a run and was not followed: {tmp_path / 'runs' / 'wandb'}"

    def test_a_circle_of_links_is_no_trouble(self, local_registry: Registry, tmp_path: Path):
        run = write_adapter(tmp_path / "run")
        for one, other in (("a.json", "b.json"), ("b.json", "a.json"), ("eval_results.json", "eval_results.json")):
            (run / one).symlink_to(other)
        (run / "wandb").symlink_to("wandb")
        (run / "mlruns").symlink_to("mlruns")
        imported(local_registry, run)
