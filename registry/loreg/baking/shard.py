"""Write one safetensors file of a baked model: unchanged tensors are copied as bytes, others computed by tiles."""

from __future__ import annotations

import errno
import json
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from loreg.adapters.dtypes import DTYPES
from loreg.adapters.header import Tensor
from loreg.baking.float_codec import NUMPY_DTYPES, Array, Scratch, compute_dtype, decode, encode, read_into
from loreg.baking.low_rank_update import LowRankTerm, LowRankUpdate
from loreg.baking.token_rows import TokenRowUpdate
from loreg.errors import MergeError

_TILE_ELEMENTS = 1 << 19  # elements that are changed at once: with their delta near what a core's own cache holds
_JOB_ELEMENTS = 1 << 24  # elements of one matrix that are one job of a thread
_COPY_BYTES = 1 << 26  # bytes that are one job of a thread
_MAX_HALF = 65504.0
#: Errors of copy_file_range across file systems, or where the file system or the kernel does not offer it.
_NO_COPY_FILE_RANGE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)

#: The terms of one matrix of a tensor, by its number; made when they are needed, so that they are not all in memory.
Terms = Callable[[int], Sequence[LowRankTerm]]


def no_terms(matrix: int) -> Sequence[LowRankTerm]:
    """Return no terms: nothing is added."""
    return ()


@dataclass(frozen=True)
class OutputTensor:
    """One tensor of the result, made of the tensor ``source`` in ``file``.

    To its ``matrices`` (number, rows, columns) ``terms`` are added, then ``token_rows`` replace some rows; it is stored
    as ``dtype``. Without changes and in its own dtype it is copied byte by byte. ``needs_whole_matrix`` says that a
    matrix must be read as a whole before any row of it can be changed.
    """

    name: str
    file: Path
    source: Tensor
    dtype: str
    matrices: tuple[int, int, int] = (1, 1, 1)
    terms: Terms = field(default=no_terms, compare=False)
    needs_whole_matrix: bool = False
    token_rows: tuple[TokenRowUpdate, ...] = field(default=(), compare=False)

    @property
    def size(self) -> int:
        """Bytes in the result."""
        return self.source.parameters * DTYPES[self.dtype].bits // 8

    @property
    def is_copied(self) -> bool:
        """Whether its bytes are those of the source."""
        return self.terms is no_terms and not self.token_rows and self.dtype == self.source.dtype


def write_shard(path: Path, outputs: Sequence[OutputTensor], threads: int, on_bytes: Callable[[int], None]) -> None:
    """Write the tensors, in this order, to the new file ``path``.

    Raises MergeError for a result that does not fit into its dtype, OSError where the disk is full.
    """
    from threadpoolctl import threadpool_limits

    header, offsets = _build_header(outputs)
    with path.open("wb") as stream:
        stream.write(header)
        stream.flush()
        out = stream.fileno()
        os.ftruncate(out, len(header) + sum(output.size for output in outputs))
        jobs = [*_copy_jobs(outputs, offsets, len(header)), *_change_jobs(outputs, offsets, len(header))]
        # Each thread multiplies small matrices of its own: BLAS with threads besides would only wait for itself.
        with threadpool_limits(1, "blas"):
            _run_all([lambda scratch, job=job: job(out, scratch, on_bytes) for job in jobs], threads)  # type: ignore[misc]


