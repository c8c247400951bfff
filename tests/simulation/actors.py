"""Who is at work in a simulation: a function a kind, which runs the real code of loreg.

A new kind is one more function in ``ACTORS``: it works through its :class:`Place`, and what
it promises becomes a rule in :mod:`simulation.invariants`.
"""

from __future__ import annotations

import base64
import contextlib
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType

from loreg.catalog import jobs
from loreg.catalog.transaction import Transaction
from loreg.checking.policy import Policy
from loreg.entities import Commit, Committed, Deletion, Retention, RetentionRules
from loreg.errors import CollectedError, LoregError, NotFoundError, UnavailableError
from loreg.local.backend import LocalBackend
from loreg.local.expiry import discard_expired
from loreg.local.pending_uploads import HubCommit, commit_files
from loreg.local.uploads import Uploads
from loreg.refs import parse_adapter_name, parse_adapter_pattern, parse_ref
from loreg.storage import AcceptedUpload, Blob
from loreg.storage.blobs import BytesCallback, ignore_bytes
from loreg.storage.staged import StagedStore
from loreg.verbs.backup import backup
from loreg.verbs.bases import Bases
from loreg.verbs.gc import gc
from loreg.verbs.prune import prune
from loreg.verbs.push import push
from loreg.workspace.context import Context
from simulation.catalog import SimulatedCatalog
from simulation.inputs import ACCESS, HISTORY, KEEP_LAST, KEEP_YANKED, PROFILE, inputs, root_of
from simulation.invariants import Watch
from simulation.store import SimulatedBackup, SimulatedSigningStore, SimulatedStore
from simulation.world import World

_AGAIN = 3  # times that a person types a command whose answer was "try again"
_REQUEST = "5" * 64  # the digest of the options of an export


@dataclass(frozen=True)
class ActorSpec:
    """One actor of a schedule: its kind, when it begins, which adapter it is about, and in which registry.

    ``variant`` says which of the ways of its kind it goes; one that may not pause takes no time of its own.
    """

    kind: str
    after: float
    adapter: int = 1
    variant: int = 0
    registry: int = 0
    may_fail: bool = True
    may_pause: bool = True


class SimulatedBackend(LocalBackend):
    """The real backend, which holds commits to what a lease promises: see :meth:`commit`."""

    def __init__(
        self, catalog: SimulatedCatalog, store: SimulatedStore, world: World, grace: float, watch: Watch
    ) -> None:
        super().__init__(catalog, store, ACCESS, Policy())
        self._watch = watch
        self._simulated, self._world, self._grace = catalog, world, grace
        self._leased_at = -1.0
        self._was_claimed = False

    def lease(self, digests: Collection[str]) -> None:
        began = self._world.now
        claimed = self._claimed(digests)
        super().lease(digests)
        self._leased_at, self._was_claimed = began, claimed or self._claimed(digests)

    def commit(self, commit: Commit, accepted: Mapping[str, AcceptedUpload] = MappingProxyType({})) -> Committed:
        """Commit, and see that nothing is collected within the grace after its lease, unless it was being before.

        What was deleted for good has no grace.
        """
        try:
            committed = super().commit(commit, accepted)
        except CollectedError as error:
            took = self._world.now - self._leased_at
            digests = {*commit.digests, commit.manifest.digest}
            was_deleted = not self._watch.removed_at_once.isdisjoint(digests)
            if self._leased_at >= 0 and took < self._grace and not self._was_claimed and not was_deleted:
                self._world.violate(f"a push of {took:.0f} s, less than the grace, is sent back: {error.message}")
            self._world.count("commits sent back")
            raise
        self._world.count("commits")
        return committed

    def _claimed(self, digests: Collection[str]) -> bool:
        query = "SELECT digest FROM garbage WHERE claimed_at IS NOT NULL AND collected_at IS NULL"
        return not {digest for (digest,) in self._simulated.ask(query)}.isdisjoint(digests)


@dataclass
class Place:
    """Where an actor works: a registry, its own backend, and what it is to do there."""

    world: World
    catalog: SimulatedCatalog
    store: SimulatedStore
    part: ActorSpec
    grace: float
    backup: SimulatedBackup
    watch: Watch
    backend: SimulatedBackend = field(init=False)

    def __post_init__(self) -> None:
        self.backend = SimulatedBackend(self.catalog, self.store, self.world, self.grace, self.watch)

    @property
    def context(self) -> Context:
        return Context(self.backend, self.store, root_of(inputs()) / "cache", Policy())

    @property
    def folder(self) -> Path:
        return inputs().adapters[self.part.adapter]

    def repeat(self, action: Callable[[], object], errors: Sequence[type[LoregError]] = (UnavailableError,)) -> None:
        """Do what a person does who reads "try again": do it again, a few minutes later."""
        for attempt in range(_AGAIN):
            try:
                action()
                return
            except tuple(errors):
                if attempt == _AGAIN - 1:
                    raise
                self.world.sleep(120)


