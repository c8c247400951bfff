"""What a team asks of adapters: the table ``[check]`` of loreg.toml."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from loreg.errors import UsageError
from loreg.expressions import parse_count, parse_metric_condition
from loreg.records import BaseModel, Facts, Finding, Metric, MetricCondition, Version

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "=": operator.eq, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


@dataclass(frozen=True)
class Policy:
    """``tasks`` and ``metrics`` that a version must have, ``bases`` (names or digests) of which it must have one, the
    highest rank and the most bytes; before one of ``aliases`` points to a version, all of it must hold."""

    tasks: tuple[str, ...] = ()
    metrics: tuple[MetricCondition, ...] = ()
    bases: tuple[str, ...] = ()
    max_rank: int | None = None
    max_size: int | None = None
    aliases: tuple[str, ...] = ()


#: What each code stands for, and what to do about it.
ABOUT = {
    "LP001": ("A version has every task that the policy names.", "loreg push DIR NAME --task TASK"),
    "LP002": ("A version has every metric that the policy names, measured as well as it asks.", "loreg metric add REF"),
    "LP003": ("The base is one that the policy allows.", "loreg push --base records which base it is"),
    "LP004": ("No module has a higher rank than the policy allows.", "loreg rerank REF --rank N"),
    "LP005": ("All files together are no larger than the policy allows.", "loreg rerank REF --budget N"),
}
_LISTS = ("tasks", "metrics", "bases", "aliases")


def read_policy(table: Mapping[str, Any], origin: str) -> Policy:
    """The policy of the table in the file ``origin``. Raises UsageError, naming the file and the key."""
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key in _LISTS and isinstance(value, list) and all(isinstance(item, str) for item in value):
            values[key] = tuple(map(parse_metric_condition, value)) if key == "metrics" else tuple(value)
        elif key in ("max_rank", "max_size") and isinstance(value, int | str) and not isinstance(value, bool):
            values[key] = parse_count(value.removesuffix("B")) if isinstance(value, str) else value
        else:
            raise UsageError(
                f"{origin}: [check] {key} = {value!r} is not understood; expected lists of text for "
                f"{', '.join(_LISTS)}, numbers for max_rank and max_size",
                hint=f"mend {origin}",
            )
    return Policy(**values)


def findings(
    policy: Policy, facts: Facts, size: int, base: BaseModel | None, version: Version | None
) -> tuple[Finding, ...]:
    """What an adapter breaks of the policy. Tasks and metrics are asked only of a ``version``: a folder has none."""
    return tuple(
        Finding(code, "error", message, ABOUT[code][1])
        for code, message in (*_of_files(policy, facts, size, base), *(_of_version(policy, version) if version else ()))
    )


def _of_files(policy: Policy, facts: Facts, size: int, base: BaseModel | None) -> Iterator[tuple[str, str]]:
    names = (*base.names, base.digest) if base else (facts.base_hint,)
    allowed = any(name == one or (base and base.digest.startswith(one)) for name in names for one in policy.bases)
    if policy.bases and not allowed:
        yield "LP003", f"the base is {names[0] or 'unknown'}, allowed are {', '.join(policy.bases)}"
    if policy.max_rank is not None and facts.rank_max > policy.max_rank:
        yield "LP004", f"rank {facts.rank_max} is over {policy.max_rank}"
    if policy.max_size is not None and size > policy.max_size:
        yield "LP005", f"{size:,} bytes are over {policy.max_size:,}"


def _of_version(policy: Policy, version: Version) -> Iterator[tuple[str, str]]:
    for task in policy.tasks:
        if task not in version.tasks:
            yield "LP001", f"the task {task} is missing"
    for condition in policy.metrics:
        if not any(_holds(condition, metric) for metric in version.metrics):
            measured = ", ".join(str(metric) for metric in version.metrics if metric.name == condition.name)
            asked = f"{condition.name}{condition.comparison.operator}{condition.comparison.value:g}"
            where = f"@{condition.dataset}" if condition.dataset else ""
            yield "LP002", f"{asked}{where} is asked for, measured is {measured or 'nothing'}"


def _holds(condition: MetricCondition, metric: Metric) -> bool:
    return (
        metric.name == condition.name
        and condition.dataset in ("", metric.dataset)
        and condition.split in ("", metric.split)
        and _COMPARE[condition.comparison.operator](metric.value, condition.comparison.value)
    )
