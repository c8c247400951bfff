"""verify: hold every reference of the catalog against the store, and name what is broken, whom, and what mends it."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Generic, TypeVar

from loreg.entities import (
    Damage,
    DamageKind,
    Orphan,
    Owner,
    Owners,
    Progress,
    Reference,
    ReferenceKind,
    UpkeepAction,
    VerifyReport,
    no_progress,
)
from loreg.errors import LoregError, NotAllowedError, UsageError
from loreg.parsing import parse_time
from loreg.refs import Ref, parse_ref
from loreg.storage import Blob, BlobStore, SigningStore
from loreg.workspace.context import Context
from loreg.workspace.copies import find_odd_copies
from loreg.workspace.in_order import map_in_order
from loreg.workspace.read_share import SPACE, ReadPosition, ReadShare, parse_share

T = TypeVar("T")
MAX_LISTED = 10_000  # damages, orphans or leftovers that a report has: the rest is counted
_CHUNK = 32  # references that a thread looks at before it answers
_CHUNK_BYTES = 4 * 1024 * 1024  # and of what is read
_MAX_OWNERS_ASKED = 100  # blobs in one question to the catalog
_SAVE_SECONDS = 1.0  # between two notes of how far a share was read
_LISTED_AT_ONCE = 1000  # stored blobs in one question to the catalog


@dataclass(frozen=True)
class Selection:
    """What is looked at: all references, or those of ``refs`` and of what came ``since``; and what of it is read.

    ``share`` is the part that is read, None for none. ``trust_checksums``: what the store's own checksum proves is not
    read. ``position`` is where the next share begins, remembered as this one is read; None for one that is named.
    """

    refs: tuple[Ref, ...] = ()
    since: datetime | None = None
    share: ReadShare | None = None
    trust_checksums: bool = True
    position: ReadPosition | None = None

    @property
    def is_everything(self) -> bool:
        """Whether every reference is looked at."""
        return not self.refs and self.since is None


@dataclass
class Counts:
    """How much was looked at so far."""

    references: int = 0
    size: int = 0
    proven: int = 0
    read: int = 0
    read_size: int = 0


@dataclass(frozen=True)
class Look:
    """What one reference is like: ``kind`` is None if nothing is wrong."""

    reference: Reference
    kind: DamageKind | None
    stored_size: int | None
    proven: bool = False
    read_size: int | None = None


@dataclass
class First(Generic[T]):
    """The first ``MAX_LISTED`` of what is added, and how many there were."""

    items: list[T] = field(default_factory=list)
    count: int = 0

    def add(self, item: T) -> None:
        """Count the item, and keep it if there is room."""
        self.count += 1
        if self.count <= MAX_LISTED:
            self.items.append(item)


def select_references(
    refs: Sequence[str],
    read_data: bool | str,
    since: datetime | str | None,
    position: ReadPosition,
    *,
    trust_checksums: bool = True,
) -> Selection:
    """Return what the arguments of ``verify`` and ``repair`` select. Raises UsageError for what is not understood."""
    start = parse_time(since) if isinstance(since, str) else since
    parsed = tuple(map(parse_ref, refs))
    if not read_data:
        return Selection(parsed, start, None, trust_checksums)
    share, goes_on = parse_share("100%" if read_data is True else read_data, position)
    if not parsed and start is None:
        return Selection((), None, share, trust_checksums, position if goes_on else None)
    if goes_on and share.length < SPACE:
        raise UsageError(
            "a share in percent is one of everything: it goes on where the last one ended",
            hint="--read-data 100%, or --read-data 1/20 with refs or --since",
        )
    share = ReadShare(0, share.length) if goes_on else share
    return Selection(parsed, start, share, trust_checksums)


def verify(context: Context, selection: Selection, progress: Progress = no_progress) -> VerifyReport:
    """Look at every selected reference; for everything, at what the store has besides, too.

    Raises UnavailableError if the store cannot be reached: then nothing is known of any blob.
    """
    began = time.monotonic()
    store = store_of(context)
    counts = Counts()
    damages: First[Damage] = First()
    for damage in find_damages(context, selection, counts, progress):
        damages.add(damage)
    orphans: First[Orphan] = First()
    leftovers: First[str] = First()
    orphan_size = 0
    if selection.is_everything:
        for orphan in _find_orphans(context, store, progress):
            orphans.add(orphan)
            orphan_size += orphan.size
        for leftover in store.list_leftovers():
            leftovers.add(leftover.where)
        for forgotten in _list_forgotten_uploads(context, store):
            leftovers.add(forgotten)
        for odd in find_odd_copies(context, store):
            if odd.damage is not None:
                damages.add(odd.damage)
            else:
                leftovers.add(f"{store.url}/named/{odd.name}/{odd.path}")
    share = selection.share
    is_part = share is not None and share.length < SPACE
    return VerifyReport(
        references=counts.references,
        size=counts.size,
        proven=counts.proven,
        read=counts.read,
        read_size=counts.read_size,
        seconds=time.monotonic() - began,
        damages=tuple(damages.items),
        damage_count=damages.count,
        orphans=tuple(orphans.items),
        orphan_count=orphans.count,
        orphan_size=orphan_size,
        leftovers=tuple(leftovers.items),
        leftover_count=leftovers.count,
        read_from=f"{share.start:016x}" if share is not None and is_part else "",
        read_to=share.end if share is not None and is_part else "",
    )


def record_verification(context: Context, selection: Selection, report: VerifyReport) -> None:
    """Record as an event that everything was looked at, and what came of it, where the catalog takes that."""
    if not selection.is_everything:
        return
    detail = {"references": report.references, "read": report.read, "broken": report.damage_count}
    orphans = {"orphans": report.orphan_count, "orphan_size": report.orphan_size}
    with contextlib.suppress(LoregError):  # one that was moved, or may only be read, is verified all the same
        context.backend.upkeep().log(UpkeepAction.VERIFY, {**detail, **orphans})


def store_of(context: Context) -> BlobStore:
    """Return the store itself. Raises NotAllowedError behind a server, UnavailableError if it is not there."""
    store = context.store
    if not isinstance(store, BlobStore):
        context.backend.upkeep()  # refuses, and says where to ask
        raise NotAllowedError(f"{store.url} does not list what it has", hint="loreg doctor")
    with contextlib.suppress(NotAllowedError):  # a store that may only be read can be verified
        store.check()
    return store


def find_damages(
    context: Context, selection: Selection, counts: Counts, progress: Progress = no_progress
) -> Iterator[Damage]:
    """Yield what is broken of the selected references, as it is found; ``counts`` grows meanwhile.

    A share is read in the order of digests, and how far is remembered every second: an interrupted call is gone on with
    by the next one.
    """
    store = store_of(context)
    broken: list[Look] = []
    next_save = 0.0
    for looks in _look_at_all(context, store, selection):
        for look in looks:
            counts.references += 1
            counts.size += look.stored_size or 0
            counts.proven += look.proven
            if look.read_size is not None:
                counts.read += 1
                counts.read_size += look.read_size
            if look.kind is not None:
                broken.append(look)
        start = selection.share.start if selection.share is not None else 0
        beginning = int(looks[-1].reference.sha256[:16], 16)
        progress("verifying", (beginning - start) % SPACE >> 44, SPACE >> 44)
        if len(broken) >= _MAX_OWNERS_ASKED:
            yield from to_damages(context, broken)
            broken = []
        if selection.position is not None and selection.share is not None and time.monotonic() >= next_save:
            _remember(selection.position, selection.share, looks[-1])
            next_save = time.monotonic() + _SAVE_SECONDS
    yield from to_damages(context, broken)
    if selection.position is not None and selection.share is not None:
        selection.position.save(selection.share.end)


def _remember(position: ReadPosition, share: ReadShare, look: Look) -> None:
    """Remember that the share was read up to this reference, or to its end if that is behind it."""
    is_inside = share.contains(look.reference.sha256)
    position.save(look.reference.sha256[:16] if is_inside else share.end)


def _look_at_all(context: Context, store: BlobStore, selection: Selection) -> Iterator[list[Look]]:
    """Yield what each selected reference is like, in the order of digests from the beginning of the share on."""

    def look_at(references: Sequence[Reference]) -> list[Look]:
        return [_look_at(store, reference, selection) for reference in references]

    first = selection.share.first if selection.share is not None else ""
    references = _from_beginning(context, selection, first)
    with ThreadPoolExecutor(store.parallelism) as pool:
        yield from map_in_order(pool, store.parallelism, look_at, _cut_into_chunks(references, selection))


def _from_beginning(context: Context, selection: Selection, first: str) -> Iterator[Reference]:
    """Yield the references from the digest ``first`` on to the end, and then those before it."""
    yield from context.backend.upkeep().references(selection.refs, selection.since, first)
    if first:
        for reference in context.backend.upkeep().references(selection.refs, selection.since):
            if reference.sha256 >= first:
                return
            yield reference


def _cut_into_chunks(references: Iterable[Reference], selection: Selection) -> Iterator[list[Reference]]:
    chunk: list[Reference] = []
    size = 0
    for reference in references:
        chunk.append(reference)
        if selection.share is not None and selection.share.contains(reference.sha256):
            size += reference.size or 0
        if len(chunk) >= _CHUNK or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _look_at(store: BlobStore, reference: Reference, selection: Selection) -> Look:
    stored = store.inspect(reference.sha256)
    size = stored.size if stored is not None else None
    if reference.size is None:
        return Look(reference, DamageKind.INCONSISTENT, size)
    if stored is None:
        return Look(reference, DamageKind.MISSING, None)
    if stored.size != reference.size:
        return Look(reference, DamageKind.SIZE, size)
    if stored.sha256 and stored.sha256 != reference.sha256:
        return Look(reference, DamageKind.DAMAGED, size)
    proven = bool(stored.sha256)
    is_read = selection.share is not None and selection.share.contains(reference.sha256)
    if not is_read or (proven and selection.trust_checksums):
        return Look(reference, None, size, proven)
    actual = store.hash_stored(reference.sha256)
    if actual is None:
        return Look(reference, DamageKind.MISSING, None, proven)
    is_sound = actual == Blob(reference.sha256, reference.size)
    return Look(reference, None if is_sound else DamageKind.DAMAGED, actual.size, proven, actual.size)


def to_damages(context: Context, looks: Sequence[Look]) -> Iterator[Damage]:
    """Yield the damages with whom they break; one that nothing refers to any more is none."""
    for batch in batches(looks, _MAX_OWNERS_ASKED):
        owners = context.backend.upkeep().owners([look.reference.sha256 for look in batch])
        for look in batch:
            if look.kind is not None and look.reference.sha256 in owners:
                whose = owners[look.reference.sha256]
                yield Damage(
                    kind=look.kind,
                    sha256=look.reference.sha256,
                    size=look.reference.size,
                    stored_size=look.stored_size,
                    owners=whose.listed,
                    owner_count=whose.count,
                    remedy=_remedy(look, whose),
                )


def _remedy(look: Look, owners: Owners) -> str:
    """Return the command that mends it; DIR stands for any place that has the bytes, PATH for the model's."""
    if look.kind is DamageKind.INCONSISTENT:
        return "restore the catalog from a backup"
    # What only its bytes tell is found again only by reading them.
    reading = " --read-data" if look.kind is DamageKind.DAMAGED else ""
    reading += " --no-checksums" if reading and look.proven else ""
    by_kind = {owner.kind: owner for owner in reversed(owners.listed)}
    if ReferenceKind.MANIFEST in by_kind:
        return f"loreg repair{reading}"
    if ReferenceKind.FILE in by_kind:
        return f"loreg repair --from DIR{reading}"
    if owner := by_kind.get(ReferenceKind.BASE):
        return f"loreg base add PATH --name {shlex.quote(owner.name)}"
    if owner := by_kind.get(ReferenceKind.EXPORT):
        return _remedy_of_export(owner)
    return f"loreg repair --from DIR{reading}, or send it again with the client that sent it"


