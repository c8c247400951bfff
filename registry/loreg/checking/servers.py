"""Which servers take an adapter: what the codes of findings mean to each profile that comes with loreg."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Collection
from pathlib import Path

from loreg.checking.profile import Effect, Profile, list_profiles, read_profile

_RULES = ("*.py", "profiles/*.toml")


@functools.cache
def installed_profiles() -> tuple[Profile, ...]:
    """Return the profiles that come with loreg, by name."""
    return tuple(map(read_profile, list_profiles()))


def effects_by_code(profile: Profile) -> dict[str, Effect]:
    """Return what the server does with an adapter of which a rule holds, by the rule's code."""
    return {rule.code: rule.effect for rule in profile.rules}


def worst_effect(profile: Profile, codes: Collection[str]) -> Effect | None:
    """Return the worst that the server does with an adapter that has these findings; None if it just takes it."""
    effects = effects_by_code(profile)
    return next((effect for effect in Effect if any(effects.get(code) == effect for code in codes)), None)


@functools.cache
def rules_release() -> str:
    """Return 16 hexadecimal digits that are others as soon as a rule or a profile is.

    They are of the rules' source, so that nobody has to remember to count up a number.
    """
    folder, digest = Path(__file__).parent, hashlib.sha256()
    for path in sorted(path for pattern in _RULES for path in folder.glob(pattern)):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]
