"""What other trainers really wrote is read as it was meant: the runs in tests/data/real-runs, told of in their README.

What is expected was typed into the trainer's configuration, or stands in a file of the run, which is read by hand.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from deployments import empty_home
from loreg import Registry, connect
from loreg.adapters.card import parse_card_fields
from loreg.entities import ImportOptions, ImportStatus, VersionMetadata
from loreg.runs.digests import DigestMemory
from loreg.runs.folders import FolderSource
from loreg.runs.metadata import describe_state
from loreg.runs.source import RunAdapter

REAL = Path(__file__).parents[1] / "data" / "real-runs"


@pytest.fixture
def local_registry(tmp_path: Path) -> Registry:
    return connect(home=empty_home(tmp_path / "home"))


def read(run: str, tmp_path: Path) -> RunAdapter:
    adapters = FolderSource([REAL / run], DigestMemory(tmp_path / "memory.json")).adapters()
    return next(iter(adapters))


def describe(run: str, tmp_path: Path) -> list[VersionMetadata]:
    adapter = read(run, tmp_path)
    return [describe_state(adapter, state) for state in adapter.states]


def numbers(version: VersionMetadata) -> dict[tuple[str, str], float]:
    return {(metric.name, metric.dataset): metric.value for metric in version.metrics}


def evaluations(run: str, name: str) -> dict[int, float]:
    """What Trainer logged under a name, by its step."""
    (last, *_) = sorted((REAL / run).rglob("trainer_state.json"), key=lambda path: -path.stat().st_size)
    return {e["step"]: e[name] for e in json.loads(last.read_text())["log_history"] if name in e}


class TestLlamaFactory:
    RUN = "llama-factory/sft-best"

    def test_checkpoints_with_the_best_and_the_last(self, tmp_path: Path):
        states = read(self.RUN, tmp_path).states
        assert [(s.label, s.step, s.is_best, s.is_last) for s in states] == [
            ("checkpoint-8", 8, False, False),
            ("checkpoint-16", 16, True, True),
        ]

    def test_the_dataset_is_the_one_that_the_sentence_in_its_card_names(self, tmp_path: Path):
        versions = describe(self.RUN, tmp_path)
        assert {version.labels["dataset"] for version in versions} == {"tiny_words"}
        by_hand = evaluations(self.RUN, "eval_loss")
        # which was measured on tiny_words_eval: nothing that it writes says so
        assert [numbers(v)["eval_loss", ""] for v in versions] == [by_hand[8], by_hand[16]]

    def test_seed_and_arguments_are_those_of_its_configuration(self, tmp_path: Path):
        for version in describe(self.RUN, tmp_path):
            expected = {
                "trainer": "LLaMA-Factory", "seed": "8", "learning_rate": "0.3", "per_device_train_batch_size": "4",
                "gradient_accumulation_steps": "2", "lr_scheduler_type": "cosine", "warmup_ratio": "0.1",
                "peft_version": "0.18.1", "transformers_version": "5.6.0",
            }  # fmt: skip
            assert expected.items() <= version.labels.items()

    def test_preferences_are_measured_as_they_were_logged(self, tmp_path: Path):
        first, last = describe("llama-factory/dpo", tmp_path)
        accuracies = evaluations("llama-factory/dpo", "eval_rewards/accuracies")
        assert numbers(first)["eval_rewards/accuracies", ""] == accuracies[3]
        assert numbers(last)["eval_rewards/accuracies", ""] == accuracies[6]
        assert (first.labels["seed"], first.labels["trainer"]) == ("9", "LLaMA-Factory")

    def test_without_its_card_the_arguments_are_read_from_the_pickle(self, tmp_path: Path):
        run = tmp_path / "run"
        shutil.copytree(REAL / self.RUN, run)
        for path in [run / "README.md", *run.glob("*.json*"), *run.glob("adapter_model.safetensors")]:
            path.unlink()  # as of a run that was stopped: there are its checkpoints
        (run / "training_args.bin").unlink()
        labels = describe(str(run), tmp_path)[0].labels
        expected = {"seed": "8", "learning_rate": "0.3", "trainer": "LLaMA-Factory", "lr_scheduler_type": "cosine"}
        assert expected.items() <= labels.items()


class TestUnsloth:
    RUN = "unsloth/outputs"

    def test_seed_and_arguments_are_those_of_its_script(self, tmp_path: Path):
        """TRL's card names none of them: they are in training_args.bin alone."""
        for version in describe(self.RUN, tmp_path):
            expected = {
                "trainer": "TRL SFT", "seed": "3407", "learning_rate": "0.01", "per_device_train_batch_size": "2",
                "gradient_accumulation_steps": "4", "warmup_steps": "2", "lr_scheduler_type": "linear",
                "weight_decay": "0.01", "max_length": "128", "max_steps": "6", "trl_version": "1.15.0",
            }  # fmt: skip
            assert expected.items() <= version.labels.items()

    def test_nothing_is_said_to_be_unknown(self, local_registry: Registry):
        assert not local_registry.plan_import([REAL / self.RUN]).plan.notes

    def test_the_saved_copy_of_the_last_checkpoint_is_no_version_of_its_own(self, local_registry: Registry):
        versions = local_registry.plan_import([REAL / self.RUN]).plan.versions
        assert [(Path(v.source).name, v.status) for v in versions] == [
            ("checkpoint-3", ImportStatus.NEW),
            ("checkpoint-6", ImportStatus.NEW),
            ("lora_model", ImportStatus.PRESENT),
        ]


