"""Versions as servers take them, made of their stored blobs: nothing of an export is taken from who asks for it."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from loreg.adapters.card import CARD_NAME
from loreg.adapters.config import CONFIG_NAME
from loreg.adapters.structure import WEIGHTS_NAME, read_structure
from loreg.bases.compatibility import BaseTensors
from loreg.bases.identify import parse_tensor_digests
from loreg.checking.profile import Profile, read_profile
from loreg.entities import Details
from loreg.errors import ConflictError, NotAllowedError, NotFoundError
from loreg.exporting.export import Plan
from loreg.exporting.folder import (
    ExportSource,
    digest_request,
    is_as_planned,
    plan_for_profile,
    read_export_source,
    write_folder,
)
from loreg.manifest import File, Manifest
from loreg.storage import Blob, BlobTransfer, digest_of

_MOST_BYTES = 4 * 1024**3
_MOST_NUMBERS = 1 << 27  # of one module that is not only copied: 1 GiB in float64
_MOST_STEPS = 1 << 40  # multiplications to cut modules down: some minutes
_LONGEST_PROFILE = 128
#: One at a time: whoever comes meanwhile makes his own.
_MAKING = threading.Lock()


def profile_for(text: str, request: str, details: Details) -> Profile:
    """The profile that ``text`` names, if it is the one that ``request`` is a digest of.

    Raises NotAllowedError for a profile of somebody's own, ConflictError for one of another release of loreg.
    """
    if not text or len(text) > _LONGEST_PROFILE or text.endswith(".toml") or "/" in text:
        raise NotAllowedError(
            "a registry makes exports itself, and only for the servers that loreg knows",
            hint="loreg export REF --profile ./mine.toml --to DIR",
        )
    with contextlib.suppress(NotFoundError):
        profile = read_profile(text)
        if digest_request(profile, details.version.base) == request:
            return profile
    raise ConflictError(f"the profile {text!r} is another one here", hint="pip install --upgrade loreg")


def build_export(store: BlobTransfer, details: Details, profile: Profile, recorded: Manifest | None) -> Manifest:
    """Make the version's files for the server, and store them; those ``recorded`` stay if they are stored and right.

    Raises CheckFailedError for what cannot be mended, NotAllowedError for what is too large, ConflictError if another
    one is being made.
    """
    files = {file.path: file for file in details.files}
    base = details.version.base
    known = BaseTensors(base, parse_tensor_digests(store.read(base.digest))) if base else None
    name, digest = details.version.ref, details.version.digest
    made_of_headers = plan_for_profile(read_export_source(store, name, digest, files), profile, known)
    if recorded is not None and _is_whole(store, recorded) and is_as_planned(store, recorded, made_of_headers, files):
        return recorded
    _refuse_oversized(made_of_headers.plan, files)
    with _one_at_a_time(), tempfile.TemporaryDirectory(prefix="loreg-export-") as folder:
        source, made = Path(folder) / "source", Path(folder) / "made"
        source.mkdir()
        made.mkdir()
        for path in (CONFIG_NAME, WEIGHTS_NAME, CARD_NAME):
            if path in files:
                store.get(Blob(files[path].sha256, files[path].size), source / path)
        write_folder(plan_for_profile(ExportSource(name, digest, read_structure(source)), profile, known), made)
        return _put(store, made)


def _is_whole(store: BlobTransfer, files: Manifest) -> bool:
    return all(store.has(Blob(file.sha256, file.size)) for file in files.files)


def _refuse_oversized(plan: Plan, files: dict[str, File]) -> None:
    new = [module for module in plan.after.modules.values() if not module.is_copied]
    numbers = [(m.shape.out + m.shape.in_) * m.shape.matrices * max(m.rank_in, m.shape.rank) for m in new]
    steps = [count * module.rank_in for count, module in zip(numbers, new, strict=True) if module.truncated_to]
    if (
        max(plan.size, files[WEIGHTS_NAME].size) > _MOST_BYTES
        or max(numbers, default=0) > _MOST_NUMBERS
        or sum(steps) > _MOST_STEPS
    ):
        raise NotAllowedError(
            "this is too much for a registry to make: whoever pulls it makes it", hint="loreg pull REF --profile SERVER"
        )


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    if not _MAKING.acquire(blocking=False):
        raise ConflictError("the registry is making another export", hint="try again in a minute")
    try:
        yield
    finally:
        _MAKING.release()


def _put(store: BlobTransfer, folder: Path) -> Manifest:
    found = []
    for path in sorted(folder.iterdir()):
        blob = digest_of(path)
        store.put(blob, path)
        found.append(File(path.name, blob.sha256, blob.size))
    return Manifest(tuple(found))
