"""``rules/``: a page for each rule of ``loreg check``, and tables of all."""

from __future__ import annotations

import loreg.checking.run  # noqa: F401  declares every rule
from loreg.checking import policy
from loreg.checking.explain import Explanation
from loreg.checking.profile import Profile, list_profiles
from loreg.checking.rules import RULES
from reference_pages.cached import explain, read_profile
from reference_pages.markdown import plural, sentence, table

#: The rule that an adapter can be read at all, which is no entry of RULES.
_READABLE = "LR000"
_INDEX = """\
# Check rules

Every finding of `loreg check` has a code that stays; `loreg check --explain CODE` prints what stands here. An error
makes the command leave with exit code 5, a warning only with `--strict`.

"""
_GROUPS = {
    "LR": ("The adapter", "What is wrong with an adapter by itself. `loreg push` refuses one with an error."),
    "LB": ("The base", "Whether an adapter fits the base that it is to run on: `loreg check REF --base NAME`."),
    "LP": (
        "A team's policy",
        "What the table `[check]` of [loreg.toml](../files.md#a-teams-policy) asks of adapters.",
    ),
}

#: Where the page of a rule leads on, by the first letters of its code.
_SEE_ALSO = {
    "LR": "[Check adapters in CI](../../how-to/ci.md)",
    "LB": "[How well a base fits](../../concepts/verdict.md)",
    "LP": "[A policy](../../how-to/ci.md#a-policy)",
    "server": "[What was proven on real servers](../../truth.md)",
}


def list_codes() -> list[str]:
    """Return the code of every rule: of loreg, of policies and of the profiles that come with it."""
    of_servers = [rule.code for name in list_profiles() for rule in read_profile(name).rules]
    return sorted({_READABLE, *RULES, *policy.RULES}) + of_servers


def render() -> dict[str, str]:
    """Return the pages of the rules by their paths."""
    servers = {rule.code: (name, read_profile(name)) for name in list_profiles() for rule in read_profile(name).rules}
    pages = {f"rules/{code}.md": _render_rule(explain(code), servers.get(code)) for code in list_codes()}
    return pages | {"rules/index.md": _render_index()}


def _render_rule(rule: Explanation, server: tuple[str, Profile] | None) -> str:
    about = "What is right"
    rows = [("Severity", rule.severity), ("What to do", sentence(rule.remedy)), ("Source", sentence(rule.source))]
    if server is not None:
        name, profile = server
        rows.insert(1, ("Server", f"[{profile.title} {profile.release}](../profiles/{name}.md)"))
        about = "What the server does"
    rows.insert(0, (about, sentence(rule.about)))
    rows.append(("See also", _SEE_ALSO["server" if server else rule.code[:2]]))
    facts = "\n\n".join(f"**{name}**\n: {value}" for name, value in rows if value)
    return (
        f"---\norphan: true\n---\n\n# {rule.code}\n\n{facts}\n\n"
        f"```console\n$ loreg check --explain {rule.code}\n```\n\n[All rules](index.md)\n"
    )


def _render_index() -> str:
    parts = [_INDEX]
    own = [one for one in list_codes() if one[:2] in _GROUPS]
    for prefix, (title, about) in _GROUPS.items():
        rows = [_row(one) for one in own if one.startswith(prefix)]
        parts.append(f"## {title}\n\n{about}\n\n" + table(["Rule", "Severity", "What is right", "What to do"], rows))
    parts.append(
        "## Servers\n\nWhat a server refuses or gets silently wrong, by its [profile](../profiles/index.md).\n"
    )
    for name in list_profiles():
        profile = read_profile(name)
        parts.append(
            f"### {profile.title} {profile.release}\n\n{plural(len(profile.rules), 'rule')}: `--profile {name}`.\n\n"
            + table(["Rule", "Severity", "The server", "What to do"], [_row(i.code, profile) for i in profile.rules])
        )
    return "\n".join(parts)


def describe_effect(rule: Explanation, server: Profile) -> str:
    """Return what the server does and when, without its name: ``refuses an adapter if it has biases.``"""
    return rule.about.removeprefix(f"{server.title} {server.release} ")


def _row(code: str, server: Profile | None = None) -> tuple[str, str, str, str]:
    rule = explain(code)
    about = rule.about if server is None else describe_effect(rule, server)
    return f"[{code}]({code}.md)", rule.severity, sentence(about), sentence(rule.remedy)
