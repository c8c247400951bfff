"""Find numbers that are not finite, and tensors that are all zero: every number is read once, without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loreg.adapters.header import Tensor

_CHUNK = 4 * 1024 * 1024  # elements looked at together, which bounds the memory
#: The unsigned type of an element's bits, and those of its exponent: all of them set means infinite or NaN (IEEE 754).
_EXPONENT_BITS: dict[str, tuple[type[np.unsignedinteger[Any]], int]] = {
    "F64": (np.uint64, 0x7FF0_0000_0000_0000),
    "F32": (np.uint32, 0x7F80_0000),
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
    "F8_E5M2": (np.uint8, 0x7C),
    "F8_E4M3": (np.uint8, 0x7F),  # has no infinity: NaN alone is all ones (OCP 8-bit floating point, §5.2)
}
#: The unsigned type of an element's bits, and the floating-point type that they are viewed as.
_FLOAT_TYPE: dict[str, tuple[type[np.unsignedinteger[Any]], type[np.floating[Any]]]] = {
    "F64": (np.uint64, np.float64),
    "F32": (np.uint32, np.float32),
    "F16": (np.uint16, np.float16),
}


@dataclass(frozen=True)
class NumberScan:
    """What was found in one tensor: ``nonfinite`` infinities and NaNs; ``largest`` is the largest magnitude.

    Of 8-bit floats ``largest`` is only the bits of it: zero if and only if the tensor is.
    """

    nonfinite: int
    largest: float

    @property
    def zero(self) -> bool:
        """Whether every number is zero."""
        return self.largest == 0


def scan_numbers(weights: Path, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, NumberScan]]:
    """Read every number of each floating-point tensor of the file ``weights``, and yield its name and what was found.

    Tensors of other dtypes, which are always finite, and empty ones are left out.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in _EXPONENT_BITS or tensor.parameters == 0:
            continue
        unsigned, exponent = _EXPONENT_BITS[tensor.dtype]
        bits = np.memmap(
            weights,
            dtype=np.dtype(unsigned).newbyteorder("<"),
            mode="r",
            offset=tensor.start,
            shape=(tensor.parameters,),
        )
        magnitude = unsigned(np.iinfo(unsigned).max >> 1)  # all bits but the sign: minus zero is zero
        nonfinite, largest = 0, 0
        for begin in range(0, bits.size, _CHUNK):
            chunk = bits[begin : begin + _CHUNK]
            nonfinite += int(np.count_nonzero((chunk & unsigned(exponent)) == exponent))
            largest = max(largest, int(np.max(chunk & magnitude)))  # magnitudes sort as their bits do
        yield name, NumberScan(nonfinite, _to_float(largest, tensor.dtype))


def _to_float(bits: int, dtype: str) -> float:
    """Return the number with these bits, whose sign is not set."""
    if dtype == "BF16":
        return float(np.uint32(bits << 16).view(np.float32))
    if dtype in _FLOAT_TYPE:
        unsigned, floating = _FLOAT_TYPE[dtype]
        return float(unsigned(bits).view(floating))
    return float(bits)  # 8-bit floats: only whether it is zero matters
