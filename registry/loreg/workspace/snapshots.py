"""Backups: a store of blobs, and beside them a small document for each snapshot, written last. See docs/format.md."""

from __future__ import annotations

import gzip
import hashlib
import re
import shlex
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from loreg.canonical_json import canonical_json
from loreg.entities import CatalogSnapshot, Snapshot
from loreg.errors import ConflictError, IntegrityError, NotFoundError, UsageError
from loreg.storage import Blob, DocumentStore, digest_of, open_store
from loreg.strict_json import parse_finite

FORMAT = "loreg.snapshot/1"
_FOLDER = "snapshots"
_OWNER = "backup-"  # before the id of the registry, in the mark of a backup: no registry has such an id
_NAME = re.compile(r"\d{8}T\d{6}\.\d{6}Z-([0-9a-f]{12})")


@dataclass(frozen=True)
class StoredSnapshot:
    """A snapshot, and the two blobs of the backup that it is made of: the catalog's rows, and the list of its blobs."""

    snapshot: Snapshot
    catalog: Blob
    blobs: Blob


def open_backup(text: str, endpoint: str) -> DocumentStore:
    """Open the folder or ``s3://bucket/prefix``; nothing is contacted yet. Raises UsageError for another place."""
    store = open_store(text, endpoint)
    if not isinstance(store, DocumentStore):
        raise UsageError(f"{store.url} can hold no backup", hint="a backup goes to a folder, or to s3://bucket/prefix")
    return store


def claim_backup(backup: DocumentStore, registry_id: str) -> None:
    """Mark the place as a backup of that registry. Raises ConflictError if it is anything else's, or has blobs."""
    owner = backup.owner()
    if not owner and next(iter(backup.list()), None) is not None:
        raise ConflictError(
            f"{backup.url} has blobs already, and is no backup", hint="choose a new folder, or a new prefix"
        )
    if not owner:
        backup.create()
        owner = backup.claim(_OWNER + registry_id)
    if owner != _OWNER + registry_id:
        kind = "a backup of another registry" if owner.startswith(_OWNER) else "the store of a registry"
        raise ConflictError(
            f"{backup.url} is {kind}, {owner.removeprefix(_OWNER)[:8]}; this one is {registry_id[:8]}",
            hint="choose a new folder, or a new prefix",
        )


def require_backup(backup: DocumentStore, registry_id: str) -> None:
    """Raise NotFoundError if the place is no backup, ConflictError if it is one of another registry."""
    owner = backup.owner()
    if not owner.startswith(_OWNER):
        raise NotFoundError(f"{backup.url} is no backup", hint="loreg backup --help")
    if owner != _OWNER + registry_id:
        raise ConflictError(
            f"{backup.url} is a backup of another registry, {owner.removeprefix(_OWNER)[:8]}; this one is "
            f"{registry_id[:8]}",
            hint="only that registry forgets its snapshots",
        )


def write_snapshot(backup: DocumentStore, taken: CatalogSnapshot, catalog: Path, blobs: Path, missing: int) -> Snapshot:
    """Store the two files and then the document that names them: the backup has the snapshot from then on.

    It is dated behind every other, also when the database's clock was set back.
    """
    catalog_blob, blobs_blob = digest_of(catalog), digest_of(blobs)
    backup.put(catalog_blob, catalog)
    backup.put(blobs_blob, blobs)
    at = taken.at.astimezone(UTC)
    if names := _names(backup):
        at = max(at, taken_at(names[-1]) + timedelta(microseconds=1))
    document = {
        "schema": FORMAT,
        "registry": taken.registry_id,
        "revision": taken.revision,
        "at": f"{at.replace(tzinfo=None).isoformat(timespec='microseconds')}Z",
        "rows": dict(taken.rows),
        "catalog": {"sha256": catalog_blob.sha256, "size": catalog_blob.size},
        "blobs": {
            "sha256": blobs_blob.sha256,
            "size": blobs_blob.size,
            "count": taken.blobs,
            "bytes": taken.size,
            "missing": missing,
        },
    }
    content = canonical_json(document)
    name = f"{at.strftime('%Y%m%dT%H%M%S.%fZ')}-{hashlib.sha256(content).hexdigest()[:12]}"
    backup.write_document(_document(name), content)
    return _read(name, document).snapshot


