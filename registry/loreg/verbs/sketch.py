"""sketch: read the weights of versions that were pushed without a sketch, so that they are found by content too."""

from __future__ import annotations

import tempfile
from pathlib import Path

from loreg.adapters.config import CONFIG_NAME
from loreg.adapters.structure import WEIGHTS_NAME, read_structure
from loreg.entities import Progress, Sketch, SketchReport, no_progress
from loreg.errors import LoregError, UnavailableError
from loreg.identity.sketch import sketch_adapter
from loreg.refs import Ref
from loreg.workspace.context import Context
from loreg.workspace.download import download_to_temporary


def sketch_missing(context: Context, progress: Progress = no_progress) -> SketchReport:
    """Sketch every version that has no sketch. One that cannot be read is named, and the next follows.

    A killed call loses nothing: the next goes on. Raises NotAllowedError unless an administrator's, UnavailableError
    where the store does not answer.
    """
    upkeep = context.backend.upkeep()
    total, count = upkeep.count_unsketched(), 0
    failed: list[tuple[str, str]] = []
    for done, version in enumerate(upkeep.unsketched()):
        progress("sketching", done, total)
        ref = Ref(version.adapter, number=version.number, digest=version.digest)
        try:
            count += upkeep.record_sketch(ref, _sketch(context, ref))
        except UnavailableError:
            raise
        except LoregError as error:
            failed.append((version.ref, error.message))
    progress("sketching", total, total)
    return SketchReport(count, tuple(failed), len(failed))


def _sketch(context: Context, ref: Ref) -> Sketch:
    files = [file for file in context.backend.show(ref).files if file.path in (CONFIG_NAME, WEIGHTS_NAME)]
    with tempfile.TemporaryDirectory(prefix="loreg-sketch-") as folder:
        download_to_temporary(context, files, Path(folder), no_progress)
        return sketch_adapter(read_structure(Path(folder)))
