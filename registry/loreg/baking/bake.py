"""Adapters into a base model: shard by shard, so that memory stays flat, and so that a killed bake can go on."""

from __future__ import annotations

import contextlib
import fcntl
import filecmp
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO

from loreg.baking.plan import Plan
from loreg.baking.shard import write_shard
from loreg.bases.model import INDEX_NAME, Model
from loreg.entities import Progress
from loreg.errors import ConflictError, LoregError, UnderWayError
from loreg.file_modes import sync_folder
from loreg.manifest import hidden_beside
from loreg.storage.durable import sync_file

#: Beside the model that grows: what is baked into it. It is there before the first shard and until after the last.
PLAN_NAME = ".loreg-baking.json"
#: What becomes the result: shards that are whole and on the disk, all of the plan beside it.
MODEL_NAME = "model"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".h5", ".msgpack", ".npz", ".npy")


def staging_path(target: Path) -> Path:
    """Where a bake to ``target`` grows."""
    return hidden_beside(target.resolve(), "baking")


@contextlib.contextmanager
def open_staging(target: Path, what: Mapping[str, Any], *, start_over: bool = False) -> Iterator[Path]:
    """The folder to write into, with what an interrupted bake of ``what`` left in it; nobody else writes there.

    What fails for good leaves nothing; a full disk, an interruption and a kill leave the shards that are whole.
    Raises UnderWayError if another bake is writing there, ConflictError if it holds the beginnings of another one,
    which ``start_over`` removes.
    """
    staging = staging_path(target)
    wanted = json.dumps(what, sort_keys=True)
    with _lock_plan(target, staging) as plan:
        found = plan.read()
        if found != wanted:
            if found and _is_begun(staging) and not start_over:
                raise ConflictError(
                    f"an unfinished bake of other inputs lies in {staging}",
                    hint=f"rm -r {staging}, or another folder for --to",
                )
            _clear(staging)  # before the new plan is written: no shard ever lies beside a plan that is not its own
            _write_plan(plan, staging, wanted)
        try:
            yield staging
        except LoregError as error:
            # Where somebody filled the target meanwhile, what was baked is kept until the target is free again.
            if not (isinstance(error, ConflictError) and _is_begun(staging)):
                _remove(staging)
            raise
        _remove(staging)


def discard_staging(target: Path) -> None:
    """Remove what an interrupted bake to ``target`` left. Raises UnderWayError if one is writing there."""
    staging = staging_path(target)
    if staging.exists():
        with _lock_plan(target, staging):
            _remove(staging)


def _is_begun(staging: Path) -> bool:
    folder = staging / MODEL_NAME
    return folder.is_dir() and any(folder.iterdir())


def _lock_plan(target: Path, staging: Path) -> TextIO:
    """The plan, open, locked until it is closed, and in the staging folder still."""
    path = staging / PLAN_NAME
    while True:
        staging.mkdir(parents=True, exist_ok=True)
        try:
            stream = path.open("a+", encoding="utf-8")
        except FileNotFoundError:  # another bake has ended just now, and removed the folder
            continue
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(stream.fileno()), path.stat()):
                stream.seek(0)
                return stream
        except BlockingIOError:
            stream.close()
            raise UnderWayError(f"another bake to {target} is under way", hint="wait for it") from None
        except FileNotFoundError:
            pass
        stream.close()


def _write_plan(plan: TextIO, staging: Path, text: str) -> None:
    plan.seek(0)
    plan.truncate()
    plan.write(text)
    plan.flush()
    os.fsync(plan.fileno())
    sync_folder(staging)


def _clear(staging: Path) -> None:
    """Remove everything but the plan."""
    for path in staging.iterdir():
        if path.name == PLAN_NAME:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _remove(staging: Path) -> None:
    """Remove the folder, the plan last."""
    _clear(staging)
    (staging / PLAN_NAME).unlink()
    with contextlib.suppress(OSError):  # another bake has begun in it
        staging.rmdir()


def write_model(staging: Path, model: Model, plan: Plan, beside: Mapping[str, bytes], progress: Progress) -> int:
    """Write every shard that is not there yet, what else belongs to the model, and the files ``beside`` by name.

    The model is then whole, below its staging folder, and its shards are on the disk. Returns how many of these were
    there already.
    """
    folder = staging / MODEL_NAME
    folder.mkdir(exist_ok=True)
    total = sum(output.size for outputs in plan.shards.values() for output in outputs)
    done = there = 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        progress("baking", done, total)

    with ThreadPoolExecutor(1) as flusher:  # one shard goes to the disk while the next is computed
        flushed = []
        for number, (name, outputs) in enumerate(plan.shards.items()):
            path = folder / name
            if path.exists():
                there += 1
                count(sum(output.size for output in outputs))
                continue
            growing = staging / f"{number}.part"
            write_shard(growing, outputs, os.cpu_count() or 1, count)
            flushed.append(flusher.submit(_finish_shard, growing, path))
        for shard in flushed:
            shard.result()
    others = {**companion_files(model, plan), **beside}
    for name, content in others.items():
        _write_file(folder / name, content)
    for path in folder.iterdir():
        if path.name not in plan.shards and path.name not in others:
            path.unlink()
    return there


def _finish_shard(growing: Path, path: Path) -> None:
    """Make sure that a shard is on the disk, then give it its name."""
    sync_file(growing)
    growing.replace(path)


def _write_file(path: Path, content: bytes | Path) -> None:
    if isinstance(content, Path):
        shutil.copyfile(content, path)
    else:
        path.write_bytes(content)


def has_model_files(folder: Path, model: Model, plan: Plan, record: str) -> bool:
    """Whether ``folder`` has the files of that model, and no others; neither weights nor ``record`` are looked into."""
    others = companion_files(model, plan)
    others.pop(record, None)
    found = {path.name for path in folder.iterdir()}
    return found == {*plan.shards, *others, record} and all(_is(folder / n, content) for n, content in others.items())


def _is(path: Path, content: bytes | Path) -> bool:
    if isinstance(content, Path):
        return filecmp.cmp(content, path, shallow=False)
    return path.is_file() and path.read_bytes() == content


def companion_files(model: Model, plan: Plan) -> dict[str, bytes | Path]:
    """Index, configuration, tokenizer and generation files by name: a path for what is copied from the base."""
    files: dict[str, bytes | Path] = {
        path.name: path
        for path in sorted(model.folder.iterdir())
        if path.is_file() and not path.name.startswith(".") and _is_model_file(path)
    }
    if model.config and plan.config:
        document = json.dumps({**model.config, **plan.config}, indent=2, ensure_ascii=False)
        files["config.json"] = f"{document}\n".encode()
    if len(plan.shards) > 1:
        files[INDEX_NAME] = _index(plan)
    return files


def _index(plan: Plan) -> bytes:
    every = [(output, name) for name, outputs in plan.shards.items() for output in outputs]
    document = {
        "metadata": {"total_size": sum(output.size for output, _ in every)},
        "weight_map": dict(sorted((output.name, name) for output, name in every)),
    }
    return f"{json.dumps(document, indent=2)}\n".encode()


def _is_model_file(path: Path) -> bool:
    return path.suffix.lower() not in (*_WEIGHTS, ".md") and not path.name.endswith(".index.json")