def list_snapshots(backup: DocumentStore) -> list[StoredSnapshot]:
    """Return the snapshots of a backup, the oldest first. Raises NotFoundError if it has none."""
    return [load_snapshot(backup, name) for name in list_names(backup)]


def list_names(backup: DocumentStore) -> list[str]:
    """Return the names of the snapshots of a backup, the oldest first. Raises NotFoundError if it has none."""
    names = _names(backup)
    if not names:
        raise NotFoundError(f"there is no snapshot in {backup.url}", hint="loreg backup --help")
    return names


def refuse_unknown_documents(backup: DocumentStore) -> None:
    """Raise ConflictError for a document that is none of our snapshots: what it refers to is not known."""
    for document in backup.list_documents(_FOLDER):
        name = document.rpartition("/")[2]
        if not _NAME.fullmatch(name.removesuffix(".json")):
            raise ConflictError(
                f"{backup.url} has {document!r}, which this loreg does not know: what it needs may not be removed",
                hint="pip install -U loreg, or move that file away",
            )


def taken_at(name: str) -> datetime:
    """Return when the snapshot of that name was taken, by the clock of the catalog's database."""
    return datetime.strptime(name.partition("-")[0], "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC)


def load_snapshot(backup: DocumentStore, name: str) -> StoredSnapshot:
    """Return the snapshot of that name. Raises IntegrityError for a document that is damaged."""
    content = backup.read_document(_document(name))
    if hashlib.sha256(content).hexdigest()[:12] != name[-12:]:
        raise IntegrityError(
            f"snapshot {name} in {backup.url} is damaged: it has not the digest of its name",
            hint=f"take another one, and let this one go: loreg backup {shlex.quote(backup.url)}, and then the same "
            "with --forget --keep-last 1",
        )
    return _read(name, parse_finite(content))


def delete_snapshot(backup: DocumentStore, name: str) -> None:
    """Remove the document of a snapshot: the backup has it no more. Its blobs stay."""
    backup.delete_document(_document(name))


def find_snapshot(backup: DocumentStore, name: str) -> StoredSnapshot:
    """Return the snapshot whose name begins so, the newest for no name. Raises NotFoundError, UsageError for two."""
    names = [listed for listed in _names(backup) if listed.startswith(name.removesuffix(".json"))]
    if not names:
        what = f"snapshot {name!r}" if name else "snapshot"
        raise NotFoundError(f"there is no {what} in {backup.url}", hint=f"loreg restore {backup.url} --list")
    if name and len(names) > 1:
        raise UsageError(
            f"{len(names)} snapshots begin with {name!r}", hint=f"loreg restore {backup.url} --snapshot {names[-1]}"
        )
    return load_snapshot(backup, names[-1])


def read_blob_list(path: Path) -> Iterator[Blob]:
    """Yield the blobs of a list, in the order of their digests. Raises IntegrityError for a file that is none."""
    try:
        with gzip.open(path, "rt", encoding="ascii") as lines:
            for line in lines:
                sha256, _, size = line.rstrip("\n").partition(" ")
                yield Blob(sha256, int(size))
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise IntegrityError(f"{path.name} is no list of blobs", hint="pip install --upgrade loreg") from error


def _names(backup: DocumentStore) -> list[str]:
    names = (document.rpartition("/")[2].removesuffix(".json") for document in backup.list_documents(_FOLDER))
    return [name for name in names if _NAME.fullmatch(name)]


def _document(name: str) -> str:
    return f"{_FOLDER}/{name}.json"


def _read(name: str, document: object) -> StoredSnapshot:
    """Return what the document says. Raises ConflictError for another format than this loreg reads."""
    if not isinstance(document, dict) or document.get("schema") != FORMAT:
        raise ConflictError(
            f"snapshot {name} is of a format that this loreg does not read", hint="pip install -U loreg"
        )
    try:
        blobs, catalog = document["blobs"], document["catalog"]
        snapshot = Snapshot(
            name,
            document["registry"],
            document["revision"],
            datetime.fromisoformat(document["at"]),
            document["rows"],
            blobs["count"],
            blobs["bytes"],
            blobs["missing"],
        )
        return StoredSnapshot(snapshot, Blob(catalog["sha256"], catalog["size"]), Blob(blobs["sha256"], blobs["size"]))
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"snapshot {name} lacks what {FORMAT} has", hint="take another snapshot") from error
