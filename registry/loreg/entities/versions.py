"""What is in an adapter, and what the catalog knows of a version."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from loreg.entities.bases import BaseModel
from loreg.entities.deployments import Deployment
from loreg.entities.displayed import Displayed
from loreg.errors import UsageError
from loreg.manifest import File, Manifest
from loreg.refs import AdapterName
from loreg.value import Value

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ModuleType(Value, frozen=True):
    """How often a kind of module (the last part of its name) carries factors, and at which ranks."""

    name: str
    count: int
    rank_min: int
    rank_max: int


class Facts(Value, frozen=True):
    """What the tensors and the configuration of an adapter say, without any mathematics.

    ``alpha`` is ``lora_alpha``; ``parameters`` counts elements of every tensor; ``dtype`` is the most common
    one by elements, in safetensors' words (``F32``); ``base_hint`` is ``base_model_name_or_path``, and of a path on the
    trainer's machine its last part alone.
    """

    variant: str
    task_type: str
    rank_min: int
    rank_max: int
    alpha: float
    parameters: int
    dtype: str
    module_types: tuple[ModuleType, ...]
    base_hint: str


class Metric(Value, frozen=True):
    """One measured number of one version; ``str`` rounds it to six digits, for tables.

    >>> metric = Metric("loss", 1.2345678901, "sciq", "test")
    >>> str(metric), metric.exact, metric.measured
    ('loss=1.23457@sciq:test', 'loss=1.2345678901@sciq:test', 'loss@sciq:test')
    """

    name: str
    value: float
    dataset: str = ""
    split: str = ""
    higher_is_better: bool = True

    def __str__(self) -> str:
        return f"{self.name}={self.value:g}{self._where}"

    @property
    def exact(self) -> str:
        """Return it as it is typed, with as many digits as the number has."""
        short = f"{self.value:g}"
        return f"{self.name}={short if float(short) == self.value else repr(self.value)}{self._where}"

    @property
    def measured(self) -> str:
        """Return what was measured, on which data: the metric without its number."""
        return f"{self.name}{self._where}"

    @property
    def _where(self) -> str:
        return (f"@{self.dataset}" if self.dataset else "") + (f":{self.split}" if self.split else "")


class Version(Displayed, frozen=True):
    """An immutable pushed state of an adapter, with what people have said of it since."""

    adapter: AdapterName
    number: int
    digest: str
    facts: Facts
    size: int
    author: str
    message: str
    created_at: datetime
    yanked: bool
    base: BaseModel | None
    target: str | None
    aliases: tuple[str, ...]
    tasks: tuple[str, ...]
    labels: Mapping[str, str]
    metrics: tuple[Metric, ...]

    @property
    def ref(self) -> str:
        """The shortest ref that always means this version."""
        return f"{self.adapter}:v{self.number}"

    @property
    def pinned(self) -> str:
        """The ref with its digest, as every command prints it."""
        return f"{self.ref}@sha256:{self.digest[:12]}"


#: What stands in place of the name of a source that the caller may not read.
HIDDEN_SOURCE = "(hidden source)"


class Source(Value, frozen=True):
    """One adapter that a merge was made from: ``label`` is what the person typed, ``digest`` its manifest's.

    To whom may not read the namespace that it names, the label is :data:`HIDDEN_SOURCE`.
    """

    label: str
    digest: str
    weight: float

    @property
    def is_hidden(self) -> bool:
        """Whether the registry does not tell the caller its name."""
        return self.label == HIDDEN_SOURCE


class Provenance(Displayed, frozen=True):
    """Where a version came from: the sources, everything needed to repeat it, and what it kept and lost.

    Of a version that was moved to another base there is one source, and no certificate: the weights are the same.
    """

    sources: tuple[Source, ...]
    recipe: Mapping[str, Any]
    certificate: Mapping[str, Any]

    @property
    def is_move(self) -> bool:
        """Whether the version was moved from another base, and not merged."""
        return "old_base" in self.recipe

    def plot(self) -> Figure:
        """Draw what was kept of each source, by module; return the figure. Raises MissingExtraError without matplotlib.

        Raises UsageError for one whose certificate has no modules.
        """
        from loreg.entities.display.pictures import import_figures

        if not self.certificate.get("modules"):
            raise UsageError("this has no certificate that could be drawn", hint="loreg merge --help")
        figure: Figure = import_figures().draw_kept(self)
        return figure


class Sketch(Value, frozen=True):
    """A version's weights in a few numbers, by which they are found again; see docs/format.md, Sketches.

    ``data`` is the sha256 of the tensors' bytes, without the header of the file: AutoV3. ``norm`` is ‖Δ‖, the Frobenius
    norm of all deltas together; ``vector`` has the 256 numbers, as base64 of 32-bit floats. It is empty, and ``norm``
    0, for an adapter that cannot be sketched.
    """

    data: str
    norm: float = 0.0
    vector: str = ""


class NewVersion(Value, frozen=True):
    """A version that is about to be recorded: all of its blobs are stored already.

    ``base_path`` is where its base lay on the author's machine, empty if that is not known.
    """

    adapter: AdapterName
    manifest: Manifest
    facts: Facts
    card: str = ""
    message: str = ""
    base: BaseModel | None = None
    target: str | None = None
    tasks: tuple[str, ...] = ()
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    metrics: tuple[Metric, ...] = ()
    aliases: tuple[str, ...] = ()
    provenance: Provenance | None = None
    base_path: str = ""
    sketch: Sketch | None = None


#: In the detail of an event: the registry that it was mirrored from.
MIRRORED_FROM = "mirrored_from"


class OriginEvent(Value, frozen=True):
    """An event of an adapter in the registry that it is mirrored from; ``number`` is the version's, None for none."""

    at: datetime
    author: str
    action: str
    number: int | None
    detail: Mapping[str, Any]

    @property
    def identity(self) -> tuple[object, ...]:
        """What makes two events of an adapter the same, wherever they were read, and whatever they passed through."""
        detail = {name: value for name, value in self.detail.items() if name != MIRRORED_FROM}
        return self.at, self.author, self.action, self.number, repr(_in_order(detail))

    @property
    def is_emptied(self) -> bool:
        """Return whether it is of a version that was deleted, of which it tells no more than the number."""
        return self.number is None and self.detail.keys() - {MIRRORED_FROM} == {"number"}

    @property
    def trace(self) -> tuple[object, ...]:
        """What is left of the identity when the version is deleted."""
        return self.at, self.author, self.action, self.number or self.detail.get("number")

    def is_in(self, known: set[tuple[object, ...]]) -> bool:
        """Return whether the event is among those whose identities and traces are ``known``."""
        return self.identity in known or (self.is_emptied and self.trace in known)


