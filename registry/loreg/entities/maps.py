"""One probe over many versions: the run, its chunks, and what came of it."""

from __future__ import annotations

import msgspec

from loreg.entities.bases import BaseModel
from loreg.entities.queries import Query
from loreg.manifest import File, Manifest
from loreg.value import Value


class ProbedVersion(Value, frozen=True):
    """A version that is to be probed: the id of its row, its ref and digest, its files, and its base if it is known.

    With ``is_named`` its number or digest was typed: then something is made of it although it is yanked.
    """

    id: int
    ref: str
    digest: str
    files: tuple[File, ...]
    base: BaseModel | None = None
    is_named: bool = False


class NewExport(Value, frozen=True):
    """A version's files for the server ``profile``; ``request`` is the digest of all the options of the export."""

    request: str
    profile: str
    manifest: Manifest


class MapOptions(Value, frozen=True):
    """What a probe that makes something is told besides.

    That is the ``profile`` of the server that exports are for; or the ``rank`` of new versions, and the ``name`` of
    their adapters, in which ``{namespace}`` and ``{name}`` are those of the adapter that each is made of.
    """

    profile: str = ""
    rank: int = 0
    name: str = ""


class MapSelection(Value, frozen=True):
    """Which versions a run is over: those that any of the ``selectors`` means, or those that ``search`` finds.

    A selector without an alias, a number or a digest means every version of the adapters that match.
    """

    selectors: tuple[str, ...] = ()
    search: Query | None = None

    def to_document(self) -> dict[str, object]:
        """Return it as JSON has it, without what is at its default.

        >>> MapSelection(search=Query(tasks=("qa",))).to_document()
        {'search': {'tasks': ['qa']}}
        """
        document = {"selectors": self.selectors} if self.search is None else {"search": _changed_fields(self.search)}
        as_json: dict[str, object] = msgspec.json.decode(msgspec.json.encode(document))
        return as_json


def _changed_fields(query: Query) -> dict[str, object]:
    fields = ((name, getattr(query, name), getattr(Query(), name)) for name in Query.__struct_fields__)
    return {name: value for name, value, default in fields if value != default}


class MapRun(Value, frozen=True):
    """One probe, of one release, over ``versions`` of the selection; ``done`` of them are done.

    With ``again`` also over those that the probe said something of. ``resumed`` if an earlier call began it. Its ``id``
    is 0 until it begins.
    """

    probe: str
    release: str
    selection: MapSelection
    again: bool
    options: MapOptions = MapOptions()
    id: int = 0
    versions: int = 0
    done: int = 0
    resumed: bool = False

    @property
    def makes_something(self) -> bool:
        """Whether exports or versions are made; else only facts are recorded."""
        return self.options != MapOptions()


class MapChunk(Value, frozen=True):
    """Some versions of a run that one process probes at once, for the ``attempts``-th time.

    Those that were deleted since the run began are not among them, nor those that were yanked if something is made.
    """

    run_id: int
    number: int
    attempts: int
    versions: tuple[ProbedVersion, ...]


class MapReport(Value, frozen=True):
    """What came of a run: how many versions it was over, and of how many of them the probe said something now.

    ``failed`` are the first hundred of which it could say nothing, each with the reason, and ``gone`` those that were
    deleted meanwhile, or yanked if something is made. ``retries`` counts chunks that were begun once more, for their
    process ended, or a collection took from the store what it had made.
    """

    run: MapRun
    recorded: int
    failed: tuple[tuple[str, str], ...]
    failed_count: int
    gone: int
    retries: int
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the probe could say something of every version."""
        return self.failed_count == 0
