"""Tiny random models, saved as a folder and read back by transformers: the bases of the zoo."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from zoo.architectures import Architecture
from zoo.inputs import answer, difference, inputs_for
from zoo.sizes import tiny

#: The two ways of tying the head to the embedding that a model is tried with.
TYINGS = ("default", "opposite")


class UnbuildableError(Exception):
    """Say why transformers itself cannot build a model, or not save and load it."""


@dataclass(frozen=True)
class Base:
    """A base as its folder is read: its class, its answer to ``inputs``, what transformers minds in the folder."""

    architecture: Architecture
    tying: str
    model: Any
    folder: Path
    inputs: dict[str, Tensor]
    answer: Tensor
    complaints: frozenset[str]

    @property
    def tied(self) -> bool:
        """Say whether the head is the embedding."""
        return is_tied(self.model)


def seeded(text: str) -> torch.Generator:
    """Return a generator of random numbers that depend on ``text`` alone."""
    return torch.Generator().manual_seed(zlib.crc32(text.encode()))


def is_tied(model: Any) -> bool:
    """Say whether head and embedding of the model are one parameter."""
    head, embedding = head_of(model), embedding_of(model)
    return head is not None and embedding is not None and head.weight is embedding.weight


def embedding_of(model: Any) -> nn.Embedding | None:
    """Return the module that looks tokens up, None where a model has none."""
    try:
        embedding = model.get_input_embeddings()
    except NotImplementedError:  # of pictures and sounds
        return None
    return embedding if isinstance(embedding, nn.Embedding) else None


def head_of(model: Any) -> nn.Linear | None:
    """Return the module that makes logits of tokens, None where a model has none."""
    head = model.get_output_embeddings()
    return head if isinstance(head, nn.Linear) else None


def build(architecture: Architecture, tying: str, folder: Path) -> Base:
    """Make the base of an architecture in ``folder``. Raises UnbuildableError with the reason."""
    model = _new(architecture, None)
    if tying == "opposite":
        default = is_tied(model)
        model = _new(architecture, not default)
        if is_tied(model) == default:
            raise UnbuildableError("tie_word_embeddings changes nothing")
    _fill(model, seeded(architecture.name))
    model.save_pretrained(folder)
    loaded, complaints = load(type(model), folder)
    loaded.name_or_path = loaded.config.name_or_path = (
        f"zoo/{architecture.name}"  # as an adapter of a model on the Hub names it
    )
    inputs = inputs_for(architecture.inputs, loaded.config)
    expected = answer(loaded, inputs)
    if not bool(torch.isfinite(expected).all()):
        raise UnbuildableError("its answers are not finite")
    if (error := difference(answer(model, inputs), expected)) > 1e-6:
        raise UnbuildableError(
            f"transformers' own save and load changes its answers by {error:.1e}: {sorted(complaints)}"
        )
    return Base(architecture, tying, loaded, folder, inputs, expected, complaints)


def load(model_class: type[Any], folder: Path) -> tuple[Any, frozenset[str]]:
    """Read a model with transformers; what its loading report minds: keys missing, unexpected or mismatched."""
    model, report = model_class.from_pretrained(folder, output_loading_info=True)
    complaints = frozenset(
        f"{kind.removesuffix('_keys')} {key[0] if isinstance(key, tuple) else key}"
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
        for key in report.get(kind) or ()
    )
    return model.eval(), complaints


def _new(architecture: Architecture, tie: bool | None) -> Any:
    config = tiny(architecture.model_type, architecture.sizes)
    if tie is not None:
        for part in {
            id(c): c for c in (config, config.get_text_config(), config.get_text_config(decoder=True))
        }.values():
            part.tie_word_embeddings = tie
    torch.manual_seed(5)
    if "For" in architecture.head:
        return getattr(transformers, architecture.head)(config).float().eval()
    auto = getattr(transformers, f"AutoModelFor{architecture.head}" if architecture.head else "AutoModel")
    return auto.from_config(config).float().eval()


@torch.no_grad()
def _fill(model: nn.Module, generator: torch.Generator) -> None:
    """Give every weight a size at which its part of the answer counts, and every bias and norm a number of its own."""
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:  # computed positions, which are not saved
            continue
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim >= 2 and name.rpartition(".")[2] not in ("A_log", "D", "dt_bias"):
            parameter.copy_(noise * 0.7 / (parameter[0].numel() if parameter.ndim != 3 else parameter.shape[-1]) ** 0.5)
        else:
            parameter.add_(0.1 * noise)
