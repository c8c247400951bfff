"""One name for each tensor of a base, whichever release or wrapper wrote it.

Sources: transformers 4.51 to 5.x, ``modeling_utils.py`` and ``conversion_mapping.py``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")

#: Of the tables below; part of every content digest, because another table gives other names.
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
_INSIDE = (
    "model", "transformer", "bert", "roberta", "distilbert", "deberta", "electra", "albert", "mpnet", "mobilebert",
    "longformer", "layoutlm", "gpt_neox", "backbone", "esm", "vit",
)  # fmt: skip


def canonical_name(name: str) -> str:
    """The one name of the tensor that a file calls ``name``."""
    for pattern, replacement in _ALIASES:
        name = pattern.sub(replacement, name, count=1)
    return name


def file_names_of(name: str) -> tuple[str, ...]:
    """What a file may have called the tensor of this canonical name, where the rules of its class look at that."""
    other = name.replace(".mlp.", ".block_sparse_moe.", 1)
    return (name, other) if other != name else (name,)


def has_tensor_named(name: str, tensor_digests: Mapping[str, object]) -> bool:
    """Whether a base has a tensor of that name, with or without what transformers puts before it for a head."""
    name = canonical_name(name)
    first, _, rest = name.partition(".")
    return (
        name in tensor_digests
        or (first in _INSIDE and rest in tensor_digests)
        or any(f"{p}.{name}" in tensor_digests for p in _INSIDE)
    )


def by_canonical_name(tensors: Mapping[str, T]) -> dict[str, T]:
    """The same under canonical names. Two tensors that would share one keep the names that they have."""
    counted = Counter(map(canonical_name, tensors))
    return {new if counted[new := canonical_name(name)] == 1 else name: tensor for name, tensor in tensors.items()}


def is_head(name: str) -> bool:
    """Whether ``name`` is that of an output head, which may be tied to the embedding."""
    return _ends(name, HEADS)


def is_embedding(name: str) -> bool:
    """Whether ``name`` is that of a token embedding."""
    return _ends(name, EMBEDDINGS) and not _ends(name, HEADS)


def embedding_among(names: Iterable[str]) -> str | None:
    """The token embedding of a model with these tensors; None if none, or several, look like one."""
    found = [name for name in names if is_embedding(name)]
    return found[0] if len(found) == 1 else None


def head_among(names: Iterable[str]) -> str | None:
    """The output head of a model with these tensors, if it has one of its own."""
    return next((name for name in names if is_head(name)), None)


def _ends(name: str, ends: tuple[str, ...]) -> bool:
    return any(name == end or name.endswith(f".{end}") for end in ends)