def _build_header(outputs: Sequence[OutputTensor]) -> tuple[bytes, list[int]]:
    document: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offsets, position = [], 0
    for output in outputs:
        end = position + output.size
        entry = {"dtype": output.dtype, "shape": list(output.source.shape), "data_offsets": [position, end]}
        document[output.name] = entry
        offsets.append(position)
        position = end
    raw = json.dumps(document, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw, offsets


Job = Callable[[int, Scratch, Callable[[int], None]], None]


def _copy_jobs(outputs: Sequence[OutputTensor], offsets: Sequence[int], begin: int) -> Iterator[Job]:
    """Yield the copies of the runs of bytes that are contiguous in both files."""
    runs: list[tuple[Path, int, int, int]] = []
    for output, offset in zip(outputs, offsets, strict=True):
        if not output.is_copied or not output.size:
            continue
        run = (output.file, output.source.start, output.source.end, begin + offset)
        if runs and runs[-1][:1] + runs[-1][2:3] == run[:2] and runs[-1][3] - runs[-1][1] == run[3] - run[1]:
            run = (run[0], runs[-1][1], run[2], runs.pop()[3])
        runs.append(run)
    for file, start, end, to in runs:
        for at in range(start, end, _COPY_BYTES):
            yield _copy_job(file, at, min(_COPY_BYTES, end - at), to + at - start)


def _copy_job(file: Path, start: int, size: int, to: int) -> Job:
    def job(out: int, scratch: Scratch, on_bytes: Callable[[int], None]) -> None:
        source = os.open(file, os.O_RDONLY)
        try:
            done = 0
            while done < size:
                try:
                    count = os.copy_file_range(source, out, size - done, start + done, to + done)
                except (AttributeError, OSError) as error:  # only Linux has the call
                    if isinstance(error, OSError) and error.errno not in _NO_COPY_FILE_RANGE:
                        raise
                    piece = scratch.get("copied", min(size - done, 1 << 20), np.uint8)
                    read_into(source, start + done, piece)
                    count = write_all(out, piece, to + done)
                if not count:
                    raise MergeError(f"{file} ended while it was copied", hint="try again when it is written")
                done += count
        finally:
            os.close(source)
        on_bytes(size)

    return job


def _change_jobs(outputs: Sequence[OutputTensor], offsets: Sequence[int], begin: int) -> Iterator[Job]:
    """Yield the jobs that compute the tensors which change, each some rows of one matrix."""
    for output, offset in zip(outputs, offsets, strict=True):
        if output.is_copied:
            continue
        count, height, width = output.matrices
        step = max(1, height if output.needs_whole_matrix else _JOB_ELEMENTS // max(1, width))
        for matrix in range(count):
            for first in range(0, height, step):
                rows = (first, min(step, height - first))
                yield _change_job(output, begin + offset, matrix, rows)


def _change_job(output: OutputTensor, to: int, matrix: int, rows: tuple[int, int]) -> Job:
    def job(out: int, scratch: Scratch, on_bytes: Callable[[int], None]) -> None:
        source = os.open(output.file, os.O_RDONLY)
        try:
            for first, tile in changed_tiles(output, source, matrix, rows, scratch):
                row = matrix * output.matrices[1] + first
                stored = encode(tile.reshape(-1), output.dtype, scratch)
                write_all(
                    out, stored.view(np.uint8), to + row * output.matrices[2] * NUMPY_DTYPES[output.dtype].itemsize
                )
                on_bytes(stored.nbytes)
        finally:
            os.close(source)

    return job


def changed_tiles(
    output: OutputTensor,
    source: int,
    matrix: int,
    rows: tuple[int, int],
    scratch: Scratch,
    wide: np.dtype[Any] | None = None,
) -> Iterator[tuple[int, Array]]:
    """Yield the ``rows`` (first, count) of one matrix, changed, before rounding: the first row and a tile (n, columns).

    Raises MergeError for what does not fit into the dtype of the result.
    """
    _, height, width = output.matrices
    wide = wide or compute_dtype(output.source.dtype, output.dtype)
    stored = NUMPY_DTYPES[output.source.dtype]
    step = max(1, _TILE_ELEMENTS // max(1, width))
    begin = output.source.start + matrix * height * width * stored.itemsize

    def read(first: int, count: int) -> Array:
        buffer = scratch.get("read", count * width, stored)
        read_into(source, begin + first * width * stored.itemsize, buffer)
        return decode(buffer, output.source.dtype, wide, scratch).reshape(count, width)

    with np.errstate(over="ignore", invalid="ignore"):  # what does not fit is refused below
        update = LowRankUpdate(output.terms(matrix), wide)
        if update.needs_norms:
            update.measure_norms(read, height, step)
    for first in range(rows[0], rows[0] + rows[1], step):
        tile = read(first, min(step, rows[0] + rows[1] - first))
        with np.errstate(over="ignore", invalid="ignore"):
            update.apply(tile, first, scratch)
        for token_rows in output.token_rows:
            token_rows.apply(tile, first)
        _refuse_overflow(output, tile)
        yield first, tile


def _refuse_overflow(output: OutputTensor, tile: Array) -> None:
    # A sum of squares is finite where every number is, unless some are huge: then each is looked at.
    numbers = tile.reshape(-1)
    if not math.isfinite(np.dot(numbers, numbers)) and not np.isfinite(tile).all():
        problem = "NaN or infinite numbers"
    elif output.dtype == "F16" and max(tile.max(), -tile.min()) >= _MAX_HALF + 16:
        problem = "numbers over 65504, the largest in half precision"
    else:
        return
    raise MergeError(f"the baked tensor {output.name} has {problem}", hint="use smaller weights, or --dtype bfloat16")


def _run_all(jobs: Sequence[Callable[[Scratch], None]], threads: int) -> None:
    """Run every job, in order, on that many threads; the first error stops them."""
    local = threading.local()

    def run(job: Callable[[Scratch], None]) -> None:
        if not hasattr(local, "scratch"):  # fresh memory costs more than what is done in it
            local.scratch = Scratch()
        job(local.scratch)

    with ThreadPoolExecutor(threads) as pool:
        tasks = [pool.submit(run, job) for job in jobs]
        try:
            for task in tasks:
                task.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def write_all(descriptor: int, data: Array, offset: int) -> int:
    """Write all bytes at ``offset``; return how many there were."""
    view = data.data
    done = 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], offset + done)
    return done
