"""Parse what people type beside refs: metrics, comparisons, labels, scopes, sort orders, weights."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from loreg.entities import (
    Comparison,
    EventFilter,
    Metric,
    MetricCondition,
    Operator,
    Query,
    Role,
    Sort,
    SortKey,
    UpgradeVerdict,
)
from loreg.entities.webhooks import ACTIONS
from loreg.errors import UsageError
from loreg.metric_names import usual_metric
from loreg.refs import NO_NAMESPACE, parse_adapter_name
from loreg.suggestions import suggest

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
_METRIC = re.compile(r"(?P<name>[^=<>@\s]+?)(?P<operator><=|>=|=|<|>)(?P<value>[^@\s]+)(?:@(?P<where>\S+))?")
_COMPARISON = re.compile(r"(<=|>=|=|<|>)?\s*(\S+)")
_NAMESPACE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?")
_DATE = re.compile(r"\d{4}-?\d{2}-?\d{2}")
_SPAN = re.compile(r"([0-9]{1,5})([mhdw])")
_MAX_SPAN = 99_999  # of a unit
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_MAX_REASON = 1000  # characters
_MAX_CONDITIONS = 20  # of one canary
_COUNT = re.compile(r"(\d+(?:\.\d+)?)([kMG]?)")


def parse_span(text: str) -> timedelta:
    """Parse a span of time: ``90m``, ``12h``, ``30d`` or ``8w``. Raises UsageError.

    >>> parse_span("36h")
    datetime.timedelta(days=1, seconds=43200)
    """
    match = _SPAN.fullmatch(text)
    if not match:
        raise UsageError(f"invalid span {text!r}: expected something like 90m, 12h, 30d or 8w", hint="for a day: 24h")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def format_span(span: timedelta) -> str:
    """Return a span as :func:`parse_span` reads it, in the largest unit that it is whole of, and no shorter than it is.

    >>> format_span(timedelta(days=30)), format_span(timedelta(hours=1, seconds=1))
    ('30d', '61m')
    """
    minutes = math.ceil(span.total_seconds() / 60)
    for unit, size in (("d", 24 * 60), ("h", 60), ("m", 1)):
        if minutes % size == 0 and minutes // size <= _MAX_SPAN:
            return f"{minutes // size}{unit}"
    return f"{math.ceil(minutes / (24 * 60))}d"


def parse_time(text: str, *, is_end: bool = False) -> datetime:
    """Parse a date, a date and a time (in UTC, unless it says its zone), or a span before now. Raises UsageError.

    A date is its beginning or, with ``is_end``, its end.

    >>> str(parse_time("2026-11-25T18:00+01:00")), str(parse_time("2026-11-25", is_end=True))
    ('2026-11-25 18:00:00+01:00', '2026-11-26 00:00:00+00:00')
    """
    if _SPAN.fullmatch(text):
        return datetime.now(UTC) - parse_span(text)
    try:
        time = datetime.fromisoformat(text)
        time = time + timedelta(days=1) if is_end and _DATE.fullmatch(text) else time
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{text!r} is no date", hint="2026-11-25, 2026-11-25T18:00+01:00 or 7d, a week ago") from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def parse_event_filter(
    *,
    adapter: str = "",
    namespace: str = "",
    author: str = "",
    actions: Sequence[str] = (),
    since: str = "",
    until: str = "",
    pulls: bool = True,
) -> EventFilter:
    """Parse which events are asked for. Raises UsageError, also for an action that no event has."""
    for action in actions:
        if action not in ACTIONS:
            hint = f"one of {', '.join(ACTIONS)}"
            raise UsageError(f"no event is called {action!r}", hint=hint, suggestion=suggest(action, ACTIONS))
    return EventFilter(
        adapter=parse_adapter_name(adapter) if adapter else None,
        namespace=namespace,
        author=author,
        actions=tuple(actions),
        since=parse_time(since) if since else None,
        until=parse_time(until, is_end=True) if until else None,
        pulls=pulls,
    )


def parse_reason(text: str) -> str:
    """Return the reason of a deletion: one line of 1 to 1,000 characters. Raises UsageError.

    >>> parse_reason(" asked for by its author ")
    'asked for by its author'
    """
    reason = text.strip()
    if not reason or len(reason) > _MAX_REASON or not reason.isprintable():
        raise UsageError(
            f"the reason has {len(reason):,} characters, expected one line of 1 to {_MAX_REASON:,}",
            hint="--reason 'asked for by its author'",
        )
    return reason


def parse_metric(text: str, *, lower_is_better: bool = False) -> Metric:
    """Parse ``name=value[@dataset[:split]]``. The direction follows the name (``eval_loss`` is better when lower).

    Raises UsageError for text of another form, or a value that is not finite.

    >>> parse_metric("eval_loss=0.5@imdb:test")
    Metric(name='eval_loss', value=0.5, dataset='imdb', split='test', higher_is_better=False)
    """
    name, operator, value, dataset, split = _split_metric(text, "accuracy=0.93@imdb:test")
    if operator != Operator.EQUAL:
        raise UsageError(f"invalid metric {text!r}: expected name=value[@dataset[:split]]", hint="accuracy=0.93@imdb")
    usual = usual_metric(name)
    return Metric(name, value, dataset, split, not lower_is_better and (usual is None or usual.higher_is_better))


def parse_metric_condition(text: str) -> MetricCondition:
    """Parse ``name>=value[@dataset[:split]]`` with any of ``= < <= > >=``. Raises UsageError.

    >>> condition = parse_metric_condition("accuracy>=0.9@imdb")
    >>> condition.name, str(condition.comparison), condition.dataset, condition.split
    ('accuracy', '>=0.9', 'imdb', '')
    """
    name, operator, value, dataset, split = _split_metric(text, "'accuracy>=0.9@imdb'")
    return MetricCondition(name, Comparison(operator, value), dataset, split)


def parse_share(text: str) -> float:
    """Parse a share of what is asked for: ``10%`` or ``0.1``, and ``0`` for none. Raises UsageError.

    >>> parse_share("10%"), parse_share("0.25")
    (0.1, 0.25)
    """
    match = re.fullmatch(r"(\d{1,3}(?:\.\d{1,6})?)(%?)", text.strip())
    share = float(match[1]) / (100 if match[2] else 1) if match else -1.0
    if not 0 <= share < 1:
        raise UsageError(
            f"invalid share {text!r}: expected a part of what is asked for, below 100 %",
            hint="--share 10%; without --share the alias means the version for all",
        )
    return share


def validate_canary(share: float, rollback_if: Sequence[str]) -> None:
    """Raise UsageError for a share that is not between 0 and 1, and for what is no condition on a metric."""
    if not 0 < share < 1:
        raise UsageError(f"a canary cannot have a share of {share!r}", hint="--share 10%")
    validate_rollback(rollback_if)


def validate_rollback(rollback_if: Sequence[str]) -> None:
    """Raise UsageError for what is no condition on a metric, and for too many."""
    if len(rollback_if) > _MAX_CONDITIONS:
        raise UsageError(f"{len(rollback_if)} conditions: {_MAX_CONDITIONS} at most", hint="--rollback-if 'loss>3'")
    for text in rollback_if:
        parse_metric_condition(text)


def parse_comparison(text: str) -> Comparison:
    """Parse ``<=16``, ``>= 8`` or ``16`` (equal). Raises UsageError."""
    match = _COMPARISON.fullmatch(text.strip())
    if not match:
        raise UsageError(f"invalid comparison {text!r}: expected a number after = < <= > >=", hint="--rank '<=16'")
    return Comparison(Operator(match[1] or "="), _parse_number(match[2], text))


def parse_label(text: str) -> tuple[str, str]:
    """Parse ``key=value``; the value may be any text without control characters."""
    key, equals, value = text.partition("=")
    if not equals or not _WORD.fullmatch(key) or len(value) > 256 or not value.isprintable():
        raise UsageError(f"invalid label {text!r}: expected key=value", hint="--label team=search")
    return key, value


def parse_word(text: str, what: str) -> str:
    """Return a task or module type: one word of at most 128 characters. Raises UsageError naming ``what`` it is."""
    if not _WORD.fullmatch(text):
        raise UsageError(
            f"invalid {what} {text!r}: expected letters, digits and '._/-', starting with a letter or digit",
            hint=f"--{what} sentiment",
        )
    return text


def parse_unit(text: str) -> str:
    """Return the unit of a metric, of 32 characters at most, without control characters. Raises UsageError."""
    if len(text) > 32 or not text.isprintable():
        raise UsageError(f"invalid unit {text!r:.50}: expected 32 characters at most", hint="--unit '%'")
    return text.strip()


def parse_scopes(scopes: Sequence[str]) -> dict[str, Role]:
    """Parse scopes such as ``write:team``, ``read:*`` or ``read:-`` (no namespace) to the level of each namespace.

    Raises UsageError.

    >>> {namespace: str(role) for namespace, role in parse_scopes(["read:*", "write:team", "read:team"]).items()}
    {'*': 'read', 'team': 'write'}
    """
    grants: dict[str, Role] = {}
    for scope in scopes:
        level, colon, namespace = scope.partition(":")
        if (
            not colon
            or level not in set(Role)
            or not (namespace in ("*", NO_NAMESPACE) or _NAMESPACE.fullmatch(namespace))
        ):
            raise UsageError(
                f"invalid scope {scope!r}: expected {'|'.join(Role)}:NAMESPACE, with * for all and - for none",
                hint="--scope write:team",
            )
        key = "" if namespace == NO_NAMESPACE else namespace
        grants[key] = max(Role(level), grants.get(key, Role(level)), key=tuple(Role).index)
    if not grants:
        raise UsageError("a token needs a scope", hint="--scope read:*")
    return grants


def format_scopes(grants: Mapping[str, str]) -> list[str]:
    """Format the level of each namespace as scopes that :func:`parse_scopes` reads."""
    return [f"{level}:{namespace or NO_NAMESPACE}" for namespace, level in grants.items()]


def validate_metric(metric: Metric) -> Metric:
    """Return the metric if it could have been typed, see :func:`parse_metric`. Raises UsageError."""
    parse_metric(f"{metric.name}={metric.value!r}" + (f"@{metric.dataset}" if metric.dataset else ""))
    if not (metric.dataset + metric.split).isprintable() or max(len(metric.dataset), 2 * len(metric.split)) > 256:
        raise UsageError(f"the dataset or split of {metric.name} cannot be kept", hint="accuracy=0.93@imdb:test")
    return metric


def parse_sort(text: str) -> Sort:
    """Parse ``created``, ``name``, ``rank``, ``size``, ``relevance`` or ``metric:NAME[@dataset]``."""
    kind, colon, metric = text.partition(":")
    if not colon and kind in set(SortKey) - {SortKey.METRIC}:
        return Sort(SortKey(kind))
    name, _, where = metric.partition("@")
    dataset, _, split = where.partition(":")
    if kind == SortKey.METRIC and name:
        return Sort(SortKey.METRIC, name, dataset, split)
    raise UsageError(
        f"invalid sort order {text!r}: expected created, name, rank, size, relevance or metric:NAME[@dataset[:split]]",
        hint="--sort metric:accuracy",
    )


def parse_best(text: str) -> Sort:
    """Parse ``NAME[@dataset[:split]]``, the metric by which versions are compared. Raises UsageError.

    >>> str(parse_best("accuracy@imdb:test"))
    'metric:accuracy@imdb:test'
    """
    name, at, where = text.partition("@")
    dataset, colon, split = where.partition(":")
    if not name or (at and not dataset) or (colon and not split) or not text.isprintable() or " " in text:
        raise UsageError(f"invalid metric {text!r}: expected NAME[@dataset[:split]]", hint="--best accuracy@imdb:test")
    return Sort(SortKey.METRIC, name, dataset, split)


def parse_order(sort: str, best: str, text: str) -> Sort:
    """Return the order of a search: by ``sort``, or by the metric ``best``.

    If neither is written, by relevance where there is a text, else by ``created``.

    Raises UsageError for both at once, and for what does not parse.
    """
    if sort and best:
        raise UsageError(
            f"--best {best} says the order already, --sort {sort} would be another", hint=f"--best {best} alone"
        )
    if best:
        return parse_best(best)
    if sort == SortKey.RELEVANCE and not text.strip():
        raise UsageError("what is relevant is not known without a text", hint="loreg search news --sort relevance")
    return parse_sort(sort) if sort else Sort(SortKey.RELEVANCE if text.strip() else SortKey.CREATED)


def parse_conditions(
    text: str = "",
    *,
    tasks: Sequence[str] = (),
    base: str = "",
    modules: Sequence[str] = (),
    ranks: Sequence[str] = (),
    metrics: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    namespace: str = "",
    author: str = "",
    variant: str = "",
    loads_in: str = "",
    all_versions: bool = False,
) -> Query:
    """Return the conditions of a search. Raises UsageError for one that does not parse.

    >>> parse_conditions(tasks=["qa"], ranks=["<=16"]).ranks
    (Comparison(operator=<Operator.AT_MOST: '<='>, value=16.0),)
    """
    return Query(
        text=text,
        tasks=tuple(tasks),
        base=base,
        modules=tuple(modules),
        ranks=tuple(parse_comparison(rank) for rank in ranks),
        metrics=tuple(parse_metric_condition(metric) for metric in metrics),
        labels=tuple((labels or {}).items()),
        namespace=namespace,
        author=author,
        variant=variant,
        loads_in=loads_in,
        all_versions=all_versions,
    )


def parse_verdict(text: str) -> UpgradeVerdict:
    """Return what an upgrade means for an adapter: exact, copy, retrain or unknown. Raises UsageError."""
    try:
        return UpgradeVerdict(text)
    except ValueError as error:
        raise UsageError(f"{text[:40]!r} is no verdict", hint=f"one of {', '.join(UpgradeVerdict)}") from error


def parse_weights(text: str) -> tuple[float, ...]:
    """Parse ``0.7,0.3``: finite numbers, also negative ones; they need not sum to 1."""
    return tuple(_parse_number(part.strip(), text) for part in text.split(","))


def parse_weights_for(texts: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """Parse several ``pattern=0.2,0.8``; the patterns are matched as in ``rank_pattern``. Raises UsageError."""
    weights_by_pattern = {}
    for text in texts:
        pattern, equals, weights = text.rpartition("=")
        if not equals or not pattern:
            raise UsageError(f"invalid weights {text!r}: expected PATTERN=W,W", hint="--weights-for 'mlp.*=0.2,0.8'")
        weights_by_pattern[pattern] = parse_weights(weights)
    return weights_by_pattern


def parse_pairs(texts: Sequence[str]) -> dict[str, str]:
    """Parse several ``name=value``."""
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"invalid parameter {text!r}: expected NAME=VALUE", hint="--param elect=count")
        pairs[name] = value
    return pairs


def parse_importance(texts: Sequence[str]) -> dict[str, float]:
    """Parse several ``task=2``: how much each task counts. Raises UsageError."""
    pairs = {}
    for text in texts:
        task, equals, number = text.rpartition("=")
        if not equals or not task:
            raise UsageError(f"invalid importance {text!r}: expected TASK=NUMBER", hint="--importance news=2")
        pairs[task] = _parse_number(number, text)
    return pairs


def parse_count(text: str) -> int:
    """Parse ``2000000``, ``2M`` or ``1.5k``. Raises UsageError."""
    match = _COUNT.fullmatch(text)
    if not match:
        raise UsageError(f"invalid number {text!r}: expected something like 2M", hint="--budget 2M")
    return round(float(match[1]) * {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}[match[2]])


def _split_metric(text: str, example: str) -> tuple[str, Operator, float, str, str]:
    match = _METRIC.fullmatch(text)
    if not match or not text.isprintable() or not _WORD.fullmatch(match["name"]):
        raise UsageError(f"invalid metric {text!r}: expected a name, a comparison and a number", hint=example)
    dataset, _, split = (match["where"] or "").partition(":")
    if len(dataset) > 256 or len(split) > 128:
        raise UsageError(f"the dataset of {match['name']} is over 256 characters, or its split over 128", hint=example)
    return match["name"], Operator(match["operator"]), _parse_number(match["value"], text), dataset, split


def _parse_number(text: str, expression: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{text!r} in {expression!r} is not a finite number", hint="write it like 0.7 or -1.5e-3")
    return value
