"""Numbers of safetensors files in NumPy: bf16 and its kin to float32 and back, rounded once, without torch."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loreg.adapters.header import Tensor
from loreg.errors import IntegrityError

Array = NDArray[Any]

#: How each dtype lies in a file, and in which one it is computed.
NUMPY_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2"),
}  # fmt: skip
FLOATS = tuple(NUMPY_DTYPES)


def compute_dtype(*dtypes: str) -> np.dtype[Any]:
    """float32, or float64 where one of the dtypes is wider than float32."""
    return np.dtype(np.float64 if "F64" in dtypes else np.float32)


class Scratch:
    """The buffers of one thread, made once: fresh memory costs more than the arithmetic on it."""

    def __init__(self) -> None:
        self._buffers: dict[str, Array] = {}

    def get(self, name: str, count: int, dtype: np.dtype[Any] | type) -> Array:
        """An array (count) that stays the same from call to call; what was in it is lost."""
        size = count * np.dtype(dtype).itemsize
        if name not in self._buffers or self._buffers[name].nbytes < size:
            self._buffers[name] = np.empty(size, np.uint8)
        return self._buffers[name][:size].view(dtype)


def read_into(descriptor: int, offset: int, into: Array) -> None:
    """Fill ``into`` from the open file. Raises IntegrityError if the file ends before."""
    view = into.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(view):
        count = os.preadv(descriptor, [view[done:]], offset + done)
        if not count:
            raise IntegrityError("a shard of the base ended while it was read", hint="try again when it is written")
        done += count


def decode(stored: Array, dtype: str, wide: np.dtype[Any], scratch: Scratch, name: str = "wide") -> Array:
    """Stored numbers (n) as ``wide``, exactly; in a buffer of ``scratch``."""
    into = scratch.get(name, stored.size, wide)
    if dtype != "BF16":
        np.copyto(into, stored)
        return into
    single = into if wide.itemsize == 4 else scratch.get("single", stored.size, np.float32)
    bits = single.view(np.uint32)
    np.copyto(bits, stored)
    np.left_shift(bits, 16, out=bits)
    if single is not into:
        np.copyto(into, single)
    return into


def encode(wide: Array, dtype: str, scratch: Scratch) -> Array:
    """``wide`` (n) as it is stored, rounded to the nearest, ties to even; in a buffer of ``scratch``."""
    into = scratch.get("stored", wide.size, NUMPY_DTYPES[dtype])
    if dtype != "BF16":
        with np.errstate(over="ignore"):
            np.copyto(into, wide, casting="unsafe")
        return into
    bits = wide.view(np.uint32) if wide.itemsize == 4 else _round_to_odd(wide)
    # Half of the last place that stays, and one more where that place is odd: the carry rounds.
    rounded = scratch.get("rounded", wide.size, np.uint32)
    np.right_shift(bits, 16, out=rounded)
    np.bitwise_and(rounded, 1, out=rounded)
    np.add(rounded, 0x7FFF, out=rounded)
    np.add(rounded, bits, out=rounded)
    np.right_shift(rounded, 16, out=rounded)
    np.copyto(into, rounded, casting="unsafe")
    return into


def _round_to_odd(wide: Array) -> Array:
    """float64 to float32 bits so that rounding these once more rounds as if there had been one step.

    Rounding to odd: Boldo & Melquiond 2008, "Emulation of FMA and correctly rounded sums".
    """
    with np.errstate(over="ignore"):
        single = wide.astype(np.float32)
    bits = single.view(np.uint32)
    exact = single.astype(np.float64)
    away = np.abs(exact) > np.abs(wide)
    bits -= away.astype(np.uint32)  # towards zero
    bits |= (exact != wide).astype(np.uint32)
    return bits


def read_tensor(descriptor: int, tensor: Tensor, wide: np.dtype[Any]) -> Array:
    """A whole small tensor, in its shape."""
    scratch = Scratch()
    stored = np.empty(tensor.parameters, NUMPY_DTYPES[tensor.dtype])
    read_into(descriptor, tensor.start, stored)
    return decode(stored, tensor.dtype, wide, scratch).reshape(tensor.shape)
