"""What an adapter is to those that the registry has."""

from __future__ import annotations

from enum import StrEnum

from loreg.entities.sketches import HashKind
from loreg.value import Value


class KinshipKind(StrEnum):
    """How the weights of an adapter come from those of a version; the strongest first.

    ``same``: all of its files. ``weights``: every number of its factors. ``precision``: the same numbers, rounded.
    ``scaled``: the same deltas times a number. ``refactored``: the same deltas out of other factors. ``reranked``: the
    best approximation at other ranks. ``merged``: a weighted sum of several. ``near``: nearly the same direction, as
    training goes on from one to the other. ``related``: deltas that have more in common than those of strangers.
    ``hash``: a hash that begins as the one asked for.
    """

    SAME = "same"
    WEIGHTS = "weights"
    PRECISION = "precision"
    SCALED = "scaled"
    REFACTORED = "refactored"
    RERANKED = "reranked"
    MERGED = "merged"
    HASH = "hash"
    NEAR = "near"
    RELATED = "related"


class MergeShare(Value, frozen=True):
    """One source of a merge, and the weight that its deltas have in it."""

    ref: str
    weight: float


class Kinship(Value, frozen=True):
    """What an adapter is to one version, or to several that it was merged from, with the numbers that say so.

    ``cosine`` is that of the deltas; ``scale`` the number c, and ``error`` the rest ‖Δ − c·Δ'‖ / ‖Δ‖, of a merge
    ‖Δ − Σ wᵢ·Δᵢ‖ / ‖Δ‖. ``retention`` is the share of ‖Δ‖² that the lower rank keeps. ``is_source`` is false where the
    version comes from the adapter: it has the lower rank. ``hashes`` are those that are equal, ``also`` further
    versions with the same weights, ``notes`` sentences for people. ``is_exact`` is false where only sketches, or
    hashes, were compared.
    """

    ref: str
    relation: KinshipKind
    cosine: float = 0.0
    scale: float = 1.0
    error: float = 0.0
    retention: float = 1.0
    is_source: bool = True
    is_exact: bool = True
    hashes: tuple[HashKind, ...] = ()
    sources: tuple[MergeShare, ...] = ()
    also: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Identification(Value, frozen=True):
    """What an adapter is: the ``answers``, the best first; none if the registry knows nothing like it.

    ``sha256`` is that of the file of weights, ``data`` that of its tensors alone; ``auto_v2`` and ``auto_v3`` are the
    short forms that others print. ``norm`` is ‖Δ‖. ``notes`` say what could not be looked at.
    """

    name: str
    sha256: str
    data: str
    norm: float
    answers: tuple[Kinship, ...]
    notes: tuple[str, ...] = ()

    @property
    def auto_v2(self) -> str:
        """The first ten digits of the file's sha256."""
        return self.sha256[:10]

    @property
    def auto_v3(self) -> str:
        """The first twelve digits of the sha256 of the tensors' bytes."""
        return self.data[:12]

    @property
    def is_known(self) -> bool:
        """Whether the registry has it, or what it comes from."""
        return bool(self.answers) and self.answers[0].relation is not KinshipKind.RELATED


class NearDuplicates(Value, frozen=True):
    """Versions whose deltas are nearly the same, by their sketches; the oldest first.

    Each has the ``cosines`` of its deltas with those of the first, and the number ``scales`` by which the first's are
    to be multiplied.
    """

    refs: tuple[str, ...]
    cosines: tuple[float, ...]
    scales: tuple[float, ...]
