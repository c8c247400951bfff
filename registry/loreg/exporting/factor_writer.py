"""The numbers of an exported adapter, written one module at a time, and how far each delta moved by that.

NumPy alone: what is only scaled is the same to the bit on every machine.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from loreg.adapters.header import BITS, Tensor
from loreg.adapters.module_shape import ModuleShape, as_matrices
from loreg.baking.dtypes import NUMPY_DTYPES, Array, Scratch, decode, encode
from loreg.errors import CheckFailedError
from loreg.exporting.editable import EditableModule
from loreg.exporting.export import Plan, factor_shapes
from loreg.exporting.stacked import Block

_PIECE = 1 << 24  # bytes that are copied in one go
_DOUBLE = np.dtype(np.float64)
_BITS_OF: dict[int, np.dtype[Any]] = {8: np.dtype("u1"), 16: np.dtype("<u2"), 32: np.dtype("<u4"), 64: np.dtype("<u8")}


@dataclass(frozen=True)
class Factors:
    """``b (E, out, r)`` and ``a (E, r, in)``: stored numbers, or float64."""

    b: Array
    a: Array


def write_weights(path: Path, plan: Plan, source: Path) -> dict[str, Any]:
    """Write the planned safetensors file from the weights ``source``; returns the certificate.

    The certificate has ``epsilon``, the relative Frobenius error ``‖Δ' − Δ‖ / ‖Δ‖`` of all deltas together, and the
    same with both ranks for each of the ``modules`` whose delta moved. Raises CheckFailedError for numbers that cannot
    be computed with.
    """
    squares: dict[str, float] = {}
    with source.open("rb", buffering=0) as stream, path.open("wb") as sink:
        sink.write(plan.header)
        made: tuple[EditableModule | None, tuple[Array, ...]] = (None, ())
        for output in plan.outputs:
            if output.copy is not None and output.dtype == output.copy.dtype:
                _copy(stream, output.copy, sink)
            elif output.copy is not None:
                sink.write(_rounded(_wide(_bits(stream, output.copy), output.copy.dtype), output.dtype).tobytes())
            elif output.module is not None:
                if made[0] is not output.module:
                    stored = _stored(stream, output.module)
                    squares |= _squared_error(stream, plan, output.module, stored)
                    made = output.module, as_file_tensors(output.module.shape, stored)
                sink.write(made[1][output.part].tobytes())
        for module in plan.editable.modules.values():
            if module.copied:
                squares |= _squared_error(stream, plan, module, None)
        return _certificate(stream, plan, squares)


def as_file_tensors(form: ModuleShape, factors: Factors) -> tuple[Array, Array]:
    """A and B as they lie in a file."""
    shape_a, shape_b = factor_shapes(form)
    b = factors.b.transpose(1, 2, 0) if form.kind == "experts" else factors.b
    return factors.a.reshape(shape_a), b.reshape(shape_b)


def _copy(stream: BinaryIO, tensor: Tensor, sink: BinaryIO) -> None:
    for start in range(tensor.start, tensor.end, _PIECE):
        sink.write(os.pread(stream.fileno(), min(_PIECE, tensor.end - start), start))


def _stored(stream: BinaryIO, module: EditableModule) -> Factors:
    """The factors as they are to be stored."""
    dtype_a, dtype_b = module.dtypes
    if module.computed:
        made = _in_double(stream, module)
        if module.truncated_to:
            made = _truncated(made, module.truncated_to, module.origin)
        b, a = _rounded(made.b * module.times, dtype_b), _rounded(made.a, dtype_a)
    elif module.blocks:
        joined = _side_by_side(module, [_matrices(stream, block) for block in module.blocks])
        b, a = joined.b, joined.a
    else:
        one = module.shape
        b = np.zeros((one.matrices, one.out, 0), _kind_of(dtype_b))
        a = np.zeros((one.matrices, 0, one.in_), _kind_of(dtype_a))
    more = module.shape.rank - a.shape[1]
    return Factors(np.pad(b, ((0, 0), (0, 0), (0, more))), np.pad(a, ((0, 0), (0, more), (0, 0))))


def _in_double(stream: BinaryIO, module: EditableModule) -> Factors:
    """The factors as they were read, in float64."""
    found = []
    for block in module.blocks:
        stored = _matrices(stream, block)
        found.append(Factors(_wide(stored.b, block.b.dtype) * block.times, _wide(stored.a, block.a.dtype)))
    return _side_by_side(module, found)


def _side_by_side(module: EditableModule, found: list[Factors]) -> Factors:
    """The factors of all blocks as those of one matrix: B has each in its own columns and rows, A below each other."""
    if len(found) == 1 and found[0].b.shape[1] == module.shape.out:
        return found[0]
    b = np.zeros((module.shape.matrices, module.shape.out, module.rank_in), found[0].b.dtype)
    column = 0
    for block, factors in zip(module.blocks, found, strict=True):
        _, rows, rank = factors.b.shape
        b[:, block.row : block.row + rows, column : column + rank] = factors.b
        column += rank
    return Factors(b, np.concatenate([factors.a for factors in found], axis=1))


def _matrices(stream: BinaryIO, block: Block) -> Factors:
    a, b = (_bits(stream, tensor).reshape(tensor.shape) for tensor in (block.a, block.b))
    return Factors(*as_matrices(block.shape, a, b))


def _bits(stream: BinaryIO, tensor: Tensor) -> Array:
    """The numbers as they are stored, each a whole number without a sign."""
    found = np.empty(tensor.parameters, _kind_of(tensor.dtype))
    view, done = found.view(np.uint8).data, 0
    while done < len(view) and (count := os.preadv(stream.fileno(), [view[done:]], tensor.start + done)):
        done += count
    return found


def _kind_of(dtype: str) -> np.dtype[Any]:
    if BITS[dtype] not in _BITS_OF:
        raise CheckFailedError(f"it cannot be exported: its factors are stored as {dtype}", hint="save it as bfloat16")
    return _BITS_OF[BITS[dtype]]


def _wide(bits: Array, dtype: str) -> Array:
    """Stored numbers as float64, exactly."""
    if dtype in NUMPY_DTYPES:
        return decode(bits.reshape(-1).view(NUMPY_DTYPES[dtype]), dtype, _DOUBLE, Scratch()).reshape(bits.shape)
    if dtype == "F8_E5M2":  # the upper half of a float16
        return (bits.astype("<u2") << 8).view("<f2").astype(_DOUBLE)
    if dtype == "F8_E4M3":
        return _OF_E4M3[bits]
    raise CheckFailedError(f"it cannot be exported: its factors are stored as {dtype}", hint="save it as bfloat16")


def _e4m3() -> Array:
    """Every number in 8 bits with 4 of exponent (OCP 8-bit floating point, 5.2)."""
    bits = np.arange(256)
    exponent, mantissa = bits >> 3 & 15, bits & 7
    size = np.where(exponent == 0, mantissa / 8 * 2.0**-6, (1 + mantissa / 8) * 2.0 ** (exponent - 7.0))
    size[(bits & 127) == 127] = np.nan
    return np.where(bits & 128, -size, size)


_OF_E4M3 = _e4m3()


def _rounded(wide: Array, dtype: str) -> Array:
    """float64 as it is stored, rounded once."""
    if dtype not in NUMPY_DTYPES:
        raise CheckFailedError(
            f"it cannot be exported: what has to be computed cannot be stored as {dtype}", hint="--dtype bfloat16"
        )
    stored = encode(np.ascontiguousarray(wide).reshape(-1), dtype, Scratch())
    return stored.view(_kind_of(dtype)).reshape(wide.shape)


def _truncated(factors: Factors, rank: int, name: str) -> Factors:
    """The best approximation of that rank, by QR of both factors and an SVD of the core between them."""
    try:
        q_b, r_b = np.linalg.qr(factors.b)
        q_a, r_a = np.linalg.qr(factors.a.transpose(0, 2, 1))
        u, s, vh = np.linalg.svd(r_b @ r_a.transpose(0, 2, 1), full_matrices=False)
    except np.linalg.LinAlgError:
        raise CheckFailedError(
            f"{name} cannot be cut down: its factors are no numbers", hint="train it again"
        ) from None
    root = np.sqrt(s[:, :rank])
    b = (q_b @ u)[:, :, :rank] * root[:, None, :]
    a = (vh @ q_a.transpose(0, 2, 1))[:, :rank] * root[:, :, None]
    return Factors(b, a)


def _squared_error(stream: BinaryIO, plan: Plan, module: EditableModule, stored: Factors | None) -> dict[str, float]:
    """``‖Δ' − Δ‖²`` of the module by its name in the adapter that was read; nothing where it is 0."""
    old = plan.before.modules.get(module.origin)
    if old is None or (not module.computed and module.scale == old.scale):
        return {}
    stored = stored or _stored(stream, module)
    dtype_a, dtype_b = module.dtypes
    now = Factors(_wide(stored.b, dtype_b) * module.scale, _wide(stored.a, dtype_a))
    error = _squared_distance(_delta(stream, old), now)
    return {module.origin: error} if error else {}


