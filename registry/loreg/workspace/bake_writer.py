"""Write a baked model to a folder, resume an interrupted bake, or verify the model that is there already."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loreg.baking.bake import MODEL_NAME, ShardWriter, has_model_files, open_staging, staging_path, write_model
from loreg.baking.plan import Plan, outline_digest
from loreg.baking.verify import verify as compare_sample
from loreg.baking.verify import verify_whole
from loreg.bases import cache
from loreg.bases.model import Model
from loreg.entities import Progress
from loreg.errors import AdapterFormatError, ConflictError, IntegrityError, explain_os_errors
from loreg.storage.durable import make_folders
from loreg.version import VERSION
from loreg.workspace.atomic_folder import is_free, move_into_place

FILE_NAME = "loreg_bake.json"
#: The fields of the record that tell one bake from another.
_INPUTS = ("sources", "method", "parameters", "rank", "initial", "weights_for", "lambda", "extras", "dtype")


@dataclass(frozen=True)
class WriteOutcome:
    """How many shards an earlier bake had written, how many tensors were compared, whether all existed before."""

    resumed: int = 0
    verified: int = 0
    already: bool = False


@dataclass(frozen=True)
class BakeWriter:
    """Writes one planned model to a folder, or verifies the one that is there."""

    folder: Path
    model: Model
    plan: Plan
    record: Mapping[str, Any]
    verify: bool
    progress: Progress
    write_shards: ShardWriter

    def write(self, recipe: Mapping[str, Any], start_over: bool) -> WriteOutcome:
        """Write the model, unless it is there already. Raises ConflictError if something else is there."""
        with self._explain_errors():
            if not is_free(self.folder):
                return self._verify_existing()
            make_folders(self.folder.resolve().parent)
            with open_staging(self.folder, self._inputs(recipe), start_over=start_over) as staging:
                if not is_free(self.folder):  # another bake has ended since
                    return self._verify_existing()
                document = f"{json.dumps(self.record, indent=1, ensure_ascii=False)}\n".encode()
                resumed = write_model(
                    staging, self.model, self.plan, {FILE_NAME: document}, self.progress, self.write_shards
                )
                checked = compare_sample(staging / MODEL_NAME, self.plan) if self.verify else 0
                self.progress("placing", 1, 1)
                move_into_place(staging / MODEL_NAME, self.folder)
            return WriteOutcome(resumed, checked)

    def _explain_errors(self) -> contextlib.AbstractContextManager[None]:
        staging = staging_path(self.folder)
        hint = f"the same command goes on where this one stopped; rm -r {staging} gives it up"
        return explain_os_errors(staging, hint)

    def _verify_existing(self) -> WriteOutcome:
        """Verify the model that is in the folder. Raises ConflictError unless this bake would write the same."""
        _refuse_another_bake(self.folder, self.record)
        checked = compare_sample(self.folder, self.plan) if self.verify else 0
        try:
            same = has_model_files(self.folder, self.model, self.plan, FILE_NAME)
            if same:
                verify_whole(self.folder, self.plan, self.progress)
        except (IntegrityError, AdapterFormatError):
            same = False
        if not same:
            raise ConflictError(
                f"{self.folder} is not empty and not what this bake makes; nothing was changed",
                hint="choose a new folder for --to",
            )
        return WriteOutcome(verified=checked, already=True)

    def _inputs(self, recipe: Mapping[str, Any]) -> dict[str, Any]:
        """Return everything that the bytes of the shards depend on: only a bake with the same inputs resumes them."""
        return {
            **self.record,
            "recipe": recipe,
            "shards": [(*cache.file_stamp(file), file.stat().st_ctime_ns) for file in self.model.shards],
            "outline": outline_digest(self.plan, self.model),
            "loreg": VERSION,
        }


def _refuse_another_bake(folder: Path, record: Mapping[str, Any]) -> None:
    """Raise ConflictError unless the folder's record names the same sources, method and base architecture."""
    try:
        stored = json.loads((folder / FILE_NAME).read_bytes())
        same = all(stored.get(key) == json.loads(json.dumps(record[key])) for key in _INPUTS)
        same = same and stored.get("base", {}).get("struct") == record["base"]["struct"]
    except (OSError, ValueError, AttributeError):
        same = False
    if not same:
        raise ConflictError(
            f"{folder} is the result of another bake", hint=f"{FILE_NAME} in it says of which; choose a new folder"
        )
