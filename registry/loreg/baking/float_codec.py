"""Read and round the numbers of safetensors files in NumPy, without torch: bf16, fp16, fp32 and fp64."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loreg.adapters.dtypes import DTYPES, FLOATS
from loreg.adapters.header import Tensor
from loreg.errors import IntegrityError

Array = NDArray[Any]

#: The NumPy dtype under which the bytes of each floating-point dtype are viewed.
NUMPY_DTYPES: dict[str, np.dtype[Any]] = {name: np.dtype(DTYPES[name].numpy) for name in FLOATS}


def compute_dtype(*dtypes: str) -> np.dtype[Any]:
    """Return float32, or float64 where one of the dtypes is wider than float32."""
    return np.dtype(np.float64 if "F64" in dtypes else np.float32)


class Scratch:
    """The reusable buffers of one thread: fresh memory costs more than the arithmetic on it."""

    def __init__(self) -> None:
        self._buffers: dict[str, Array] = {}

    def get(self, name: str, count: int, dtype: np.dtype[Any] | type) -> Array:
        """Return the buffer ``name`` as an array (count) of uninitialised numbers; the next call may overwrite it."""
        size = count * np.dtype(dtype).itemsize
        if name not in self._buffers or self._buffers[name].nbytes < size:
            self._buffers[name] = np.empty(size, np.uint8)
        return self._buffers[name][:size].view(dtype)


def read_into(descriptor: int, offset: int, into: Array, file: str = "a shard of the base") -> None:
    """Fill ``into`` from ``offset`` of the open file on. Raises IntegrityError, naming ``file``, if it ends before."""
    view = into.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(view):
        count = _read_at(descriptor, offset + done, view[done:])
        if not count:
            raise IntegrityError(f"{file} ended while it was read", hint="try again when it is written")
        done += count


def _read_at(descriptor: int, offset: int, into: memoryview) -> int:
    """Read what one call gives; return how many bytes. Windows has no preadv: there one thread reads a descriptor."""
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [into], offset)
    os.lseek(descriptor, offset, os.SEEK_SET)
    piece = os.read(descriptor, len(into))
    into[: len(piece)] = piece
    return len(piece)


def decode(stored: Array, dtype: str, wide: np.dtype[Any], scratch: Scratch, name: str = "wide") -> Array:
    """Return the stored numbers (n) as float32 or float64 ``wide``, exactly; in the buffer ``name`` of ``scratch``."""
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
    """Return float32 or float64 ``wide`` (n) as it is stored, rounded to nearest even; in a buffer of ``scratch``."""
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
    """Return the bits of float64 rounded to odd float32, so that rounding them once more is as one rounding.

    Boldo & Melquiond 2008, "Emulation of FMA and correctly rounded sums".
    """
    with np.errstate(over="ignore"):
        single = wide.astype(np.float32)
    bits = single.view(np.uint32)
    exact = single.astype(np.float64)
    away = np.abs(exact) > np.abs(wide)
    bits -= away.astype(np.uint32)  # towards zero
    bits |= (exact != wide).astype(np.uint32)
    return bits


def read_tensor(file: Path, tensor: Tensor) -> Array:
    """Read a small tensor whole, in its shape: as float64 if it is stored so, else as float32.

    Raises IntegrityError if the file ends before.
    """
    stored = np.empty(tensor.parameters, NUMPY_DTYPES[tensor.dtype])
    descriptor = os.open(file, os.O_RDONLY)
    try:
        read_into(descriptor, tensor.start, stored)
    finally:
        os.close(descriptor)
    return decode(stored, tensor.dtype, compute_dtype(tensor.dtype), Scratch()).reshape(tensor.shape)


def read_bytes(file: Path, tensor: Tensor) -> bytes:
    """Read a tensor of any dtype as the bytes that it is stored in."""
    with file.open("rb") as stream:
        stream.seek(tensor.start)
        return stream.read(tensor.end - tensor.start)
