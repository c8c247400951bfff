"""Apply commits of Hub clients: files are added and removed until the adapter is whole; then it becomes a version.

The store is only asked outside of transactions. So the branch is read before, and again with its pending upload and
its adapter locked: if another client was faster, the commit is applied again to what that one left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from loreg.adapters.config import CONFIG_NAME
from loreg.adapters.structure import WEIGHTS_NAME
from loreg.catalog import Transaction, pending_uploads, versions
from loreg.catalog.pending_uploads import PendingUpload
from loreg.catalog.version_details import version_details
from loreg.entities import Access, Commit, Details, Role
from loreg.errors import NotAllowedError, NotFoundError, StaleError
from loreg.local.authorization import require
from loreg.local.backend import LocalBackend
from loreg.local.commit import ParsedCommit, read_commit
from loreg.local.hub_files import remove_staged_base_path
from loreg.manifest import File, Manifest
from loreg.refs import AdapterName, Ref
from loreg.storage import Blob
from loreg.storage.staged import StagedStore

MAX_FILES = 1000  # of a pending upload
MAX_PENDING = 100  # pending uploads of a namespace


@dataclass(frozen=True)
class HubCommit:
    """A commit as a Hub client sends it: ``added`` files are staged, ``removed`` are files, or folders ending in ``/``.

    ``parent`` is the beginning of the commit that the branch must be at; empty if any will do.
    """

    message: str
    added: Mapping[str, Blob]
    removed: tuple[str, ...]
    parent: str = ""

    def apply_to(self, files: tuple[File, ...]) -> Manifest:
        """Return the manifest of ``files`` after this commit."""
        removed = set(self.removed)
        folders = tuple(path for path in self.removed if path.endswith("/"))
        remaining = {
            file.path: file for file in files if file.path not in removed and not file.path.startswith(folders)
        }
        remaining |= {path: File(path, blob.sha256, blob.size) for path, blob in self.added.items()}
        return Manifest(tuple(remaining[path] for path in sorted(remaining)))


@dataclass(frozen=True)
class _BranchState:
    """What a commit to a branch starts from: its pending upload, else ``files`` of its version, else of the newest.

    ``version_digest`` is the digest of the version that the branch means, empty if it means none. ``base_path`` is
    where the base of that version lay, if the caller is its author.
    """

    pending: PendingUpload | None
    version_digest: str
    files: tuple[File, ...]
    base_path: str = ""

    @property
    def is_overtaken(self) -> bool:
        """Return whether the branch came to mean another version since its pending upload was begun."""
        return self.pending is not None and self.pending.basis != self.version_digest

    @property
    def would_lose_files(self) -> bool:
        """Return whether files of an overtaken pending upload are not in what the branch means now."""
        return self.is_overtaken and self.pending is not None and not set(self.pending.files) <= set(self.files)

    @property
    def start_files(self) -> tuple[File, ...]:
        """Return the files that a commit is applied to."""
        return self.files if self.pending is None or self.is_overtaken else self.pending.files


def commit_files(
    backend: LocalBackend, access: Access, store: StagedStore, adapter: AdapterName, branch: str, commit: HubCommit
) -> str:
    """Apply a commit to what the branch has; an empty ``branch`` is the newest version, another name an alias.

    Returns the manifest's digest, which is that of a version if the adapter is whole now. Raises what committing
    raises, and StaleError if the branch is not at the parent of ``commit``, or its pending upload was overtaken by a
    version; then the branch stays as it was, and nothing of ``store`` is kept.
    """
    require(access, Role.WRITE, adapter.namespace)
    while True:  # a client that was faster has committed: each round one of them gets on
        with backend.catalog.read(access) as tx:
            state = _branch_state(tx, adapter, branch, pending_uploads.find(tx, adapter, branch))
        _refuse_stale_parent(backend, access, adapter, branch, state, commit.parent)
        manifest, base_hint = commit.apply_to(state.start_files), ""
        is_whole = {file.path for file in manifest.files} >= {CONFIG_NAME, WEIGHTS_NAME}
        if is_whole:
            manifest, base_hint = remove_staged_base_path(store, manifest, state.base_path)
        backend.lease({manifest.digest, *(file.sha256 for file in manifest.files)})
        parsed = None
        if is_whole:
            request = Commit(
                adapter, manifest, base_hint=base_hint, message=commit.message, aliases=(branch,) if branch else ()
            )
            parsed = read_commit(store, request, {})
            backend.rehearse(parsed, store)
        else:
            with backend.catalog.read(access) as tx:
                _refuse_over_quota(tx, adapter, state, manifest.files)
        store.flush()
        try:
            for attempt in backend.write_references():
                with attempt as tx:
                    _record(tx, backend, adapter, branch, state, manifest, parsed)
        except _BranchMovedError:
            continue
        return manifest.digest


def create_branch(
    backend: LocalBackend, access: Access, adapter: AdapterName, branch: str, start: Ref | None = None
) -> None:
    """Create a branch before the first commit to it, with the files of ``start``, else of the newest version.

    A branch that exists stays as it is.
    """
    require(access, Role.WRITE, adapter.namespace)
    for attempt in backend.write_references():
        with attempt as tx:
            state = _branch_state(tx, adapter, branch, pending_uploads.find(tx, adapter, branch))
            if state.pending is not None or state.version_digest:
                return
            files = version_details(tx, start).files if start is not None else state.files
            _refuse_over_quota(tx, adapter, state, files)
            pending_uploads.discard_stale(tx, adapter.namespace, MAX_PENDING)
            if pending_uploads.find_locked(tx, adapter, branch) is None:
                pending_uploads.save(tx, adapter, branch, PendingUpload(files, ""))


def find_pending(backend: LocalBackend, access: Access, adapter: AdapterName, branch: str) -> tuple[File, ...] | None:
    """Return the files of a branch's pending upload; None if there is none, or the caller may not write there."""
    if not access.may(Role.WRITE, adapter.namespace):
        return None
    with backend.catalog.read(access) as tx:
        pending = pending_uploads.find(tx, adapter, branch)
    return pending.files if pending is not None else None


