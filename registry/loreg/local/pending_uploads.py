"""Commits of the Hub: files are added and removed until the adapter is whole; then it becomes a version.

What the store must be asked for is asked outside of any transaction; so the branch is looked at before, and again with
its draft and its adapter locked: if somebody else was faster, the commit is applied anew to what he left.
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
from loreg.manifest import File, Manifest
from loreg.refs import AdapterName, Ref
from loreg.storage import Blob
from loreg.storage.staged import StagedStore

MAX_FILES = 1000  # of a draft
MAX_PENDING = 100  # of a namespace


@dataclass(frozen=True)
class HubCommit:
    """``added`` files are staged; ``removed`` are files, or folders with a slash at the end.

    ``parent`` is the beginning of the commit that the branch must be at; empty if any will do.
    """

    message: str
    added: Mapping[str, Blob]
    removed: tuple[str, ...]
    parent: str = ""

    def applied_to(self, files: tuple[File, ...]) -> Manifest:
        """What becomes of these files."""
        gone = set(self.removed)
        folders = tuple(path for path in self.removed if path.endswith("/"))
        left = {file.path: file for file in files if file.path not in gone and not file.path.startswith(folders)}
        left |= {path: File(path, blob.sha256, blob.size) for path, blob in self.added.items()}
        return Manifest(tuple(left[path] for path in sorted(left)))


@dataclass(frozen=True)
class _Branch:
    """What a commit to a branch starts from: its draft, else ``files``, those of its version or else of the newest.

    ``meant`` is the digest of the version that the branch means, empty if it means none.
    """

    pending: PendingUpload | None
    meant: str
    files: tuple[File, ...]

    @property
    def overtaken(self) -> bool:
        """Whether the branch came to mean another version since its draft was begun."""
        return self.pending is not None and self.pending.basis != self.meant

    @property
    def loses(self) -> bool:
        """Whether files of an overtaken draft are not in what the branch means now."""
        return self.overtaken and self.pending is not None and not set(self.pending.files) <= set(self.files)

    @property
    def start(self) -> tuple[File, ...]:
        """The files that a commit is applied to."""
        return self.files if self.pending is None or self.overtaken else self.pending.files


def commit_files(
    backend: LocalBackend, access: Access, store: StagedStore, adapter: AdapterName, branch: str, asked: HubCommit
) -> str:
    """Apply a commit to what the branch has; an empty ``branch`` is the newest version, another name an alias.

    Returns the manifest's digest, which is that of a version if the adapter is whole now. Raises what committing
    raises, and StaleError if the branch is not at the commit that ``asked`` names, or its draft was overtaken by a
    version; then the branch stays as it was, and nothing of ``store`` is kept.
    """
    require(access, Role.WRITE, adapter.namespace)
    while True:  # whoever was faster has committed: each round somebody gets on
        with backend.catalog.read(access) as tx:
            seen = _branch(tx, adapter, branch, pending_uploads.find(tx, adapter, branch))
        _refuse_stale_parent(backend, access, adapter, branch, seen, asked.parent)
        manifest = asked.applied_to(seen.start)
        read = None
        if {file.path for file in manifest.files} >= {CONFIG_NAME, WEIGHTS_NAME}:
            aliases = (branch,) if branch else ()
            read = read_commit(store, Commit(adapter, manifest, message=asked.message, aliases=aliases), {})
            backend.rehearse(read)
        else:
            with backend.catalog.read(access) as tx:
                _refuse_over_quota(tx, adapter, seen, manifest.files)
        store.flush()
        try:
            with backend.catalog.write(access) as tx:
                _commit(backend, tx, adapter, branch, seen, manifest, read)
        except _BranchMovedError:
            continue
        return manifest.digest


def create_branch(
    backend: LocalBackend, access: Access, adapter: AdapterName, branch: str, start: Ref | None = None
) -> None:
    """Begin a branch, so that it is known before the first commit to it, with the files of ``start``, else the newest.

    One that is known already stays as it is.
    """
    require(access, Role.WRITE, adapter.namespace)
    with backend.catalog.write(access) as tx:
        seen = _branch(tx, adapter, branch, pending_uploads.find(tx, adapter, branch))
        if seen.pending is not None or seen.meant:
            return
        files = version_details(tx, start).files if start is not None else seen.files
        _refuse_over_quota(tx, adapter, seen, files)
        pending_uploads.discard_stale(tx, adapter.namespace, MAX_PENDING)
        if pending_uploads.find_locked(tx, adapter, branch) is None:
            pending_uploads.save(tx, adapter, branch, PendingUpload(files, ""))


def find_pending(backend: LocalBackend, access: Access, adapter: AdapterName, branch: str) -> tuple[File, ...] | None:
    """The files of a draft; None if there is none, or who acts may not write there."""
    if not access.may(Role.WRITE, adapter.namespace):
        return None
    with backend.catalog.read(access) as tx:
        found = pending_uploads.find(tx, adapter, branch)
    return found.files if found is not None else None


class _BranchMovedError(Exception):
    """The branch is not any more what it was when the commit was applied to it."""


def _commit(
    backend: LocalBackend,
    tx: Transaction,
    adapter: AdapterName,
    branch: str,
    seen: _Branch,
    manifest: Manifest,
    read: ParsedCommit | None,
) -> None:
    """Record what the commit made of the branch, with its draft and its adapter locked, unless it moved meanwhile."""
    pending = pending_uploads.find_locked(tx, adapter, branch)
    versions.lock_adapter_name(tx, adapter, make=read is not None)
    if _branch(tx, adapter, branch, pending) != seen:
        raise _BranchMovedError
    if read is None:
        pending_uploads.discard_stale(tx, adapter.namespace, MAX_PENDING)
        pending_uploads.save(tx, adapter, branch, PendingUpload(manifest.files, seen.meant))
        return
    pending_uploads.remove(tx, adapter, branch)
    backend.record(tx, read)


def _branch(tx: Transaction, adapter: AdapterName, branch: str, pending: PendingUpload | None) -> _Branch:
    meant = _details(tx, Ref(adapter, alias=branch or None))
    start = meant or _details(tx, Ref(adapter))
    return _Branch(pending, meant.version.digest if meant else "", start.files if start else ())


def _details(tx: Transaction, ref: Ref) -> Details | None:
    try:
        return version_details(tx, ref)
    except NotFoundError:
        return None


def _refuse_stale_parent(
    backend: LocalBackend, access: Access, adapter: AdapterName, branch: str, seen: _Branch, parent: str
) -> None:
    """Raise StaleError if the branch is not at the commit that was named, or its draft came to be of another version.

    Such a draft is dropped, unless its files are all in the version, or the version itself was named: then nothing is
    lost without a word, and the next commit starts from what the branch means.
    """
    name, head = branch or "main", Manifest(seen.start).digest
    at_head = head.startswith(parent)
    if seen.loses and not (parent and at_head):
        with backend.catalog.write(access) as tx:
            pending = pending_uploads.find_locked(tx, adapter, branch)
            if pending is not None and pending == seen.pending:
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


def _refuse_over_quota(tx: Transaction, adapter: AdapterName, seen: _Branch, files: tuple[File, ...]) -> None:
    """Raise NotAllowedError for a draft of too many files, or one more where there are too many."""
    if len(files) > MAX_FILES:
        raise NotAllowedError(
            f"an unfinished upload may have {MAX_FILES:,} files, that of {adapter} would have {len(files):,}",
            hint=f"loreg push DIR {adapter}",
        )
    if seen.pending is None and pending_uploads.count_free(tx, adapter.namespace, MAX_PENDING) <= 0:
        where = f"the namespace {adapter.namespace!r}" if adapter.namespace else "the registry"
        raise NotAllowedError(
            f"{where} has {MAX_PENDING} unfinished uploads of this week already",
            hint=f"loreg push DIR {adapter}",
        )
