"""Every page of the reference that is made from data: its path below ``docs/reference`` and its text.

Come here to add a page. Nothing here imports Sphinx: pages are plain text, and the tests compare them with the data.
"""

from __future__ import annotations

from reference_pages import commands, configuration, errors, files, http, methods, profiles, rules


def render_pages() -> dict[str, str]:
    """Return the text of every generated page by its path below ``docs/reference``."""
    pages: dict[str, str] = {}
    for module in (commands, configuration, errors, files, http, methods, profiles, rules):
        pages |= module.render()
    return pages
