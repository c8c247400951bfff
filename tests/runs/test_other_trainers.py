"""Runs of other trainers are read from the files that these write; each test names the source of its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loreg.entities import VersionMetadata
from loreg.runs.digests import DigestMemory
from loreg.runs.folders import FolderSource
from loreg.runs.metadata import describe_state
from loreg.runs.source import RunAdapter
from runs.training import write_adapter


def read(path: Path) -> RunAdapter:
    (adapter,) = FolderSource([path], DigestMemory(path.parent / "memory.json")).adapters()
    return adapter


def metadata(path: Path) -> VersionMetadata:
    adapter = read(path)
    return describe_state(adapter, adapter.states[-1])


def write_trainer_state(folder: Path, **fields: object) -> None:
    state = {"global_step": 20, "epoch": 1.0, "log_history": [], "best_model_checkpoint": None, **fields}
    (folder / "trainer_state.json").write_text(json.dumps(state))


# axolotl 0.19: train.py, setup_model_card and create_model_card; the text below is Trainer's TrainingSummary.
AXOLOTL_CARD = """\
---
library_name: peft
license: apache-2.0
base_model: TinyLlama/TinyLlama-1.1B-Chat-v1.0
tags:
- axolotl
- base_model:adapter:TinyLlama/TinyLlama-1.1B-Chat-v1.0
- lora
- transformers
datasets:
- /workspace/data/postman_finetune_dataset.json
pipeline_tag: text-generation
model-index:
- name: outputs/tinyllama-out
  results: []
---

<!-- This model card has been generated automatically according to the information the Trainer had access to. -->

