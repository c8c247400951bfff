"""Read ``training_args.bin``, the arguments of a run as transformers' Trainer writes them with ``torch.save``.

Nothing in the file is loaded: its plain values are read (:mod:`loreg.runs.pickled_values`), and of these the arguments
of training alone, so that tokens and paths stay where they are. Source: transformers 5.23 ``trainer.py``, ``_save``;
torch 2.13 ``torch/serialization.py``, a ZIP archive with one ``data.pkl``.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loreg.runs.configs import from_arguments
from loreg.runs.documents import read_bytes
from loreg.runs.facts import RunFacts, combine
from loreg.runs.pickled_values import PickledObject, read_pickled

ARGUMENTS_NAME = "training_args.bin"
_MAX_PICKLE_BYTES = 256 * 1024  # those of Trainer have 5 KB
#: Whose arguments they are, by the beginning of the name of their class.
_TRAINERS = {"llamafactory.": "LLaMA-Factory", "axolotl.": "axolotl", "trl.": "TRL"}


def read_training_args(folder: Path, run: Path) -> RunFacts:
    """Return what the file in ``folder`` of the run says; nothing where there is none, or none that can be read."""
    try:
        arguments = read_pickled(_read_archive(read_bytes(folder / ARGUMENTS_NAME, run)))
    except (OSError, ValueError, OverflowError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        return RunFacts()  # the last five are those of zipfile for an archive that is none, or has a wrong byte
    if not isinstance(arguments, PickledObject) or not isinstance(arguments.attributes, dict):
        return RunFacts()
    values = {name: _plain(value) for name, value in arguments.attributes.items() if isinstance(name, str)}
    return combine([RunFacts(trainer=_trainer(arguments.name)), from_arguments(_without_unset(values))])


def _read_archive(content: bytes) -> bytes:
    """Return the pickle in what torch wrote. Raises ValueError if there is none, or one that is too large."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entry = next((entry for entry in archive.infolist() if entry.filename.endswith("/data.pkl")), None)
        if entry is None or entry.compress_type != zipfile.ZIP_STORED or entry.file_size > _MAX_PICKLE_BYTES:
            raise ValueError("there is no pickle of torch in it")
        return archive.read(entry)


def _plain(value: Any) -> Any:
    """Return the text of an enumeration's member, which a pickle makes of it, and everything else as it is."""
    if isinstance(value, PickledObject) and isinstance(value.arguments, tuple) and len(value.arguments) == 1:
        return value.arguments[0]
    return value


def _without_unset(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments without a number of steps that stands for no limit."""
    return {name: value for name, value in arguments.items() if (name, value) != ("max_steps", -1)}


def _trainer(name: str) -> str:
    """Return whose class of arguments it is, with the method of TRL's (``trl.trainer.dpo_config DPOConfig``)."""
    trainer = next((trainer for prefix, trainer in _TRAINERS.items() if name.startswith(prefix)), "")
    method = name.rpartition(" ")[2].removesuffix("Config") if trainer == "TRL" else ""
    return f"{trainer} {method}".strip()
