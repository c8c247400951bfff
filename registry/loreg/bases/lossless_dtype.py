"""Narrow floating-point numbers to bf16, fp32 or fp64 where all of them fit exactly: bit work, without torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[Any]

#: The dtypes that a tensor may be narrowed to, narrowest first. bf16, integers and 8-bit floats stay what they are.
CANDIDATES = {"F64": ("BF16", "F32", "F64"), "F32": ("BF16", "F32"), "F16": ("BF16", "F32")}
#: Every half-precision number in single precision, by its bits (IEEE 754, binary16 and binary32).
_SINGLE_OF_HALF = np.arange(1 << 16, dtype="<u2").view("<f2").astype("<f4").view("<u4")


def to_lossless_dtype(bits: Bits, dtype: str, target: str) -> Bits | None:
    """Return ``bits`` (n) of ``dtype`` as the bits of ``target``; None if one of the numbers does not fit."""
    if dtype == target:
        return bits
    if dtype == "F64":
        with np.errstate(over="ignore", invalid="ignore"):
            single = bits.view("<f8").astype("<f4")
        if not np.array_equal(single.astype("<f8").view("<u8"), bits):
            return None
        bits = single.view("<u4")
    elif dtype == "F16":
        bits = _SINGLE_OF_HALF.take(bits)
    if target == "F32":
        return bits
    if np.bitwise_or.reduce(bits) & 0xFFFF:  # a float32 is a bfloat16 exactly if its lower 16 bits are zero
        return None
    return (bits >> 16).astype("<u2")