[<img src="https://raw.githubusercontent.com/axolotl-ai-cloud/axolotl/main/image/axolotl-badge-web.png" \
alt="Built with Axolotl" width="200" height="32"/>](https://github.com/axolotl-ai-cloud/axolotl)
<details><summary>See axolotl config</summary>

axolotl version: `0.19.0`
```yaml
base_model: TinyLlama/TinyLlama-1.1B-Chat-v1.0
revision_of_model: 4f42c91d
datasets:
  - path: /workspace/data/postman_finetune_dataset.json
    type: alpaca
adapter: qlora
lora_r: 32
sequence_len: 2048
micro_batch_size: 1
gradient_accumulation_steps: 4
num_epochs: 6
optimizer: adamw_bnb_8bit
lr_scheduler: cosine
learning_rate: 0.0002
load_in_4bit: true
```

</details><br>

# outputs/tinyllama-out

### Training hyperparameters

The following hyperparameters were used during training:
- learning_rate: 0.0002
- train_batch_size: 1
- seed: 42
- optimizer: Use adamw_bnb_8bit with betas=(0.9,0.999) and epsilon=1e-08 and optimizer_args=No additional arguments

### Framework versions

- PEFT 0.18.0
- Transformers 4.57.1
- Pytorch 2.8.0+cu128
- Datasets 4.4.1
- Tokenizers 0.22.1
"""


def test_axolotl(tmp_path: Path):
    run = tmp_path / "tinyllama-out"
    write_adapter(run / "checkpoint-20")
    write_adapter(run, 0.06)
    history = [{"step": 20, "epoch": 1.0, "eval_loss": 0.61, "eval_runtime": 2.0, "memory/max_active (GiB)": 3.1}]
    write_trainer_state(run / "checkpoint-20", log_history=history)
    (run / "README.md").write_text(AXOLOTL_CARD)
    adapter = read(run)
    first, last = (describe_state(adapter, state) for state in adapter.states)
    assert first.labels["trainer"] == "axolotl"
    assert first.tasks == ("text-generation",)
    expected = {
        "dataset": "postman_finetune_dataset.json", "seed": "42", "learning_rate": "0.0002", "num_epochs": "6",
        "micro_batch_size": "1", "load_in_4bit": "true", "base_revision": "4f42c91d", "axolotl_version": "0.19.0",
        "transformers_version": "4.57.1", "torch_version": "2.8.0+cu128", "step": "20",
    }  # fmt: skip
    assert expected.items() <= first.labels.items()
    assert {(m.name, m.value, m.dataset) for m in first.metrics} >= {
        ("eval_loss", 0.61, "postman_finetune_dataset.json")
    }
    assert "/workspace" not in repr((first, last))


def test_an_axolotl_run_with_its_configuration_beside_it(tmp_path: Path):
    run = write_adapter(tmp_path / "out")
    (run / "qlora.yml").write_text(
        "base_model: org/llama\nadapter: qlora\ndatasets:\n  - path: tatsu-lab/alpaca\n    type: alpaca\n"
        "micro_batch_size: 2\nlearning_rate: 2.5e-5\nseed: 3\n"
    )
    labels = metadata(run).labels
    assert (labels["dataset"], labels["seed"], labels["micro_batch_size"]) == ("tatsu-lab/alpaca", "3", "2")
    assert float(labels["learning_rate"]) == 2.5e-5


@pytest.mark.parametrize(
    ("tested", "dataset"),
    [
        ("", "tatsu-lab/alpaca"),
        ("test_datasets:\n  - path: org/held-out\n    split: test\n", "org/held-out"),
        ("test_datasets:\n  - path: org/a\n  - path: org/b\n", ""),
    ],
)
def test_what_axolotl_evaluates_is_of_the_data_that_it_tests_on(tmp_path: Path, tested: str, dataset: str):
    run = write_adapter(tmp_path / "out")
    (run / "lora.yml").write_text(
        f"base_model: org/llama\nadapter: lora\nmicro_batch_size: 1\ndatasets:\n  - path: tatsu-lab/alpaca\n{tested}"
    )
    write_trainer_state(run, log_history=[{"step": 20, "epoch": 1.0, "eval_loss": 0.5}])
    assert [(m.name, m.dataset) for m in metadata(run).metrics] == [("eval_loss", dataset)]


def test_trl(tmp_path: Path):
    """TRL 1.16: trl/templates/lm_model_card.md, and trainer/base_trainer.py, which writes it into every checkpoint."""
    run = tmp_path / "dpo"
    write_adapter(run / "checkpoint-20")
    history = [
        {
            "step": 20, "epoch": 1.0, "eval_loss": 0.55, "eval_rewards/accuracies": 0.75, "eval_rewards/margins": 0.4,
            "eval_num_tokens": 4096.0, "eval_runtime": 1.0,
        }
    ]  # fmt: skip
    write_trainer_state(run / "checkpoint-20", log_history=history)
    (run / "checkpoint-20" / "README.md").write_text("""\
---
base_model: Qwen/Qwen2.5-0.5B-Instruct
datasets: trl-lib/ultrafeedback_binarized
library_name: peft
model_name: dpo
tags:
- base_model:adapter:Qwen/Qwen2.5-0.5B-Instruct
- dpo
- lora
- transformers
- trl
licence: license
pipeline_tag: text-generation
---

# Model Card for dpo

This model was trained with DPO, a method introduced in [Direct Preference Optimization](https://huggingface.co/papers/2305).

### Framework versions

- PEFT 0.18.0
- TRL: 1.16.0
- Transformers: 4.57.1
- Pytorch: 2.8.0
""")
    known = metadata(run)
    assert known.labels["trainer"] == "TRL DPO"
    assert known.labels["trl_version"] == "1.16.0"
    assert {m.name: m.value for m in known.metrics} == {
        "eval_loss": 0.55, "eval_rewards/accuracies": 0.75, "eval_rewards/margins": 0.4,
    }  # fmt: skip
    assert {m.dataset for m in known.metrics} == {"trl-lib/ultrafeedback_binarized"}


def test_unsloth(tmp_path: Path):
    """unsloth: save.py, MODEL_CARD, written by push_to_hub and save_pretrained_merged."""
    run = write_adapter(tmp_path / "lora_model")
    (run / "README.md").write_text("""\
---
base_model: unsloth/llama-3-8b-bnb-4bit
tags:
- text-generation-inference
- transformers
- unsloth
- llama
license: apache-2.0
language:
- en
---

# Uploaded finetuned  model

- **Developed by:** ada
- **Finetuned from model :** unsloth/llama-3-8b-bnb-4bit
""")
    assert metadata(run).labels["trainer"] == "unsloth"
    assert read(run).states[0].facts.license == "apache-2.0"


def test_llama_factory(tmp_path: Path):
    """LLaMA-Factory: train/callbacks.py (trainer_log.jsonl), webui/runner.py (training_args.yaml)."""
    run = tmp_path / "train_2026-01-01"
    write_adapter(run / "checkpoint-20")
    lines = [
        {"current_steps": 10, "total_steps": 20, "loss": 1.9, "lr": 1e-4, "epoch": 0.5, "percentage": 50.0},
        {"current_steps": 20, "total_steps": 20, "eval_loss": 1.7, "epoch": 1.0, "percentage": 100.0},
    ]
    (run / "trainer_log.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    (run / "training_args.yaml").write_text(
        "model_name_or_path: /models/Qwen2.5-7B\nfinetuning_type: lora\nstage: sft\ndo_train: true\n"
        "dataset: alpaca_en_demo\ncutoff_len: 2048\nlearning_rate: 5.0e-05\nnum_train_epochs: 3.0\nseed: 42\n"
        "lr_scheduler_type: cosine\noutput_dir: saves/Qwen2.5-7B/lora/train_2026-01-01\n"
    )
    known = metadata(run)
    expected = {"trainer": "LLaMA-Factory SFT", "dataset": "alpaca_en_demo", "seed": "42", "cutoff_len": "2048"}
    assert expected.items() <= known.labels.items()
    assert [(m.name, m.value, m.dataset) for m in known.metrics] == [("eval_loss", 1.7, "alpaca_en_demo")]
    assert "/models" not in repr(known)
    with (run / "training_args.yaml").open("a") as config:
        config.write("eval_dataset: alpaca_held_out\n")
    tested = metadata(run)
    assert tested.labels["dataset"] == "alpaca_en_demo"
    assert [(m.name, m.value, m.dataset) for m in tested.metrics] == [("eval_loss", 1.7, "alpaca_held_out")]


def test_torchtune(tmp_path: Path):
    """torchtune 0.6: training/checkpointing (epoch_N, with the base's own files), training/metric_logging.py."""
    run = tmp_path / "lora_single_device"
    for epoch, size in ((0, 0.05), (1, 0.06)):
        write_adapter(run / f"epoch_{epoch}", size)
        (run / f"epoch_{epoch}" / "README.md").unlink()
        (run / f"epoch_{epoch}" / "adapter_model.pt").write_bytes(b"\x80")
        (run / f"epoch_{epoch}" / "config.json").write_text("{}")
    (run / "torchtune_config.yaml").write_text(
        "output_dir: /tmp/torchtune/lora_single_device\nmodel:\n"
        "  _component_: torchtune.models.llama3_2.lora_llama3_2_1b\n"
        "  lora_rank: 64\ndataset:\n  _component_: torchtune.datasets.alpaca_cleaned_dataset\n  packed: false\n"
        "seed: 7\nbatch_size: 4\nepochs: 2\noptimizer:\n  _component_: torch.optim.AdamW\n  lr: 0.0003\n"
        "checkpointer:\n  output_dir: ${output_dir}\n"
    )
    adapter = read(run)
    assert [(state.label, state.is_last) for state in adapter.states] == [("epoch_0", False), ("epoch_1", True)]
    labels = describe_state(adapter, adapter.states[0]).labels
    expected = {
        "trainer": "torchtune", "dataset": "alpaca_cleaned", "seed": "7", "batch_size": "4", "epochs": "2",
        "optimizer.lr": "0.0003", "checkpoint": "epoch_0",
    }  # fmt: skip
    assert expected.items() <= labels.items()
    assert "/tmp/torchtune" not in repr(labels)


class TestTrackers:
    def wandb(self, root: Path, run_id: str, output_dir: str, seed: int) -> None:
        """As wandb keeps them (sdk/lib/config_util.py); what Trainer's WandbCallback puts there."""
        files = root / "wandb" / f"run-20260101_000000-{run_id}" / "files"
        files.mkdir(parents=True)
        (files / "config.yaml").write_text(
            "_wandb:\n    value:\n        cli_version: 0.19.1\n        python_version: 3.11.7\n"
            f"output_dir:\n    value: {output_dir}\nseed:\n    value: {seed}\nlearning_rate:\n    value: 0.0001\n"
            "transformers_version:\n    value: 4.57.1\npeft_config:\n    value:\n        default:\n            r: 4\n"
        )
        (files / "wandb-summary.json").write_text(
            json.dumps({"eval/loss": 0.5, "eval/runtime": 2.0, "train/global_step": 20, "_runtime": 60, "_step": 20})
        )
        (files / "requirements.txt").write_text("torch==2.8.0\npeft==0.18.0\nsecret-internal-package==1.0\n")
        (files / "wandb-metadata.json").write_text(json.dumps({"host": "ada-laptop", "email": "ada@example.org"}))

    def test_the_run_of_wandb_is_the_one_that_wrote_there(self, tmp_path: Path):
        run = write_adapter(tmp_path / "work" / "runs" / "b")
        self.wandb(tmp_path / "work", "aaaaaaaa", "runs/a", 1)
        self.wandb(tmp_path / "work", "bbbbbbbb", "./runs/b", 2)
        known = metadata(run)
        expected = {"seed": "2", "learning_rate": "0.0001", "transformers_version": "4.57.1", "torch_version": "2.8.0"}
        assert expected.items() <= known.labels.items()
        assert {m.name: m.value for m in known.metrics} == {"eval/loss": 0.5}
        assert not [word for word in ("ada-laptop", "ada@example", "secret") if word in repr(known)]

    def test_of_another_run_nothing_is_taken(self, tmp_path: Path):
        run = write_adapter(tmp_path / "work" / "runs" / "c")
        self.wandb(tmp_path / "work", "aaaaaaaa", "runs/a", 1)
        assert "seed" not in metadata(run).labels

    def test_an_artifact_of_mlflow_has_the_name_and_the_numbers_of_its_run(self, tmp_path: Path):
        """MLflow 3.17: store/tracking/file_store.py."""
        run = tmp_path / "mlruns" / "0" / "8f3c0a"
        write_adapter(run / "artifacts" / "model" / "peft")
        files = {
            "meta.yaml": "artifact_uri: file:///home/ada/mlruns/0/8f3c0a/artifacts\nrun_name: calm-fox-12\n",
            "tags/mlflow.runName": "calm-fox-12",
            "tags/mlflow.user": "ada",
            "params/learning_rate": "0.0001",
            "params/seed": "5",
            "params/output_dir": "/home/ada/out",
            "metrics/eval_loss": "1700000000000 0.9 10\n1700000100000 0.7 20\n",
            "metrics/eval_runtime": "1700000000000 2.0 10\n",
        }
        for name, text in files.items():
            (run / name).parent.mkdir(parents=True, exist_ok=True)
            (run / name).write_text(text)
        adapter = read(tmp_path / "mlruns")
        known = describe_state(adapter, adapter.states[-1])
        assert adapter.name == "calm-fox-12"
        assert {"seed": "5", "learning_rate": "0.0001"}.items() <= known.labels.items()
        assert {m.name: m.value for m in known.metrics} == {"eval_loss": 0.7}
        assert "/home/ada" not in repr(known)


class TestNamedAdapters:
    def test_are_adapters_of_their_own_in_every_checkpoint(self, tmp_path: Path):
        run = tmp_path / "dpo"
        for number, label in enumerate(("checkpoint-3", "checkpoint-20", "")):
            for name in ("policy", "reference"):
                write_adapter(run / label / name, 0.01 * (1 + number) + (0.1 if name == "policy" else 0))
        adapters = list(FolderSource([run], DigestMemory(tmp_path / "memory.json")).adapters())
        assert [adapter.name for adapter in adapters] == ["policy", "reference"]
        assert [[state.label for state in adapter.states] for adapter in adapters] == [
            ["checkpoint-3", "checkpoint-20", ""]
        ] * 2

    def test_beside_an_unnamed_one(self, tmp_path: Path):
        write_adapter(tmp_path / "runs" / "ppo")
        write_adapter(tmp_path / "runs" / "ppo" / "reference", 0.1)
        adapters = FolderSource([tmp_path / "runs"], DigestMemory(tmp_path / "memory.json")).adapters()
        assert [adapter.name for adapter in adapters] == ["ppo", "ppo-reference"]


@pytest.mark.parametrize("name", ["README.md", "qlora.yml", "training_args.yaml", "torchtune_config.yaml"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\xff",
        b"---\n- a\n",
        b"a: &x [*x]\n",
        b"base_model: 3\nadapter: []\ndatasets: 5\nseed: {}\n",
        b"{" * 9999,
    ],
    ids=["empty", "binary", "list", "alias", "other types", "deep"],
)
def test_what_cannot_be_read_says_nothing(tmp_path: Path, name: str, content: bytes):
    run = write_adapter(tmp_path / "run")
    (run / name).write_bytes(b"---\n" + content + b"\n---\n" if name == "README.md" else content)
    assert "seed" not in metadata(run).labels
