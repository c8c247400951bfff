"""What is searched for, and the pages that are found."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Generic, Self, TypeVar, overload

import msgspec

from loreg.entities.displayed import Displayed
from loreg.errors import UsageError
from loreg.value import Value

if TYPE_CHECKING:
    from pandas import DataFrame

    from loreg.entities.listing import WholeListing
    from loreg.entities.versions import Metric

T = TypeVar("T")


class Page(Displayed, Generic[T], frozen=True, dict=True):
    """One page of a listing; ``cursor`` fetches the next and is None on the last."""

    # A sequence of its items. How a page of a registry fetches those after it is no field: it is not compared or sent.

    items: tuple[T, ...]
    cursor: str | None

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    @overload
    def __getitem__(self, position: int) -> T: ...
    @overload
    def __getitem__(self, position: slice) -> tuple[T, ...]: ...
    def __getitem__(self, position: int | slice) -> T | tuple[T, ...]:
        return self.items[position]

    def followed_by(self, kind: type[T], fetch: Callable[[str], Page[T]]) -> Self:
        """Return the same page, of items of ``kind``, for which ``fetch`` returns the page at a cursor."""
        page = msgspec.structs.replace(self)
        page.__dict__.update(_kind=kind, _fetch=fetch)
        return page

    def all(self) -> WholeListing[T]:
        """Return every item from this page on, to be iterated over; a later page is fetched when it is reached.

        Raises UsageError for a page that no registry returned and that is not the last.

        >>> pages = {"next": Page(("c",), None)}
        >>> page = Page(("a", "b"), "next").followed_by(str, pages.__getitem__)
        >>> len(page), page[0], list(page), list(page.all())
        (2, 'a', ['a', 'b'], ['a', 'b', 'c'])
        """
        from loreg.entities.listing import WholeListing

        fetch = self.__dict__.get("_fetch")
        if fetch is None and self.cursor is not None:
            raise UsageError(
                "this page does not know its registry, and cannot fetch the next",
                hint="ask the registry for it, with cursor=page.cursor",
            )
        return WholeListing(self, self.__dict__.get("_kind"), fetch)

    def to_pandas(self) -> DataFrame:
        """Return a data frame with a row for each item of this page; ``all().to_pandas()`` is that of every page.

        Of versions the columns are ``ref``, ``digest``, ``base`` and so on, one for each metric, called as it is typed
        (``accuracy@imdb``), and one for each label (``label.stage``); times are datetimes in UTC. Raises
        MissingExtraError without pandas.
        """
        from loreg.entities.display.frames import to_frame

        return to_frame(self.items, self.__dict__.get("_kind"))


class Operator(StrEnum):
    """How a value is compared."""

    EQUAL = "="
    LESS = "<"
    AT_MOST = "<="
    GREATER = ">"
    AT_LEAST = ">="


_COMPARE: dict[Operator, Callable[[float, float], bool]] = {
    Operator.EQUAL: operator.eq,
    Operator.LESS: operator.lt,
    Operator.AT_MOST: operator.le,
    Operator.GREATER: operator.gt,
    Operator.AT_LEAST: operator.ge,
}


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

    def is_fulfilled_by(self, metric: Metric) -> bool:
        """Return whether that number fulfills it."""
        is_meant = (
            metric.name == self.name and self.dataset in ("", metric.dataset) and self.split in ("", metric.split)
        )
        return is_meant and _COMPARE[self.comparison.operator](metric.value, self.comparison.value)


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

    ``namespace`` is ``-`` for adapters that have none. ``loads_in`` names a server by its profile: the registry puts in
    ``without_findings`` which findings have it refuse an adapter, or answer wrongly; a version that was never checked
    is not among those that load.

    With ``best`` it is of each adapter the one version that is best by the metric of ``sort``. Raises UsageError for a
    task, module or label that is empty: nothing can be called so, and a script has lost its value.
    """

    text: str = ""
    tasks: tuple[str, ...] = ()
    base: str = ""
    modules: tuple[str, ...] = ()
    ranks: tuple[Comparison, ...] = ()
    metrics: tuple[MetricCondition, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    namespace: str = ""
    author: str = ""
    variant: str = ""
    loads_in: str = ""
    without_findings: tuple[str, ...] = ()
    sort: Sort = Sort()
    best: bool = False
    all_versions: bool = False
    limit: int = 50
    cursor: str | None = None

    def __post_init__(self) -> None:
        named = (("task", self.tasks), ("module", self.modules), ("label", [key for key, _ in self.labels]))
        for what, words in named:
            if not all(word.strip() for word in words):
                raise UsageError(f"the {what} to search for is empty", hint="loreg search --facets")

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