def _remedy_of_export(owner: Owner) -> str:
    profile = shlex.quote(owner.profile)
    return f"loreg export {owner.name} --profile {profile} --drop; the next pull for that server makes it again"


def _find_orphans(context: Context, store: BlobStore, progress: Progress) -> Iterator[Orphan]:
    """Yield the stored blobs that nothing refers to; the store is listed before the catalog is asked about each.

    So nothing that was committed before is taken for one. What a push has stored and not committed yet is one.
    """
    seen = 0
    for batch in batches(store.list(), _LISTED_AT_ONCE):
        sizes = {blob.sha256: blob.size for blob in batch}
        orphans = context.backend.upkeep().unreferenced(sizes.keys())
        seen += len(batch)
        progress("listing the store", seen, seen + _LISTED_AT_ONCE)
        for sha256 in sorted(orphans):
            yield Orphan(sha256, sizes[sha256])


def _list_forgotten_uploads(context: Context, store: BlobStore) -> Iterator[str]:
    """Yield where something came for an upload that is not known any more; the catalog is asked after the store."""
    if isinstance(store, SigningStore):
        for batch in batches(store.list_uploads(), _LISTED_AT_ONCE):
            known = context.backend.upkeep().known_uploads([upload.upload_id for upload in batch])
            for upload in batch:
                if upload.upload_id not in known:
                    yield f"{store.url}/incoming/{upload.upload_id}"


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the items in lists of ``size``; the last may be shorter."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch
