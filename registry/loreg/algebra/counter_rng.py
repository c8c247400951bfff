"""Random masks that are a function of a key and a position: the same on every device, in every order of tiles.

A 32-bit integer hash over row, column and key: Wellons' "lowbias32", two rounds of xor-shift and multiply
(https://nullprogram.com/blog/2018/07/31/). It is for masks, not for cryptography.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

_MULTIPLIER_1, _MULTIPLIER_2 = 0x7FEB352D, 0x846CA68B


def derive_key(*words: object) -> int:
    """Return a 64-bit key from the texts of ``words``: digests, names, seeds."""
    return int.from_bytes(hashlib.sha256("\0".join(map(str, words)).encode()).digest()[:8], "little")


def bernoulli_mask(probability: float | Tensor, key: int, first_row: int, first_column: int, like: Tensor) -> Tensor:
    """Return a boolean mask of the shape of ``like (rows, columns)``, its entries True with ``probability``.

    ``like`` is the block of a matrix that begins at (first_row, first_column). ``probability`` is one number for all
    entries, or a tensor that broadcasts to the shape of ``like``.

    >>> matrix, key = torch.zeros(6, 5), derive_key("seed", 42)
    >>> whole, block = bernoulli_mask(0.5, key, 0, 0, matrix), bernoulli_mask(0.5, key, 2, 1, matrix[2:4, 1:3])
    >>> torch.equal(whole[2:4, 1:3], block)
    True
    """
    (rows, columns), device = like.shape, like.device
    low, high = _to_int32(key & 0xFFFFFFFF), _to_int32(key >> 32)
    row_hash = _lowbias32(torch.arange(first_row, first_row + rows, dtype=torch.int32, device=device) ^ low)
    column_hash = _lowbias32(
        torch.arange(first_column, first_column + columns, dtype=torch.int32, device=device) ^ high
    )
    bits = _lowbias32(row_hash.unsqueeze(-1) ^ column_hash)
    # bits + 2³¹ is uniform on [0, 2³²): True where (bits + 2³¹) / 2³² < probability.
    if isinstance(probability, Tensor):
        return bits.double() < probability.double() * 2.0**32 - 2.0**31
    threshold = round(probability * 2**32) - 2**31
    return bits <= threshold - 1 if threshold > -(2**31) else torch.zeros_like(bits, dtype=torch.bool)


def _lowbias32(x: Tensor) -> Tensor:
    # torch shifts signed integers arithmetically: the masks clear the copies of the sign bit.
    x = x ^ ((x >> 16) & 0xFFFF)
    x = x * _to_int32(_MULTIPLIER_1)
    x ^= (x >> 15) & 0x1FFFF
    x *= _to_int32(_MULTIPLIER_2)
    x ^= (x >> 16) & 0xFFFF
    return x


def _to_int32(word: int) -> int:
    """Return the signed 32-bit integer with the bits of the unsigned ``word``."""
    return word - 2**32 if word >= 2**31 else word
