"""Write the numbers of an exported adapter, one module at a time, and measure how far each delta moved by that.

NumPy alone: what is only scaled is the same to the bit on every machine.

Shapes: E matrices (experts, else 1), out and in of the module, r the rank.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from loreg.adapters.dtypes import DTYPES, FLOATS
from loreg.adapters.header import Tensor
from loreg.adapters.module_shape import ModuleKind, ModuleShape, as_matrices
from loreg.baking.float_codec import NUMPY_DTYPES, Array, Scratch, decode, encode, read_into
from loreg.errors import CheckFailedError
from loreg.exporting.editable import EditableModule
from loreg.exporting.export import Plan, factor_shapes
from loreg.exporting.stacked import Block

_COPY_BYTES = 1 << 24  # in one go
_FLOAT64 = np.dtype(np.float64)


@dataclass(frozen=True)
class Factors:
    """The factors of one module, ``b (E, out, r)`` and ``a (E, r, in)``: stored numbers, or float64."""

    b: Array
    a: Array


def write_weights(path: Path, plan: Plan, source: Path) -> dict[str, object]:
    """Write the planned safetensors file from the weights ``source``, and return the certificate.

    The certificate has ``epsilon``, the relative Frobenius error ``‖Δ' − Δ‖ / ‖Δ‖`` of all deltas together, and the
    same with both ranks for each of the ``modules`` whose delta moved. Raises CheckFailedError for numbers that cannot
    be computed with.
    """
    squared_errors: dict[str, float] = {}
    with source.open("rb", buffering=0) as stream, path.open("wb") as sink:
        sink.write(plan.header)
        computed: tuple[EditableModule | None, tuple[Array, ...]] = (None, ())  # the module, its A and B in the file
        for output in plan.outputs:
            if output.copied_from is not None and output.dtype == output.copied_from.dtype:
                _copy(stream, output.copied_from, sink)
            elif output.copied_from is not None:
                wide = _decode(_read_bits(stream, output.copied_from), output.copied_from.dtype)
                sink.write(_encode(wide, output.dtype).tobytes())
            elif output.module is not None:
                if computed[0] is not output.module:
                    stored = _make_stored_factors(stream, output.module)
                    squared_errors |= _squared_error(stream, plan, output.module, stored)
                    computed = output.module, _as_file_tensors(output.module.shape, stored)
                sink.write(computed[1][output.factor_index].tobytes())
        for module in plan.after.modules.values():
            if module.is_copied:
                squared_errors |= _squared_error(stream, plan, module, None)
        return _make_certificate(stream, plan, squared_errors)


def _as_file_tensors(shape: ModuleShape, factors: Factors) -> tuple[Array, Array]:
    """Return A and B as they lie in a file: of experts B is (out, r·E)."""
    shape_a, shape_b = factor_shapes(shape)
    b = factors.b.transpose(1, 2, 0) if shape.kind == ModuleKind.EXPERTS else factors.b
    return factors.a.reshape(shape_a), b.reshape(shape_b)


def _copy(stream: BinaryIO, tensor: Tensor, sink: BinaryIO) -> None:
    for start in range(tensor.start, tensor.end, _COPY_BYTES):
        piece = np.empty(min(_COPY_BYTES, tensor.end - start), np.uint8)
        read_into(stream.fileno(), start, piece, stream.name)
        sink.write(piece.data)


def _make_stored_factors(stream: BinaryIO, module: EditableModule) -> Factors:
    """Compute the factors as they are to be stored, in their dtypes."""
    dtype_a, dtype_b = module.dtypes
    if module.is_recomputed:
        wide = _read_wide_factors(stream, module)
        if module.truncated_to:
            wide = _truncate(wide, module.truncated_to, module.origin)
        b, a = _encode(wide.b * module.b_multiplier, dtype_b), _encode(wide.a, dtype_a)
    elif module.blocks:
        joined = _join_blocks(module, [_read_block(stream, block) for block in module.blocks])
        b, a = joined.b, joined.a
    else:
        shape = module.shape
        b = np.zeros((shape.matrices, shape.out, 0), _unsigned_dtype(dtype_b))
        a = np.zeros((shape.matrices, 0, shape.in_), _unsigned_dtype(dtype_a))
    return _pad_rank(Factors(b, a), module.shape.rank)  # zero is zero bits in every dtype


def _read_wide_factors(stream: BinaryIO, module: EditableModule) -> Factors:
    """Read the factors of a module in float64, without its scale."""
    blocks = []
    for block in module.blocks:
        stored = _read_block(stream, block)
        blocks.append(Factors(_decode(stored.b, block.b.dtype) * block.b_multiplier, _decode(stored.a, block.a.dtype)))
    return _join_blocks(module, blocks)


def _join_blocks(module: EditableModule, blocks: list[Factors]) -> Factors:
    """Join the factors of all blocks to those of one matrix: B has each in its own columns and rows, A stacks them."""
    if len(blocks) == 1 and blocks[0].b.shape[1] == module.shape.out:
        return blocks[0]
    b = np.zeros((module.shape.matrices, module.shape.out, module.rank_in), blocks[0].b.dtype)
    column = 0
    for block, factors in zip(module.blocks, blocks, strict=True):
        _, rows, rank = factors.b.shape
        b[:, block.row : block.row + rows, column : column + rank] = factors.b
        column += rank
    return Factors(b, np.concatenate([factors.a for factors in blocks], axis=1))


def _read_block(stream: BinaryIO, block: Block) -> Factors:
    a, b = (_read_bits(stream, tensor).reshape(tensor.shape) for tensor in (block.a, block.b))
    return Factors(*as_matrices(block.shape, a, b))


def _read_bits(stream: BinaryIO, tensor: Tensor) -> Array:
    """Read the numbers (n) as they are stored, each as an unsigned integer."""
    bits = np.empty(tensor.parameters, _unsigned_dtype(tensor.dtype))
    read_into(stream.fileno(), tensor.start, bits, stream.name)
    return bits


def _unsigned_dtype(dtype: str) -> np.dtype[Any]:
    if not DTYPES[dtype].unsigned:
        raise CheckFailedError(f"it cannot be exported: its factors are stored as {dtype}", hint="save it as bfloat16")
    return np.dtype(DTYPES[dtype].unsigned)


def _decode(bits: Array, dtype: str) -> Array:
    """Convert stored numbers to float64, exactly."""
    if dtype in FLOATS:
        return decode(bits.reshape(-1).view(NUMPY_DTYPES[dtype]), dtype, _FLOAT64, Scratch()).reshape(bits.shape)
    if dtype == "F8_E5M2":  # the upper half of a float16
        return (bits.astype("<u2") << 8).view("<f2").astype(_FLOAT64)
    if dtype == "F8_E4M3":
        return _E4M3_VALUES[bits]
    raise CheckFailedError(f"it cannot be exported: its factors are stored as {dtype}", hint="save it as bfloat16")


def _make_e4m3_table() -> Array:
    """Return every number in 8 bits with 4 of exponent (OCP 8-bit floating point, 5.2)."""
    bits = np.arange(256)
    exponent, mantissa = bits >> 3 & 15, bits & 7
    magnitude = np.where(exponent == 0, mantissa / 8 * 2.0**-6, (1 + mantissa / 8) * 2.0 ** (exponent - 7.0))
    magnitude[(bits & 127) == 127] = np.nan
    return np.where(bits & 128, -magnitude, magnitude)


_E4M3_VALUES = _make_e4m3_table()


def _encode(wide: Array, dtype: str) -> Array:
    """Round float64 once to the numbers that are stored."""
    if dtype not in FLOATS:
        raise CheckFailedError(
            f"it cannot be exported: what has to be computed cannot be stored as {dtype}", hint="--dtype bfloat16"
        )
    stored = encode(np.ascontiguousarray(wide).reshape(-1), dtype, Scratch())
    return stored.view(_unsigned_dtype(dtype)).reshape(wide.shape)


def _truncate(factors: Factors, rank: int, name: str) -> Factors:
    """Return the best approximation of that rank (Eckart & Young 1936)."""
    try:
        # QR of both factors: B A = Q_B (R_B R_Aᵀ) Q_Aᵀ
        q_b, r_b = np.linalg.qr(factors.b)
        q_a, r_a = np.linalg.qr(factors.a.transpose(0, 2, 1))
        # SVD of the core between them
        u, s, vh = np.linalg.svd(r_b @ r_a.transpose(0, 2, 1), full_matrices=False)
    except np.linalg.LinAlgError as error:
        raise CheckFailedError(
            f"{name} cannot be cut down: its factors are no numbers", hint="train it again"
        ) from error
    # the largest singular values, half of each in either factor
    root = np.sqrt(s[:, :rank])
    b = (q_b @ u)[:, :, :rank] * root[:, None, :]
    a = (vh @ q_a.transpose(0, 2, 1))[:, :rank] * root[:, :, None]
    return Factors(b, a)


def _squared_error(stream: BinaryIO, plan: Plan, module: EditableModule, stored: Factors | None) -> dict[str, float]:
    """Return ``‖Δ' − Δ‖²`` of the module by its name in the adapter that was read; nothing where it is 0."""
    before = plan.before.modules.get(module.origin)
    if before is None or (not module.is_recomputed and module.scale == before.scale):
        return {}
    stored = stored or _make_stored_factors(stream, module)
    dtype_a, dtype_b = module.dtypes
    delta = Factors(_decode(stored.b, dtype_b) * module.scale, _decode(stored.a, dtype_a))
    error = _squared_distance(_read_delta(stream, before), delta)
    return {module.origin: error} if error else {}


