"""Preview a merge of stored versions: their files are read once and reduced, and every question after that is fast."""

from __future__ import annotations

import contextlib
import math
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from loreg.adapters.config import CONFIG_NAME
from loreg.adapters.structure import WEIGHTS_NAME, AdapterStructure, read_structure
from loreg.entities import MergePreview, PreviewFigures, Source, Version
from loreg.errors import ConflictError, MergeError, NotAllowedError, UsageError
from loreg.manifest import File
from loreg.merging.certificate import Certificate, aggregate, list_warnings
from loreg.merging.inputs import MergeInput
from loreg.merging.strength import describe_strength
from loreg.previewing.frames_cache import FramesCache
from loreg.previewing.reduced_sources import ReducedSources, reduce_inputs
from loreg.previewing.weighted_sum import judge_sum
from loreg.storage import Blob, BlobTransfer

MAX_SOURCES = 16
_MAX_WEIGHT = 1e6
_MAX_RANK = 1 << 16
_MAX_BYTES = 2 * 1024**3  # of the weights of all sources
_MAX_STEPS = 1 << 38  # multiplications to reduce them: about a minute
_MAX_FRAMES = 256 * 1024**2  # bytes of what they are reduced to
_MAX_WAIT = 5.0  # seconds
#: Held while sources are reduced, by one caller at a time.
_LOCK = threading.Lock()

Stored = tuple[Version, Sequence[File]]


def validate_preview(count: int, weights: Sequence[float], rank: int | None) -> None:
    """Raise UsageError unless ``count`` sources, with one finite weight each, can be previewed at ``rank``."""
    if not 1 <= count <= MAX_SOURCES:
        raise UsageError(f"{count} sources: expected 1 to {MAX_SOURCES}", hint="loreg merge team/a team/b --dry-run")
    if len(weights) != count:
        raise UsageError(
            f"{count} adapters and {len(weights)} weights: expected one weight for each adapter",
            hint=f"--weights {','.join(['1'] * count)}",
        )
    if not all(math.isfinite(weight) and abs(weight) <= _MAX_WEIGHT for weight in weights):
        raise UsageError(
            f"the weights {list(weights)} are not all within ±{_MAX_WEIGHT:g}", hint="use numbers like 0.7"
        )
    if rank is not None and not 1 <= rank <= _MAX_RANK:
        raise UsageError(f"rank {rank} is not possible: expected 1 to {_MAX_RANK}", hint="--rank 16, or leave it out")


def preview_stored_merge(
    store: BlobTransfer, cache: FramesCache, sources: Sequence[Stored], weights: Sequence[float], rank: int | None
) -> MergePreview:
    """Preview ``Σ weights·deltas`` of versions that the caller may read, truncated at ``rank``.

    The request is one that :func:`validate_preview` takes. Raises MergeError for what cannot be merged, NotAllowedError
    for what is too much for a registry, and ConflictError while it reduces other sources.
    """
    reduced = _reduce(store, cache, sources)
    labels = [version.ref for version, _ in sources]
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            judged = judge_sum(reduced.groups, weights, rank)
    except np.linalg.LinAlgError as error:
        raise _too_large() from error
    total = aggregate("", judged.modules).certificate
    if not math.isfinite(total.norm):
        raise _too_large()
    return MergePreview(
        sources=tuple(
            Source(version.ref, version.digest, float(weight))
            for (version, _), weight in zip(sources, weights, strict=True)
        ),
        rank=rank,
        total=_figures(total),
        modules=tuple(_figures(module.certificate) for module in judged.modules),
        errors=judged.errors,
        size=judged.size + reduced.other_bytes,
        exact=judged.exact,
        warnings=tuple(list_warnings(total, labels)),
        notes=tuple(describe_strength(True, 1.0, judged.modules)),
    )


def is_reduced(cache: FramesCache, sources: Sequence[Stored]) -> bool:
    """Return whether a preview of the sources is answered without reading their files."""
    return cache.has(_key(sources))


def _reduce(store: BlobTransfer, cache: FramesCache, sources: Sequence[Stored]) -> ReducedSources:
    key = _key(sources)
    if (reduced := cache.load(key)) is not None:
        return reduced
    with _one_at_a_time(), tempfile.TemporaryDirectory(prefix="loreg-preview-") as folder:
        if (reduced := cache.load(key)) is not None:  # who held the lock has made it
            return reduced
        _refuse_oversized([file for _, files in sources for file in files if file.path == WEIGHTS_NAME])
        structures = [_fetch(store, files, Path(folder, str(i))) for i, (_, files) in enumerate(sources)]
        _refuse_slow(structures)
        inputs = [
            MergeInput(structure, version.ref, version.digest)
            for structure, (version, _) in zip(structures, sources, strict=True)
        ]
        reduced = reduce_inputs(inputs, one_base=_one_base(sources))
        cache.store(key, reduced)
        return reduced


def _key(sources: Sequence[Stored]) -> list[str]:
    return [*(version.digest for version, _ in sources), f"one base: {_one_base(sources)}"]


def _one_base(sources: Sequence[Stored]) -> bool:
    bases = {version.base.digest if version.base else None for version, _ in sources}
    return len(bases) == 1 and None not in bases


def _fetch(store: BlobTransfer, files: Sequence[File], folder: Path) -> AdapterStructure:
    folder.mkdir()
    for file in files:
        if file.path in (CONFIG_NAME, WEIGHTS_NAME):
            store.get(Blob(file.sha256, file.size), folder / file.path)
    return read_structure(folder)


def _refuse_oversized(weights: Sequence[File]) -> None:
    if sum(file.size for file in weights) > _MAX_BYTES:
        raise _too_much()


def _refuse_slow(structures: Sequence[AdapterStructure]) -> None:
    """Raise NotAllowedError for sources of which the decompositions, or what they leave, are too much."""
    ranks: dict[str, int] = {}
    shapes: dict[str, tuple[int, int]] = {}
    for structure in structures:
        for name, module in structure.modules.items():
            if module.shape is not None:
                ranks[name] = ranks.get(name, 0) + module.shape.rank
                shapes[name] = module.shape.out + module.shape.in_, module.shape.matrices
    steps = sum(matrices * (length + 8 * ranks[name]) * ranks[name] ** 2 for name, (length, matrices) in shapes.items())
    frames = sum(16 * matrices * ranks[name] ** 2 for name, (_, matrices) in shapes.items())
    if steps > _MAX_STEPS or frames > _MAX_FRAMES:
        raise _too_much()


def _too_much() -> NotAllowedError:
    return NotAllowedError(
        "these sources are too much for a registry to preview: whoever merges them sees it", hint="loreg merge --help"
    )


def _too_large() -> MergeError:
    return MergeError("the merged delta has numbers that float64 cannot hold", hint="lower the weights")


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    if not _LOCK.acquire(timeout=_MAX_WAIT):
        raise ConflictError("the registry computes the preview of other sources", hint="try again in a minute")
    try:
        yield
    finally:
        _LOCK.release()


def _figures(certificate: Certificate) -> PreviewFigures:
    return PreviewFigures(
        module=certificate.module,
        shape=certificate.shape,
        rank_in=certificate.rank_in,
        rank=certificate.rank,
        norm=certificate.norm,
        epsilon=certificate.epsilon,
        retained_energy=certificate.retained_energy,
        sigma_next=certificate.sigma_next,
        retention=certificate.retention,
        ranks=certificate.ranks,
    )
