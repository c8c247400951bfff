"""Which versions a retention policy lets go: decided adapter by adapter, with what descends from each looked up.

Come here to see what is never pruned. A version that something kept descends from is kept: its descendants are looked
at, whatever adapter they are of, and the decisions on their adapters are remembered for a while.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from cachetools import LRUCache
from sqlalchemy import select, tuple_

from loreg.catalog import collection, deletion, garbage, jobs, versions
from loreg.catalog.patterns import is_match
from loreg.catalog.schema import (
    adapter_table,
    alias_move_table,
    alias_table,
    canary_table,
    lineage_table,
    promotion_table,
    version_table,
)
from loreg.catalog.transaction import Transaction
from loreg.catalog.version_json import VersionRecord
from loreg.entities import PruneDecision, Retention, UpkeepAction
from loreg.errors import LoregError
from loreg.parsing import format_span
from loreg.refs import AdapterName, AdapterPattern, Ref, parse_ref

_PAGE = 1000  # adapters, or digests, in one statement
_MAX_DEPTH = 64  # generations that are looked at: behind them a version is kept
_MAX_PLANS = 64  # adapters whose decisions are remembered


class PruneScope(msgspec.Struct, frozen=True):
    """What is decided on: the rules, the adapters that may lose versions, and the aliases that a policy guards."""

    retention: Retention
    pattern: AdapterPattern
    guarded_aliases: Collection[str] = ()


@dataclass
class _Decision:
    """What becomes of a version; ``is_final`` when its descendants were looked at, too."""

    id: int
    ref: str
    digest: str
    size: int
    goes: bool
    reason: str
    is_final: bool = False


class _State(msgspec.Struct, frozen=True):
    """What of a version the rules look at."""

    id: int
    number: int
    digest: str
    size: int
    created_at: datetime
    yanked_at: datetime | None


def list_adapters(tx: Transaction, pattern: AdapterPattern, after: AdapterName | None) -> tuple[AdapterName, ...]:
    """Return the next adapters that match, by name, from behind ``after``; none at the end."""
    key = (adapter_table.c.namespace, adapter_table.c.name)
    query = select(*key).where(is_match(tx, pattern)).order_by(*key).limit(_PAGE)
    if after is not None:
        query = query.where(tuple_(*key) > tuple_(after.namespace, after.name))
    return tuple(AdapterName(*row) for row in tx.connection.execute(query))


def plan(tx: Transaction, adapter: AdapterName, scope: PruneScope) -> tuple[PruneDecision, ...]:
    """Return what becomes of each version of an adapter, the newest first."""
    decisions = _Planner(tx, scope).decide(versions.find_adapter_id(tx, adapter))
    return tuple(PruneDecision(item.ref, item.digest, item.size, item.goes, item.reason) for item in decisions)


def prune(
    tx: Transaction, adapter: AdapterName, scope: PruneScope, weights_path: str, limit: int
) -> tuple[tuple[PruneDecision, ...], int]:
    """Remove up to ``limit`` versions of an adapter that go; return them, and how many must wait for others.

    A version goes after all that descend from it. Nobody sets an alias of the adapter, or records what descends from
    it, before the transaction ends.
    """
    adapter_id = versions.find_adapter_id(tx, adapter)
    versions.lock_adapter(tx, adapter_id)
    garbage.lock(tx, shared=False)
    going = [item for item in _Planner(tx, scope).decide(adapter_id) if item.goes]
    children = _find_children(tx, [item.digest for item in going])
    removed: dict[int, PruneDecision] = {}
    waiting = 0
    for item in going:
        if len(removed) == limit:
            break
        if any(child_id not in removed for child_id, _ in children[item.digest]):
            waiting += 1
            continue
        record = VersionRecord(item.id, adapter_id, versions.by_id(tx, item.id))
        deletion.remove(tx, record, weights_path, f"pruned: {item.reason}", is_banned=False)
        detail = {"number": record.version.number, "digest": item.digest, "rule": item.reason}
        tx.log(UpkeepAction.PRUNE, adapter_id, None, **detail)
        removed[item.id] = PruneDecision(item.ref, item.digest, item.size, True, item.reason)
    return tuple(removed.values()), waiting


class _Planner:
    """Decides on the versions of adapters, within one transaction."""

    def __init__(self, tx: Transaction, scope: PruneScope) -> None:
        self._tx = tx
        self._scope = scope
        self._now = collection.database_time(tx)
        self._plans: LRUCache[int, dict[int, _Decision]] = LRUCache(_MAX_PLANS)
        self._job_refs: dict[AdapterName, list[tuple[int, Ref]]] = defaultdict(list)
        for job_id, request in jobs.list_open_requests(tx):
            for ref in _refs_of(request):
                self._job_refs[ref.adapter].append((job_id, ref))

    def decide(self, adapter_id: int) -> list[_Decision]:
        """Return the final decisions on an adapter's versions, the newest first."""
        decisions = self._decide_alone(adapter_id)
        for item in decisions.values():
            self._finish(item, 0)
        return list(decisions.values())

    def _finish(self, item: _Decision, depth: int) -> None:
        """Keep a version that was to go if something kept descends from it."""
        if not item.goes or item.is_final:
            return
        for child_id, child_adapter_id in _find_children(self._tx, [item.digest])[item.digest]:
            child = self._decide_alone(child_adapter_id)[child_id]
            if depth < _MAX_DEPTH:
                self._finish(child, depth + 1)
            if not child.goes or depth == _MAX_DEPTH:
                item.goes, item.reason = False, f"{child.ref} descends from it"
                break
        item.is_final = True

    def _decide_alone(self, adapter_id: int) -> dict[int, _Decision]:
        """Return the decisions on an adapter's versions, the newest first, by id, as far as they hang on nobody's."""
        if adapter_id not in self._plans:
            row = self._tx.connection.execute(
                select(adapter_table.c.namespace, adapter_table.c.name).where(adapter_table.c.id == adapter_id)
            ).one()
            self._plans[adapter_id] = dict(self._apply_rules(adapter_id, AdapterName(row.namespace, row.name)))
        decisions: dict[int, _Decision] = self._plans[adapter_id]
        return decisions

    def _apply_rules(self, adapter_id: int, adapter: AdapterName) -> Iterator[tuple[int, _Decision]]:
        states = _read_states(self._tx, adapter_id)
        live = [state for state in states if state.yanked_at is None]
        positions = {state.id: position for position, state in enumerate(live)}
        newest = (live or states)[:1]
        protected = self._protect(adapter_id, adapter, states)
        for state in states:
            if not self._scope.pattern.matches(adapter):
                goes, reason = False, "not asked for"
            elif state.id in protected:
                goes, reason = False, protected[state.id]
            elif state in newest:
                goes, reason = False, "the newest"
            else:
                goes, reason = self._apply_rule(adapter, state, positions.get(state.id, 0))
            ref = f"{adapter}:v{state.number}"
            yield state.id, _Decision(state.id, ref, state.digest, state.size, goes, reason)

    def _apply_rule(self, adapter: AdapterName, state: _State, position: int) -> tuple[bool, str]:
        """Return whether a version goes by the rules, and the one that says so; it is ``position``-newest from 0."""
        rules = self._scope.retention.rules_for(adapter.namespace)
        if state.yanked_at is not None:
            if rules.keep_yanked is None:
                return False, "yanked, and no rule for that"
            rule = f"keep_yanked = {format_span(rules.keep_yanked)}"
            return state.yanked_at <= self._now - rules.keep_yanked, rule
        kept_by = []
        if rules.keep_last is not None:
            kept_by.append((f"keep_last = {rules.keep_last}", position < rules.keep_last))
        if rules.keep_newer is not None:
            is_newer = state.created_at > self._now - rules.keep_newer
            kept_by.append((f"keep_newer = {format_span(rules.keep_newer)}", is_newer))
        if rules.keep_every is not None:
            kept_by.append((f"keep_every = {rules.keep_every}", state.number % rules.keep_every == 0))
        if not kept_by:
            return False, "no rule"
        if rule := next((rule for rule, keeps in kept_by if keeps), ""):
            return False, rule
        return True, ", ".join(rule for rule, _ in kept_by)

    def _protect(self, adapter_id: int, adapter: AdapterName, states: Sequence[_State]) -> dict[int, str]:
        """Return the versions that no rule lets go, by id, with what keeps each."""
        protected: dict[int, str] = {}
        for job_id, ref in self._job_refs.get(adapter, ()):
            try:
                first = versions.resolve(self._tx, ref).version.number
            except LoregError:
                continue  # the job will be told
            for state in states:
                if state.number >= first:
                    protected[state.id] = f"job {job_id} needs {ref}"
        query = select(alias_move_table.c.alias, alias_move_table.c.version_id).where(
            alias_move_table.c.adapter_id == adapter_id,
            alias_move_table.c.alias.in_(sorted(self._scope.guarded_aliases)),
            alias_move_table.c.version_id.is_not(None),
        )
        last_meant = {
            row.alias: row.version_id for row in self._tx.connection.execute(query.order_by(alias_move_table.c.id))
        }
        protected |= {version_id: f"the alias {alias} last meant it" for alias, version_id in last_meant.items()}
        tried = select(canary_table.c.version_id, canary_table.c.alias).where(canary_table.c.adapter_id == adapter_id)
        protected |= {
            row.version_id: f"it is a canary of the alias {row.alias}" for row in self._tx.connection.execute(tried)
        }
        watched = select(promotion_table.c.previous_id, promotion_table.c.alias).where(
            promotion_table.c.adapter_id == adapter_id
        )
        protected |= {
            row.previous_id: f"the alias {row.alias} may go back to it" for row in self._tx.connection.execute(watched)
        }
        current = select(alias_table.c.version_id, alias_table.c.alias).where(alias_table.c.adapter_id == adapter_id)
        rows = self._tx.connection.execute(current.order_by(alias_table.c.alias.desc()))
        return protected | {row.version_id: f"the alias {row.alias} means it" for row in rows}


