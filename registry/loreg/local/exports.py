"""Make a version's files for one server from its stored blobs: nothing of an export is taken from the request."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from loreg.adapters.card import CARD_NAME
from loreg.adapters.config import CONFIG_NAME
from loreg.adapters.structure import WEIGHTS_NAME, read_structure
from loreg.bases.compatibility import BaseTensors
from loreg.bases.identify import parse_tensor_digests
from loreg.checking.profile import Profile, read_known_profile
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

_MAX_BYTES = 4 * 1024**3  # of the weights, before and after
_MAX_NUMBERS = 1 << 27  # of one module that is not only copied: 1 GiB in float64
_MAX_STEPS = 1 << 40  # multiplications to cut modules down: some minutes
#: Held while an export is made: another client meanwhile makes its own.
_EXPORT_LOCK = threading.Lock()


def profile_for(text: str, request: str, details: Details) -> Profile:
    """Return the profile that ``text`` names, if it is the one that ``request`` is a digest of.

    Raises NotAllowedError for a user's own profile, ConflictError for one of another release of loreg.
    """
    with contextlib.suppress(NotFoundError):
        profile = read_known_profile(text)
        if digest_request(profile, details.version.base) == request:
            return profile
    raise ConflictError(f"the profile {text!r} is another one here", hint="pip install --upgrade loreg")


def build_export(
    store: BlobTransfer,
    details: Details,
    profile: Profile,
    recorded: Manifest | None,
    lease: Callable[[Collection[str]], None],
) -> Manifest:
    """Make the version's files for the server, store them and return their manifest.

    ``lease`` keeps blobs that are there already, by digest. The files ``recorded`` earlier stay if they are stored and
    right. Raises CheckFailedError for what cannot be mended,
    NotAllowedError for what is too large, ConflictError if another export is being made.
    """
    files = {file.path: file for file in details.files}
    base = details.version.base
    base_tensors = BaseTensors(base, parse_tensor_digests(store.read(base.digest), base)) if base else None
    name, digest = details.version.ref, details.version.digest
    planned = plan_for_profile(read_export_source(store, name, digest, files), profile, base_tensors)
    if recorded is not None and _is_stored(store, recorded) and is_as_planned(store, recorded, planned, files):
        return recorded
    _refuse_oversized(planned.plan, files)
    with _one_at_a_time(), tempfile.TemporaryDirectory(prefix="loreg-export-") as folder:
        source, written = Path(folder) / "source", Path(folder) / "made"
        source.mkdir()
        written.mkdir()
        for path in (CONFIG_NAME, WEIGHTS_NAME, CARD_NAME):
            if path in files:
                store.get(Blob(files[path].sha256, files[path].size), source / path)
        write_folder(
            plan_for_profile(ExportSource(name, digest, read_structure(source)), profile, base_tensors), written
        )
        return _store_files(store, written, lease)


def _is_stored(store: BlobTransfer, manifest: Manifest) -> bool:
    return all(store.has(Blob(file.sha256, file.size)) for file in manifest.files)


def _refuse_oversized(plan: Plan, files: dict[str, File]) -> None:
    new = [module for module in plan.after.modules.values() if not module.is_copied]
    numbers = [(m.shape.out + m.shape.in_) * m.shape.matrices * max(m.rank_in, m.shape.rank) for m in new]
    steps = [count * module.rank_in for count, module in zip(numbers, new, strict=True) if module.truncated_to]
    if (
        max(plan.size, files[WEIGHTS_NAME].size) > _MAX_BYTES
        or max(numbers, default=0) > _MAX_NUMBERS
        or sum(steps) > _MAX_STEPS
    ):
        raise NotAllowedError(
            "this is too much for a registry to make: whoever pulls it makes it", hint="loreg pull --help"
        )


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    if not _EXPORT_LOCK.acquire(blocking=False):
        raise ConflictError("the registry is making another export", hint="try again in a minute")
    try:
        yield
    finally:
        _EXPORT_LOCK.release()


def _store_files(store: BlobTransfer, folder: Path, lease: Callable[[Collection[str]], None]) -> Manifest:
    blobs = {path: digest_of(path) for path in sorted(folder.iterdir())}
    lease([blob.sha256 for blob in blobs.values()])
    for path, blob in blobs.items():
        store.put(blob, path)
    return Manifest(tuple(File(path.name, blob.sha256, blob.size) for path, blob in blobs.items()))
