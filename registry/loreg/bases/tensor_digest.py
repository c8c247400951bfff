"""The entry of one tensor in a base's list of tensors: its dtype, its shape and, of a complete base, its digest."""

from __future__ import annotations

from typing import NotRequired, TypedDict


class TensorDigest(TypedDict):
    """One tensor. ``sha256`` is missing where only headers are known; else ``dtype`` is the narrowest lossless one."""

    dtype: str
    shape: list[int]
    sha256: NotRequired[str]
