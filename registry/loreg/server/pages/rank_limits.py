"""Say which servers take a rank, by the rules of their profiles on ranks; all other rules need the adapter."""

from __future__ import annotations

import functools
from collections.abc import Collection

from loreg.checking.profile import EFFECTS, Profile, ProfileRule, list_profiles, read_profile
from loreg.value import Value

_OVER = ("rank_over", "configured_rank_over")
_DIFFER = ("ranks_differ", "ranks_differ_within_a_type")


class RankVerdict(Value, frozen=True):
    """What a server does with adapters of some ranks: ``mark`` is good, odd or bad."""

    title: str
    release: str
    verdict: str
    mark: str


def judge_ranks(ranks: Collection[int]) -> tuple[RankVerdict, ...]:
    """Return what each server that loreg knows does with modules of these ranks."""
    return tuple(_judge(read_profile(name), max(ranks), len(set(ranks)) > 1) for name in _servers())


@functools.cache
def _servers() -> tuple[str, ...]:
    """Return the profiles that have a rule on ranks."""
    return tuple(
        name
        for name in list_profiles()
        if any(rule.condition in (*_OVER, *_DIFFER) for rule in read_profile(name).rules)
    )


def _judge(profile: Profile, rank: int, differ: bool) -> RankVerdict:
    verdict, mark = "takes it", "good"
    for rule in profile.rules:
        if rule.condition in _DIFFER and differ:
            return RankVerdict(profile.title, profile.release, f"{EFFECTS[rule.effect][1]}: ranks differ", "bad")
        if rule.condition in _OVER and rank > profile.value(rule):
            setting = _needed_setting(profile, rule, rank)
            if setting is None:
                words = f"{EFFECTS[rule.effect][1]}: {profile.value(rule)} is the most"
                return RankVerdict(profile.title, profile.release, words, "bad")
            verdict, mark = f"takes it with {rule.value} = {setting}", "odd"
    return RankVerdict(profile.title, profile.release, verdict, mark)


def _needed_setting(profile: Profile, rule: ProfileRule, rank: int) -> int | None:
    """Return the least value of the parameter with which the server takes the rank; None if there is none."""
    if not isinstance(rule.value, str):
        return None
    possible = profile.among.get(rule.value)
    return rank if not possible else min((value for value in possible if value >= rank), default=None)
