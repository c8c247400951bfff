"""Train the second kind of adapters: one for each classification task, by PEFT, on MiniLM, each with a head of its own.

The head is PEFT's module to save and lies in the adapter's folder. A merge of several adapters has one encoder, and is
asked each task through that task's own head: ``accuracy`` does so. Folders lie in ``.sweep/minilm/adapters``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from sweep_splits import Splits
from sweep_tasks import Document
from sweep_training import Training, save_adapter, train_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

#: Tokens of a document that are read.
LENGTH = 96
BASE_NAME = "sentence-transformers/all-MiniLM-L6-v2"
ATTENTION = ("query", "key", "value", "attention.output.dense")
ALL_LINEAR = ("query", "key", "value", "dense")

TRAININGS: dict[str, Training] = {
    "topics": Training(8, ("query", "value"), seed=11, steps=80, rows=16),
    "opinions": Training(8, ("query", "value"), seed=12, steps=80, rows=16),
    "sentences": Training(16, ATTENTION, seed=13, steps=80, rows=16),
    "chats": Training(4, ALL_LINEAR, seed=14, steps=80, rows=16),
    "languages": Training(8, ("query", "value"), seed=15, steps=80, rows=16),
    "libraries": Training(16, ATTENTION, seed=16, steps=80, rows=16),
}


class Examples(NamedTuple):
    """Documents as the encoder reads them: tokens (n, 96) at most, their mask, and the place of each label (n,)."""

    tokens: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor

    def choose(self, places: torch.Tensor) -> Examples:
        """Take these examples, no wider than the longest of them."""
        length = int(self.mask[places].sum(1).max())
        return Examples(self.tokens[places, :length], self.mask[places, :length], self.labels[places])

    def batches(self) -> list[Examples]:
        """All examples in batches of 32 of a similar length, so that little padding is read."""
        return [self.choose(places) for places in self.mask.sum(1).argsort(stable=True).split(32)]


def load_classifier(base: Path, labels: Sequence[str]) -> PreTrainedModel:
    """Load MiniLM in float32, frozen, with a new head of so many labels."""
    model = AutoModelForSequenceClassification.from_pretrained(base, dtype=torch.float32, num_labels=len(labels))
    return model.eval().requires_grad_(False)


def label_names(splits: Splits) -> list[str]:
    """The labels of a task in the order of the head's rows."""
    return sorted({document.label for document in splits.train})


def read_examples(base: Path, documents: Sequence[Document], labels: Sequence[str]) -> Examples:
    """Read the first 96 tokens of each document."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    texts = [document.text for document in documents]
    batch = tokenizer(texts, truncation=True, max_length=LENGTH, padding=True, return_tensors="pt")
    return Examples(
        batch.input_ids, batch.attention_mask, torch.tensor([labels.index(document.label) for document in documents])
    )


def logits(model: torch.nn.Module, examples: Examples) -> torch.Tensor:
    """The logit of each label for each example: (n, labels)."""
    return model(input_ids=examples.tokens, attention_mask=examples.mask).logits


@torch.no_grad()
def accuracy(model: torch.nn.Module, examples: Examples) -> float:
    """The share of examples whose label gets the largest logit."""
    right = sum(int((logits(model, batch).argmax(-1) == batch.labels).sum()) for batch in examples.batches())
    return right / len(examples.labels)


def train(base: Path, splits: Splits, training: Training, folder: Path) -> dict[str, float]:
    """Train adapter and head, write them, and return the accuracy on development documents.

    ``before`` is that of the new head on the bare encoder, which is where a merge of weight 0 stands.
    """
    torch.manual_seed(training.seed)
    labels = label_names(splits)
    config = LoraConfig(
        r=training.rank,
        lora_alpha=2 * training.rank,
        target_modules=[*training.modules],
        modules_to_save=["classifier"],
        task_type="SEQ_CLS",
    )
    model = get_peft_model(load_classifier(base, labels), config)
    examples = read_examples(base, splits.train, labels)
    held_out = read_examples(base, splits.dev, labels)

    def loss(generator: torch.Generator) -> torch.Tensor:
        places = torch.randint(0, len(examples.labels), (training.rows,), generator=generator)
        batch = examples.choose(places)
        return torch.nn.functional.cross_entropy(logits(model, batch), batch.labels)

    train_model(model, loss, training)
    after = accuracy(model, held_out)
    save_adapter(model, folder, BASE_NAME)
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.set_scale("default", 0)
    return {"before": accuracy(model, held_out), "after": after}
