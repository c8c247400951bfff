"""Commits of the Hub: files are added and removed until the adapter is whole; then it becomes a version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from loreg.adapters.config import CONFIG_NAME
from loreg.adapters.layout import WEIGHTS_NAME
from loreg.catalog import drafts
from loreg.errors import NotFoundError
from loreg.manifest import File, Manifest
from loreg.recording.allowed import require
from loreg.recording.ledger import LocalLedger
from loreg.records import Access, Commit
from loreg.refs import AdapterName, Ref
from loreg.storage import Blob


def commit_files(
    ledger: LocalLedger,
    access: Access,
    adapter: AdapterName,
    branch: str,
    added: Mapping[str, Blob],
    removed: Sequence[str],
    message: str,
) -> str:
    """Apply a commit to what the branch has; an empty ``branch`` is the newest version, another name an alias.

    Returns the manifest's digest, which is that of a version if the adapter is whole now. ``removed`` are files, or
    folders with a slash at the end. Raises what committing raises; then the branch stays as it was.
    """
    require(access, "write", adapter.namespace)
    files = {file.path: file for file in _files_of(ledger, access, adapter, branch)}
    for path in removed:
        files = {name: file for name, file in files.items() if name != path and not name.startswith(_folder(path))}
    files |= {path: File(path, blob.sha256, blob.size) for path, blob in added.items()}
    manifest = Manifest(tuple(files[path] for path in sorted(files)))
    if not {CONFIG_NAME, WEIGHTS_NAME} <= files.keys():
        with ledger.catalog.write(access) as tx:
            drafts.put(tx, adapter, branch, manifest.files)
        return manifest.digest
    ledger.commit(Commit(adapter, manifest, message=message, aliases=(branch,) if branch else ()))
    with ledger.catalog.write(access) as tx:
        drafts.remove(tx, adapter, branch)
    return manifest.digest


def open_draft(ledger: LocalLedger, access: Access, adapter: AdapterName, branch: str) -> None:
    """Begin a branch with what is there already, so that it is known before the first commit to it."""
    require(access, "write", adapter.namespace)
    files = _files_of(ledger, access, adapter, branch)
    with ledger.catalog.write(access) as tx:
        drafts.put(tx, adapter, branch, files)


def draft_of(ledger: LocalLedger, access: Access, adapter: AdapterName, branch: str) -> tuple[File, ...] | None:
    """The files of a draft; None if there is none, or who acts may not write there."""
    if not access.may("write", adapter.namespace):
        return None
    with ledger.catalog.read(access) as tx:
        return drafts.find(tx, adapter, branch)


def _files_of(ledger: LocalLedger, access: Access, adapter: AdapterName, branch: str) -> tuple[File, ...]:
    """What a commit to the branch starts from: its draft, else its version, else the newest, else nothing."""
    with ledger.catalog.read(access) as tx:
        draft = drafts.find(tx, adapter, branch)
    if draft is not None:
        return draft
    for ref in (Ref(adapter, alias=branch or None), Ref(adapter)):
        try:
            return ledger.show(ref).files
        except NotFoundError:
            continue
    return ()


def _folder(path: str) -> str:
    """What names below a folder begin with; nothing begins so for a file."""
    return path if path.endswith("/") else "\x00"
