"""Write a baked model shard by shard, so that memory stays flat and a killed bake can be resumed."""

from __future__ import annotations

import contextlib
import filecmp
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TextIO

from loreg.adapters.weight_suffixes import PLAIN_WEIGHTS, TORCH_PICKLES
from loreg.baking.plan import Plan
from loreg.baking.shard import write_shard
from loreg.bases.model import INDEX_NAME, Model
from loreg.entities import Progress
from loreg.errors import ConflictError, LoregError, UnderWayError
from loreg.file_locks import lock_file
from loreg.file_modes import sync_folder
from loreg.manifest import hidden_sibling
from loreg.storage.durable import sync_file

#: In the staging folder, beside the model: what is baked into it. It is there from before the first shard until after
#: the last.
PLAN_NAME = ".loreg-baking.json"
#: In the staging folder, what becomes the result: only whole shards that are on the disk, all of the plan beside it.
MODEL_NAME = "model"


def staging_path(target: Path) -> Path:
    """Return the folder in which a bake to ``target`` is written until it is complete."""
    return hidden_sibling(target.resolve(), "baking")


@contextlib.contextmanager
def open_staging(target: Path, inputs: Mapping[str, object], *, start_over: bool = False) -> Iterator[Path]:
    """Open the folder to write into, locked, with the shards that an interrupted bake of the same ``inputs`` left.

    What fails for good leaves nothing; a full disk, an interruption and a kill leave the whole shards. Raises
    UnderWayError if another bake is writing there, ConflictError if the folder holds an unfinished bake of other
    inputs, unless ``start_over`` removes that.
    """
    staging = staging_path(target)
    plan_text = json.dumps(inputs, sort_keys=True)
    with _lock_plan(target, staging) as plan:
        previous = plan.read()
        if previous != plan_text:
            if previous and _has_shards(staging) and not start_over:
                raise ConflictError(
                    f"an unfinished bake of other inputs lies in {staging}",
                    hint=f"rm -r {staging}, or another folder for --to",
                )
            _clear(staging)  # before the new plan is written: no shard ever lies beside a plan that is not its own
            _write_plan(plan, staging, plan_text)
        try:
            yield staging
        except LoregError as error:
            # Where another writer filled the target meanwhile, what was baked is kept until the target is free again.
            if not (isinstance(error, ConflictError) and _has_shards(staging)):
                _remove(staging)
            raise
        _remove(staging)


def discard_staging(target: Path) -> None:
    """Remove what an interrupted bake to ``target`` left. Raises UnderWayError if one is writing there."""
    staging = staging_path(target)
    if staging.exists():
        with _lock_plan(target, staging):
            _remove(staging)


def _has_shards(staging: Path) -> bool:
    folder = staging / MODEL_NAME
    return folder.is_dir() and any(folder.iterdir())


def _lock_plan(target: Path, staging: Path) -> TextIO:
    """Return the plan of the staging folder, open, and locked until it is closed."""
    path = staging / PLAN_NAME
    while True:
        staging.mkdir(parents=True, exist_ok=True)
        try:
            stream = path.open("a+", encoding="utf-8")
        except FileNotFoundError:  # another bake has ended just now, and removed the folder
            continue
        if not lock_file(stream.fileno()):
            stream.close()
            raise UnderWayError(f"another bake to {target} is under way", hint="wait for it")
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(stream.fileno()), path.stat()):
                stream.seek(0)
                return stream
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


_GROWING = "growing."  # begins the name of the folder in which shards are written until they are complete


class ShardWriter(Protocol):
    """Writes shards of a plan, however."""

    def __call__(
        self, growing: Path, shards: Path, plan: Plan, names: Sequence[str], on_bytes: Callable[[int], None]
    ) -> None:
        """Write the shards ``names`` to the folder ``shards``."""
        ...