def push_directly(place: Place) -> None:
    """Push where catalog and store are reached; every other one names its base by its folder."""
    base = str(inputs().model) if place.part.variant % 2 else None
    place.repeat(lambda: push(place.context, place.folder, f"team/{place.part.adapter}", base=base), (LoregError,))
    place.world.count("pushes")


def push_through_server(place: Place) -> None:
    """Push as a client of a server does, with uploads; in every other variant small blobs go with the commit."""
    server = _ServerStore(place, is_inline=place.part.variant % 2 == 1)
    context = Context(_ServerBackend(place, server), server, place.context.base_cache, Policy())
    place.repeat(lambda: push(context, place.folder, f"team/s{place.part.adapter}"), (LoregError,))
    place.world.count("pushes")


class _ServerBackend(LocalBackend):
    """What a client's backend asks its server for, without HTTP."""

    def __init__(self, place: Place, store: _ServerStore) -> None:
        super().__init__(place.catalog, place.store, ACCESS, Policy())
        self._place, self._client_store = place, store

    def lease(self, digests: Collection[str]) -> None:
        pass  # the server does it where uploads are announced

    def commit(self, commit: Commit, accepted: Mapping[str, AcceptedUpload] = MappingProxyType({})) -> Committed:
        store, place = self._client_store, self._place
        contents = [base64.b64encode(store.inline[d]).decode() for d in sorted(commit.digests) if d in store.inline]
        ids = [store.ids[digest] for digest in sorted(commit.digests) if digest in store.ids]
        with store.uploads.accept(commit.digests, ids, contents) as taken:
            return place.backend.commit(commit, taken)


class _ServerStore:
    """What a client's store asks its server for, without HTTP; see :class:`loreg.remote.store.RemoteStore`."""

    url = "memory://server"

    def __init__(self, place: Place, *, is_inline: bool) -> None:
        self._place = place
        self._is_inline = is_inline
        self.uploads = Uploads(place.catalog, place.store, ACCESS)
        self.ids: dict[str, str] = {}
        self.inline: dict[str, bytes] = {}
        self._tickets: dict[str, object] = {}

    def reserve_uploads(self, blobs: Sequence[Blob]) -> None:
        if not self._is_inline:
            reserved = self.uploads.reserve(blobs)
            self._tickets = {blob.sha256: None for blob in blobs} | {upload.sha256: upload for upload, _ in reserved}

    def put(self, blob: Blob, path: Path, on_bytes: BytesCallback = ignore_bytes) -> bool:
        if self._is_inline:
            self.inline[blob.sha256] = path.read_bytes()
            return True
        if blob.sha256 not in self._tickets:
            self.reserve_uploads([blob])
        upload = self._tickets.pop(blob.sha256)
        if upload is None:
            return False
        store = self._place.store
        if isinstance(store, SimulatedSigningStore):
            store.send(upload.id, path.read_bytes())
        else:
            self.uploads.receive(upload, path)
        self.ids[blob.sha256] = upload.id
        return True


def upload_as_hub_client(place: Place) -> None:
    """Commit the files of an adapter one by one, as a client of the Hub may; the last makes it a version."""
    adapter = parse_adapter_name(f"team/h{place.part.adapter}")
    for path in sorted(place.folder.iterdir()):
        place.repeat(lambda path=path: _commit_to_branch(place, adapter, path), (LoregError,))
    place.world.count("pushes")


def _commit_to_branch(place, adapter, path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="loreg-commit-") as folder:
        staged = StagedStore(place.store, Path(folder))
        blob = next(
            Blob(file.sha256, file.size)
            for file in inputs().manifests[place.part.adapter].files
            if file.path == path.name
        )
        shutil.copy(path, Path(folder) / "sent")
        staged.put(blob, Path(folder) / "sent")
        commit_files(place.backend, ACCESS, staged, adapter, "", HubCommit("", {path.name: blob}, ()))


def collect(place: Place) -> None:
    """Collect garbage, as cron does: again and again, with half a grace and more between."""
    for round_ in range(1 + place.part.variant):
        if round_:
            place.world.sleep(place.grace * (0.5 + 0.2 * place.part.adapter))
        place.repeat(lambda: gc(place.context, grace=timedelta(seconds=place.grace)))
        place.world.count("collections")