class OriginAlias(Value, frozen=True):
    """What an alias is to mean, as in the registry that it is mirrored from: the version ``number``, 0 for none.

    It is moved only if it means ``expected`` now, 0 for none; None is for whatever it means.
    """

    alias: str
    number: int
    expected: int | None = None


class OriginCanary(Value, frozen=True):
    """The version ``number`` that has a ``share`` of an alias, as in the registry that it is mirrored from; 0 for none.

    On which metrics it ends is that registry's to say, and not told: here it ends when it has ended there.
    """

    alias: str
    number: int
    share: float
    author: str
    at: datetime


class Origin(Value, frozen=True):
    """Where a version that is mirrored comes from, and what that registry says of it.

    ``registry`` is its id or URL. ``previous`` is the number of the version before it there, 0 for the first.
    ``is_yanked`` is None to leave that as it is. ``events`` are of the whole adapter, the oldest first; those that are
    recorded already are not recorded again.
    """

    registry: str
    number: int
    previous: int
    author: str
    created_at: datetime
    is_yanked: bool | None = None
    yanked_at: datetime | None = None
    events: tuple[OriginEvent, ...] = ()
    aliases: tuple[OriginAlias, ...] = ()
    canaries: tuple[OriginCanary, ...] = ()


class Commit(Value, frozen=True):
    """What is asked to become a version: the blobs of ``manifest`` are stored already, and those of ``base``.

    ``base`` may be one that is not known yet; the blob under its digest lists its tensors. ``base_hint`` is what the
    adapter called its base before a private path was taken out of its files. With an ``origin``, which is for
    administrators of everything, the version keeps the number, the author and the time that it has there. ``sketch``
    is what the client says of the weights; nothing but the search for candidates believes it.
    """

    adapter: AdapterName
    manifest: Manifest
    base: BaseModel | None = None
    base_hint: str = ""
    message: str = ""
    tasks: tuple[str, ...] = ()
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    metrics: tuple[Metric, ...] = ()
    aliases: tuple[str, ...] = ()
    origin: Origin | None = None
    sketch: Sketch | None = None

    @property
    def digests(self) -> tuple[str, ...]:
        """The digests of all blobs that must be stored for it."""
        of_base = (self.base.digest,) if self.base else ()
        return (*(file.sha256 for file in self.manifest.files), *of_base)


