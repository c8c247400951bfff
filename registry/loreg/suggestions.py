"""Find out what somebody meant who typed a word that is not known."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Suggestion(NamedTuple):
    """``typed`` is not known; ``meant`` is the known word that is most like it."""

    typed: str
    meant: str


def suggest(typed: str, known: Iterable[str]) -> Suggestion | None:
    """Return the known word that is most like ``typed``; None if there is none that a person may have meant.

    >>> suggest("acuracy", ["accuracy", "loss"]).meant
    'accuracy'
    >>> suggest("weather", ["accuracy", "loss"]) is None
    True
    """
    import difflib

    by_folded = {word.casefold(): word for word in known}
    close = difflib.get_close_matches(typed.casefold(), by_folded, 1)
    return Suggestion(typed, by_folded[close[0]]) if close else None
