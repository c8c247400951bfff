"""What of one adapter a mirror must bring: versions, events, aliases, and what the target changed by itself."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from loreg.entities import (
    MIRRORED_FROM,
    BaseModel,
    MirrorConflict,
    OriginAlias,
    OriginCanary,
    OriginEvent,
    Version,
)
from loreg.errors import IntegrityError, NotAllowedError
from loreg.refs import AdapterName
from loreg.workspace.context import Context
from loreg.workspace.mirror_source import MirrorSource, list_events, list_versions


@dataclass
class MirrorPlan:
    """What to bring of an adapter. Versions are named by their numbers; ``events`` are the oldest first.

    ``here`` are those that both have, ``previous`` is the number before, in the source. ``kept_yanks`` are versions
    that the target yanked, or unyanked, itself. ``unmoved`` is an alias that means the same on both sides: sent along
    with the others, or instead of them, it has the target record the history of all that do.
    """

    adapter: AdapterName
    new: set[int] = field(default_factory=set)
    changed: set[int] = field(default_factory=set)
    here: set[int] = field(default_factory=set)
    known: int = 0
    previous: dict[int, int] = field(default_factory=dict)
    events: list[OriginEvent] = field(default_factory=list)
    yanked_at: dict[int, datetime] = field(default_factory=dict)
    kept_yanks: set[int] = field(default_factory=set)
    aliases: list[OriginAlias] = field(default_factory=list)
    unmoved: OriginAlias | None = None
    canaries: list[OriginCanary] = field(default_factory=list)
    bases: dict[str, BaseModel] = field(default_factory=dict)
    metrics: set[str] = field(default_factory=set)
    conflicts: list[MirrorConflict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def newest(self) -> int:
        """The newest version that both have, or will have."""
        return max(self.here | self.new, default=0)

    def segments(self) -> list[tuple[int, list[OriginEvent]]]:
        """Return the versions to commit, the oldest first, each with the events from its push up to the next push.

        Events that came before go with a version that is there already.
        """
        if not self.here and not self.new:
            return []
        by_number: dict[int, list[OriginEvent]] = {number: [] for number in self.new | self.changed}
        current = max(self.here, default=min(self.new, default=0))
        for event in self.events:
            if event.action == "push" and event.number in self.new:
                current = event.number or current
            if event.number is None or event.number in self.here or event.number in self.new:
                by_number.setdefault(current, []).append(event)
        return sorted(by_number.items())


@dataclass
class _History:
    """What the target's events say: which it has, and whether a mirror changed an alias, a yank or a canary last."""

    known: set[tuple[object, ...]] = field(default_factory=set)
    alias_is_mirrored: dict[str, bool] = field(default_factory=dict)
    yank_is_mirrored: dict[int, bool] = field(default_factory=dict)
    canary_is_mirrored: dict[str, bool] = field(default_factory=dict)


def plan_adapter(source: MirrorSource, target: Context, adapter: AdapterName, *, force: bool) -> MirrorPlan:
    """Compare an adapter in the source and the target by their listings. Memory grows with its versions and events."""
    plan = MirrorPlan(adapter)
    history = _read_history(target, adapter)
    source_aliases: dict[str, int] = {}
    target_aliases: dict[str, int] = {}
    yanks: set[int] = set()  # that differ
    _compare_versions(source, target, plan, source_aliases, target_aliases, yanks)
    if not force:
        plan.kept_yanks = {number for number in yanks if history.yank_is_mirrored.get(number) is False}
        plan.conflicts += [_yank_conflict(adapter, number) for number in sorted(plan.kept_yanks)]
    plan.changed |= yanks - plan.kept_yanks - plan.new
    kept_aliases = _plan_aliases(plan, source_aliases, target_aliases, history.alias_is_mirrored, force=force)
    _plan_events(source, plan, history, kept_aliases)
    means = target_aliases | {alias.alias: alias.number for alias in plan.aliases}
    same_aliases = {alias for alias, number in source_aliases.items() if means.get(alias) == number}
    _plan_canaries(source, target, plan, same_aliases, history.canary_is_mirrored, force=force)
    plan.unmoved = _find_unmoved(plan, source_aliases, target_aliases)
    plan.known -= len({number for number, _ in plan.segments()} - plan.new)
    return plan