class _BranchMovedError(Exception):
    """Raised if the branch is no longer what the commit was applied to."""


def _record(
    tx: Transaction,
    backend: LocalBackend,
    adapter: AdapterName,
    branch: str,
    state: _BranchState,
    manifest: Manifest,
    parsed: ParsedCommit | None,
) -> None:
    """Record the branch after a commit, with its pending upload and its adapter locked.

    Raises _BranchMovedError if the branch is no longer in ``state``.
    """
    pending = pending_uploads.find_locked(tx, adapter, branch)
    versions.lock_adapter_name(tx, adapter, make=parsed is not None)
    if _branch_state(tx, adapter, branch, pending) != state:
        raise _BranchMovedError
    if parsed is None:
        pending_uploads.discard_stale(tx, adapter.namespace, MAX_PENDING)
        pending_uploads.save(tx, adapter, branch, PendingUpload(manifest.files, state.version_digest))
        return
    pending_uploads.remove(tx, adapter, branch)
    backend.record(tx, parsed)


def _branch_state(tx: Transaction, adapter: AdapterName, branch: str, pending: PendingUpload | None) -> _BranchState:
    current = _find_details(tx, Ref(adapter, alias=branch or None))
    start = current or _find_details(tx, Ref(adapter))
    digest = current.version.digest if current else ""
    return _BranchState(pending, digest, start.files if start else (), start.base_path if start else "")


def _find_details(tx: Transaction, ref: Ref) -> Details | None:
    try:
        return version_details(tx, ref)
    except NotFoundError:
        return None


def _refuse_stale_parent(
    backend: LocalBackend, access: Access, adapter: AdapterName, branch: str, state: _BranchState, parent: str
) -> None:
    """Raise StaleError if the branch is not at the commit ``parent``, or its pending upload is of another version.

    Such a pending upload is dropped, unless its files are all in the version, or ``parent`` is the version itself: then
    nothing is lost without a word, and the next commit starts from what the branch means.
    """
    name, head = branch or "main", Manifest(state.start_files).digest
    at_head = head.startswith(parent)
    if state.would_lose_files and not (parent and at_head):
        with backend.catalog.write(access) as tx:
            pending = pending_uploads.find_locked(tx, adapter, branch)
            if pending is not None and pending == state.pending:
                pending_uploads.discard(tx, adapter, branch, pending)
        raise StaleError(
            f"{name} of {adapter} became another version since its unfinished upload was begun: that is given up, and "
            "nothing was committed",
            hint=f"hf upload {adapter} DIR, with all of its files",
        )
    if not at_head:
        raise StaleError(
            f"{name} of {adapter} is at commit {head[:40]} by now, not {parent}: somebody else committed, and nothing "
            "of this commit was",
            hint=f"hf download {adapter} --revision {name}, then commit again",
        )


def _refuse_over_quota(tx: Transaction, adapter: AdapterName, state: _BranchState, files: tuple[File, ...]) -> None:
    """Raise NotAllowedError for a pending upload of too many files, or for one more where there are too many."""
    if len(files) > MAX_FILES:
        raise NotAllowedError(
            f"an unfinished upload may have {MAX_FILES:,} files, that of {adapter} would have {len(files):,}",
            hint=f"loreg push takes a folder to {adapter} at once",
        )
    if state.pending is None and pending_uploads.count_free(tx, adapter.namespace, MAX_PENDING) <= 0:
        where = f"the namespace {adapter.namespace!r}" if adapter.namespace else "the registry"
        raise NotAllowedError(
            f"{where} has {MAX_PENDING} unfinished uploads of this week already",
            hint=f"loreg push takes a folder to {adapter} at once",
        )
