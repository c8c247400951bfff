"""Parse refs, the names that people give a version: ``[ns/]name[:alias|:vN][@sha256:…]``."""

from __future__ import annotations

import os
import re
from fnmatch import fnmatchcase
from pathlib import Path

from loreg.errors import UsageError
from loreg.value import Value

_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?")
_VERSION = re.compile(r"v([1-9][0-9]{0,8})")
_DIGEST = re.compile(r"sha256:([0-9a-f]{8,64})")
#: Stands for the namespace of adapters that have none; no valid namespace is spelled so.
NO_NAMESPACE = "-"
_PATTERN = re.compile(r"\*|(?:[A-Za-z0-9._*?-]{1,96}/)?[A-Za-z0-9._*?-]{0,96}(?<!^)")
_GRAMMAR = "[ns/]name[:alias|:vN][@sha256:…]"


class AdapterName(Value, frozen=True):
    """An adapter's name, ``namespace`` empty where there is none."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class Ref(Value, frozen=True):
    """One version, as a user names it; neither ``alias`` nor ``number`` means the newest not yanked.

    ``digest`` is a prefix of at least 8 hexadecimal digits, without ``sha256:``.
    """

    adapter: AdapterName
    alias: str | None = None
    number: int | None = None
    digest: str | None = None

    def __str__(self) -> str:
        suffix = f":{self.alias}" if self.alias else f":v{self.number}" if self.number else ""
        return f"{self.adapter}{suffix}" + (f"@sha256:{self.digest}" if self.digest else "")


def parse_adapter_name(text: str) -> AdapterName:
    """Parse ``[ns/]name``. Raises UsageError, also for a name with a version or with ``..`` in it.

    >>> parse_adapter_name("team/science"), parse_adapter_name("science").namespace
    (AdapterName(namespace='team', name='science'), '')
    """
    parts = text.split("/")
    if len(parts) > 2 or not all(_PART.fullmatch(part) and ".." not in part for part in parts):
        raise UsageError(
            f"invalid adapter name {text!r}: expected [ns/]name, each part of 1 to 96 letters, digits and "
            "'._-' that starts and ends with a letter or digit and has no '..'",
            hint="a name reads team/my-adapter",
        )
    return AdapterName(*parts) if len(parts) == 2 else AdapterName("", parts[0])


def page_path(adapter: AdapterName, number: int | None = None) -> str:
    """Return the path of the page of an adapter, or of one of its versions, on a server.

    >>> page_path(parse_adapter_name("team/science"), 2), page_path(parse_adapter_name("science"))
    ('/team/science/v2', '/-/science')
    """
    path = f"/{adapter.namespace or NO_NAMESPACE}/{adapter.name}"
    return f"{path}/v{number}" if number else path


class AdapterPattern(Value, frozen=True):
    """Which adapters are meant: those whose namespace and name match; ``*`` stands for any text, ``?`` for a letter."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace or NO_NAMESPACE}/{self.name}"

    def matches(self, adapter: AdapterName) -> bool:
        """Return whether the adapter is one of those."""
        return fnmatchcase(adapter.namespace, self.namespace) and fnmatchcase(adapter.name, self.name)


#: The pattern of all adapters.
ALL_ADAPTERS = AdapterPattern("*", "*")


def parse_adapter_pattern(text: str) -> AdapterPattern:
    """Parse ``team/*``, ``team/`` (the same), ``team/news-?``, ``-/*`` (no namespace) or ``*`` (all).

    Raises UsageError.

    >>> parse_adapter_pattern("team/").matches(parse_adapter_name("team/science"))
    True
    """
    if not _PATTERN.fullmatch(text):
        raise UsageError(
            f"invalid pattern {text!r}: expected the name of an adapter, with * for any text and ? for any letter",
            hint="'team/*'",
        )
    namespace, slash, name = text.rpartition("/")
    if not slash:
        return ALL_ADAPTERS if text == "*" else AdapterPattern("", text)
    return AdapterPattern("" if namespace == NO_NAMESPACE else namespace, name or "*")


def parse_alias(text: str) -> str:
    """Return ``text`` if it can name an alias. Raises UsageError, also for ``latest`` and ``vN``.

    >>> parse_alias("v2")
    Traceback (most recent call last):
    ...
    loreg.errors.UsageError: 'v2' cannot be an alias: 'latest' and 'vN' already name versions. Hint: choose another ...
    """
    if text == "latest" or re.fullmatch(r"v[0-9]+", text):
        raise UsageError(
            f"{text!r} cannot be an alias: 'latest' and 'vN' already name versions",
            hint="choose another word, e.g. prod",
        )
    if not _PART.fullmatch(text):
        raise UsageError(
            f"invalid alias {text!r}: expected 1 to 96 letters, digits and '._-'", hint="an alias reads prod"
        )
    return text


def parse_ref(text: str) -> Ref:
    """Parse a ref; ``:latest`` means the same as no suffix. Raises UsageError.

    >>> ref = parse_ref("team/science:v2@sha256:0123abcd")
    >>> str(ref.adapter), ref.alias, ref.number, ref.digest
    ('team/science', None, 2, '0123abcd')
    >>> parse_ref("science:prod").alias
    'prod'
    """
    rest, at, digest_text = text.partition("@")
    digest = _DIGEST.fullmatch(digest_text)
    if at and not digest:
        raise UsageError(
            f"invalid digest {digest_text!r} in ref {text!r}: expected sha256: and 8 to 64 hex digits",
            hint=f"a ref reads {_GRAMMAR}",
        )
    name, colon, selector = rest.partition(":")
    adapter = parse_adapter_name(name)
    alias = number = None
    if version := _VERSION.fullmatch(selector):
        number = int(version[1])
    elif colon and selector != "latest":
        alias = parse_alias(selector)
    return Ref(adapter, alias, number, digest[1] if digest else None)


def is_path(text: str) -> bool:
    """Return whether ``text`` means a folder, not a name in the registry: it starts with ``.``, ``/`` or ``~``.

    >>> is_path("./runs/42"), is_path("runs/42")
    (True, False)
    """
    return text.startswith((".", "/", "~")) or Path(text).is_absolute()


def source_text(source: str | os.PathLike[str]) -> str:
    """Return an adapter, model or place as text: a path object becomes text that no one takes for a name.

    >>> source_text(Path("runs/42")), source_text("team/science")
    ('./runs/42', 'team/science')
    """
    text = os.fspath(source)
    return text if isinstance(source, str) or is_path(text) else f"./{text}"