def _certificate(stream: BinaryIO, plan: Plan, errors: Mapping[str, float]) -> dict[str, Any]:
    if not errors:
        return {"epsilon": 0.0, "modules": []}
    before = plan.before.modules
    kept = {name: module for name, module in plan.editable.modules.items() if module.origin}
    norms = {name: _squared_norm(_delta(stream, before[module.origin])) for name, module in kept.items()}
    moved = []
    for name, module in kept.items():
        if module.origin in errors:
            epsilon = math.sqrt(errors[module.origin] / norms[name]) if norms[name] else 0.0
            ranks = {"rank_in": before[module.origin].shape.rank, "rank": module.shape.rank}
            moved.append({"module": name, **ranks, "epsilon": epsilon})
    whole = sum(norms.values())
    return {"epsilon": math.sqrt(sum(errors.values()) / whole) if whole else 0.0, "modules": moved}


def _delta(stream: BinaryIO, module: EditableModule) -> Factors:
    """The factors as they were read, with their scale, in float64."""
    found = _in_double(stream, module)
    return Factors(found.b * module.scale, found.a)


def _squared_norm(x: Factors) -> float:
    """``‖B A‖²`` of all matrices together: ``Σ (BᵀB) ∘ (A Aᵀ)``."""
    return max(0.0, float(((x.b.transpose(0, 2, 1) @ x.b) * (x.a @ x.a.transpose(0, 2, 1))).sum()))


def _squared_distance(one: Factors, other: Factors) -> float:
    """``‖Δ' − Δ‖²`` without subtracting two large norms."""
    most = max(one.a.shape[1], other.a.shape[1])
    one, other = _padded(one, most), _padded(other, most)
    if np.array_equal(one.a, other.a):
        return _squared_norm(Factors(other.b - one.b, one.a))
    left = np.linalg.qr(np.concatenate([other.b, -one.b], 2), mode="r")
    right = np.linalg.qr(np.concatenate([other.a, one.a], 1).transpose(0, 2, 1), mode="r")
    return float(np.square(np.asarray(left) @ np.asarray(right).transpose(0, 2, 1)).sum())


def _padded(x: Factors, rank: int) -> Factors:
    more = rank - x.a.shape[1]
    return Factors(np.pad(x.b, ((0, 0), (0, 0), (0, more))), np.pad(x.a, ((0, 0), (0, more), (0, 0))))
