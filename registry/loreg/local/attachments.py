"""Attach a base that was added later to the versions that declare it and fit it, and take that back.

Headers are read outside of transactions, a page of versions at a time. Writers of a namespace attach and detach there,
administrators of everything everywhere: who writes there could have pushed with ``--base`` as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from loreg.adapters.stored import read_stored_structure
from loreg.adapters.structure import AdapterStructure
from loreg.base_names import names_base, spellings
from loreg.bases.affected_tensors import affected_digest
from loreg.bases.compatibility import BaseTensors, TrainedAdapter, assess, find_unverified
from loreg.bases.identify import parse_tensor_digests
from loreg.catalog import Catalog, Transaction, attachments, bases, versions
from loreg.catalog.attachments import Candidate
from loreg.catalog.paging import decode, encode
from loreg.catalog.version_json import VersionRecord
from loreg.checking.policy import Policy
from loreg.entities import Access, AttachmentOutcome, BaseAttachment, BaseModel, Page, Role, VerdictKind
from loreg.errors import CheckFailedError, LoregError
from loreg.local.alias_policy import check_alias
from loreg.local.authorization import require, require_somewhere
from loreg.local.bases import limit_concurrent_reads
from loreg.refs import Ref
from loreg.storage import BlobTransfer

_PAGE = 50  # versions whose headers are read for one answer
_MAX_OTHERS = 200  # of another name, the newest, that are looked at
_DECLARING, _OTHERS = 0, 1
_LAST_ID = 2**31 - 1


@dataclass(frozen=True)
class _Fit:
    """Whether a base fits a version: the digest of the tensors that it changes, and why, in words."""

    is_fit: bool
    target: str | None
    reason: str


@dataclass(frozen=True)
class Attacher:
    """Attaches and detaches as a caller with ``access`` may; ``policy`` guards what aliases may mean."""

    catalog: Catalog
    store: BlobTransfer
    access: Access
    policy: Policy

    def attach(self, base: str, refs: Sequence[Ref], limit: int, cursor: str | None) -> Page[BaseAttachment]:
        """See :meth:`loreg.backend.Backend.attach_base`."""
        require_somewhere(self.access, Role.WRITE)
        with self.catalog.read(self.access) as tx:
            model = bases.find(tx, base)
        if not model.complete:
            raise CheckFailedError(
                f"of {model.title} only headers are known: whether a version was trained on it they do not tell",
                hint=f"loreg base add ./path/to/base --name {model.names[0] if model.names else 'NAME'}",
            )
        limit = min(limit, _PAGE)
        stage, last, count = decode(cursor, "attach", (int, int, int)) if cursor else (_DECLARING, 0, 0)
        candidates, following = self._list(model, refs, int(str(stage)), int(str(last)), int(str(count)), limit)
        with limit_concurrent_reads():
            tensors = BaseTensors(model, parse_tensor_digests(self.store.read(model.digest), model))
            fits = {candidate.id: self._fit(candidate, tensors) for candidate in candidates if not candidate.base_id}
        if stage == _OTHERS:
            left = [self._leave(candidate, fits[candidate.id]) for candidate in candidates]
            return Page(tuple(item for item in left if item is not None), following)
        attached = self._change(candidates, lambda tx, candidate: self._attach_one(tx, candidate, model, fits))
        return Page(tuple(attached), following)

    def detach(self, base: str, refs: Sequence[Ref], limit: int, cursor: str | None) -> Page[BaseAttachment]:
        """See :meth:`loreg.backend.Backend.detach_base`."""
        require_somewhere(self.access, Role.WRITE)
        limit = min(limit, _PAGE)
        after = int(str(decode(cursor, "detach", (int,))[0])) if cursor else 0
        following = None
        with self.catalog.read(self.access) as tx:
            if refs:
                candidates = self._resolve(tx, refs)
            else:
                base_id = bases.find_base_id(tx, bases.find(tx, base).digest)
                rows = attachments.list_with_base(tx, base_id, after, limit + 1)
                candidates = rows[:limit]
                following = encode("detach", [candidates[-1].id]) if len(rows) > limit else None
        return Page(tuple(self._change(candidates, self._detach_one)), following)

    def _list(
        self, base: BaseModel, refs: Sequence[Ref], stage: int, last: int, count: int, limit: int
    ) -> tuple[list[Candidate], str | None]:
        """Return the versions of a page, and the cursor of the next: first those that declare the base, then others."""
        whole, ends = spellings(base.names)
        with self.catalog.read(self.access) as tx:
            if refs:
                return self._resolve(tx, refs), None
            if stage == _DECLARING:
                rows = attachments.list_declaring(tx, whole, ends, last, limit + 1)
                key = [_DECLARING, rows[limit - 1].id, 0] if len(rows) > limit else [_OTHERS, _LAST_ID, 0]
                declaring = [row for row in rows[:limit] if names_base(row.declared, base.names)]
                return declaring, encode("attach", key)
            rows = attachments.list_others(tx, whole, ends, last, limit + 1)
        count += limit
        has_more = len(rows) > limit and count < _MAX_OTHERS
        return rows[:limit], encode("attach", [_OTHERS, rows[limit - 1].id, count]) if has_more else None

    def _resolve(self, tx: Transaction, refs: Sequence[Ref]) -> list[Candidate]:
        """Return the versions of the refs. Raises NotFoundError, and NotAllowedError where the caller may not write."""
        records = [versions.resolve(tx, ref) for ref in refs]
        for ref in refs:
            require(self.access, Role.WRITE, ref.adapter.namespace)
        return attachments.list_by_id(tx, {record.id for record in records})

    def _fit(self, candidate: Candidate, base: BaseTensors) -> _Fit:
        """Compare the header of a version with the tensors of the base."""
        try:
            structure = self._read(candidate)
            verdict = assess(TrainedAdapter(structure, None), base)
            reason = verdict.reason if verdict.kind == VerdictKind.MISMATCH else find_unverified(structure, base)
            if reason:
                return _Fit(False, None, reason)
            target = affected_digest(base.tensor_digests, structure, base.lookup(structure))
        except LoregError as error:  # of a version that cannot be read nothing is said
            return _Fit(False, None, error.message)
        return _Fit(True, target, f"names and shapes of {len(structure.modules)} modules fit")

    def _read(self, candidate: Candidate) -> AdapterStructure:
        files = {file.path: file for file in candidate.files}
        return read_stored_structure(self.store, candidate.ref, files)

    def _change(
        self, candidates: Iterable[Candidate], change: Callable[[Transaction, Candidate], BaseAttachment | None]
    ) -> list[BaseAttachment]:
        """Return what became of each version, changed in one transaction with its adapter locked; by ref."""
        results = []
        ordered = sorted(candidates, key=lambda item: (item.adapter_id, item.id))  # in one order: no deadlock
        if not ordered:
            return []
        with self.catalog.write(self.access) as tx:
            for candidate in ordered:
                versions.lock_adapter(tx, candidate.adapter_id)
                results.append(change(tx, candidate))
        return sorted((result for result in results if result is not None), key=lambda result: result.ref)

    def _attach_one(
        self, tx: Transaction, candidate: Candidate, base: BaseModel, fits: dict[int, _Fit]
    ) -> BaseAttachment | None:
        if candidate.base_id is not None:
            return _result(candidate, AttachmentOutcome.KEPT, "its base is known already")
        fit = fits[candidate.id]
        if not fit.is_fit:
            return _result(candidate, AttachmentOutcome.MISMATCH, fit.reason)
        declares = names_base(candidate.declared, base.names)
        reason = f"{fit.reason}, and the name that it gives its base" if declares else fit.reason
        if refusal := self._refuse(tx, candidate, base):
            return refusal
        base_id = bases.find_base_id(tx, base.digest)
        if not attachments.attach(tx, candidate, base_id, base.digest, fit.target, reason):
            return None  # it got a base, or was deleted, since its header was read
        return _result(candidate, AttachmentOutcome.ATTACHED, reason)

    def _detach_one(self, tx: Transaction, candidate: Candidate) -> BaseAttachment | None:
        if candidate.base_id is None:
            return _result(candidate, AttachmentOutcome.KEPT, "it has no base")
        if not attachments.was_attached(tx, candidate):
            return _result(candidate, AttachmentOutcome.KEPT, "its base was named at the push")
        if refusal := self._refuse(tx, candidate, None):
            return refusal
        base = versions.by_id(tx, candidate.id).base
        if base is None or not attachments.detach(tx, candidate, base.digest):
            return None
        return _result(candidate, AttachmentOutcome.DETACHED, f"it declares {candidate.declared or 'no base'} again")

    def _refuse(self, tx: Transaction, candidate: Candidate, base: BaseModel | None) -> BaseAttachment | None:
        """Return the refusal of the policy if an alias that it guards means the version, which it would not allow."""
        if not attachments.list_by_id(tx, [candidate.id]):
            return None
        version = replace(versions.by_id(tx, candidate.id), base=base)
        for alias in sorted(set(version.aliases) & set(self.policy.aliases)):
            try:
                check_alias(tx, self.policy, VersionRecord(candidate.id, candidate.adapter_id, version), alias)
            except CheckFailedError as error:
                return _result(candidate, AttachmentOutcome.REFUSED, error.message)
        return None

    @staticmethod
    def _leave(candidate: Candidate, fit: _Fit) -> BaseAttachment | None:
        """Return that a version of another name fits; None if it does not, of which nothing is said."""
        declared = f"declares {candidate.declared}" if candidate.declared else "declares no base"
        return _result(candidate, AttachmentOutcome.LEFT, f"{fit.reason}; it {declared}") if fit.is_fit else None


def _result(candidate: Candidate, outcome: AttachmentOutcome, reason: str) -> BaseAttachment:
    return BaseAttachment(candidate.ref, candidate.declared, outcome, reason)
