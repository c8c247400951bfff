"""What the code of a finding stands for: ``loreg check --explain``."""

from __future__ import annotations

from dataclasses import dataclass

import loreg.checking.run  # noqa: F401  declares every rule
from loreg.checking import policy
from loreg.checking.conditions import CONDITIONS
from loreg.checking.profile import EFFECTS, Effect, Profile, ProfileRule, list_profiles, read_profile, read_proofs
from loreg.checking.rules import RULES
from loreg.entities import Severity
from loreg.errors import NotFoundError
from loreg.suggestions import suggest

_UNREADABLE = "LR000"
_DOES = {
    Effect.REFUSES: "refuses an adapter",
    Effect.WRONG: "loads an adapter and is silently wrong",
    Effect.SLOW: "loads an adapter and is slower",
}


@dataclass(frozen=True)
class Explanation:
    """One rule in words: what is right, what to do, and who says so."""

    code: str
    severity: Severity
    about: str
    remedy: str
    source: str


def explain(code: str) -> Explanation:
    """Return the rule of that code, of loreg, of a policy or of a server profile. Raises NotFoundError."""
    code = code.upper()
    if code == _UNREADABLE:
        return Explanation(
            code, Severity.ERROR,
            "The files are an adapter that can be read: sound safetensors, a configuration, no pickle.",
            "save the adapter again with PEFT", "safetensors, the format's specification",
        )  # fmt: skip
    if code in RULES:
        rule = RULES[code]
        return Explanation(code, rule.severity, " ".join(rule.about.split()), rule.remedy, rule.source)
    if code in policy.RULES:
        policy_rule = policy.RULES[code]
        source = "[check] in your loreg.toml"
        return Explanation(code, policy_rule.severity, policy_rule.about, policy_rule.remedy, source)
    for name in list_profiles():
        profile = read_profile(name)
        for profile_rule in profile.rules:
            if profile_rule.code == code:
                return _explain_profile_rule(profile, profile_rule)
    codes = (*RULES, *policy.RULES, *(rule.code for name in list_profiles() for rule in read_profile(name).rules))
    hint = f"loreg check --explain {min(RULES)}"
    raise NotFoundError(f"there is no rule {code!r}", hint=hint, suggestion=suggest(code, codes))


def _explain_profile_rule(profile: Profile, rule: ProfileRule) -> Explanation:
    condition = " ".join((CONDITIONS[rule.condition].__doc__ or "").split()).rstrip(".")
    value = profile.value(rule)
    if isinstance(value, list) and len(value) < 2:
        condition = condition.replace("any of ``value``", "``value``")
        condition = condition if value else condition.removesuffix("; accepted: ``value``")
    condition = condition.replace("``value``", _format_value(profile, rule)).replace("``", "")
    about = f"{profile.title} {profile.release} {_DOES[rule.effect]} if {_lower_first_word(condition)}."
    severity = EFFECTS[rule.effect][0]
    return Explanation(rule.code, severity, about, rule.remedy, f"{rule.source}; {_describe_proof(profile, rule)}")


def _lower_first_word(sentence: str) -> str:
    """Begin a sentence in lower case, unless its first word is a name such as PEFT."""
    word = sentence.partition(" ")[0]
    return sentence[:1].lower() + sentence[1:] if word[1:].islower() or len(word) == 1 else sentence


def _describe_proof(profile: Profile, rule: ProfileRule) -> str:
    """Say on which release a server was seen to do so, and of which that is assumed."""
    proof = read_proofs().get(rule.code)
    if proof is None:
        return "read in the source"
    ran_it = any(word == profile.release or word.startswith(f"{profile.release}.") for word in proof["ran"].split())
    return f"proven on {proof['ran']}" + ("" if ran_it else f", assumed of {profile.release}")


def _format_value(profile: Profile, rule: ProfileRule) -> str:
    """Say what the profile has for the condition: a list in words, a parameter with its name."""
    if rule.value == "reads":
        return "those that it reads"
    value = profile.value(rule)
    text = ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
    return f"{text} ({rule.value})" if isinstance(rule.value, str) else text
