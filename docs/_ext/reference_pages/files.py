"""``files.md``: the files that users write themselves: policies of a team and a server profile, field by field."""

from __future__ import annotations

import inspect

from msgspec.structs import FieldInfo, fields

from loreg.checking.conditions import CONDITIONS
from loreg.checking.policy import Policy
from loreg.checking.profile import EFFECTS
from loreg.entities import RetentionRules
from reference_pages.markdown import code, sentence, table

#: What TOML has for the type of a field of a policy.
_TOML = {
    "tuple[str, ...]": "list of text",
    "tuple[MetricCondition, ...]": 'list of conditions: `"accuracy>=0.9@imdb"`',
    "int | None": 'number, or text with a unit: `"2M"`',
    "bool": "`true` or `false`",
    "str": "text",
    "float": "number",
    "int | None under [retention]": "number, 1 or more",
    "timedelta | None": 'text: `"90m"`, `"12h"`, `"30d"` or `"8w"`',
}
_POLICY = """\
# Files that you write

## A team's policy

The table `[check]` of `loreg.toml`, or of the settings of a server, says what a team asks of adapters. `loreg check`
holds every adapter against it. Before one of the `aliases` points to a version, all of it must hold. Its rules are
[LP001 and the ones after](rules/index.md#a-teams-policy).

```toml
[check]
tasks = ["sentiment"]
metrics = ["accuracy>=0.9@imdb"]
max_rank = 64
aliases = ["prod"]
against = "prod"
tolerance = 0.01
deployments = true
```

"""
_RETENTION = """
## Which versions are kept

The table `[retention]` of `loreg.toml`, or of the user's file, says which versions `loreg prune` keeps. There is no
policy without it, and `loreg serve` never prunes by itself. Where `loreg prune` is asked for through a server, the file
that the server read when it started says it.

```toml
[retention]
keep_last = 5
keep_yanked = "30d"

[retention.namespace.team]
keep_last = 20
keep_newer = "90d"

[retention.namespace.rl]
keep_last = 20
keep_every = 100
```

"""
_NAMESPACES = """
A table `[retention.namespace.NAME]` holds for that namespace *in place of* the rules in `[retention]`: what it leaves
out is not taken from there. Without a rule for it a version stays. `-` is the namespace of adapters that have none.

These are never pruned: the newest version that is not yanked; what an alias means; a canary of one, and what one may go
back to by itself; what an alias that `[check]` guards, or compares with, last meant; what something
kept was merged from, of whatever adapter; and versions that an open job names, with all that came after them.
"""
_AUDIT = """
## Which pulls are events

The table `[audit]` of `loreg.toml`, or of the user's file, names in `pulls`, a list of patterns, the adapters of which
each pull is an event; none without it. `["*"]` is all of them.
[How a team uses it](../how-to/team-server.md#record-who-pulls).

```toml
[audit]
pulls = ["team/*"]
```
"""
_PROFILE = """
## A server profile

`--profile ./mine.toml` takes a file like those that [come with loreg](profiles/index.md). At its top:

| Field | Type | What it is |
| --- | --- | --- |
| `name` | text | what is typed after `--profile` |
| `title` | text | what people call the server |
| `release` | text | the release whose source the rules were read from |
| `reads` | list of text, may be left out | the fields of `adapter_config.json` that the server looks at |
| `[parameters]` | table of numbers, may be left out | what a user can set: `--profile NAME:parameter=value` |
| `[among]` | table of lists, may be left out | the values that a parameter can have, where these are few |

Each rule is a table `[[rules]]`:

| Field | Type | What it is |
| --- | --- | --- |
| `code` | text | what a finding is named by; letters of your own, so that it is no code of loreg's |
| `if` | a [condition](#conditions) | what has to hold of the adapter |
| `value` | what the condition says | what is compared: a value, the name of a parameter, or `reads` |
| `effect` | an [effect](#effects) | what the server then does |
| `message` | text, may be left out | why, in the server's terms |
| `remedy` | text | what to do |
| `source` | text | where in the server's source that stands |

"""


def render() -> dict[str, str]:
    """Return the page of files by its path."""
    of_policy = table(
        ["Field", "Type", "Default"],
        [(code(f.name), _TOML[Policy.__annotations__[f.name]], _default(f)) for f in fields(Policy)],
    )
    types = RetentionRules.__annotations__
    rules = table(
        ["Field", "Type", "Default"],
        [
            (code(f.name), _TOML.get(f"{types[f.name]} under [retention]") or _TOML[types[f.name]], _default(f))
            for f in fields(RetentionRules)
        ],
    )
    about_rules = sentence(inspect.getdoc(RetentionRules).partition("\n\n")[2])
    policy = "\n\n".join(sentence(part) for part in inspect.getdoc(Policy).split("\n\n"))
    effects = table(
        ["Effect", "Severity", "The server"], [(code(name), *map(sentence, effect)) for name, effect in EFFECTS.items()]
    )
    conditions = table(
        ["Condition", "Holds if"], [(code(name), sentence(CONDITIONS[name].__doc__)) for name in sorted(CONDITIONS)]
    )
    text = (
        f"{_POLICY}{of_policy}\n{policy}\n{_RETENTION}{rules}\n{about_rules}\n{_NAMESPACES}{_AUDIT}"
        f"{_PROFILE}### Effects\n\n{effects}\n### Conditions\n\n"
        f"`value` is what the rule has under that name.\n\n{conditions}"
    )
    return {"files.md": text}


def _default(field: FieldInfo) -> str:
    if field.default in ((), "", None):
        return "none"
    return code(str(field.default).lower() if isinstance(field.default, bool) else str(field.default))
