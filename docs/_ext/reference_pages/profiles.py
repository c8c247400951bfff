"""``profiles/``: a page for each server profile that comes with loreg, and a table of all."""

from __future__ import annotations

import re

from loreg.checking.profile import EFFECTS, list_profiles
from reference_pages.cached import explain, read_profile
from reference_pages.markdown import code, escape, plural, sentence, table
from reference_pages.rules import describe_effect

_INDEX = """\
# Server profiles

A profile says what one release of a server loads, refuses, or loads and gets silently wrong. Its rules were read in the
server's source; [truth](../../truth.md) says which of them the server itself was seen to follow.

```console
$ loreg check ./adapter --profile vllm:max_lora_rank=64
$ loreg export ./adapter --profile vllm --to ./for-vllm
```

"""
_END = """
A profile of your own is a TOML file: [its fields](../files.md#a-server-profile). `--profile ./mine.toml` takes it.

```{{toctree}}
:hidden:

{}
```
"""


def spell(name: str) -> str:
    """Return what is typed after ``--profile``: ``peft:0.10`` for the file ``peft-0.10.toml``."""
    profile = read_profile(name)
    return name if name == profile.name else f"{profile.name}:{profile.release}"


def render() -> dict[str, str]:
    """Return the pages of the profiles by their paths."""
    names = list_profiles()
    rows = [
        (
            f"[{escape(read_profile(name).title)}]({name}.md)",
            escape(read_profile(name).release),
            code(f"--profile {spell(name)}"),
            *(str(sum(rule.effect == effect for rule in read_profile(name).rules)) for effect in EFFECTS),
        )
        for name in names
    ]
    head = ["Server", "Release", "Option", *(f"Rules: {_SHORT[effect]}" for effect in EFFECTS)]
    index = _INDEX + table(head, rows) + _END.format("\n".join(names))
    return {"profiles/index.md": index} | {f"profiles/{name}.md": _render_profile(name) for name in names}


def _describe_release(release: str) -> str:
    return f" {release} is the commit whose source was read." if re.fullmatch(r"[0-9a-f]{7}", release) else ""


_SHORT = {"refuses": "refuses", "wrong": "silently wrong", "slow": "slower"}


def _render_profile(name: str) -> str:
    profile = read_profile(name)
    parts = [
        f"# {profile.title} {profile.release}\n",
        f"When {escape(profile.title)} {profile.release} refuses an adapter, or loads it and gets something silently "
        f"wrong: {plural(len(profile.rules), 'rule')}.{_describe_release(profile.release)}\n",
        f"`REF` is a version of the registry, or a folder:\n\n```console\n$ loreg check REF --profile {spell(name)}\n"
        f"$ loreg export REF --profile {spell(name)} --to DIR\n```\n",
    ]
    if profile.parameters:
        rows = [
            (code(key), str(value), ", ".join(map(str, profile.among.get(key, ()))) or "1 or more")
            for key, value in profile.parameters.items()
        ]
        key, value = next(iter(profile.parameters.items()))
        parts.append(
            f"## Parameters\n\nSet one as in `--profile {profile.name}:{key}={value}`.\n\n"
            + table(["Parameter", "Default", "Possible"], rows)
        )
    rows = [
        (
            f"[{rule.code}](../rules/{rule.code}.md)",
            sentence(describe_effect(explain(rule.code), profile)),
            sentence(rule.remedy),
            sentence(explain(rule.code).source.rpartition("; ")[2]),
        )
        for rule in profile.rules
    ]
    parts.append("## Rules\n\n" + table(["Rule", "The server", "What to do", "Proof"], rows))
    if profile.reads is not None:
        fields = ", ".join(code(field) for field in profile.reads)
        parts.append(f"## Fields of `adapter_config.json` that it reads\n\n{fields}\n")
    return "\n".join(parts)
