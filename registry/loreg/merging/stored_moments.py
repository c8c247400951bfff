"""Read a file of cross moments for the sources of a merge, and refuse one that was collected with other adapters."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from loreg.adapters.module_shape import ModuleKind
from loreg.errors import IntegrityError, NotFoundError, UsageError
from loreg.merging.cross_moments import CROSS_MOMENTS_SCHEMA, gram_key, moments_key
from loreg.merging.sources import OpenSource

#: Of |aᵢ|·|aⱼ|, by which two inner products of rows may differ: twice what rounding each entry to bfloat16 moves.
_TOLERANCE = 2 * 2**-8
_COLLECT = "loreg.collect_calibration(model, adapter=[…]) collects it with all adapters loaded"


def read_cross_moments(path: Path, sources: Sequence[OpenSource], *, every_task: bool = False) -> dict[str, Tensor]:
    """Return ``E[(A_cat x)(A_cat x)ᵀ]`` (T, k, k) of each module that T sources have, T two or more, by their tasks.

    With ``every_task`` the tasks of all sources, and each module. The rows of A_cat carry √scale, as in the engine.
    Raises UsageError, naming adapter and module, for sources that have no such moments and for a file that is not of
    these sources in this order; NotFoundError or IntegrityError for the file.
    """
    for source in sources:
        _refuse_without_moments(source)
    file = _read_file(path)
    labels = [source.input.label for source in sources]
    if len(file.adapters) != len(sources):
        raise UsageError(
            f"{path} has the moments of {len(file.adapters)} adapters ({', '.join(file.adapters)}), this merge has "
            f"{len(sources)} sources ({', '.join(labels)})",
            hint=_COLLECT,
        )
    moments = {}
    for module in sorted({name for source in sources for name in source.modules}):
        positions = [t for t, source in enumerate(sources) if module in source.modules]
        if len(positions) > 1 or every_task:
            rows = [sources[t].factors(module, torch.device("cpu")).a[0] for t in positions]
            scales = torch.tensor([sources[t].adapter.scale(module) for t in positions], dtype=torch.float64).sqrt()
            roots = scales.repeat_interleave(torch.tensor([len(row) for row in rows]))
            _refuse_other_rows(file, module, rows, roots, [labels[t] for t in positions])
            tasks = range(len(sources)) if every_task else positions
            of_tasks = torch.stack([file.moments(t, module, labels[t], len(roots)) for t in tasks])
            moments[module] = of_tasks * roots * roots.unsqueeze(-1)
    return moments


@dataclass(frozen=True)
class _MomentsFile:
    """The content of a file of cross moments: the adapters' names in order, and its tensors by key."""

    path: Path
    adapters: tuple[str, ...]
    tensors: Mapping[str, Tensor]

    def moments(self, position: int, module: str, label: str, size: int) -> Tensor:
        """Return the moments (size, size) of a task. Raises UsageError if they are missing or not finite."""
        task = f"{self.adapters[position]} (for {label})"
        moments = self.tensors.get(moments_key(position, module))
        if moments is None:
            raise UsageError(
                f"{self.path} has no moments of the task {task} at {module}: nothing ran there while it was active",
                hint=f"collect again, with model.set_adapter({self.adapters[position]!r}) before its text",
            )
        if tuple(moments.shape) != (size, size) or not moments.isfinite().all():
            raise UsageError(
                f"{self.path}: the moments of the task {task} at {module} are {tuple(moments.shape)}, expected finite "
                f"numbers ({size}, {size})",
                hint=_COLLECT,
            )
        return (moments + moments.mT) / 2


def _read_file(path: Path) -> _MomentsFile:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).double() for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise NotFoundError(f"{path} does not exist", hint=_COLLECT) from error
    except (SafetensorError, OSError) as error:
        raise IntegrityError(f"{path} is not a safetensors file: {error}", hint="collect it again") from error
    if metadata.get("schema") != CROSS_MOMENTS_SCHEMA:
        raise UsageError(
            f"{path} has no cross moments: its schema is {metadata.get('schema', 'none')}, expected "
            f"{CROSS_MOMENTS_SCHEMA}",
            hint=_COLLECT,
        )
    return _MomentsFile(path, _read_names(path, metadata.get("adapters", "")), tensors)


def _read_names(path: Path, text: str) -> tuple[str, ...]:
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise IntegrityError(f"{path} does not name its adapters as a list", hint="collect it again")
    return tuple(names)


def _refuse_without_moments(source: OpenSource) -> None:
    label, structure = source.input.label, source.adapter.structure
    for module in structure.modules.values():
        if module.shape and module.shape.kind != ModuleKind.LINEAR:
            raise UsageError(
                f"{label} has the module {module.name}, which is {module.shape.kind}: moments are those of linear "
                "layers",
                hint="--method linear",
            )
        if "magnitude" in module.tensors:
            raise UsageError(
                f"{label} is a DoRA adapter: its delta is more than its factors, of which moments are collected",
                hint="--method linear",
            )
    if source.initial:
        raise UsageError(
            f"{label} is merged with an initial adapter, of which no moments are collected", hint="--method linear"
        )


def _refuse_other_rows(
    file: _MomentsFile, module: str, rows: Sequence[Tensor], roots: Tensor, labels: Sequence[str]
) -> None:
    """Raise UsageError unless the file was collected with these rows (r_t, in), stacked; they carry ``roots``."""
    gram = file.tensors.get(gram_key(module))
    if gram is None:
        raise UsageError(f"{file.path} has nothing of the module {module}", hint=_COLLECT)
    stacked = torch.cat(list(rows))
    if tuple(gram.shape) != (len(stacked), len(stacked)):
        raise UsageError(
            f"{file.path} was collected with other adapters: at {module} they have {gram.shape[0]} rows together, "
            f"{' and '.join(labels)} have {len(stacked)}",
            hint=_COLLECT,
        )
    gram = gram * roots * roots.unsqueeze(-1)
    if _is_same_gram(gram, stacked):
        return
    order = list(_order_in_file(file.tensors[gram_key(module)], rows, roots))
    if sorted(order) == list(range(len(rows))):
        raise UsageError(
            f"{file.path} was collected with the adapters in another order: {', '.join(labels[i] for i in order)}",
            hint="name the sources, and their weights, in that order",
        )
    other = next((labels[i] for i in range(len(rows)) if i not in order), labels[0])
    raise UsageError(f"{file.path} was collected with other adapters: {other} differs at {module}", hint=_COLLECT)


def _is_same_gram(gram: Tensor, rows: Tensor) -> bool:
    norms = rows.norm(dim=-1)
    difference = (gram - rows @ rows.T).abs()
    return bool((difference <= _TOLERANCE * norms * norms.unsqueeze(-1)).all())


def _order_in_file(gram: Tensor, rows: Sequence[Tensor], roots: Tensor) -> Iterator[int]:
    """Yield which sources lie along the diagonal of the file's Gram matrix, from its start, as far as they do."""
    sizes = [len(part) for part in rows]
    own = [part / part_roots.unsqueeze(-1) for part, part_roots in zip(rows, torch.split(roots, sizes), strict=True)]
    start, left = 0, list(range(len(rows)))
    while left:
        for t in left:
            block = gram[start : start + sizes[t], start : start + sizes[t]]
            if len(block) == sizes[t] and _is_same_gram(block, own[t]):
                yield t
                left.remove(t)
                start += sizes[t]
                break
        else:
            return