def _read_history(target: Context, adapter: AdapterName) -> _History:
    history = _History()
    for event in list_events(target, adapter):  # the newest first: what is seen first is the last word
        history.known |= {event.identity, event.trace}
        is_mirrored = MIRRORED_FROM in event.detail
        if event.action in ("tag", "untag"):
            history.alias_is_mirrored.setdefault(str(event.detail.get("alias")), is_mirrored)
        elif event.action in ("yank", "unyank") and event.number is not None:
            history.yank_is_mirrored.setdefault(event.number, is_mirrored)
        elif event.action == "canary" and not is_mirrored:
            history.canary_is_mirrored.setdefault(str(event.detail.get("alias")), False)
        elif event.action == "mirror":
            for key, are_mirrored in (
                ("aliases", history.alias_is_mirrored),
                ("canaries", history.canary_is_mirrored),
            ):
                moved = event.detail.get(key)
                for alias in moved if isinstance(moved, Mapping) else ():
                    are_mirrored.setdefault(str(alias), True)
            if "yanked" in event.detail and event.number is not None:
                history.yank_is_mirrored.setdefault(event.number, True)
    return history


def _compare_versions(
    source: MirrorSource,
    target: Context,
    plan: MirrorPlan,
    source_aliases: dict[str, int],
    target_aliases: dict[str, int],
    yanks: set[int],
) -> None:
    """Walk both lists of versions, the newest first, and note what is new, changed or other content."""
    later = 0
    diverged: list[MirrorConflict] = []
    for number, theirs, ours in _join(_descending(source, plan.adapter), list_versions(target, plan.adapter)):
        if ours is not None:
            target_aliases |= dict.fromkeys(ours.aliases, number)
        if theirs is None:
            continue
        if later:
            plan.previous[later] = number
        later = number
        source_aliases |= dict.fromkeys(theirs.aliases, number)
        plan.metrics |= {metric.name for metric in theirs.metrics}
        if theirs.base is not None and (ours is None or ours.digest == theirs.digest):
            plan.bases.setdefault(theirs.base.digest, theirs.base)
        if ours is None:
            plan.new.add(number)
        elif ours.digest != theirs.digest:
            diverged = [_content_conflict(theirs, ours)]
            plan.new, plan.changed, plan.here = set(), set(), set()  # what comes after has another history
            plan.bases, plan.known = {}, 0
            yanks.clear()
        else:
            plan.here.add(number)
            plan.known += 1
            if ours.yanked != theirs.yanked:
                yanks.add(number)
            if not _says_all(ours, theirs):
                plan.changed.add(number)
    plan.conflicts += diverged


def _descending(source: MirrorSource, adapter: AdapterName) -> Iterator[Version]:
    """Yield the source's versions. Raises IntegrityError unless each has a lower number than the one before."""
    last = None
    for version in source.versions(adapter):
        if version.number < 1 or (last is not None and version.number >= last):
            raise IntegrityError(
                f"{source.name} lists v{version.number} of {adapter} after v{last}", hint="mirror from another place"
            )
        last = version.number
        yield version


def _join(theirs: Iterator[Version], ours: Iterator[Version]) -> Iterator[tuple[int, Version | None, Version | None]]:
    """Yield each number that either list has, the greatest first, with the version of each."""
    their, our = next(theirs, None), next(ours, None)
    while their is not None or our is not None:
        number = max(their.number if their else 0, our.number if our else 0)
        is_theirs, is_ours = their is not None and their.number == number, our is not None and our.number == number
        yield number, their if is_theirs else None, our if is_ours else None
        their = next(theirs, None) if is_theirs else their
        our = next(ours, None) if is_ours else our


def _says_all(ours: Version, theirs: Version) -> bool:
    """Return whether the target says of a version all that the source says."""
    return (
        set(theirs.tasks) <= set(ours.tasks)
        and theirs.labels.items() <= ours.labels.items()
        and set(theirs.metrics) <= set(ours.metrics)
        and (theirs.base is None or ours.base is not None)
    )


