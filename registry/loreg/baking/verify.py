"""Is a baked model what it should be? Its tensors, or a sample of them, computed again in float64 and compared."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from loreg.adapters.header import Tensor, read_header
from loreg.baking.dtypes import FLOATS, NUMPY_DTYPES, Array, Scratch, compute_dtype, decode, read_into
from loreg.baking.plan import Plan
from loreg.baking.shard import OutputTensor, changed_tiles
from loreg.entities import Progress
from loreg.errors import IntegrityError

_AGAIN = "remove the folder and bake again"
_SAMPLED = 16  # tensors of each sort, changed and copied
_ROWS = 1 << 20  # numbers of one of them that are looked at
#: Half the distance to the next number, relative: what rounding once may be off by.
_HALF_STEP = {"F64": 2.0**-53, "F32": 2.0**-24, "F16": 2.0**-11, "BF16": 2.0**-8}
_ARITHMETIC = 2.0**-18  # of float32, relative to the largest number of the rows: sums of up to some hundred terms


def verify(folder: Path, plan: Plan) -> int:
    """Compare a sample of the tensors in ``folder`` with what the plan says; returns how many.

    Raises IntegrityError for the first that is another, naming it.
    """
    chosen = random.Random(0)  # noqa: S311  the same sample every time
    checked = 0
    for copied in (False, True):
        every = [(name, o) for name, outputs in plan.shards.items() for o in outputs if o.is_copied == copied]
        for name, output in chosen.sample(every, min(_SAMPLED, len(every))):
            found = _written_tensor(folder / name, output)
            matrix = chosen.randrange(output.matrices[0])
            count = max(1, min(output.matrices[1], _ROWS // max(1, output.matrices[2])))
            rows = (chosen.randrange(output.matrices[1] - count + 1), count)
            _compare(folder / name, found, output, matrix, rows)
            checked += 1
    return checked


def verify_whole(folder: Path, plan: Plan, progress: Progress) -> None:
    """Compare every number of every tensor in ``folder``. Raises IntegrityError for the first that is another."""
    total = sum(output.size for outputs in plan.shards.values() for output in outputs)
    done = 0
    for name, outputs in plan.shards.items():
        names = [output.name for output in outputs]
        if strange := sorted(read_header(folder / name).tensors.keys() - names):
            raise IntegrityError(f"{folder / name}: {strange[0]} does not belong there", hint=_AGAIN)
        for output in outputs:
            found = _written_tensor(folder / name, output)
            for matrix in range(output.matrices[0]):
                _compare(folder / name, found, output, matrix, (0, output.matrices[1]))
            done += output.size
            progress("comparing", done, total)


def _written_tensor(file: Path, output: OutputTensor) -> Tensor:
    found = read_header(file).tensors.get(output.name)
    if found is None or (found.dtype, found.shape) != (output.dtype, output.source.shape):
        raise _differs(file, output, "is missing or of another shape")
    return found


def _compare(file: Path, found: Tensor, output: OutputTensor, matrix: int, rows: tuple[int, int]) -> None:
    if not found.parameters:
        return
    if found.dtype not in FLOATS:
        if _bytes(file, found) != _bytes(output.file, output.source):
            raise _differs(file, output, "has other bytes than in the base")
        return
    for first, expected, written in _tiles(file, found, output, matrix, rows):
        allowed = np.abs(expected) * _HALF_STEP[output.dtype] * (1 + 2.0**-10)
        if not output.is_copied:
            allowed += np.abs(expected).max() * (_ARITHMETIC if compute_dtype(output.dtype).itemsize == 4 else 2.0**-40)
        wrong = ~(np.abs(written - expected) <= allowed) & ~(np.isnan(expected) & np.isnan(written))
        if output.is_copied:
            wrong = (written != expected) & ~(np.isnan(expected) & np.isnan(written))
        if wrong.any():
            row = first + int(np.argwhere(wrong)[0][0])
            raise _differs(file, output, f"has a number in row {row} that is not what it should be")


def _tiles(
    file: Path, found: Tensor, output: OutputTensor, matrix: int, rows: tuple[int, int]
) -> Iterator[tuple[int, Array, Array]]:
    """The same rows as they should be and as they were written, in float64."""
    _, height, width = output.matrices
    kind, wide, scratch, other = NUMPY_DTYPES[found.dtype], np.dtype(np.float64), Scratch(), Scratch()
    source, result = os.open(output.file, os.O_RDONLY), os.open(file, os.O_RDONLY)
    try:
        for first, expected in changed_tiles(output, source, matrix, rows, scratch, wide):
            stored = other.get("read", expected.size, kind)
            read_into(result, found.start + (matrix * height + first) * width * kind.itemsize, stored)
            yield first, expected, decode(stored, found.dtype, wide, other).reshape(expected.shape)
    finally:
        os.close(source)
        os.close(result)


def _bytes(file: Path, tensor: Tensor) -> bytes:
    with file.open("rb") as stream:
        stream.seek(tensor.start)
        return stream.read(tensor.end - tensor.start)


def _differs(file: Path, output: OutputTensor, what: str) -> IntegrityError:
    return IntegrityError(f"{file}: {output.name} {what}", hint=_AGAIN)
