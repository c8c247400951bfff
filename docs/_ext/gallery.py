"""Draw the pictures of the gallery before Sphinx looks for them: by the programs that stand on its page."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import loreg

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS = Path(__file__).parents[1]
PAGE = DOCS / "gallery.md"
_PROGRAM = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_EXAMPLES = DOCS.parent / "examples" / "adapters"


def draw_gallery(target: Path) -> None:
    """Run every program of the page in a folder as it is after the beginning of the tutorial; keep what they draw."""
    target = target.absolute()
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        home = Path(name) / "registry"
        with loreg.connect(home=str(home), author="ada") as registry:
            registry.push(_EXAMPLES / "minilm-news-topics-r8", "team/news")
            registry.push(_EXAMPLES / "minilm-movie-sentiment-r8", "team/movies")
        before = os.environ.get("LOREG_HOME")
        os.environ["LOREG_HOME"] = str(home)
        try:
            for program in _PROGRAM.findall(PAGE.read_text(encoding="utf-8")):
                exec(compile(program, str(PAGE), "exec"), {})  # noqa: S102  # our own page
        finally:
            os.environ.pop("LOREG_HOME") if before is None else os.environ.update(LOREG_HOME=before)
        target.mkdir(exist_ok=True)
        for picture in sorted(Path(name).glob("*.png")):
            shutil.copy(picture, target / picture.name)


def draw(app: Sphinx) -> None:
    """Draw the pictures beside the page."""
    draw_gallery(Path(app.srcdir) / "gallery")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.connect("builder-inited", draw)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
