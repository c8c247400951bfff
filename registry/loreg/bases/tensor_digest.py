"""The entry of one tensor in a base's list of tensors: its dtype, its shape and, of a complete base, its digest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NotRequired, TypedDict


class TensorDigest(TypedDict):
    """One tensor. ``sha256`` is missing where only headers are known; else ``dtype`` is the narrowest lossless one."""

    dtype: str
    shape: list[int]
    sha256: NotRequired[str]


class TensorList(TypedDict):
    """The document that lists the tensors of a base; ``files`` has the sha256 of shards, where headers are known."""

    schema: str
    names: int
    tensors: Mapping[str, TensorDigest]
    files: NotRequired[Mapping[str, str]]
