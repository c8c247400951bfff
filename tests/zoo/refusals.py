"""Refusals that are right, each with its reason: what else PEFT can train and reload, loreg has to take."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass


@dataclass(frozen=True)
class Refusal:
    """In ``stage``, of one of the ``options``, a message that contains ``words`` is right, for the ``reason``."""

    stage: str
    options: tuple[str, ...]
    words: str
    reason: str


REFUSALS = (
    Refusal(
        "export",
        ("tie-mts-*",),
        "ensure_weight_tying",
        "without that field PEFT wants the bias of the head, which it does not save with it",
    ),
    Refusal("bake", ("*",), "is shared between layers", "whether every layer that shares it changes, no factors say"),
    Refusal("bake", ("*",), "ties layers of this model too", "one flag ties the head and layers of this model"),
    Refusal("bake", ("*",), "changes what this model computes", "the forward pass reads the flag that ties the head"),
    Refusal("bake", ("conv-grouped",), "a convolution in", "factors of a convolution in groups are no matrices"),
    Refusal(
        "bake", ("dora*",), "some rows of another tensor", "its norm is of the weight, which is a part of a fused one"
    ),
    Refusal("extract", ("*",), "transformers converts it (Chunk", "a fused tensor of the files is several modules"),
    Refusal(
        "extract", ("grown*",), "changed as a whole, and by that name", "PEFT knows the head by ends of names alone"
    ),
    Refusal("merge", ("dora*",), "has a DoRA magnitude on a convolution", "its norm runs over other axes: bake it"),
    Refusal("merge", ("conv-grouped",), "a convolution in", "factors of a convolution in groups are no matrices"),
    Refusal("export", ("conv-grouped",), "a convolution in", "factors of a convolution in groups are no matrices"),
    Refusal(
        "bake",
        ("grown*",),
        "final_logits_bias is",
        "transformers pads a buffer for the new tokens, and no adapter has it",
    ),
    Refusal(
        "bake",
        ("grown-half", "grown-saved"),
        "coder.",
        "the embeddings of encoder and decoder are no copy of the resized one here, and the adapter does not have them",
    ),
)


def reason_for(stage: str, option: str, message: str) -> str:
    """Return why the refusal is right, empty where nobody has said so."""
    fitting = (r for r in REFUSALS if r.stage == stage and any(fnmatch.fnmatch(option, p) for p in r.options))
    return next((refusal.reason for refusal in fitting if refusal.words in message), "")
