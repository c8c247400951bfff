"""Adapters into a base model: shard by shard, so that memory stays flat, and so that a killed bake can go on."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loreg.baking.plan import Plan
from loreg.baking.shard import write_shard
from loreg.bases.model import INDEX_NAME, Model
from loreg.errors import ConflictError, LoregError
from loreg.manifest import hidden_beside
from loreg.records import Progress

#: In the folder that is being written: what is baked into it. It is gone when the folder has its own name.
PLAN_NAME = ".loreg-baking.json"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".h5", ".msgpack", ".npz", ".npy")


def staging_of(target: Path) -> Path:
    """Where a bake to ``target`` grows."""
    return hidden_beside(target.resolve(), "baking")


@contextmanager
def staging_for(target: Path, what: Mapping[str, Any]):  # type: ignore[no-untyped-def]
    """The folder to write into, with what an interrupted bake of the same inputs left in it.

    What fails for good leaves nothing; a full disk, an interruption and a kill leave the shards that are whole. Raises
    ConflictError if another bake is writing there, or if it holds the beginnings of another one.
    """
    staging = staging_of(target)
    staging.mkdir(parents=True, exist_ok=True)
    plan = staging / PLAN_NAME
    with plan.open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConflictError(f"another bake to {target} is under way", hint="wait for it") from None
        stream.seek(0)
        text, wanted = stream.read(), json.dumps(what, sort_keys=True)
        if text and text != wanted:
            raise ConflictError(
                f"an unfinished bake of other inputs lies in {staging}",
                hint=f"rm -r {staging}, or another folder for --to",
            )
        if not text:
            stream.write(wanted)
            stream.flush()
        try:
            yield staging
        except LoregError:
            shutil.rmtree(staging)
            raise
        plan.unlink()


def write_model(staging: Path, model: Model, plan: Plan, progress: Progress) -> int:
    """Write every shard that is not there yet, the index, the configuration and what else belongs to the model.

    Returns how many shards were there already.
    """
    total = sum(output.size for outputs in plan.shards.values() for output in outputs)
    done = there = 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        progress("baking", done, total)

    with ThreadPoolExecutor(1) as flusher:  # one shard goes to the disk while the next is computed
        flushed = []
        for name, outputs in plan.shards.items():
            path = staging / name
            if path.exists():
                there += 1
                count(sum(output.size for output in outputs))
                continue
            growing = path.with_name(f".{name}.part")
            write_shard(growing, outputs, os.cpu_count() or 1, count)
            flushed.append(flusher.submit(_flush, growing, path))
        for shard in flushed:
            shard.result()
    _write_index(staging, plan)
    _write_what_else_belongs_to_it(staging, model, plan)
    return there


def _flush(growing: Path, path: Path) -> None:
    """Make sure that a shard is on the disk, then give it its name."""
    descriptor = os.open(growing, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    growing.replace(path)


def _write_index(staging: Path, plan: Plan) -> None:
    if len(plan.shards) == 1:
        return
    every = [(output, name) for name, outputs in plan.shards.items() for output in outputs]
    document = {
        "metadata": {"total_size": sum(output.size for output, _ in every)},
        "weight_map": dict(sorted((output.name, name) for output, name in every)),
    }
    (staging / INDEX_NAME).write_text(json.dumps(document, indent=2) + "\n")


def _write_what_else_belongs_to_it(staging: Path, model: Model, plan: Plan) -> None:
    """Configuration, tokenizer and generation files: everything beside the weights that is not hidden or a card."""
    for path in sorted(model.folder.iterdir()):
        if path.is_file() and not path.name.startswith(".") and _belongs(path):
            shutil.copyfile(path, staging / path.name)
    if model.config and plan.config:
        document = json.dumps({**model.config, **plan.config}, indent=2, ensure_ascii=False)
        (staging / "config.json").write_text(document + "\n", encoding="utf-8")


def _belongs(path: Path) -> bool:
    return path.suffix.lower() not in (*_WEIGHTS, ".md") and not path.name.endswith(".index.json")
