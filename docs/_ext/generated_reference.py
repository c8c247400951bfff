"""Write the pages that are made from data before Sphinx looks for pages."""

from __future__ import annotations

from pathlib import Path

from sphinx.application import Sphinx

from reference_pages import render_pages


def write_pages(app: Sphinx) -> None:
    """Write every generated page that changed, and remove those of data that is no more."""
    folder = Path(app.srcdir) / "reference"
    pages = {folder / path: text for path, text in render_pages().items()}
    for kind in ("cli", "profiles", "rules"):
        for path in (folder / kind).glob("*.*"):
            if path not in pages:
                path.unlink()
    for path, text in pages.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:  # else Sphinx would read it again
            path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
