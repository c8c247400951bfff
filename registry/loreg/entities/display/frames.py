"""Values as a pandas data frame: a row for each, in columns of its fields."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any

import msgspec

from loreg.entities.versions import Metric, Version
from loreg.errors import MissingExtraError
from loreg.refs import AdapterName

if TYPE_CHECKING:
    from pandas import DataFrame

#: The columns of a version that every version has; those of its labels and metrics come after them.
_OF_VERSIONS = (
    "ref", "digest", "base", "base_digest", "variant", "task_type", "rank_min", "rank_max", "parameters", "size",
    "tasks", "aliases", "author", "message", "created_at", "yanked",
)  # fmt: skip


def to_frame(items: Sequence[object], kind: type | None = None) -> DataFrame:
    """Return a data frame with a row for each item; ``kind`` says which columns there are if there is no item."""
    try:
        import pandas
    except ImportError as error:
        raise MissingExtraError(
            "a data frame needs pandas, which is not installed", hint="pip install 'loreg[notebook]'"
        ) from error
    rows = [_version_row(item) if isinstance(item, Version) else _row(item) for item in items]
    columns = _merge_columns(_columns_of(kind), rows)
    frame = pandas.DataFrame.from_records([[row.get(name) for name in columns] for row in rows], columns=columns)
    for name in columns:
        if name.endswith("_at") or name == "at":
            frame[name] = pandas.to_datetime(frame[name], utc=True)
    return frame


def _columns_of(kind: type | None) -> tuple[str, ...]:
    if kind is Version:
        return _OF_VERSIONS
    is_value = kind is not None and issubclass(kind, msgspec.Struct)
    return tuple(info.name for info in msgspec.structs.fields(kind)) if is_value else ()  # type: ignore[arg-type]


def _merge_columns(known: Iterable[str], rows: Iterable[dict[str, object]]) -> list[str]:
    """Return every column, in the order in which it comes first."""
    return list(dict.fromkeys((*known, *(name for row in rows for name in row))))


def _version_row(version: Version) -> dict[str, object]:
    facts, base = version.facts, version.base
    cells: tuple[object, ...] = (
        version.ref, version.digest, (base.names[0] if base and base.names else facts.base_hint) or None,
        base.digest if base else None, facts.variant, facts.task_type, facts.rank_min, facts.rank_max,
        facts.parameters, version.size, version.tasks, version.aliases, version.author, version.message,
        version.created_at, version.yanked,
    )  # fmt: skip
    columns = dict(zip(_OF_VERSIONS, cells, strict=True))
    labels = {f"label.{name}": value for name, value in version.labels.items()}
    metrics = {_metric_column(metric): metric.value for metric in version.metrics}
    return {**columns, **labels, **metrics}


def _metric_column(metric: Metric) -> str:
    """Return the name as it is typed; one that a column has already, such as a metric called ``size``, is told apart.

    A number without a dataset but with a split is ``accuracy@:test``.
    """
    where = f"@{metric.dataset}" if metric.dataset or metric.split else ""
    column = f"{metric.name}{where}" + (f":{metric.split}" if metric.split else "")
    return f"metric.{column}" if column in _OF_VERSIONS or column.startswith(("label.", "metric.")) else column


def _row(item: object) -> dict[str, object]:
    if not isinstance(item, msgspec.Struct):
        return {"value": item}
    return {name: _to_cell(value) for name, value in msgspec.structs.asdict(item).items()}


def _to_cell(value: Any) -> object:
    """Return what a cell holds: plain text for names and words, a mapping for a nested value."""
    if isinstance(value, AdapterName):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime) or not isinstance(value, msgspec.Struct):
        return value
    return msgspec.to_builtins(value)
