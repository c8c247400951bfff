"""extract: turn what a fine-tune changed into an adapter."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from loreg.bases.identify import architecture_digest
from loreg.bases.model import read_model
from loreg.entities import ExtractResult, Progress, VersionMetadata, no_progress
from loreg.errors import UsageError, explain_os_errors
from loreg.verbs.merge import new_folder, refuse_wrong_target
from loreg.verbs.push import push
from loreg.workspace.context import Context
from loreg.workspace.resolve_sources import require_torch

FILE_NAME = "loreg_extract.json"
SCHEMA = "loreg.extract/1"


def extract(
    context: Context,
    base: Path | str,
    tuned: Path | str,
    *,
    rank: int | None = None,
    energy: float | None = None,
    whole: str = "keep",
    device: str = "auto",
    name: str | None = None,
    folder: Path | str | None = None,
    metadata: VersionMetadata = VersionMetadata(),
    progress: Progress = no_progress,
) -> ExtractResult:
    """Take an adapter out of a fine-tuned model. See :meth:`loreg.registry.Registry.extract`."""
    _refuse_wrong_call(rank, energy, whole, name, folder)
    folder = Path(folder) if folder is not None else None
    refuse_wrong_target(name, folder, FILE_NAME)
    require_torch()
    from loreg.adapters.tensors import write_adapter
    from loreg.baking import extract as extracting
    from loreg.merging.device import choose_device

    old_path, new_path = Path(base).expanduser(), Path(tuned).expanduser()
    with explain_os_errors(old_path, "check the folders of both models and their permissions"):
        old, new = read_model(old_path), read_model(new_path)
        extracted = extracting.extract(old, new, rank, energy, whole == "keep", progress, choose_device(device))
    energies = [module.norm**2 for module in extracted.modules]
    retained_energy = sum(e * module.retained for e, module in zip(energies, extracted.modules, strict=True))
    retained = retained_energy / math.fsum(energies)
    record: dict[str, object] = {
        "schema": SCHEMA,
        "rank": rank,
        "energy": energy,
        "base": {"struct": architecture_digest(old)},
        "tuned": {"struct": architecture_digest(new)},
        "retained_energy": retained,
        "modules": [{"module": m.module, "rank": m.rank, "retained_energy": m.retained} for m in extracted.modules],
        "whole": [name for name, _ in extracted.whole],
    }
    result = ExtractResult(
        extracted.modules, retained, extracted.whole, _describe_whole(extracted.whole), folder=folder
    )
    with new_folder(folder) as staging:
        write_adapter(staging, extracted.adapter)
        (staging / FILE_NAME).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        if name is None:
            return result
        pushed = push(context, staging, name, metadata, base=str(old_path.absolute()), progress=progress)
        return ExtractResult(extracted.modules, retained, extracted.whole, result.notes, pushed=pushed)


def _refuse_wrong_call(
    rank: int | None, energy: float | None, whole: str, name: str | None, folder: Path | str | None
) -> None:
    if (rank is None) == (energy is None):
        raise UsageError("expected a rank or a share of the energy to keep", hint="--rank 16, or --energy 0.99")
    if rank is not None and rank < 1:
        raise UsageError(f"the rank is {rank}, expected 1 or more", hint="--rank 16")
    if energy is not None and not 0 < energy <= 1:
        raise UsageError(f"the energy to keep is {energy}, expected over 0 and up to 1", hint="--energy 0.99")
    if whole not in ("keep", "refuse"):
        raise UsageError(f"whole is {whole!r}, expected keep or refuse", hint="--whole keep")
    if (name is None) == (folder is None):
        raise UsageError("expected a name to push to, or a folder", hint="--push NAME, or --to DIR")


def _describe_whole(whole: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    by_reason: dict[str, list[str]] = {}
    for name, reason in whole:
        by_reason.setdefault(reason, []).append(name)
    return tuple(
        f"kept whole: {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "") + f": {reason}"
        for reason, names in by_reason.items()
    )