class TestTorchtune:
    @pytest.mark.parametrize("run, seed", [("torchtune/lora", "7"), ("torchtune/dora", "9")])
    def test_epochs_are_the_states_with_the_loss_at_their_ends(self, tmp_path: Path, run: str, seed: str):
        (log,) = (REAL / run / "logs").iterdir()
        losses = [float(line.split("loss:")[1].split()[0]) for line in log.read_text().splitlines()]
        assert len(losses) == 6  # two epochs of three steps
        for version, step, epoch in zip(describe(run, tmp_path), (3, 6), ("1", "2"), strict=True):
            assert numbers(version) == {("loss", "tiny_words.json"): losses[step - 1]}
            expected = {
                "trainer": "torchtune", "seed": seed, "optimizer.lr": "0.003", "batch_size": "4", "epochs": "2",
                "dataset": "tiny_words.json", "step": str(step), "epoch": epoch,
            }  # fmt: skip
            assert expected.items() <= version.labels.items()

    def test_what_the_card_of_the_base_says_is_not_said_of_the_adapter(self, tmp_path: Path):
        """torchtune copies the files of the base into every epoch, its README among them."""
        assert "value: 0.453" in (REAL / "torchtune/lora/epoch_1/README.md").read_text()
        for state, version in zip(
            read("torchtune/lora", tmp_path).states, describe("torchtune/lora", tmp_path), strict=True
        ):
            assert (version.tasks, state.facts.license, state.facts.card) == ((), "", "")
            assert {metric.name for metric in version.metrics} == {"loss"}

    def test_the_adapter_gets_a_card_of_its_own(self, local_registry: Registry, tmp_path: Path):
        local_registry.import_runs([REAL / "torchtune/lora"])
        local_registry.pull("lora:v2", tmp_path / "pulled")
        card = (tmp_path / "pulled" / "README.md").read_text()
        assert parse_card_fields(card).get("license") is None
        assert "trained with torchtune" in card

    def test_steps_are_unknown_where_the_log_lacks_some(self, tmp_path: Path):
        run = tmp_path / "run"
        shutil.copytree(REAL / "torchtune/lora", run)
        (log,) = (run / "logs").iterdir()
        log.write_text("".join(log.read_text().splitlines(keepends=True)[:5]))
        assert [(v.labels.get("step"), v.labels["epoch"], v.metrics) for v in describe(str(run), tmp_path)] == [
            (None, "1", ()),
            (None, "2", ()),
        ]

    def test_dora_that_its_configuration_does_not_name_is_mended(self, local_registry: Registry, tmp_path: Path):
        """torchtune 0.6.1 writes magnitudes, and no use_dora: PEFT would leave the magnitudes out, without a word."""
        run = REAL / "torchtune/dora"
        assert "use_dora" not in json.loads((run / "epoch_1" / "adapter_config.json").read_text())
        versions = local_registry.plan_import([run]).plan.versions
        assert {(v.status, v.code) for v in versions} == {(ImportStatus.MENDABLE, "LR007")}
        assert "use_dora becomes true" in versions[0].mend
        report = local_registry.import_runs([run], ImportOptions(mend=True))
        assert (len(report.created), report.failures) == (2, ())
        local_registry.pull("dora:v2", tmp_path / "pulled")
        assert json.loads((tmp_path / "pulled" / "adapter_config.json").read_text())["use_dora"] is True


def test_no_path_of_a_trainers_machine_is_told(local_registry: Registry):
    plan = local_registry.plan_import([REAL]).plan
    for version in plan.versions:
        assert "/home/alice" not in repr((version.tasks, version.labels, version.metrics, version.message))
