"""Random numbers that are a function of a key and a position: the same on every device, in every order of tiles.

A 32-bit integer hash (two rounds of multiply and xor-shift, constants of Wellons' "lowbias32") over row, column and
key. It is for masks, not for cryptography.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

_FIRST, _SECOND = 0x7FEB352D, 0x846CA68B


def derive_key(*words: object) -> int:
    """A 64-bit key from anything that has a text: digests, names, seeds."""
    return int.from_bytes(hashlib.sha256("\0".join(map(str, words)).encode()).digest()[:8], "little")


def bernoulli_mask(probability: float | Tensor, key: int, first_row: int, first_column: int, like: Tensor) -> Tensor:
    """A mask of the shape of ``like (rows, columns)`` whose entries are True with ``probability``, one or each its own.

    ``like`` is the block of a matrix that begins at (first_row, first_column).
    """
    (rows, columns), device = like.shape, like.device
    low, high = _signed(key & 0xFFFFFFFF), _signed(key >> 32)
    row = _mix(torch.arange(first_row, first_row + rows, dtype=torch.int32, device=device) ^ low)
    column = _mix(torch.arange(first_column, first_column + columns, dtype=torch.int32, device=device) ^ high)
    bits = _mix(row.unsqueeze(-1) ^ column)
    if isinstance(probability, Tensor):
        return bits.double() < probability.double() * 2.0**32 - 2.0**31
    threshold = round(probability * 2**32) - 2**31
    return bits <= threshold - 1 if threshold > -(2**31) else torch.zeros_like(bits, dtype=torch.bool)


def _mix(x: Tensor) -> Tensor:
    x = x ^ ((x >> 16) & 0xFFFF)
    x = x * _signed(_FIRST)
    x ^= (x >> 15) & 0x1FFFF
    x *= _signed(_SECOND)
    x ^= (x >> 16) & 0xFFFF
    return x


def _signed(word: int) -> int:
    """The 32-bit integer with these bits."""
    return word - 2**32 if word >= 2**31 else word