class Committed(Value, frozen=True):
    """The version, whether it is a new one, and what a person should know."""

    version: Version
    created: bool
    notes: tuple[str, ...]


class Canary(Value, frozen=True):
    """The version ``number`` gets the ``share``, between 0 and 1, of those who ask for ``alias``.

    It ends by itself when a metric that is reported of it fulfills one of ``rollback_if``, as ``accuracy<0.8``.
    """

    alias: str
    number: int
    share: float
    rollback_if: tuple[str, ...]
    author: str
    at: datetime


class AdapterEntry(Displayed, frozen=True):
    """One adapter in a listing: how many versions, and the newest that is not yanked (None if all are).

    ``canaries`` are the versions that have a share of one of the ``aliases``.
    """

    adapter: AdapterName
    versions: int
    newest: int | None
    aliases: Mapping[str, int]
    created_at: datetime
    canaries: tuple[Canary, ...] = ()


class Promotion(Value, frozen=True):
    """The version ``number`` has ``alias`` for all who ask, and ``previous`` is what it meant before.

    It means that again, by itself, when a metric that is reported fulfills one of ``rollback_if``, as ``accuracy<0.8``.
    """

    alias: str
    number: int
    previous: int
    rollback_if: tuple[str, ...]
    author: str
    at: datetime


class Details(Displayed, frozen=True):
    """All that is known of one version; ``card`` is the text of its README.md, as far as it is kept.

    ``base_path`` is where the base lay on the machine that pushed it: the version's author is told, and nobody else.
    ``deployments`` are where it is, as folders and servers tell, for those who have a right of their own to read it.
    ``canaries`` and ``promotions``, of which those that are watched, are those of all aliases of the adapter.
    """

    version: Version
    files: tuple[File, ...]
    card: str
    provenance: Provenance | None
    alias_moves: tuple[AliasMove, ...]
    base_path: str = ""
    deployments: tuple[Deployment, ...] = ()
    canaries: tuple[Canary, ...] = ()
    promotions: tuple[Promotion, ...] = ()

    def plot(self) -> Figure:
        """Draw what a merge kept of each source, as :meth:`Provenance.plot`. Raises UsageError if it is no merge."""
        if self.provenance is None:
            raise UsageError(f"{self.version.ref} is no merge: there is no certificate to draw", hint="loreg ls")
        return self.provenance.plot()


class LineageEdge(Value, frozen=True):
    """``child`` was made from ``parent`` with its weight.

    ``parent_ref`` is empty for a folder, for what is gone, and for what the caller may not read.
    """

    child: str
    parent: Source
    parent_ref: str
    depth: int


class AliasMove(Value, frozen=True):
    """One move of an alias; ``number`` is None where it was removed."""

    alias: str
    number: int | None
    author: str
    at: datetime


def _in_order(value: Any) -> Any:
    if isinstance(value, Mapping):
        return sorted((str(name), _in_order(item)) for name, item in value.items())
    return [_in_order(item) for item in value] if isinstance(value, list | tuple) else value
