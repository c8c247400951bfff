"""Parse selectors, which name the adapters that a folder or a server is to have: ``[NAME=]PATTERN[:alias|:vN|@…]``."""

from __future__ import annotations

from loreg.errors import UsageError
from loreg.refs import AdapterName, AdapterPattern, Ref, parse_adapter_name, parse_adapter_pattern, parse_ref
from loreg.value import Value

_WILDCARDS = frozenset("*?")
_HINT = "a selector reads 'team/*:prod', team/news:v3 or NAME=team/news:prod"


class Selector(Value, frozen=True):
    """Which versions are selected, of the adapters that ``pattern`` matches; ``name`` is what the only one is called.

    ``alias``, ``number`` and ``digest`` are as in :class:`loreg.refs.Ref`: with none of them the newest not yanked is.
    """

    pattern: AdapterPattern
    alias: str | None = None
    number: int | None = None
    digest: str | None = None
    name: str = ""

    @property
    def ref(self) -> Ref | None:
        """The ref of the only version that can be selected; None if the pattern has a wildcard."""
        if _WILDCARDS & {*self.pattern.namespace, *self.pattern.name}:
            return None
        adapter = AdapterName(self.pattern.namespace, self.pattern.name)
        return Ref(adapter, self.alias, self.number, self.digest)

    def __str__(self) -> str:
        if self.ref is not None:
            selected = str(self.ref)
        else:
            is_all = self.pattern.namespace == self.pattern.name == "*"
            selected = ("*" if is_all else str(self.pattern)) + (f":{self.alias}" if self.alias else "")
        return f"{self.name}={selected}" if self.name else selected


def parse_selector(text: str) -> Selector:
    """Parse a ref, or a pattern as in :func:`loreg.refs.parse_adapter_pattern` with an alias or without one.

    ``NAME=`` before a ref says what the selected version is called, as ``[ns/]name``. Raises UsageError.

    >>> str(parse_selector("team/*:prod")), parse_selector("team/news").ref
    ('team/*:prod', Ref(adapter=AdapterName(namespace='team', name='news'), alias=None, number=None, digest=None))
    >>> parse_selector("canary/news=team/news:v3").name
    'canary/news'
    """
    called, equals, rest = text.rpartition("=")
    if equals:
        parse_adapter_name(called)
    if not _WILDCARDS & set(rest) and not rest.endswith("/"):
        ref = parse_ref(rest)
        pattern = AdapterPattern(ref.adapter.namespace, ref.adapter.name)
        return Selector(pattern, ref.alias, ref.number, ref.digest, called)
    if equals:
        raise UsageError(f"{text!r} gives one name to all adapters that match", hint=_HINT)
    names, at, _ = rest.partition("@")
    names, colon, alias = names.partition(":")
    ref = parse_ref(f"a:{alias}" if colon else "a")
    if ref.number or at:
        raise UsageError(f"{text!r} names one version of many adapters: expected an alias, or none", hint=_HINT)
    return Selector(parse_adapter_pattern(names), ref.alias)
