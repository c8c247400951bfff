"""Find the secrets among the words that somebody typed, so that nothing repeats them.

Come here to teach loreg another way in which people write a password or a token. A word may be wrong in every way: the
server without its scheme, the option misspelt, a password with a slash in it. In doubt a word is a secret.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from functools import cached_property

_MASK = "***"
_NAME = r"(?i:token|password|passwd|passphrase|secret|api[_-]?key|credentials?)"
_OPTION = re.compile(rf"--?(?:[\w-]*{_NAME}|pass|pw)")
_ASSIGNED = re.compile(rf"(?:\w*{_NAME}|[A-Z_]*KEY)=(.+)", re.DOTALL)
#: ``USER:PASSWORD@`` or ``KEY@`` behind a scheme, wherever in the word that is; a password may hold any character.
_IN_URL = re.compile(r"(?P<scheme>\w+)://(?P<user>[^\s:/?#@]*)(?::(?P<password>.*))?@", re.DOTALL)
_SCHEMES_OF_KEYS = ("http", "https", "s3")  # what stands alone before the @ of others is a name
#: What may come before ``USER:PASSWORD@host``: an option, a variable, or what says where an adapter is.
_BEFORE = re.compile(r"(?:-{1,2}[\w-]+=|[A-Za-z_]\w*=|hf:|mlflow:|metric:)*")
_WITHOUT_SCHEME = re.compile(r"[^\s:/@]*:(?P<password>.+)@(?!sha256:|v?\d+$)", re.DOTALL)  # refs have an @, too
_QUERY = re.compile(r"[?&;#][^=&;\s]*=([^&;\s]+)")
_SECRET_IN_QUERY = re.compile(rf"[?&][^=&\s]*{_NAME}[^=&\s]*=([^&\s]+)")
_TOKEN = re.compile(r"lrg_[\w-]{4,}|hf_[A-Za-z0-9]{20,}|gh[a-z]_[A-Za-z0-9]{20,}|glpat-[\w-]{16,}|AKIA[A-Z0-9]{12,}")
_TELLING = 3  # characters of a piece of a secret that nobody is to see
_ALIKE = 0.75  # the likeness from which a word is one that was misspelt


class TypedSecrets:
    """The words of a call, and the secrets among them."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words

    @cached_property
    def hidden_words(self) -> list[str]:
        """The words without secrets: the value of an option for a token becomes ``-``, which reads one from stdin."""
        return [shown for shown, _ in self._parts]

    def hide(self, text: str) -> str:
        """Return the text without the secrets that were typed, however much of their words it quotes."""
        return self._pattern.sub(_MASK, text) if self._pattern is not None else text

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        secrets = {form for _, secrets in self._parts for secret in secrets for form in _written_forms(secret)}
        longest_first = sorted((secret for secret in secrets if len(secret) > 1), key=len, reverse=True)
        alternatives = "|".join(rf"(?<!\w){re.escape(secret)}(?!\w)" for secret in longest_first)
        return re.compile(alternatives) if alternatives else None

    @cached_property
    def _parts(self) -> list[tuple[str, Sequence[str]]]:
        """Each word as it may be shown, with the secrets that it holds."""
        parts: list[tuple[str, Sequence[str]]] = []
        is_login, arguments = False, 0
        for before, word in itertools.pairwise(["", *self._words]):
            option, equals, value = word.partition("=")
            is_argument = is_login and not word.startswith("-") and not before.startswith("-")
            arguments += is_argument
            is_login = is_login or _is_like(word, "login")
            if "=" not in before and _is_for_secrets(before):
                parts.append(("-", (word,)))
            elif equals and _is_for_secrets(option):
                parts.append((f"{option}=-", (value,)))
            elif is_argument and arguments > 1:  # a token for which --token was forgotten
                parts.append((_MASK, (word,)))
            else:
                parts.append(_split_word(word))
        return parts


def _split_word(word: str) -> tuple[str, Sequence[str]]:
    """Return the word as it may be shown, and its secrets."""
    if match := _ASSIGNED.fullmatch(word):
        return f"{word[: match.start(1)]}{_MASK}", (match[1],)
    shown, secrets = word, []
    if match := _IN_URL.search(word):
        if match["password"] or match["scheme"] in _SCHEMES_OF_KEYS:
            secrets.append(match["password"] or match["user"])
            shown = f"{word[: match.start('user')]}{_MASK}@{word[match.end() :]}"
    elif "://" not in word and not word.startswith((".", "/", "~")):
        before = _BEFORE.match(word)
        start = before.end() if before else 0
        if match := _WITHOUT_SCHEME.match(word, start):
            secrets.append(match["password"])
            shown = f"{word[:start]}{_MASK}@{word[match.end() :]}"
    query = _QUERY if "://" in word else _SECRET_IN_QUERY
    more = [*query.findall(word), *_TOKEN.findall(word)]
    for secret in more:
        shown = shown.replace(secret, _MASK)
    return shown, tuple(filter(None, [*secrets, *more]))


def _is_for_secrets(option: str) -> bool:
    """Return whether it is an option whose value is a secret, spelt right or nearly so."""
    if not option.startswith("-") or option.startswith("--token-"):  # --token-env names a variable
        return False
    return _OPTION.fullmatch(option) is not None or _is_like(option, "--token")


def _is_like(word: str, other: str) -> bool:
    from difflib import SequenceMatcher

    return SequenceMatcher(None, word, other).ratio() >= _ALIKE


def _written_forms(secret: str) -> Iterable[str]:
    """Return a secret as it was typed, as Python quotes it, as a URL writes it, and where it may be split up."""
    from urllib.parse import quote, quote_plus

    pieces = [piece for piece in re.split("[@:/?#=&]", secret) if len(piece) >= _TELLING]
    return {secret, repr(secret)[1:-1], quote(secret, safe=""), quote_plus(secret), *pieces}
