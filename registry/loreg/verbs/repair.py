"""repair: bring back what verify names, from any place that has the bytes; a lost manifest is made from the catalog."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from loreg.entities import Damage, Progress, ReferenceKind, Repair, RepairReport, UpkeepAction, no_progress
from loreg.errors import UsageError
from loreg.manifest import Manifest
from loreg.refs import parse_ref
from loreg.settings import Settings
from loreg.storage import Blob, BlobStore, SigningStore, foreign_store_error, open_store
from loreg.verbs.verify import Counts, First, Selection, find_damages, store_of
from loreg.workspace.blob_sources import BlobSource, TransferSource, TreeSource
from loreg.workspace.context import Context
from loreg.workspace.copies import find_odd_copies
from loreg.workspace.server_token import find_token

_CATALOG = "the catalog"
_ITS_BLOBS = "the version's blobs, when a server asks for it"


def repair(
    context: Context,
    sources: Sequence[BlobSource],
    selection: Selection,
    *,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> RepairReport:
    """Bring back every selected blob that is broken, from the first of ``sources`` that has it; report what is left.

    Every blob is hashed before it is stored and on the way into the store. With ``dry_run`` nothing is stored, but
    everything is looked for. A second call repairs what a first, interrupted one did not. Raises ConflictError for a
    store that is marked as another registry's.
    """
    store = store_of(context)
    registry_id, owner = context.backend.upkeep().registry_id(), store.owner()
    if owner not in ("", registry_id):
        raise foreign_store_error(store, owner, registry_id)
    repaired: First[Repair] = First()
    broken: First[Damage] = First()
    with tempfile.TemporaryDirectory(prefix="loreg-repair-") as folder:
        path = Path(folder) / "blob"
        for damage in find_damages(context, selection, Counts(), progress):
            blob = None if damage.size is None else Blob(damage.sha256, damage.size)
            source = _find(context, sources, damage, blob, path) if blob is not None else ""
            if blob is not None and source and (dry_run or _store(store, blob, path)):
                repaired.add(Repair(damage, source))
            else:
                broken.add(damage)
            path.unlink(missing_ok=True)
    for damage in _remove_wrong_copies(context, store, dry_run=dry_run) if selection.is_everything else ():
        repaired.add(Repair(damage, _ITS_BLOBS))
    if repaired.count and not dry_run:
        detail = {"repaired": repaired.count, "broken": broken.count, "from": [source.name for source in sources]}
        context.backend.upkeep().log(UpkeepAction.REPAIR, detail)
    return RepairReport(tuple(repaired.items), repaired.count, tuple(broken.items), broken.count, dry_run)


def open_source(text: str, settings: Settings, token_env: str = "") -> BlobSource:
    """Open the folder, store or server that the text names. Raises UsageError, NotFoundError for no such folder.

    A server is asked with the token that is for it, see :func:`loreg.workspace.server_token.find_token`.
    """
    scheme = urlsplit(text).scheme
    if scheme in ("http", "https"):
        from loreg.remote.http import Server
        from loreg.remote.store import RemoteStore

        token = find_token(text, settings, token_env)
        return TransferSource(RemoteStore(Server(text.rstrip("/"), token, settings.author)))
    if scheme == "s3":
        return TransferSource(open_store(text, settings.storage_endpoint))
    if "://" in text and scheme != "file":
        raise UsageError(
            f"{text!r} is no place to repair from: expected a folder, s3://bucket/prefix or a server's URL",
            hint="loreg repair --help",
        )
    return TreeSource(Path(text.removeprefix("file://")).expanduser())


def _remove_wrong_copies(context: Context, store: BlobStore, *, dry_run: bool) -> Iterator[Damage]:
    """Yield the copies for servers that are not their version's files; they are removed, and so made again."""
    for odd in find_odd_copies(context, store):
        if odd.damage is not None:
            if isinstance(store, SigningStore) and not dry_run:
                store.remove_copy(odd.name)
            yield odd.damage


def _find(context: Context, sources: Sequence[BlobSource], damage: Damage, blob: Blob, path: Path) -> str:
    """Write the right bytes to ``path`` and return where they came from; empty if nobody has them."""
    if any(owner.kind is ReferenceKind.MANIFEST for owner in damage.owners) and _rebuild(context, damage, path):
        return _CATALOG
    return next((source.name for source in sources if source.copy(blob, path)), "")


def _rebuild(context: Context, damage: Damage, path: Path) -> bool:
    """Write the manifest as the catalog's list of files makes it; False if that has not the version's digest."""
    version = context.backend.with_content(damage.sha256)
    if version is None:
        return False
    files = context.backend.show(parse_ref(f"{version.adapter}:v{version.number}")).files
    manifest = Manifest(files)
    if manifest.digest != damage.sha256:
        return False
    path.write_bytes(manifest.to_bytes())
    return True


def _store(store: BlobStore, blob: Blob, path: Path) -> bool:
    """Put the file in the place of what is damaged, and return whether the store has it now."""
    if not store.put(blob, path) and store.hash_stored(blob.sha256) != blob:
        # The store's own checksum says that the damaged object is sound: what is sound is not replaced.
        store.delete(blob.sha256)
        store.put(blob, path)
    return store.hash_stored(blob.sha256) == blob
