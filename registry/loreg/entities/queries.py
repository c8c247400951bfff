"""What is searched for, and the pages that are found."""

from __future__ import annotations

from enum import StrEnum
from typing import Generic, TypeVar

from loreg.value import Value

T = TypeVar("T")


class Page(Value, Generic[T], frozen=True):
    """One page of a listing; ``cursor`` fetches the next and is None on the last."""

    items: tuple[T, ...]
    cursor: str | None


class Operator(StrEnum):
    """How a value is compared."""

    EQUAL = "="
    LESS = "<"
    AT_MOST = "<="
    GREATER = ">"
    AT_LEAST = ">="


class Comparison(Value, frozen=True):
    """A bound: ``operator`` stands before ``value``."""

    operator: Operator
    value: float

    def __str__(self) -> str:
        return f"{self.operator}{self.value!r}"


class MetricCondition(Value, frozen=True):
    """A metric that a version must have, with a value that compares; empty ``dataset`` or ``split`` means any."""

    name: str
    comparison: Comparison
    dataset: str = ""
    split: str = ""

    def __str__(self) -> str:
        return f"{self.name}{self.comparison}{_where(self.dataset, self.split)}"


class SortKey(StrEnum):
    """What search results are sorted by."""

    CREATED = "created"
    NAME = "name"
    RANK = "rank"
    SIZE = "size"
    METRIC = "metric"
    RELEVANCE = "relevance"


class Sort(Value, frozen=True):
    """An order of search results; ``metric``, ``dataset`` and ``split`` name the metric that it may be by."""

    by: SortKey = SortKey.CREATED
    metric: str = ""
    dataset: str = ""
    split: str = ""

    def __str__(self) -> str:
        return f"metric:{self.metric}{_where(self.dataset, self.split)}" if self.by == SortKey.METRIC else self.by


class Query(Value, frozen=True):
    """What to search for; every given condition must hold. ``text`` is words, of which the last may go on.

    With ``best`` it is of each adapter the one version that is best by the metric of ``sort``.
    """

    text: str = ""
    tasks: tuple[str, ...] = ()
    base: str = ""
    modules: tuple[str, ...] = ()
    ranks: tuple[Comparison, ...] = ()
    metrics: tuple[MetricCondition, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    author: str = ""
    variant: str = ""
    sort: Sort = Sort()
    best: bool = False
    all_versions: bool = False
    limit: int = 50
    cursor: str | None = None

    @property
    def reads_all_versions(self) -> bool:
        """Whether older versions count too: who asks for a metric asks for the best, and that may be an older one."""
        return self.all_versions or self.best or bool(self.metrics) or self.sort.by == SortKey.METRIC

    @property
    def order(self) -> str:
        """Return what the pages are in the order of, as a cursor names it."""
        return str(self.sort).replace("metric:", "best:", 1) if self.best else str(self.sort)


def _where(dataset: str, split: str) -> str:
    """Which data a metric is of, as it is typed."""
    return (f"@{dataset}" + (f":{split}" if split else "")) if dataset or split else ""