def export_and_drop(place: Place) -> None:
    """Let the registry make an export of the version that is there, drop it later, and make it anew."""
    ref = parse_ref("team/a:v1")
    errors = (UnavailableError, CollectedError)
    for _ in range(1 + place.part.variant % 2):
        place.repeat(lambda: place.backend.record_export(ref, _REQUEST, PROFILE), errors)
        place.world.count("exports")
        place.world.sleep(place.grace * 0.3 * place.part.adapter)
        with contextlib.suppress(NotFoundError):  # another one was faster
            place.repeat(lambda: place.backend.drop_export(ref, _REQUEST))


def add_base(place: Place) -> None:
    """Record the base, whose list of tensors an earlier attempt may have left in the store."""
    place.repeat(lambda: Bases(place.context).add(inputs().model, ["org/base"]), (UnavailableError, CollectedError))
    place.world.count("bases")


def work(place: Place) -> None:
    """Submit a job, and do jobs until there is none: those of workers that died, too. What a job makes is pushed."""
    source = "team/a:v2" if place.part.registry == HISTORY else "team/a:v1"  # which may be pruned when the job is done
    request = {"sources": [source], "name": f"team/w{place.part.adapter}", "method": "linear"}
    place.repeat(lambda: place.backend.submit("merge", request))
    while claimed := _in_transaction(place, lambda tx: jobs.claim(tx, "worker")):
        job, _ = claimed
        folder = inputs().adapters[int(str(job.request["name"])[-1])]
        place.repeat(lambda folder=folder, job=job: push(place.context, folder, str(job.request["name"])))
        if _in_transaction(place, lambda tx, job=job: jobs.heartbeat(tx, job, "pushing", 1, 1)):
            _in_transaction(place, lambda tx, job=job: jobs.finish(tx, job, {}))
        place.world.count("jobs")


def _in_transaction(place: Place, action: Callable[[Transaction], object]):
    with place.catalog.write(ACCESS) as tx:
        return action(tx)


def clean_up(place: Place) -> None:
    """Do what a server does every hour; here every two days."""
    for round_ in range(1 + place.part.variant):
        if round_:
            place.world.sleep(2 * 86400)
        with place.catalog.write(ACCESS) as tx:
            jobs.clean_up(tx)
        expired = discard_expired(place.catalog, ACCESS).upload_ids
        if isinstance(place.store, SimulatedSigningStore):
            place.store.forget_uploads(expired)


def delete_for_good(place: Place) -> None:
    """Delete a version as an administrator does, who is shown first what would go."""
    ref = parse_ref(VERSIONS[place.part.adapter % len(VERSIONS)])
    errors = (UnavailableError,)
    place.repeat(lambda: place.backend.preview_deletion(ref), errors)
    deletion: Deletion | None = None

    def delete() -> None:
        nonlocal deletion
        deletion = place.backend.delete(ref, "asked to")

    place.repeat(delete, errors)
    if deletion is not None:
        place.watch.look_at_deletion(deletion)
    place.world.count("deletions")


def prune_versions(place: Place) -> None:
    """Let go what the policy does not keep, as cron does."""
    rules = Retention(RetentionRules(keep_last=KEEP_LAST, keep_yanked=KEEP_YANKED))
    for round_ in range(1 + place.part.variant % 2):
        if round_:
            place.world.sleep(place.grace * 0.4 * place.part.adapter)
        place.repeat(lambda: prune(place.context, rules, parse_adapter_pattern("team/*")))
        place.world.count("prunings")


def back_up(place: Place) -> None:
    """Add a snapshot to the backup, and another one later, as cron does."""
    for round_ in range(1 + place.part.variant // 2):
        if round_:
            place.world.sleep(place.grace * 0.3 * place.part.adapter)
        place.repeat(lambda: backup(place.context, place.backup, verify=place.part.variant % 2 == 1))
        place.world.count("backups")


def push_again(place: Place) -> None:
    """Push to the adapter that has versions already, also such as are gone."""
    place.repeat(lambda: push(place.context, place.folder, "team/a"), (LoregError,))
    place.world.count("pushes")


#: Every kind of actor, and how often it is among those of a schedule.
ACTORS: Mapping[str, tuple[Callable[[Place], None], int]] = {
    "push": (push_directly, 6),
    "server": (push_through_server, 4),
    "hub": (upload_as_hub_client, 2),
    "gc": (collect, 6),
    "export": (export_and_drop, 2),
    "base": (add_base, 1),
    "worker": (work, 1),
    "cleanup": (clean_up, 1),
    # In the registry with a history alone:
    "delete": (delete_for_good, 0),
    "prune": (prune_versions, 0),
    "backup": (back_up, 0),
    "again": (push_again, 0),
}
#: What a deletion is about, by the number of its adapter.
VERSIONS = (*(f"team/a:v{number}" for number in range(1, 7)), "team/m:v1", "team/m:v2")
