"""Verify a baked model: compute its tensors, or a sample of them, again in float64 and compare."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from loreg.adapters.dtypes import DTYPES, FLOATS
from loreg.adapters.header import Tensor, read_header
from loreg.baking.float_codec import NUMPY_DTYPES, Array, Scratch, compute_dtype, decode, read_bytes, read_into
from loreg.baking.plan import Plan
from loreg.baking.shard import OutputTensor, changed_tiles
from loreg.entities import Progress
from loreg.errors import IntegrityError

_BAKE_AGAIN = "remove the folder and bake again"
_SAMPLE_SIZE = 16  # tensors of each kind, changed and copied
_SAMPLE_ELEMENTS = 1 << 20  # elements of one of them that are compared
#: Half the relative distance to the next number: the largest error of rounding once.
_HALF_STEP = {name: 2.0 ** -DTYPES[name].precision for name in FLOATS}
_FLOAT32_ERROR = 2.0**-18  # relative to the largest number of the rows: sums of up to some hundred terms


def verify(folder: Path, plan: Plan) -> int:
    """Compare a sample of the tensors in ``folder`` with the plan; return how many were compared.

    Raises IntegrityError for the first that differs, naming it.
    """
    generator = random.Random(0)  # noqa: S311  the same sample every time
    checked = 0
    for copied in (False, True):
        placed = [(name, output) for name, outputs in plan.shards.items() for output in outputs]
        of_kind = [(name, output) for name, output in placed if output.is_copied == copied]
        for name, output in generator.sample(of_kind, min(_SAMPLE_SIZE, len(of_kind))):
            written = _find_written(folder / name, output)
            matrix = generator.randrange(output.matrices[0])
            count = max(1, min(output.matrices[1], _SAMPLE_ELEMENTS // max(1, output.matrices[2])))
            rows = (generator.randrange(output.matrices[1] - count + 1), count)
            _compare(folder / name, written, output, matrix, rows)
            checked += 1
    return checked


def verify_whole(folder: Path, plan: Plan, progress: Progress) -> None:
    """Compare every number of every tensor in ``folder``. Raises IntegrityError for the first that differs."""
    total = sum(output.size for outputs in plan.shards.values() for output in outputs)
    done = 0
    for name, outputs in plan.shards.items():
        names = [output.name for output in outputs]
        if unexpected := sorted(read_header(folder / name).tensors.keys() - names):
            raise IntegrityError(f"{folder / name}: {unexpected[0]} does not belong there", hint=_BAKE_AGAIN)
        for output in outputs:
            written = _find_written(folder / name, output)
            for matrix in range(output.matrices[0]):
                _compare(folder / name, written, output, matrix, (0, output.matrices[1]))
            done += output.size
            progress("comparing", done, total)


def _find_written(file: Path, output: OutputTensor) -> Tensor:
    written = read_header(file).tensors.get(output.name)
    if written is None or (written.dtype, written.shape) != (output.dtype, output.source.shape):
        raise _wrong_tensor(file, output, "is missing or of another shape")
    return written


def _compare(file: Path, written: Tensor, output: OutputTensor, matrix: int, rows: tuple[int, int]) -> None:
    if not written.parameters:
        return
    if written.dtype not in FLOATS:
        if read_bytes(file, written) != read_bytes(output.file, output.source):
            raise _wrong_tensor(file, output, "has other bytes than in the base")
        return
    for first, expected, actual in _tiles(file, written, output, matrix, rows):
        allowed = np.abs(expected) * _HALF_STEP[output.dtype] * (1 + 2.0**-10)
        if not output.is_copied:
            allowed += np.abs(expected).max() * (
                _FLOAT32_ERROR if compute_dtype(output.dtype).itemsize == 4 else 2.0**-40
            )
        wrong = ~(np.abs(actual - expected) <= allowed) & ~(np.isnan(expected) & np.isnan(actual))
        if output.is_copied:
            wrong = (actual != expected) & ~(np.isnan(expected) & np.isnan(actual))
        if wrong.any():
            row = first + int(np.argwhere(wrong)[0][0])
            raise _wrong_tensor(file, output, f"has a number in row {row} that is not what it should be")


def _tiles(
    file: Path, written: Tensor, output: OutputTensor, matrix: int, rows: tuple[int, int]
) -> Iterator[tuple[int, Array, Array]]:
    """Yield the first row, and a tile as it should be and as it was written, in float64."""
    _, height, width = output.matrices
    dtype, wide = NUMPY_DTYPES[written.dtype], np.dtype(np.float64)
    scratch, scratch_written = Scratch(), Scratch()
    source, result = os.open(output.file, os.O_RDONLY), os.open(file, os.O_RDONLY)
    try:
        for first, expected in changed_tiles(output, source, matrix, rows, scratch, wide):
            stored = scratch_written.get("read", expected.size, dtype)
            read_into(result, written.start + (matrix * height + first) * width * dtype.itemsize, stored)
            yield first, expected, decode(stored, written.dtype, wide, scratch_written).reshape(expected.shape)
    finally:
        os.close(source)
        os.close(result)


def _wrong_tensor(file: Path, output: OutputTensor, what: str) -> IntegrityError:
    return IntegrityError(f"{file}: {output.name} {what}", hint=_BAKE_AGAIN)
