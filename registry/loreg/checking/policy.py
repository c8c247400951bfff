"""What a team demands of adapters, the table ``[check]`` of loreg.toml: read it, and hold a version against it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from loreg.adapters.card import card_license, parse_card_fields
from loreg.base_names import public_base_name
from loreg.checking.licenses import license_conflict
from loreg.decoding import decode
from loreg.entities import AliasMove, BaseModel, Finding, MetricCondition, Severity, Version
from loreg.errors import NotFoundError, UsageError
from loreg.parsing import parse_count, parse_metric_condition
from loreg.refs import AdapterName, Ref, parse_alias, parse_ref


class Policy(msgspec.Struct, frozen=True):
    """What a team demands of adapters; before one of ``aliases`` points to a version, all of it must hold.

    ``tasks`` and ``metrics`` that a version must have; ``bases`` (names or digests) of which it must have one; the
    highest rank and the most bytes; fields that its ``card`` must have; a ``license`` that its base allows. It must not
    measure worse than the version that the alias ``against`` last pointed to, by more than ``tolerance``.

    Only an administrator of the namespace takes such an alias away, yanks the version that it means, or replaces its
    metrics by worse ones. Metrics are what users with write permission say of a version: an event names each who
    changed one. Any of these users moves ``against``, unless it is among the ``aliases`` too.

    With ``deployments`` only an administrator of the namespace yanks a version that a folder or a server tells it has.
    It binds no administrator: whoever may read can tell that, and somebody must be able to withdraw what does harm.
    """

    tasks: tuple[str, ...] = ()
    metrics: tuple[MetricCondition, ...] = ()
    bases: tuple[str, ...] = ()
    card: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    max_rank: int | None = None
    max_size: int | None = None
    license: bool = False
    against: str = ""
    tolerance: float = 0.0
    deployments: bool = False


class Candidate(msgspec.Struct, frozen=True):
    """What of an adapter is held against a policy.

    ``rank`` is the highest of its modules, ``base_hint`` its ``base_model_name_or_path``, ``size`` its bytes, ``base``
    None if that is not known, ``base_license`` that of the base that it is checked with. A folder has no ``version``;
    ``against`` is the version that it must not be worse than.
    """

    rank: int
    base_hint: str
    size: int
    card: str
    base: BaseModel | None
    base_license: str
    version: Version | None = None
    against: Version | None = None


class Rule(msgspec.Struct, frozen=True):
    """One rule of a policy: how bad a breach is, what is right, what to do."""

    severity: Severity
    about: str
    remedy: str


RULES = {
    "LP001": Rule(Severity.ERROR, "A version has every task that the policy names.", "loreg push DIR NAME --task TASK"),
    "LP002": Rule(
        Severity.ERROR,
        "A version has every metric that the policy names, measured as well as it asks.",
        "loreg metric add REF NAME=VALUE@DATASET",
    ),
    "LP003": Rule(
        Severity.ERROR, "The base is one that the policy allows.", "loreg push --base records which base it is"
    ),
    "LP004": Rule(Severity.ERROR, "No module has a higher rank than the policy allows.", "loreg rerank REF --rank N"),
    "LP005": Rule(
        Severity.ERROR, "All files together are no larger than the policy allows.", "loreg rerank REF --budget N"
    ),
    "LP006": Rule(
        Severity.ERROR,
        "The card, README.md, has every field that the policy names.",
        "write it between the --- of README.md",
    ),
    "LP007": Rule(
        Severity.ERROR,
        "The adapter has a license that the one of its base allows.",
        "mend license: in the card of either",
    ),
    "LP008": Rule(
        Severity.ERROR,
        "No metric is worse than that of the version compared with.",
        "push an earlier checkpoint, or tag it",
    ),
    "LP009": Rule(
        Severity.WARNING,
        "Every metric of the version compared with was measured of this one.",
        "loreg metric add REF NAME=VALUE@DATASET",
    ),
}


class _CheckTable(msgspec.Struct, forbid_unknown_fields=True):
    """The table ``[check]`` as people write it: the fields of :class:`Policy`, not parsed yet."""

    tasks: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    bases: tuple[str, ...] = ()
    card: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    max_rank: int | str | None = None
    max_size: int | str | None = None
    license: bool = False
    against: str = ""
    tolerance: Annotated[float, Meta(ge=0, le=sys.float_info.max)] = 0.0
    deployments: bool = False


def read_policy(table: Mapping[str, object], origin: str) -> Policy:
    """Read the policy from the table ``[check]`` of the file ``origin``. Raises UsageError with file and key."""
    try:
        check = decode(table, _CheckTable)
        return Policy(
            tasks=check.tasks,
            metrics=tuple(map(parse_metric_condition, check.metrics)),
            bases=check.bases,
            card=check.card,
            aliases=check.aliases,
            max_rank=_parse_most("max_rank", check.max_rank),
            max_size=_parse_most("max_size", check.max_size),
            license=check.license,
            against=parse_alias(check.against) if "against" in table else "",
            tolerance=check.tolerance,
            deployments=check.deployments,
        )
    except (ValueError, UsageError) as error:
        what = error.message if isinstance(error, UsageError) else error
        raise UsageError(f"{origin}: [check] {what}", hint=f"mend {origin}") from error


def _parse_most(key: str, value: int | str | None) -> int | None:
    """Read ``16``, ``"20k"`` or ``"20kB"``. Raises UsageError, ValueError for less than 1."""
    count = parse_count(value.removesuffix("B")) if isinstance(value, str) else value
    if count is not None and count < 1:
        raise ValueError(f"{key} is {value!r}, expected 1 or more")
    return count


def policy_to_json(policy: Policy) -> dict[str, object]:
    """Return the policy as a JSON document, for :func:`policy_from_json`."""
    document: dict[str, object] = msgspec.to_builtins(policy)
    return document


def policy_from_json(document: Mapping[str, object]) -> Policy:
    """Read the policy back from what :func:`policy_to_json` returned."""
    return msgspec.convert(document, Policy)


def find_reference_version(
    against: str, version: Version, moves: Sequence[AliasMove], find: Callable[[Ref], Version]
) -> Version | None:
    """Find the version that ``version`` must not be worse than; None if there is none.

    ``against`` is a ref, which ``find`` looks up, or an alias of the same adapter. An alias means what it last meant,
    even if it was removed since, or that version yanked (``moves`` are those of the adapter, the newest first); a
    version that was deleted it never meant. One thing stays possible: when that version is yanked, the alias may go
    back to the one that it meant before it, even if that is worse.
    """
    if not against:
        return None
    if ":" in against:
        return find(parse_ref(against))
    alias = parse_alias(against)
    numbers = dict.fromkeys(move.number for move in moves if move.alias == alias and move.number is not None)
    earlier_targets = _find_all(version.adapter, numbers, find)
    last = next(earlier_targets, None)
    if last is None or not last.yanked:
        return last
    before = next((target for target in earlier_targets if not target.yanked), None)
    return None if before is not None and before.number == version.number else last


def _find_all(adapter: AdapterName, numbers: Iterable[int], find: Callable[[Ref], Version]) -> Iterator[Version]:
    """Yield those of the versions that are still there."""
    for number in numbers:
        try:
            target = find(Ref(adapter, number=number))
        except NotFoundError:
            continue
        yield target


def build_candidate(version: Version, card: str, against: Version | None) -> Candidate:
    """Prepare a version for the policy, with the one that it must not be worse than, if that is another one."""
    other = against if against is not None and against.pinned != version.pinned else None
    license_ = version.base.license if version.base else ""
    facts = version.facts
    return Candidate(facts.rank_max, facts.base_hint, version.size, card, version.base, license_, version, other)


def check_policy(policy: Policy, candidate: Candidate) -> tuple[Finding, ...]:
    """Return what an adapter breaks of the policy. Tasks and metrics are demanded of versions: folders have none."""
    breaches = [*_check_files(policy, candidate), *_check_card(policy, candidate)]
    if candidate.version is not None:
        breaches += _check_version(policy, candidate.version)
        if candidate.against is not None:
            breaches += _check_regressions(policy, candidate.version, candidate.against)
    return tuple(Finding(code, RULES[code].severity, message, RULES[code].remedy) for code, message in breaches)


def _check_files(policy: Policy, candidate: Candidate) -> Iterator[tuple[str, str]]:
    base = candidate.base
    names = (*base.names, base.digest) if base else (public_base_name(candidate.base_hint),)
    is_allowed = any(
        name in (allowed, public_base_name(allowed)) or (base and base.digest.startswith(allowed))
        for name in names
        for allowed in policy.bases
    )
    if policy.bases and not is_allowed:
        yield "LP003", f"the base is {names[0] or 'unknown'}, allowed are {', '.join(policy.bases)}"
    if policy.max_rank is not None and candidate.rank > policy.max_rank:
        yield "LP004", f"rank {candidate.rank} is over {policy.max_rank}"
    if policy.max_size is not None and candidate.size > policy.max_size:
        yield "LP005", f"{candidate.size:,} bytes are over {policy.max_size:,}"


def _check_card(policy: Policy, candidate: Candidate) -> Iterator[tuple[str, str]]:
    if policy.card:
        fields = parse_card_fields(candidate.card)
        missing = [name for name in policy.card if fields.get(name) in (None, "", [], {})]
        if missing:
            yield "LP006", f"the card lacks {', '.join(missing)}"
    if policy.license and (reason := license_conflict(card_license(candidate.card), candidate.base_license)):
        yield "LP007", reason


def _check_version(policy: Policy, version: Version) -> Iterator[tuple[str, str]]:
    for task in policy.tasks:
        if task not in version.tasks:
            yield "LP001", f"the task {task} is missing"
    for condition in policy.metrics:
        if not any(condition.is_fulfilled_by(metric) for metric in version.metrics):
            measured = ", ".join(metric.exact for metric in version.metrics if metric.name == condition.name)
            yield "LP002", f"{condition} is asked for, measured is {measured or 'nothing'}"


def _check_regressions(policy: Policy, version: Version, against: Version) -> Iterator[tuple[str, str]]:
    """Yield what is worse than it was: on the same data, by more than the tolerance."""
    metrics = {(metric.name, metric.dataset, metric.split): metric for metric in version.metrics}
    for before in against.metrics:
        metric = metrics.get((before.name, before.dataset, before.split))
        if metric is None:
            yield "LP009", f"{before} of {against.ref} was not measured"
            continue
        loss = before.value - metric.value if before.higher_is_better else metric.value - before.value
        if loss > policy.tolerance and not math.isclose(loss, policy.tolerance, rel_tol=1e-9):
            yield "LP008", f"{metric.exact} is worse than {before.exact} of {against.ref}"
