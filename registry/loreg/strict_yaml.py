"""Parse YAML that strangers wrote: a mapping without aliases, and no deeper than a parser of C can go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Lists and mappings within one another. libyaml's loader calls itself for each, and its stack ends the process.
_MAX_DEPTH = 100


def parse_yaml(text: str) -> Mapping[str, Any]:
    """Return the mapping that the YAML text is; empty if it is none, cannot be read, has an alias, or is too deep.

    >>> parse_yaml("license: mit"), parse_yaml("- a list"), parse_yaml("a: " + 500 * "[" + 500 * "]")
    ({'license': 'mit'}, {}, {})
    """
    import yaml  # here, for most commands need none of it

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        if not _is_plain(text, loader):
            return {}
        fields = yaml.load(text, Loader=loader)  # noqa: S506  a safe one
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError):
        return {}
    return {str(name): value for name, value in fields.items()} if isinstance(fields, dict) else {}


def _is_plain(text: str, loader: Any) -> bool:
    """Return whether the text has no alias, which is how a small document becomes a huge one, and is not too deep."""
    import yaml

    depth = 0
    for event in yaml.parse(text, Loader=loader):  # events are read one by one, however deep they are
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MAX_DEPTH or isinstance(event, yaml.AliasEvent):
            return False
    return True
