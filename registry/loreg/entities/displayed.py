"""The base of the values that people look at in a notebook: one short line, and HTML."""

from __future__ import annotations

from loreg.value import Value


class Displayed(Value, frozen=True):
    """A value that says in one line what it is, and shows what matters of it in a notebook.

    How each kind looks is in ``loreg.entities.display``, which is imported when something is shown.
    """

    def __repr__(self) -> str:
        from loreg.entities.display.text import describe

        return describe(self)

    def _repr_html_(self) -> str:
        from loreg.entities.display.html import render

        return render(self)