def _read_states(tx: Transaction, adapter_id: int) -> list[_State]:
    query = (
        select(
            version_table.c.id,
            version_table.c.number,
            version_table.c.digest,
            version_table.c.bytes,
            version_table.c.created_at,
            version_table.c.yanked_at,
        )
        .where(version_table.c.adapter_id == adapter_id)
        .order_by(version_table.c.number.desc())
    )
    return [_State(*row) for row in tx.connection.execute(query)]


def _find_children(tx: Transaction, digests: Sequence[str]) -> dict[str, list[tuple[int, int]]]:
    """Return id and adapter's id of the versions that have one of these as a parent, by the parent's digest."""
    children: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for start in range(0, len(digests), _PAGE):
        query = (
            select(lineage_table.c.parent_digest, version_table.c.id, version_table.c.adapter_id)
            .join(version_table, version_table.c.id == lineage_table.c.child_id)
            .where(lineage_table.c.parent_digest.in_(digests[start : start + _PAGE]))
            .distinct()
            .order_by(version_table.c.id)
        )
        for row in tx.connection.execute(query):
            children[row.parent_digest].append((row.id, row.adapter_id))
    return children


def _refs_of(request: Mapping[str, Any]) -> Iterator[Ref]:
    """Yield the refs that a job's request names."""
    sources, initial = request.get("sources") or (), request.get("initial") or ()
    for text in (*sources, *initial, request.get("source"), request.get("extras")):
        try:
            if isinstance(text, str):
                yield parse_ref(text)
        except LoregError:
            continue  # a word that is no ref
