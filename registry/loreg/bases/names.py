"""Bring the names of a base's tensors to one canonical form, whichever release or wrapper wrote them.

Sources: transformers 4.51 to 5.x, ``modeling_utils.py`` and ``conversion_mapping.py``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")

#: The version of the tables below; part of every content digest, because another table gives other names.
VERSION = 1

# The wrapper of a vision-language model around its language model, and the layer that transformers 4.52 put above
# all of its parts; then what torch and TensorFlow called the same tensors.
_ALIASES = (
    (re.compile(r"^(?:model\.)?language_model\.(?:model\.)?(?!lm_head\.)"), "model."),
    (re.compile(r"^(?:model\.)?language_model\.(?=lm_head\.)"), ""),
    (
        re.compile(
            r"^model\.(?=(?:visual|vision_model|vision_tower|vision_embed_tokens|multi_modal_projector|"
            r"mm_projector|image_newline|audio_tower|embed_vision|embed_audio|connector|text_model|qformer|"
            r"query_tokens|language_projection)\b)"
        ),
        "",
    ),
    (re.compile(r"\.block_sparse_moe\."), ".mlp."),
    (re.compile(r"LayerNorm\.gamma$"), "LayerNorm.weight"),
    (re.compile(r"LayerNorm\.beta$"), "LayerNorm.bias"),
    (re.compile(r"\.parametrizations\.weight\.original0$"), ".weight_g"),
    (re.compile(r"\.parametrizations\.weight\.original1$"), ".weight_v"),
)
#: Last parts of the names of token embeddings, and of output heads that may be the same matrix.
EMBEDDINGS = (
    "embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight", "shared.weight",
)  # fmt: skip
HEADS = (
    "lm_head.weight", "embed_out.weight", "cls.predictions.decoder.weight", "lm_head.decoder.weight",
    "encoder.embed_tokens.weight", "decoder.embed_tokens.weight",
)  # fmt: skip


#: What transformers' classes call the model inside one with a head (``base_model_prefix``): files may lack it.
_MODEL_PREFIXES = (
    "model", "transformer", "bert", "roberta", "distilbert", "deberta", "electra", "albert", "mpnet", "mobilebert",
    "longformer", "layoutlm", "gpt_neox", "backbone", "esm", "vit",
)  # fmt: skip


def canonical_name(name: str) -> str:
    """Return the canonical name of the tensor that a file calls ``name``.

    >>> canonical_name("model.language_model.layers.0.block_sparse_moe.gate.weight")
    'model.layers.0.mlp.gate.weight'
    """
    for pattern, replacement in _ALIASES:
        name = pattern.sub(replacement, name, count=1)
    return name


def possible_file_names(name: str) -> tuple[str, ...]:
    """Return the names that a file may have for a canonical name, where the rules of a class look at that part."""
    of_mixtral = name.replace(".mlp.", ".block_sparse_moe.", 1)
    return (name, of_mixtral) if of_mixtral != name else (name,)


def has_tensor_named(name: str, tensor_digests: Mapping[str, object]) -> bool:
    """Return whether a base has a tensor of that name, with or without the prefix of a model inside one with a head."""
    name = canonical_name(name)
    first, _, rest = name.partition(".")
    return (
        name in tensor_digests
        or (first in _MODEL_PREFIXES and rest in tensor_digests)
        or any(f"{prefix}.{name}" in tensor_digests for prefix in _MODEL_PREFIXES)
    )


def by_canonical_name(tensors: Mapping[str, T]) -> dict[str, T]:
    """Return the tensors by canonical name; two that would share one keep the names that they have."""
    counts = Counter(map(canonical_name, tensors))
    return {new if counts[new := canonical_name(name)] == 1 else name: tensor for name, tensor in tensors.items()}


def is_head(name: str) -> bool:
    """Return whether ``name`` is that of an output head, which may be tied to the embedding."""
    return _has_ending(name, HEADS)


def is_embedding(name: str) -> bool:
    """Return whether ``name`` is that of a token embedding."""
    return _has_ending(name, EMBEDDINGS) and not _has_ending(name, HEADS)


def find_embedding(names: Iterable[str]) -> str | None:
    """Return the token embedding of a model with these tensors; None if none, or several, look like one."""
    embeddings = [name for name in names if is_embedding(name)]
    return embeddings[0] if len(embeddings) == 1 else None


def find_head(names: Iterable[str]) -> str | None:
    """Return the output head of a model with these tensors; None if it has none of its own."""
    return next((name for name in names if is_head(name)), None)


def _has_ending(name: str, ends: tuple[str, ...]) -> bool:
    return any(name == end or name.endswith(f".{end}") for end in ends)
