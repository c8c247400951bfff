"""Bring the blobs of mirrored versions, several at once, and the bases that they were trained on."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from loreg.entities import BaseDetails, BaseModel, Commit, Committed, MirrorConflict
from loreg.errors import (
    ConflictError,
    IntegrityError,
    NotAllowedError,
    NotFoundError,
    explain_os_errors,
)
from loreg.manifest import is_digest
from loreg.storage import Blob, UploadReserver
from loreg.storage.blobs import SMALL
from loreg.storage.collected import attempts_to_commit
from loreg.workspace.context import Context
from loreg.workspace.mirror_source import MirrorSource

_AT_ONCE = 4


class BlobSender:
    """Sends blobs of a source to the store of a registry; ``count`` and ``size`` are what it sent."""

    def __init__(self, source: MirrorSource, target: Context) -> None:
        self.source = source
        self.target = target
        self.count = 0
        self.size = 0

    def commit(self, commit: Commit, blobs: Sequence[Blob], *, send_first: bool) -> Committed:
        """Commit a version; its blobs are sent before if ``send_first``, else only if the target has lost them."""
        is_lacking = send_first
        for attempt in attempts_to_commit():
            with attempt:
                if is_lacking:
                    self.send([*blobs, *self._list_of(commit.base)], commit.manifest.digest)
                is_lacking = True
                committed = self.target.backend.commit(commit)
        return committed

    def send(self, blobs: Sequence[Blob], *others: str) -> None:
        """Store the blobs that the target lacks; ``others`` are digests that will be stored beside them."""
        store = self.target.store
        self.target.backend.lease([*(blob.sha256 for blob in blobs), *others])
        with (
            ThreadPoolExecutor(_AT_ONCE) as pool,
            tempfile.TemporaryDirectory(prefix="loreg-mirror-") as name,
            explain_os_errors("the temporary folder", "set TMPDIR to a folder with space that you may write"),
        ):
            folder = Path(name)
            unique = list(dict.fromkeys(blobs))
            missing = [blob for blob, has in zip(unique, pool.map(store.has, unique), strict=True) if not has]
            if isinstance(store, UploadReserver):
                store.reserve_uploads(missing)
            small = [blob for blob in missing if blob.size <= SMALL]
            list(pool.map(lambda blob: self.source.copy(blob, folder / blob.sha256), small))
            for blob in small:  # a server gets these with the commit, as far as there is room
                store.put(blob, folder / blob.sha256)
            list(pool.map(lambda blob: self._transfer(blob, folder), [blob for blob in missing if blob not in small]))
        self.count += len(missing)
        self.size += sum(blob.size for blob in missing)

    def _transfer(self, blob: Blob, folder: Path) -> None:
        path = folder / blob.sha256
        self.source.copy(blob, path)
        self.target.store.put(blob, path)
        path.unlink(missing_ok=True)

    def _list_of(self, base: BaseModel | None) -> list[Blob]:
        """Return the list of a base's tensors, where the source has it."""
        size = self.source.size(base.digest) if base is not None else None
        return [Blob(base.digest, size)] if base is not None and size is not None else []


def mirror_base(
    source: MirrorSource,
    sender: BlobSender,
    base: BaseModel,
    seen: set[str],
    conflicts: list[MirrorConflict],
    notes: dict[str, None],
) -> None:
    """Bring a base, its names, and the bases that it came from, as far as the target lacks them."""
    if base.digest in seen:
        return
    seen.add(base.digest)
    if not is_digest(base.digest):
        raise IntegrityError(f"{base.digest[:70]!r} is no sha256", hint="loreg verify there")
    try:
        details = source.base(base)
    except NotAllowedError:
        details = BaseDetails(base, (), 0)
        notes[f"what {base.title} came from cannot be read in {source.name}"] = None
    known = _find_base(sender.target, base.digest)
    if known is None or not set(details.base.names) <= set(known.base.names):
        size = source.size(base.digest)
        for attempt in attempts_to_commit():
            with attempt:
                if known is None and size is not None:
                    sender.send([Blob(base.digest, size)])
                added = sender.target.backend.add_base(details.base)
        notes |= dict.fromkeys(added.notes)
    edges = {(edge.parent, edge.kind, repr(sorted(edge.detail.items()))) for edge in known.edges} if known else set()
    for edge in details.edges:
        if edge.child != base.digest or (edge.parent, edge.kind, repr(sorted(edge.detail.items()))) in edges:
            continue
        mirror_base(source, sender, BaseModel(edge.parent), seen, conflicts, notes)
        try:
            sender.target.backend.relate(edge.child, edge.parent, edge.kind, edge.detail)
        except (ConflictError, NotFoundError) as error:
            conflicts.append(MirrorConflict(base.title, error.message))


def _find_base(context: Context, digest: str) -> BaseDetails | None:
    try:
        return context.backend.base(digest)
    except NotFoundError:
        return None
