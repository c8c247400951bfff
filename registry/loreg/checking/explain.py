"""What a code stands for."""

from __future__ import annotations

from dataclasses import dataclass

import loreg.checking.run  # noqa: F401  declares every rule
from loreg.checking import policy
from loreg.checking.conditions import CONDITIONS
from loreg.checking.profile import EFFECTS, Profile, ProfileRule, known_profiles, proofs, read_profile
from loreg.checking.rules import RULES
from loreg.errors import NotFoundError

_UNREADABLE = "LR000"


@dataclass(frozen=True)
class Explanation:
    """A rule in words."""

    code: str
    severity: str
    about: str
    remedy: str
    source: str


def explain(code: str) -> Explanation:
    """The rule of that code, of loreg or of one of its profiles. Raises NotFoundError."""
    code = code.upper()
    if code == _UNREADABLE:
        return Explanation(
            code, "error", "The files are an adapter that can be read: sound safetensors, a configuration, no pickle.",
            "save the adapter again with PEFT", "safetensors, the format's specification",
        )  # fmt: skip
    if code in RULES:
        rule = RULES[code]
        return Explanation(code, rule.severity, " ".join(rule.about.split()), rule.remedy, rule.source)
    if code in policy.RULES:
        asked = policy.RULES[code]
        return Explanation(code, asked.severity, asked.about, asked.remedy, "[check] in your loreg.toml")
    for name in known_profiles():
        profile = read_profile(name)
        for each in profile.rules:
            if each.code == code:
                severity, does = EFFECTS[each.effect]
                holds = " ".join((CONDITIONS[each.condition].__doc__ or "").split()).rstrip(".")
                holds = holds.replace("``value``", _format_value(profile, each)).replace("``", "")
                about = f"{profile.title} {profile.release} {does} if: {holds}."
                return Explanation(code, severity, about, each.remedy, f"{each.source}; {_proof(profile, each)}")
    raise NotFoundError(f"there is no rule {code!r}", hint=f"loreg check --explain {min(RULES)}")


def _proof(profile: Profile, rule: ProfileRule) -> str:
    """On which release a server was seen to do so, and of which that is assumed."""
    proof = proofs().get(rule.code)
    if proof is None:
        return "read in the source"
    is_that = any(word == profile.release or word.startswith(f"{profile.release}.") for word in proof["ran"].split())
    return f"proven on {proof['ran']}" + ("" if is_that else f", assumed of {profile.release}")


def _format_value(profile: Profile, rule: ProfileRule) -> str:
    """What the profile has for the condition; a list in words, a parameter with its name."""
    if rule.value == "reads":
        return "those that it reads"
    value = profile.value(rule)
    told = ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
    return f"{told} ({rule.value})" if isinstance(rule.value, str) else told
