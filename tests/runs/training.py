"""Runs of the real Trainer on a tiny model: what a person has in a folder after an evening."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from transformers import PreTrainedModel, Trainer, TrainingArguments

from cases.building import VOCABULARY, llama, save

BASE = "org/tiny-llama"
#: Two steps an epoch, three epochs: checkpoints at 2, 4 and 6.
STEPS = (2, 4, 6)


def sentences(count: int, seed: int) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randint(0, VOCABULARY, (8,), generator=generator) for _ in range(count)]
    return [{"input_ids": row, "labels": row} for row in rows]


def train_run(folder: Path, *, rank: int = 4, model: PreTrainedModel | None = None, **options: Any) -> Trainer:
    """Train with checkpoints, the best of which is loaded at the end, and save everything as the example scripts do."""
    from peft import LoraConfig

    base = model or llama()
    base.name_or_path = BASE
    torch.manual_seed(options.get("seed", 7))
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    arguments = {
        "num_train_epochs": 3, "eval_strategy": "epoch", "save_strategy": "epoch", "logging_steps": 1,
        "per_device_train_batch_size": 8, "load_best_model_at_end": True, "metric_for_best_model": "eval_loss",
        "report_to": [], "seed": 7, "learning_rate": 1e-2, "disable_tqdm": True, "use_cpu": True, **options,
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(
            get_peft_model(base, config), TrainingArguments(str(folder), **arguments),
            train_dataset=sentences(16, 0), eval_dataset=sentences(8, 1),
        )  # fmt: skip
        result = trainer.train()
        trainer.save_model()
        trainer.save_metrics("train", result.metrics)
        trainer.save_metrics("eval", trainer.evaluate())
        trainer.save_state()
    return trainer


def write_adapter(folder: Path, size: float = 0.05, **options: Any) -> Path:
    """An adapter as PEFT writes it, without a run; another ``size`` makes other weights."""
    from cases.building import trained

    model = llama()
    model.name_or_path = BASE
    return save(trained(model, size=size, **options), folder)
