"""Read what a commit's blobs are: facts, card, base and lineage come from the store, never from the request."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from loreg.adapters.card import CARD_NAME, MAX_CARD_CHARACTERS, decode_card
from loreg.adapters.config import CONFIG_NAME, MAX_CONFIG_BYTES
from loreg.adapters.folder import validate_file_names
from loreg.adapters.header import is_unicode
from loreg.adapters.structure import WEIGHTS_NAME, AdapterStructure, read_remote_structure
from loreg.bases.affected_tensors import affected_digest
from loreg.bases.compatibility import BaseTensors, refuse_mismatch
from loreg.checking.findings import raise_first_error
from loreg.checking.rules import Subject
from loreg.checking.run import check_adapter
from loreg.entities import Commit, NewFacts, NewVersion, Provenance
from loreg.errors import AdapterFormatError, CollectedError, IntegrityError, LoregError, NotFoundError, UsageError
from loreg.local.bases import VerifiedBase, read_verified_base
from loreg.local.facts import check_facts
from loreg.local.sketches import signs_of
from loreg.manifest import File, validate_files
from loreg.merging import provenance
from loreg.parsing import parse_label, parse_word, validate_metric
from loreg.refs import parse_alias
from loreg.storage import AcceptedUpload, Blob, BlobTransfer, put_bytes
from loreg.storage.blobs import SMALL
from loreg.upgrading import move_record

_PARSED_FILES = (CONFIG_NAME, WEIGHTS_NAME, CARD_NAME, provenance.FILE_NAME, move_record.FILE_NAME)

#: The files that are read whole, and how many bytes they may have.
_MAX_BYTES = {
    CONFIG_NAME: MAX_CONFIG_BYTES,
    provenance.FILE_NAME: 16 * 1024 * 1024,
    move_record.FILE_NAME: move_record.MAX_BYTES,
}
_MAX_ENTRIES = 1000  # tasks, labels, metrics or aliases
_MAX_MESSAGE = 64 * 1024  # characters


@dataclass(frozen=True)
class ParsedCommit:
    """A commit as it can be recorded, and its base, if it names one, as its tensor list describes it.

    ``facts`` are what the probes that need no weights say of it, ``signs`` those of the numbers of its sketch.
    """

    new_version: NewVersion
    base: VerifiedBase | None
    notes: tuple[str, ...]
    facts: tuple[NewFacts, ...]
    signs: tuple[int, ...] = ()


def read_commit(store: BlobTransfer, commit: Commit, accepted: Mapping[str, AcceptedUpload]) -> ParsedCommit:
    """Read the stored blobs of a commit, and store its manifest; ``accepted`` are the blobs that were stored just now.

    Raises CollectedError for a blob that is not stored, IntegrityError for one that is damaged or of another size,
    AdapterFormatError or CheckFailedError for an adapter that breaks a rule or does not fit its base.
    """
    # what is asked for, before anything is read
    validate_files(commit.manifest)
    files = {file.path: file for file in commit.manifest.files}
    validate_file_names(files)
    _refuse_oversized(commit)
    signs = signs_of(commit.sketch) if commit.sketch is not None else ()
    # every blob is stored
    blobs = _CommitBlobs(store, accepted)
    for file in commit.manifest.files:
        blobs.require_stored(file)
    # the adapter breaks no rule
    structure = _read_structure(blobs, str(commit.adapter), blobs.read(files[CONFIG_NAME]), files[WEIGHTS_NAME])
    subject = Subject(structure, None, tuple(files))
    findings = check_adapter(subject)
    raise_first_error(str(commit.adapter), findings)
    # it fits its base
    base = read_verified_base(store, commit.base) if commit.base is not None else None
    target_digest = _affected_digest(base, structure) if base is not None else None
    # what it was merged from
    merged_from, notes = _read_provenance(blobs, files)
    # the manifest is stored before the version is recorded
    put_bytes(store, commit.manifest.to_bytes())
    new_version = NewVersion(
        adapter=commit.adapter,
        manifest=commit.manifest,
        facts=structure.facts(commit.base_hint),
        card=_read_card(blobs, files),
        message=commit.message.replace("\x00", ""),
        base=base.base if base is not None else None,
        target=target_digest,
        tasks=tuple(parse_word(task, "task") for task in commit.tasks),
        labels=dict(parse_label(f"{key}={value}") for key, value in commit.labels.items()),
        metrics=tuple(map(validate_metric, commit.metrics)),
        aliases=tuple(map(parse_alias, commit.aliases)),
        provenance=merged_from,
        base_path=structure.base_path(commit.base_hint),
        sketch=commit.sketch,
    )
    return ParsedCommit(new_version, base, notes, (check_facts(subject, findings),), signs)


def _refuse_oversized(commit: Commit) -> None:
    """Raise UsageError for too much metadata, AdapterFormatError for documents that are too large.

    Only the manifest is looked at: nothing has been read yet, or compared with the store.
    """
    for file in commit.manifest.files:
        if file.size > _MAX_BYTES.get(file.path, file.size):
            raise AdapterFormatError(
                f"{file.path} has {file.size:,} bytes, expected {_MAX_BYTES[file.path]:,} at most",
                hint="is this the right file?",
            )
    counts = {name: len(getattr(commit, name)) for name in ("tasks", "labels", "metrics", "aliases")}
    if many := next((name for name, count in counts.items() if count > _MAX_ENTRIES), ""):
        raise UsageError(
            f"{counts[many]:,} {many}, expected {_MAX_ENTRIES:,} at most", hint="push it with fewer of them"
        )
    if len(commit.message) > _MAX_MESSAGE:
        raise UsageError(
            f"the message has {len(commit.message):,} characters, expected {_MAX_MESSAGE:,} at most",
            hint="a README.md beside the weights may be longer",
        )
    if not is_unicode(commit.message + commit.base_hint):
        raise UsageError("the message holds half a character, a lone surrogate", hint="write the message again")


def _not_stored(file: File, size: int | None) -> LoregError:
    expected = f"{file.path} is to be {file.size} bytes with sha256 {file.sha256[:12]}"
    if size is None:  # a garbage collection took it since it was stored, or it was lost: a push sends it again
        return CollectedError(f"{expected}; that blob is not stored", hint="push again")
    state = "is damaged there" if size == file.size else f"has {size} bytes there"
    return IntegrityError(f"{expected}; that blob {state}", hint="push again")


@contextlib.contextmanager
def _explain_loss(file: File) -> Iterator[None]:
    """Raise CollectedError for a blob that was there a moment ago."""
    try:
        yield
    except NotFoundError as error:
        raise _not_stored(file, None) from error


@dataclass(frozen=True)
class _CommitBlobs:
    """The blobs of a commit; what was read to accept a blob, or to see that it is there, is not read again."""

    store: BlobTransfer
    accepted: Mapping[str, AcceptedUpload]
    _contents: dict[str, bytes] = field(default_factory=dict)

    def require_stored(self, file: File) -> None:
        """Raise CollectedError or IntegrityError unless the store, asked now, has the file as the manifest says."""
        accepted = self.accepted.get(file.sha256)
        if accepted is not None:
            if accepted.size != file.size:
                raise _not_stored(file, accepted.size)
        elif file.path in _PARSED_FILES and file.size <= SMALL:
            self._contents[file.sha256] = self._read_stored(file)
        elif not self.store.has(Blob(file.sha256, file.size)):
            raise _not_stored(file, self.store.size(file.sha256))

    def read(self, file: File) -> bytes:
        """Return all bytes of a small file."""
        content = self._cached_content(file)
        if content is not None:
            return content
        with _explain_loss(file):
            return self.store.read(file.sha256, file.size)

    def read_part(self, file: File, start: int, size: int) -> bytes:
        """Return ``size`` bytes of a file from ``start`` on."""
        content = self._cached_content(file)
        if content is not None:
            return content[start : start + size]
        with _explain_loss(file):
            return self.store.read_part(file.sha256, start, size)

    def _read_stored(self, file: File) -> bytes:
        try:
            content = self.store.read(file.sha256, file.size)
        except (NotFoundError, IntegrityError) as error:
            raise _not_stored(file, self.store.size(file.sha256)) from error
        if len(content) != file.size:
            raise _not_stored(file, len(content))
        return content

    def _cached_content(self, file: File) -> bytes | None:
        accepted = self.accepted.get(file.sha256)
        return accepted.content if accepted else self._contents.get(file.sha256)


def _read_structure(blobs: _CommitBlobs, name: str, config: bytes, weights: File) -> AdapterStructure:
    return read_remote_structure(
        Path(name), config, weights.size, lambda start, size: blobs.read_part(weights, start, size)
    )


def _affected_digest(verified: VerifiedBase, structure: AdapterStructure) -> str | None:
    """Return the digest of the base's tensors that the adapter touches; None where only its headers are known."""
    base = BaseTensors(verified.base, verified.tensor_digests)
    refuse_mismatch(structure, base)
    return affected_digest(base.tensor_digests, structure, base.lookup(structure)) if base.base.complete else None


def _read_card(blobs: _CommitBlobs, files: Mapping[str, File]) -> str:
    if CARD_NAME not in files:
        return ""
    return decode_card(blobs.read_part(files[CARD_NAME], 0, 4 * MAX_CARD_CHARACTERS))


def _read_provenance(blobs: _CommitBlobs, files: Mapping[str, File]) -> tuple[Provenance | None, tuple[str, ...]]:
    """Return from where the adapter was moved, or else how it was merged, if its files say so of these weights."""
    weights, notes = files[WEIGHTS_NAME].sha256, list[str]()
    for name, read in ((move_record.FILE_NAME, move_record.read_move_record), (provenance.FILE_NAME, provenance.read)):
        if name in files:
            recorded = read(blobs.read(files[name]), weights)
            if recorded is not None:
                return recorded, tuple(notes)
            notes.append(f"{name} is about other weights than these: no lineage is recorded")
    return None, tuple(notes)