def write_model(
    staging: Path,
    model: Model,
    plan: Plan,
    extra_files: Mapping[str, bytes],
    progress: Progress,
    write_shards: ShardWriter,
) -> int:
    """Write every shard that is not there yet, the other files of the model, and ``extra_files`` by name.

    The model in the staging folder is then complete, and its shards are on the disk. Returns how many shards were there
    already.
    """
    folder = staging / MODEL_NAME
    folder.mkdir(exist_ok=True)
    sizes = {name: sum(output.size for output in outputs) for name, outputs in plan.shards.items()}
    missing = [name for name in plan.shards if not (folder / name).exists()]
    total = sum(sizes.values())
    done = total - sum(sizes[name] for name in missing)

    def count(size: int) -> None:
        nonlocal done
        done += size
        progress("baking", done, total)

    count(0)
    with _growing_folder(staging) as growing:
        write_shards(growing, folder, plan, missing, count)
    others = {**companion_files(model, plan), **extra_files}
    for name, content in others.items():
        _write_file(folder / name, content)
    for path in folder.iterdir():
        if path.name not in plan.shards and path.name not in others:
            path.unlink()
    return len(sizes) - len(missing)


@contextlib.contextmanager
def _growing_folder(staging: Path) -> Iterator[Path]:
    """Yield a folder for shards that are not complete: what an earlier bake still writes never gets a name."""
    for path in staging.glob(f"{_GROWING}*"):
        shutil.rmtree(path, ignore_errors=True)
    growing = staging / f"{_GROWING}{secrets.token_hex(4)}"
    growing.mkdir()
    try:
        yield growing
    finally:
        shutil.rmtree(growing, ignore_errors=True)


def write_here(growing: Path, shards: Path, plan: Plan, names: Sequence[str], on_bytes: Callable[[int], None]) -> None:
    """Write shards one after another, each by every processor of this machine."""
    with ThreadPoolExecutor(1) as flusher:  # one shard goes to the disk while the next is computed
        flushes = []
        for name in names:
            written = growing / name
            write_shard(written, plan.shards[name], os.cpu_count() or 1, on_bytes)
            flushes.append(flusher.submit(finish_shard, written, shards / name))
        for flush in flushes:
            flush.result()


def finish_shard(written: Path, shard: Path) -> None:
    """Flush a shard to the disk, then give it its name."""
    sync_file(written)
    written.replace(shard)


def _write_file(path: Path, content: bytes | Path) -> None:
    if isinstance(content, Path):
        shutil.copyfile(content, path)
    else:
        path.write_bytes(content)


def has_model_files(folder: Path, model: Model, plan: Plan, record_name: str) -> bool:
    """Return whether ``folder`` has that model's files and no others; weights and ``record_name`` are not compared."""
    others = companion_files(model, plan)
    others.pop(record_name, None)
    present = {path.name for path in folder.iterdir()}
    if present != {*plan.shards, *others, record_name}:
        return False
    return all(_has_content(folder / name, content) for name, content in others.items())


def _has_content(path: Path, content: bytes | Path) -> bool:
    if isinstance(content, Path):
        return filecmp.cmp(content, path, shallow=False)
    return path.is_file() and path.read_bytes() == content


def companion_files(model: Model, plan: Plan) -> dict[str, bytes | Path]:
    """Return the files of a model beside its weights, by name: a path for what is copied from the base, else bytes."""
    files: dict[str, bytes | Path] = {
        path.name: path
        for path in sorted(model.folder.iterdir())
        if path.is_file() and not path.name.startswith(".") and _is_model_file(path)
    }
    if model.config and plan.config:
        document = json.dumps({**model.config, **plan.config}, indent=2, ensure_ascii=False)
        files["config.json"] = f"{document}\n".encode()
    if len(plan.shards) > 1:
        files[INDEX_NAME] = _dump_index(plan)
    return files


def _dump_index(plan: Plan) -> bytes:
    placed = [(output, name) for name, outputs in plan.shards.items() for output in outputs]
    document = {
        "metadata": {"total_size": sum(output.size for output, _ in placed)},
        "weight_map": dict(sorted((output.name, name) for output, name in placed)),
    }
    return f"{json.dumps(document, indent=2)}\n".encode()


def _is_model_file(path: Path) -> bool:
    return path.suffix.lower() not in (*TORCH_PICKLES, *PLAIN_WEIGHTS, ".md") and not path.name.endswith(".index.json")
