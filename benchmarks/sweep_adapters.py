"""Train the adapters that are swept over: one for each language-modelling task, by PEFT, on SmolLM2-135M.

Ranks, modules and steps are mixed, as they are in a registry: a method that only works where all are alike is none.
Folders lie in ``.sweep/smollm2/adapters``. Float32 on one thread, so that a machine of the same kind makes the same
bytes.
"""

from __future__ import annotations

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from sweep_splits import Splits
from sweep_texts import ROW, held_out_rows, load_base, load_tokenizer, mean_loss, token_losses, token_stream
from sweep_training import Training, save_adapter, train_model

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
ALL_LINEAR = (*ATTENTION, "gate_proj", "up_proj", "down_proj")
#: The base as an adapter's configuration names it; loreg tells it by its content.
BASE_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"

TRAININGS: dict[str, Training] = {
    "sport": Training(8, ("q_proj", "v_proj"), seed=1, steps=40),
    "italian": Training(8, ("q_proj", "v_proj"), seed=2),
    "reviews": Training(16, ATTENTION, seed=3),
    "chat": Training(8, ("q_proj", "v_proj"), seed=4),
    "python": Training(4, ALL_LINEAR, seed=5),
    "ukrainian": Training(8, ("q_proj", "v_proj"), seed=6),
    "technology": Training(16, ATTENTION, seed=7),
    "spanish": Training(4, ALL_LINEAR, seed=8),
}


def train(base: Path, splits: Splits, training: Training, folder: Path) -> dict[str, float]:
    """Train an adapter, write it, and return the loss on eight development rows before and after, in nats a token."""
    torch.manual_seed(training.seed)
    tokenizer = load_tokenizer()
    stream = token_stream(tokenizer, splits.train)
    held_out = held_out_rows(tokenizer, splits.dev, limit=8)
    config = LoraConfig(
        r=training.rank, lora_alpha=2 * training.rank, target_modules=[*training.modules], task_type="CAUSAL_LM"
    )
    model = get_peft_model(load_base(base), config)
    before = mean_loss(model, held_out)

    def loss(generator: torch.Generator) -> torch.Tensor:
        places = torch.randint(0, len(stream) - ROW, (training.rows,), generator=generator).tolist()
        return token_losses(model, torch.stack([stream[place : place + ROW] for place in places])).mean()

    train_model(model, loss, training)
    after = mean_loss(model, held_out)
    save_adapter(model, folder, BASE_NAME)
    return {"before": before, "after": after}
