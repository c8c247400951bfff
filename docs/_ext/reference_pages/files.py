"""``files.md``: the files that users write themselves, a team's policy and a server profile, field by field."""

from __future__ import annotations

import dataclasses
import inspect

from loreg.checking.conditions import CONDITIONS
from loreg.checking.policy import Policy
from loreg.checking.profile import EFFECTS
from reference_pages.markdown import code, sentence, table

#: What TOML has for the type of a field of a policy.
_TOML = {
    "tuple[str, ...]": "list of text",
    "tuple[MetricCondition, ...]": 'list of conditions: `"accuracy>=0.9@imdb"`',
    "int | None": 'number, or text with a unit: `"2M"`',
    "bool": "`true` or `false`",
    "str": "text",
    "float": "number",
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
    fields = table(
        ["Field", "Type", "Default"],
        [(code(f.name), _TOML[str(f.type)], _default(f)) for f in dataclasses.fields(Policy)],
    )
    policy = "\n\n".join(sentence(part) for part in inspect.getdoc(Policy).split("\n\n"))
    effects = table(
        ["Effect", "Severity", "The server"], [(code(name), *map(sentence, effect)) for name, effect in EFFECTS.items()]
    )
    conditions = table(
        ["Condition", "Holds if"], [(code(name), sentence(CONDITIONS[name].__doc__)) for name in sorted(CONDITIONS)]
    )
    text = (
        f"{_POLICY}{fields}\n{policy}\n{_PROFILE}### Effects\n\n{effects}\n### Conditions\n\n"
        f"`value` is what the rule has under that name.\n\n{conditions}"
    )
    return {"files.md": text}


def _default(field: dataclasses.Field) -> str:  # type: ignore[type-arg]
    if field.default in ((), "", None):
        return "none"
    return code(str(field.default).lower() if isinstance(field.default, bool) else str(field.default))
