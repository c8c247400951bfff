"""The files that a planned version is made of: those of its folder, those that are mended, and the card."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from loreg.adapters.card import CARD_NAME
from loreg.workspace.import_plan import PlannedState
from loreg.workspace.mending import write_mended


@contextlib.contextmanager
def open_planned(planned: PlannedState) -> Iterator[tuple[Path, dict[str, Path]]]:
    """Yield the folder of a planned version's adapter, and the files that are taken from elsewhere, by name."""
    with (
        planned.state.files.open_folder() as folder,
        tempfile.TemporaryDirectory(prefix="loreg-push-") as name,
    ):
        staging, added = Path(name), {}
        if planned.card:
            added[CARD_NAME] = staging / CARD_NAME
            added[CARD_NAME].write_text(planned.card, encoding="utf-8")
        if not planned.planned.mend:
            yield folder, added
            return
        mended = staging / "adapter"
        mended.mkdir()
        # Read again: a trainer may have written other bytes at other places since the plan.
        write_mended(planned.state.files.read_structure(), planned.planned.source, mended)
        others = {file: folder / file for file in planned.state.files.list_files() if not (mended / file).exists()}
        yield mended, {**others, **added}
