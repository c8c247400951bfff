"""What a registry holds, counted: its tasks, bases and metrics, and what the versions of a search have."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from loreg.entities.results import TermMatch
from loreg.entities.versions import Metric
from loreg.value import Value


class MetricSummary(Value, frozen=True):
    """One metric on one dataset and split: how many ``versions`` have it, the ``best`` number, and its ``ref``.

    ``unit`` is the declared one, or the usual one of that name; empty if neither is known.
    """

    best: Metric
    ref: str
    versions: int
    unit: str = ""


class TaskSummary(Value, frozen=True):
    """A task: how many adapters and versions are for it; ``metric`` is the one that most of them have."""

    task: str
    adapters: int
    versions: int
    metric: MetricSummary | None = None


class BaseSummary(Value, frozen=True):
    """A base: how many adapters and versions were trained on it; ``digest`` is empty if it is known by name only.

    ``name`` is empty where it is known by the path on one machine only, which is nobody else's to know.
    """

    name: str
    digest: str
    adapters: int
    versions: int


class MetricDeclaration(Value, frozen=True):
    """Which direction of a metric is better, and its unit; numbers of the other direction are refused."""

    name: str
    higher_is_better: bool
    unit: str = ""
    author: str = ""
    at: datetime | None = None


class MetricDeclared(Value, frozen=True):
    """A declaration that was recorded; ``turned`` counts the numbers recorded before with the other direction."""

    declaration: MetricDeclaration
    turned: int


class MetricVocabulary(Value, frozen=True):
    """The names of the metrics that versions have, and what was declared of any."""

    names: tuple[str, ...]
    declarations: tuple[MetricDeclaration, ...]


class SearchWords(Value, frozen=True):
    """The words that a search takes: of the versions that may be read and are not yanked, 10,000 of each kind at most.

    ``bases`` are names: those of known bases, and those that adapters give.
    """

    tasks: tuple[str, ...] = ()
    bases: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()


class FacetKind(StrEnum):
    """What the versions of a search are counted by."""

    TASK = "task"
    BASE = "base"
    RANK = "rank"
    MODULE = "module"
    VARIANT = "variant"
    NAMESPACE = "namespace"
    LOADS_IN = "loads_in"
    METRIC = "metric"


class FacetCount(Value, frozen=True):
    """How many versions have one ``value``; the namespace of adapters that have none is ``-``."""

    kind: FacetKind
    value: str
    versions: int


class MetricRange(Value, frozen=True):
    """The least and the greatest number of a metric, on whatever data, and which direction is better."""

    name: str
    low: float
    high: float
    higher_is_better: bool


class Facets(Value, frozen=True):
    """What the versions of a search have, the most common first; ``versions`` is how many of them were counted.

    ``is_capped`` if there are more: then the newest were counted. ``matches`` are those of a search. ``ranges`` are of
    the versions that fulfill all conditions but those on metrics: between them a bound can be moved. ``unchecked`` is
    how many of the counted were never checked, so that nobody knows which servers take them.
    """

    versions: int
    is_capped: bool
    counts: tuple[FacetCount, ...]
    matches: tuple[TermMatch, ...] = ()
    ranges: tuple[MetricRange, ...] = ()
    unchecked: int = 0
