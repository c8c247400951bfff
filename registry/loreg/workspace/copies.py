"""Compare the folders that a store laid out for servers with the versions that they are copies of."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from loreg.entities import Damage, DamageKind, Owner, ReferenceKind, Version
from loreg.manifest import File
from loreg.refs import parse_ref
from loreg.storage import BlobStore, CopiedFile, SigningStore
from loreg.workspace.context import Context


@dataclass(frozen=True)
class OddCopy:
    """A file in the folder ``name`` that is not as it must be; without ``damage`` it is a copy of nothing."""

    name: str
    path: str
    damage: Damage | None = None


def find_odd_copies(context: Context, store: BlobStore) -> Iterator[OddCopy]:
    """Yield the copies of another size or checksum than their version's file, and those that no version has.

    The store is listed before the catalog is asked. Where it keeps no checksum of the whole, sizes alone are compared.
    """
    if not isinstance(store, SigningStore):
        return
    with ThreadPoolExecutor(store.parallelism) as pool:
        for name, group in itertools.groupby(store.list_copied_files(), lambda copy: copy.name):
            version = context.backend.with_content(name)
            files = _files_of(context, version) if version is not None else {}

            def look_at(
                copy: CopiedFile, version: Version | None = version, files: Mapping[str, File] = files
            ) -> OddCopy | None:
                if version is None or copy.path not in files:
                    return OddCopy(copy.name, copy.path)
                damage = _compare(store, copy, version, files[copy.path])
                return OddCopy(copy.name, copy.path, damage) if damage is not None else None

            yield from [odd for odd in pool.map(look_at, group) if odd is not None]


def _files_of(context: Context, version: Version) -> Mapping[str, File]:
    files = context.backend.show(parse_ref(f"{version.adapter}:v{version.number}")).files
    return {file.path: file for file in files}


def _compare(store: SigningStore, copy: CopiedFile, version: Version, file: File) -> Damage | None:
    stored = store.inspect_copy(copy.name, copy.path)
    if stored is None:  # it was removed since the store was listed
        return None
    if stored.size != file.size:
        kind = DamageKind.SIZE
    elif stored.sha256 and stored.sha256 != file.sha256:
        kind = DamageKind.DAMAGED
    else:
        return None
    owner = Owner(ReferenceKind.COPY, version.ref, copy.path)
    return Damage(kind, file.sha256, file.size, stored.size, (owner,), 1, "loreg repair")
