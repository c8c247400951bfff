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


_VIEWED: dict[str, tuple[type[np.unsignedinteger[Any]], type[np.floating[Any]]]] = {
    "F64": (np.uint64, np.float64),
    "F32": (np.uint32, np.float32),
    "F16": (np.uint16, np.float16),
}


@dataclass(frozen=True)
class NumberScan:
    """What the numbers of one tensor are like; ``nonfinite`` counts infinities and NaNs, ``largest`` is a magnitude."""

    nonfinite: int
    largest: float

    @property
    def zero(self) -> bool:
        """Whether every number is zero."""
        return self.largest == 0


def scan_numbers(weights: Path, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, NumberScan]]:
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
        nonfinite, largest = 0, 0
        for begin in range(0, bits.size, _CHUNK):
            chunk = bits[begin : begin + _CHUNK]
            nonfinite += int(np.count_nonzero((chunk & kind(exponent)) == exponent))
            largest = max(largest, int(np.max(chunk & magnitude)))  # magnitudes sort as their bits do
        yield name, NumberScan(nonfinite, _value(largest, tensor.dtype))


def _value(bits: int, dtype: str) -> float:
    """The number that these bits of magnitude are."""
    if dtype == "BF16":
        return float(np.uint32(bits << 16).view(np.float32))
    if dtype in _VIEWED:
        kind, view = _VIEWED[dtype]
        return float(kind(bits).view(view))
    return float(bits)  # 8-bit floats: only whether they are zero is asked for
