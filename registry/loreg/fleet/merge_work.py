"""Merge on a cluster: one worker merges, with the processors or the GPU of its machine; the adapters travel to it."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from loreg.adapters.config import CONFIG_NAME
from loreg.adapters.structure import WEIGHTS_NAME, AdapterStructure, read_structure
from loreg.errors import LoregError, MissingExtraError
from loreg.fleet.carried_files import Files, write_files
from loreg.fleet.worker_machine import refuse_other_version, require_shared
from loreg.merging.inputs import MergeInput
from loreg.version import VERSION

if TYPE_CHECKING:
    from loreg.merging.execute import MergedAdapter
    from loreg.merging.recipe import Recipe


@dataclass(frozen=True)
class _CarriedInput:
    """A :class:`MergeInput` with the files of its adapters."""

    label: str
    digest: str
    files: Files
    initial: Files | None


@dataclass(frozen=True)
class MergeWork:
    """A merge by ``recipe``; ``base`` is a path that the worker must have, ``calibration`` the content of a file."""

    inputs: Sequence[_CarriedInput]
    recipe: Recipe
    base: Path | None
    calibration: bytes | None
    device: str
    version: str = VERSION

    def __str__(self) -> str:
        return f"the merge of {', '.join(carried.label for carried in self.inputs)}"

    def run(self) -> MergedAdapter | LoregError:
        """Return the merged adapter."""
        try:
            refuse_other_version(self.version)
            if self.base is not None:
                require_shared(self.base, "--base")
            with tempfile.TemporaryDirectory(prefix="loreg-merge-") as folder:
                return self._merge(Path(folder))
        except ImportError as error:
            return MissingExtraError(
                f"{socket.gethostname()} cannot merge: {error}",
                hint="pip install 'loreg[merge]'",
                outside="a machine of the cluster cannot merge",
            )
        except LoregError as error:
            return error

    def _merge(self, folder: Path) -> MergedAdapter:
        from loreg.merging.device import choose_device
        from loreg.merging.execute import execute_recipe

        inputs = []
        for number, carried in enumerate(self.inputs):
            structure = _write(carried.files, folder / str(number))
            initial = _write(carried.initial, folder / f"{number}-initial") if carried.initial is not None else None
            inputs.append(MergeInput(structure, carried.label, carried.digest, initial, self.base))
        calibration = None
        if self.calibration is not None:
            calibration = folder / "calibration.safetensors"
            calibration.write_bytes(self.calibration)
        return execute_recipe(inputs, self.recipe, device=choose_device(self.device), calibration=calibration)


def carry_merge(inputs: Sequence[MergeInput], recipe: Recipe, device: str, calibration: Path | None) -> MergeWork:
    """Return a merge that can travel."""
    carried = [
        _CarriedInput(
            source.label, source.digest, _read(source.structure), _read(source.initial) if source.initial else None
        )
        for source in inputs
    ]
    base = next((source.base.resolve() for source in inputs if source.base is not None), None)
    return MergeWork(carried, recipe, base, calibration.read_bytes() if calibration is not None else None, device)


def _read(structure: AdapterStructure) -> Files:
    weights = structure.weights
    return {CONFIG_NAME: weights.with_name(CONFIG_NAME).read_bytes(), WEIGHTS_NAME: weights.read_bytes()}


def _write(files: Files, folder: Path) -> AdapterStructure:
    folder.mkdir()
    write_files(folder, files)
    return read_structure(folder)
