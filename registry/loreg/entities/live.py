"""What folders and servers follow: the versions that a selection means, and what a follower has of them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from loreg.entities.displayed import Displayed
from loreg.entities.versions import Version
from loreg.value import Value


class SelectedVersion(Value, frozen=True):
    """A version that a selection means, under the ``name`` that it is to have.

    ``selector`` says which of the selection's parts means it. ``position`` counts the changes of what that part means
    for this adapter, and only ever grows: an answer with a lower one is older.
    """

    name: str
    version: Version
    selector: str
    position: int


class MissingVersion(Value, frozen=True):
    """A part of a selection that means no version now: what was selected, and why there is none."""

    selector: str
    reason: str


class Selection(Value, frozen=True):
    """What a selection means now, by name, in the registry with the id ``registry``."""

    registry: str
    versions: tuple[SelectedVersion, ...]
    missing: tuple[MissingVersion, ...] = ()


class SyncOptions(Value, frozen=True):
    """How a folder follows a selection.

    ``profile`` is the server that its files are for, ``vllm:max_lora_rank=64``; by default they are as they were
    pushed. ``keep`` versions that a name meant before stay, for those who still read them. ``flat`` calls ``team/news``
    ``team--news``, for servers that look into no folder below. ``pinned`` calls each version by a name of its own,
    ``team/news@74824d86c206``, and shows the kept ones too, for servers that never ask again what a name means.
    ``accept_older`` takes an answer that is older than what the folder has: of a registry that was restored from a
    backup. ``server_name`` is what the registry calls whoever has the folder, among its deployments; by default this
    machine, or each server by its host.

    ``servers`` are the replicas of a server that load from the folder while they run, ``vllm=http://127.0.0.1:8000``;
    they see it as ``server_path`` where that is not empty. Names are then pinned.
    """

    profile: str | None = None
    keep: int = 2
    flat: bool = False
    pinned: bool = False
    accept_older: bool = False
    server_name: str = ""
    servers: tuple[str, ...] = ()
    server_path: str = ""


class SyncedAdapter(Displayed, frozen=True):
    """An adapter that lies in a followed folder: ``ref`` under ``name``, its files in ``path``.

    ``digest`` is the version's. ``served_name`` is how a server calls it that reads the folder, or has loaded it:
    ``team/news@74824d86c206`` where names are pinned. ``previous`` is the ref that the name meant before; empty if
    none.
    """

    name: str
    ref: str
    digest: str
    path: Path
    served_name: str
    previous: str = ""


class SyncProblemKind(StrEnum):
    """Why a folder does not have what its selection means."""

    #: the selection means no version there
    MISSING = "missing"
    #: the profile's server would not take the version, or a running one did not
    REFUSED = "refused"
    #: the answer was older than what the folder has
    OLDER = "older"
    #: something that loreg did not make lies in the place of the name
    BLOCKED = "blocked"
    #: the version could not be fetched or written
    FAILED = "failed"
    #: a running server does not answer, or does not let itself be told
    SERVER = "server"


class SyncProblem(Value, frozen=True):
    """A name, or a part of a selection, for which the folder keeps what it had: why, and what would help."""

    kind: SyncProblemKind
    name: str
    ref: str
    reason: str
    hint: str = ""


class SyncReport(Displayed, frozen=True):
    """What a round of following did: what is new under its name, what went, what is as before, and what is amiss.

    Where servers load from the folder, new and as before is what every one of them has, and nothing else.
    """

    folder: Path
    updated: tuple[SyncedAdapter, ...]
    removed: tuple[str, ...]
    unchanged: tuple[SyncedAdapter, ...]
    problems: tuple[SyncProblem, ...]

    @property
    def is_complete(self) -> bool:
        """Whether the folder has all that the selection means."""
        return not self.problems

    @property
    def adapters(self) -> tuple[SyncedAdapter, ...]:
        """Return everything that the folder has now."""
        return (*self.updated, *self.unchanged)