def _make_certificate(stream: BinaryIO, plan: Plan, squared_errors: Mapping[str, float]) -> dict[str, object]:
    if not squared_errors:
        return {"epsilon": 0.0, "modules": []}
    before = plan.before.modules
    existing = {name: module for name, module in plan.after.modules.items() if module.origin}
    squared_norms = {
        name: _squared_norm(_read_delta(stream, before[module.origin])) for name, module in existing.items()
    }
    moved = []
    for name, module in existing.items():
        if module.origin in squared_errors:
            norm = squared_norms[name]
            epsilon = math.sqrt(squared_errors[module.origin] / norm) if norm else 0.0
            ranks = {"rank_in": before[module.origin].shape.rank, "rank": module.shape.rank}
            moved.append({"module": name, **ranks, "epsilon": epsilon})
    total = sum(squared_norms.values())
    return {"epsilon": math.sqrt(sum(squared_errors.values()) / total) if total else 0.0, "modules": moved}


def _read_delta(stream: BinaryIO, module: EditableModule) -> Factors:
    """Read the factors of a module in float64, B with its scale."""
    wide = _read_wide_factors(stream, module)
    return Factors(wide.b * module.scale, wide.a)


def _squared_norm(x: Factors) -> float:
    """Return ``‖B A‖²`` of all matrices together: ``Σ (BᵀB) ∘ (A Aᵀ)``."""
    return max(0.0, float(((x.b.transpose(0, 2, 1) @ x.b) * (x.a @ x.a.transpose(0, 2, 1))).sum()))


def _squared_distance(before: Factors, after: Factors) -> float:
    """Return ``‖Δ' − Δ‖²`` without subtracting two large norms."""
    rank = max(before.a.shape[1], after.a.shape[1])
    before, after = _pad_rank(before, rank), _pad_rank(after, rank)
    if np.array_equal(before.a, after.a):
        return _squared_norm(Factors(after.b - before.b, before.a))
    # Δ' − Δ = [B' −B] [A'; A]: by QR of both its norm is that of the product of the two triangles
    r_b = np.linalg.qr(np.concatenate([after.b, -before.b], 2), mode="r")
    r_a = np.linalg.qr(np.concatenate([after.a, before.a], 1).transpose(0, 2, 1), mode="r")
    return float(np.square(np.asarray(r_b) @ np.asarray(r_a).transpose(0, 2, 1)).sum())


def _pad_rank(factors: Factors, rank: int) -> Factors:
    more = rank - factors.a.shape[1]
    return Factors(np.pad(factors.b, ((0, 0), (0, 0), (0, more))), np.pad(factors.a, ((0, 0), (0, more), (0, 0))))