def _plan_aliases(
    plan: MirrorPlan,
    theirs: Mapping[str, int],
    ours: Mapping[str, int],
    is_mirrored: Mapping[str, bool],
    *,
    force: bool,
) -> set[str]:
    """Plan the moves of aliases; return those that are left as they are, for the target set or moved them itself."""
    kept: set[str] = set()
    for alias in sorted(theirs.keys() | ours.keys()):
        wanted, current = theirs.get(alias, 0), ours.get(alias, 0)
        if wanted == current:
            continue
        if not wanted and not is_mirrored.get(alias, False):
            kept.add(alias)  # of the target's own, though the source may have had one of that name
        elif is_mirrored.get(alias, not current) or force:
            if wanted in plan.here or wanted in plan.new or not wanted:
                plan.aliases.append(OriginAlias(alias, wanted, current))
        else:
            kept.add(alias)
            what = f"means {_name(current)} here, which was set here, and {_name(wanted)} in the source"
            plan.conflicts.append(MirrorConflict(f"{plan.adapter}:{alias}", f"alias {alias!r} {what}"))
    return kept


def _plan_canaries(
    source: MirrorSource,
    target: Context,
    plan: MirrorPlan,
    same_aliases: Collection[str],
    is_mirrored: Mapping[str, bool],
    *,
    force: bool,
) -> None:
    """Plan which versions have a share of an alias: as in the source, but for those that the target has of its own.

    An alias that is not to mean the same on both sides, as ``same_aliases`` do, has no canary of the source.
    """
    listed = source.canaries(plan.adapter)
    if listed is None:
        return
    theirs = {canary.alias: canary for canary in listed}
    ours = {canary.alias: canary for canary in target.backend.canaries(plan.adapter)} if plan.here else {}
    moved = {alias.alias for alias in plan.aliases}
    for alias in sorted(theirs.keys() | ours.keys()):
        wanted, current = theirs.get(alias), ours.get(alias)
        is_own = current is not None and not is_mirrored.get(alias, False)
        if wanted is None:
            if current is not None and not is_own:
                plan.canaries.append(OriginCanary(alias, 0, current.share, current.author, current.at))
        elif current is not None and is_own and not force:
            if (current.number, current.share) != (wanted.number, wanted.share):
                what = f"has v{current.number} as a canary of its own here, and v{wanted.number} in the source"
                plan.conflicts.append(MirrorConflict(f"{plan.adapter}:{alias}", f"alias {alias!r} {what}"))
        elif alias in same_aliases and wanted.number in plan.here | plan.new:
            is_as_wanted = current is not None and (current.number, current.share) == (wanted.number, wanted.share)
            if not is_as_wanted or alias in moved:  # a move ends the canary
                canary = OriginCanary(alias, wanted.number, wanted.share, wanted.author, wanted.at)
                plan.canaries.append(canary)


def _find_unmoved(plan: MirrorPlan, theirs: Mapping[str, int], ours: Mapping[str, int]) -> OriginAlias | None:
    """Find an alias that means the same on both sides, and of which there are events to bring."""
    for alias in filter(None, map(alias_of, plan.events)):
        current = ours.get(alias, 0)
        if theirs.get(alias, 0) == current:
            return OriginAlias(alias, current, current)
    return None


def alias_of(event: OriginEvent) -> str:
    """Return the alias that an event set or removed; empty if it did neither."""
    return str(event.detail.get("alias", "")) if event.action in ("tag", "untag") else ""


def _plan_events(source: MirrorSource, plan: MirrorPlan, history: _History, kept_aliases: set[str]) -> None:
    """Plan the events that the target lacks, but for those of what is left as it is."""
    try:
        for event in source.events(plan.adapter):
            is_yank = event.action in ("yank", "unyank")
            if event.action == "yank" and event.number is not None:
                plan.yanked_at.setdefault(event.number, event.at)
            is_kept = (is_yank and event.number in plan.kept_yanks) or alias_of(event) in kept_aliases
            if not is_kept and not event.is_in(history.known):
                plan.events.append(event)
    except NotAllowedError as error:
        plan.notes.append(f"the events of {plan.adapter} cannot be read in {source.name}: {error.message}")
    plan.events.reverse()


def _content_conflict(theirs: Version, ours: Version) -> MirrorConflict:
    reason = f"sha256:{ours.digest[:12]} here, and sha256:{theirs.digest[:12]} in the source"
    return MirrorConflict(ours.ref, f"{ours.ref} is {reason}: nothing from there on was brought")


def _yank_conflict(adapter: AdapterName, number: int) -> MirrorConflict:
    return MirrorConflict(f"{adapter}:v{number}", f"v{number} was yanked or unyanked here, and not in the source")


def _name(number: int) -> str:
    return f"v{number}" if number else "nothing"
