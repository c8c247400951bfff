"""Find numbers that are not finite, and tensors that are all zero: every number is read once, without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loreg.adapters.dtypes import DTYPES
from loreg.adapters.header import Tensor

_CHUNK = 4 * 1024 * 1024  # elements looked at together, which bounds the memory


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
        dtype = DTYPES[tensor.dtype]
        if not dtype.exponent or tensor.parameters == 0:
            continue
        bits = np.memmap(weights, dtype=dtype.unsigned, mode="r", offset=tensor.start, shape=(tensor.parameters,))
        unsigned = bits.dtype.type
        exponent = unsigned(dtype.exponent)
        magnitude = unsigned(2 ** (dtype.bits - 1) - 1)  # all bits but the sign: minus zero is zero
        nonfinite, largest = 0, 0
        for begin in range(0, bits.size, _CHUNK):
            chunk = bits[begin : begin + _CHUNK]
            nonfinite += int(np.count_nonzero((chunk & exponent) == exponent))
            largest = max(largest, int(np.max(chunk & magnitude)))  # magnitudes sort as their bits do
        yield name, NumberScan(nonfinite, _to_float(largest, tensor.dtype))


def _to_float(bits: int, dtype: str) -> float:
    """Return the number with these bits, whose sign is not set."""
    if dtype == "BF16":
        return float(np.uint32(bits << 16).view(np.float32))
    if DTYPES[dtype].numpy:
        return float(np.array(bits, DTYPES[dtype].unsigned).view(DTYPES[dtype].numpy))
    return float(bits)  # 8-bit floats: only whether it is zero matters
