"""Looking at every number once, without torch: is it finite, is there any that is not zero."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loreg.adapters.header import Tensor

_CHUNK = 4 * 1024 * 1024  # elements looked at together, which bounds the memory
#: Unsigned type of an element and the bits of its exponent: all of them set means infinite or NaN (IEEE 754).
_EXPONENT: dict[str, tuple[type[np.unsignedinteger[Any]], int]] = {
    "F64": (np.uint64, 0x7FF0_0000_0000_0000),
    "F32": (np.uint32, 0x7F80_0000),
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
    "F8_E5M2": (np.uint8, 0x7C),
    "F8_E4M3": (np.uint8, 0x7F),  # has no infinity: NaN alone is all ones (OCP 8-bit floating point, §5.2)
}


@dataclass(frozen=True)
class Scan:
    """What the numbers of one tensor are like; ``nonfinite`` counts infinities and NaNs."""

    nonfinite: int
    zero: bool


def scan(weights: Path, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Scan]]:
    """Look at each floating-point tensor of the file ``weights``; other dtypes are always finite."""
    for name, tensor in tensors.items():
        if tensor.dtype not in _EXPONENT or tensor.parameters == 0:
            continue
        kind, exponent = _EXPONENT[tensor.dtype]
        bits = np.memmap(
            weights,
            dtype=np.dtype(kind).newbyteorder("<"),
            mode="r",
            offset=tensor.start,
            shape=(tensor.parameters,),
        )
        magnitude = kind(np.iinfo(kind).max >> 1)  # all bits but the sign: minus zero is zero
        nonfinite, zero = 0, True
        for begin in range(0, bits.size, _CHUNK):
            chunk = bits[begin : begin + _CHUNK]
            nonfinite += int(np.count_nonzero((chunk & kind(exponent)) == exponent))
            zero = zero and not np.any(chunk & magnitude)
        yield name, Scan(nonfinite, zero)
