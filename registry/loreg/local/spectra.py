"""Read the spectra of a stored version: its files are read once, and never again."""

from __future__ import annotations

import math

from loreg.entities import AdapterSpectra
from loreg.errors import MergeError
from loreg.local.reduced_versions import Stored, VersionReader, reduce_versions
from loreg.previewing.source_spectra import read_spectra, retained_by_rank


def read_stored_spectra(reader: VersionReader, source: Stored) -> AdapterSpectra:
    """Return the spectra of a version that the caller may read.

    Raises MergeError for one whose delta is not its factors alone, and what :func:`reduce_versions` raises.
    """
    version = source[0]
    try:
        reduced = reduce_versions(reader, [source])
    except MergeError as error:
        raise MergeError(f"no singular values are known: {error.message}", hint=f"loreg show {version.ref}") from error
    modules = read_spectra(reduced.groups)
    norm = math.sqrt(sum(spectrum.norm**2 for spectrum in modules))
    return AdapterSpectra(version.ref, version.digest, norm, retained_by_rank(modules), tuple(modules))
