"""Compare stored versions: their files are read once, and the figures are kept."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import msgspec

from loreg.entities import AdapterComparison, AdapterSimilarity
from loreg.errors import UsageError
from loreg.identity.factors import open_factors
from loreg.identity.likeness import sort_by_likeness
from loreg.local.reduced_versions import Stored, VersionReader, fetch_inputs, name_sources, one_at_a_time
from loreg.merging.compatibility import require_mergeable
from loreg.previewing.computed_files import read_computed
from loreg.previewing.reduced_sources import refuse_magnitudes
from loreg.previewing.similarity import compare_files

MAX_COMPARED = 16
_SCHEMA = "loreg.similarity/1"


def validate_comparison(count: int) -> None:
    """Raise UsageError unless so many versions can be compared."""
    if not 2 <= count <= MAX_COMPARED:
        raise UsageError(f"{count} adapters: expected 2 to {MAX_COMPARED} to compare", hint="loreg compare --help")


def compare_stored(reader: VersionReader, sources: Sequence[Stored]) -> AdapterComparison:
    """Compare versions that the caller may read, as ``loreg compare`` does.

    Raises CheckFailedError for bases that do not fit, MergeError for what cannot be compared, NotAllowedError for what
    is too much for a registry, and ConflictError while it reads others.
    """
    pairs = _load(reader, sources)
    if pairs is None:
        with one_at_a_time():
            pairs = _load(reader, sources) or _compute(reader, sources)
    return sort_by_likeness(pairs)


def is_compared(reader: VersionReader, sources: Sequence[Stored]) -> bool:
    """Return whether the figures of these versions are kept: nothing is read then."""
    return reader.files.has([_SCHEMA, *name_sources(sources)])


def _load(reader: VersionReader, sources: Sequence[Stored]) -> AdapterComparison | None:
    place = reader.files.find([_SCHEMA, *name_sources(sources)])
    payload = read_computed(place[0]) if place else None
    if payload is None:
        return None
    try:
        pairs = msgspec.msgpack.decode(payload, type=tuple[AdapterSimilarity, ...])
    except msgspec.MsgspecError:
        return None
    # The same files may have another name by now.
    labels = [version.ref for version, _ in sources]
    names = [(a, b) for i, a in enumerate(labels) for b in labels[i + 1 :]]
    return AdapterComparison(msgspec.structs.replace(pair, a=a, b=b) for pair, (a, b) in zip(pairs, names, strict=True))


def _compute(reader: VersionReader, sources: Sequence[Stored]) -> AdapterComparison:
    with fetch_inputs(reader, sources, allow_derived=True) as (inputs, _), contextlib.ExitStack() as stack:
        require_mergeable(inputs)
        refuse_magnitudes(inputs)
        files = [stack.enter_context(open_factors(source.structure)) for source in inputs]
        pairs = compare_files(files, [source.label for source in inputs])
    reader.files.write([_SCHEMA, *name_sources(sources)], msgspec.msgpack.encode(tuple(pairs)))
    return pairs
