"""Plan a bake: decide of each tensor whether it is copied, changed, replaced or added."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from loreg.adapters.dtypes import DTYPES, FLOATS
from loreg.adapters.module import Module
from loreg.adapters.module_shape import ModuleKind
from loreg.adapters.structure import TokenRows
from loreg.baking.configuration import head_config
from loreg.baking.full_tensors import refuse_uneven_vocabulary, take_full_tensors
from loreg.baking.result import ResultTensors, as_matrix
from loreg.baking.shard import OutputTensor
from loreg.baking.tensor_updates import BakeSource, TensorUpdate, bias_terms, build_terms
from loreg.baking.token_rows import TokenRowUpdate, build_token_rows
from loreg.baking.untying import PlannedChanges, resolve_ties
from loreg.bases import names
from loreg.bases.affected_tensors import TargetTensor, build_lookup, target_tensors
from loreg.bases.compatibility import why_shape_differs
from loreg.bases.model import WEIGHTS_NAME, Model
from loreg.errors import CheckFailedError, MergeError

_SAMPLE = 4096  # bytes
_WRONG_BASE = "--base names the model that the adapter was trained on"


@dataclass(frozen=True)
class Plan:
    """The files of the result with their tensors in order, changed fields of ``config.json``, notes for the user."""

    shards: Mapping[str, Sequence[OutputTensor]]
    config: Mapping[str, object]
    notes: tuple[str, ...]

    @property
    def changed(self) -> int:
        """How many tensors are not copies of the base's bytes."""
        return sum(not output.is_copied for outputs in self.shards.values() for output in outputs)


def outline_digest(plan: Plan, model: Model) -> str:
    """Return a sha256 of what is written where, and from which places in which files: equal plans have the same."""
    outline = [
        (name, o.name, o.dtype, o.source.shape, o.source.start, o.file.name, o.matrices, o.is_copied)
        for name, outputs in plan.shards.items()
        for o in outputs
    ]
    text = json.dumps([outline, model.config], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def sample_digest(outputs: Sequence[OutputTensor]) -> str:
    """Return a sha256 of the first 4 KiB of each tensor that these are made of: another training has others."""
    digest = hashlib.sha256()
    for output in outputs:
        with output.file.open("rb") as stream:
            stream.seek(output.source.start)
            digest.update(stream.read(min(_SAMPLE, output.source.end - output.source.start)))
    return digest.hexdigest()


def make_plan(model: Model, sources: Sequence[BakeSource], extras: int | None, dtype: str | None) -> Plan:
    """Return the plan of the result. ``extras`` is the source whose whole tensors are taken, where there is a choice.

    Raises CheckFailedError where the adapter does not fit the base, MergeError for what cannot be baked, naming it.
    """
    return _Planner(model, sources, dtype).plan(extras)


class _Planner:
    def __init__(self, model: Model, sources: Sequence[BakeSource], dtype: str | None) -> None:
        self.model, self.sources = model, sources
        canonical = names.by_canonical_name({name: name for name in model.tensors})
        lookups = {source: build_lookup(source.structure, canonical, model.config) for source in sources}
        self.targets = {source: target_tensors(source.structure, lookups[source]) for source in sources}
        # The result is of the class that was trained: that of an adapter with a head of its own, where one has.
        lookup = lookups[max(sources, key=lambda source: bool(source.structure.full_tensors))]
        self.result = ResultTensors(model, lookup, dtype)
        self.notes: list[str] = []

    def plan(self, extras: int | None) -> Plan:
        result = self.result
        full_tensors = take_full_tensors(result, self.sources, extras, self.notes)
        changes = PlannedChanges(self._updates_by_tensor(), self._token_rows_by_tensor(), full_tensors)
        config = resolve_ties(result, changes, self.notes)
        for name, updates in changes.updates.items():
            self._apply_updates(name, updates)
        for name, rows in changes.rows.items():
            result.update(replace(result[name], token_rows=rows))
        self._add_biases()
        if result.dtype:
            fields = [key for key in ("torch_dtype", "dtype") if key in self.model.config]
            config |= dict.fromkeys(fields, DTYPES[result.dtype].torch_name)
        head_fields, notes = head_config(
            self.model,
            self.sources,
            result.added,
            result.full_tensors,
            result.vocabulary_tensors(),
            result.vocabulary_growth(),
        )
        refuse_uneven_vocabulary(result, head_fields)
        return Plan(self._shards(), config | head_fields, (*self.notes, *notes))

    def _updates_by_tensor(self) -> dict[str, list[TensorUpdate]]:
        """Return the updates of all adapters by the tensor that they change, by its name in the result."""
        updates: dict[str, list[TensorUpdate]] = {}
        for source in self.sources:
            for target in self.targets[source]:
                name = self._tensor_name(source, target)
                transposed = self._is_stored_transposed(source, target, name)
                updates.setdefault(name, []).append(TensorUpdate(source, target, transposed))
        return updates

    def _tensor_name(self, source: BakeSource, target: TargetTensor) -> str:
        why_not = target.why_not
        if target.row_chunk is not None and "magnitude" in target.module.tensors:
            why_not = "it has a DoRA magnitude, and the files hold it as some rows of another tensor"
        if why_not:
            raise MergeError(f"{source.label} cannot be baked: {target.name}: {why_not}", hint="serve it as an adapter")
        name = None
        if target.base_tensor is not None:
            if target.matrix is None and target.row_chunk is None:
                name = self.result.ensure_tensor(target.name, source.label)
            else:
                name = self.result.file_names[target.base_tensor]
        if name is None:
            raise CheckFailedError(
                f"base mismatch: {self.model.path} has no tensor {target.name}, which {source.label} changes",
                hint=_WRONG_BASE,
            )
        tensor = self.result[name].source
        if tensor.dtype not in FLOATS:
            raise MergeError(
                f"{self.model.path} is quantised: {name} is {tensor.dtype}, and rounding a delta to that would lose it",
                hint="bake into the model that it was quantised from: --base ./the/unquantised/model",
            )
        if reason := why_shape_differs(target, tensor.shape):
            raise CheckFailedError(f"base mismatch: {reason}", hint=_WRONG_BASE)
        return name

    def _is_stored_transposed(self, source: BakeSource, target: TargetTensor, name: str) -> bool:
        transposed = target.is_stored_transposed(self.result[name].source.shape)
        if transposed is None:
            raise MergeError(
                f"{source.label} cannot be baked: {name} is square, and nothing says which way it lies: the class of "
                f"{self.model.path} is not known",
                hint="save the model with its config.json: model.save_pretrained(DIR)",
            )
        return transposed

    def _apply_updates(self, name: str, updates: Sequence[TensorUpdate]) -> None:
        output = self.result[name]
        experts = any(
            update.target.matrix is None and update.target.module.shape.kind == ModuleKind.EXPERTS  # type: ignore[union-attr]
            for update in updates
        )
        shape = output.source.shape
        self.result.update(
            replace(
                output,
                matrices=(shape[0], shape[1], shape[2]) if experts and len(shape) == 3 else as_matrix(shape),
                terms=build_terms(updates, shape[0] if len(shape) < 3 else shape[-2]),
                needs_whole_matrix=any(
                    update.transposed and "magnitude" in update.target.module.tensors for update in updates
                ),
            )
        )

    def _add_biases(self) -> None:
        biases: dict[str, list[tuple[BakeSource, Module]]] = {}
        for source in self.sources:
            for module in source.structure.modules.values():
                if "bias" not in module.tensors:
                    continue
                locations = self.result.lookup.find(f"{module.name}.bias")
                if not locations or locations[0].part.conversion:
                    raise MergeError(
                        f"{source.label} cannot be baked: lora_bias is true, and {module.name} has no bias in the base",
                        hint="serve it as an adapter",
                    )
                name = self.result.ensure_tensor(f"{module.name}.bias", source.label)
                assert name is not None  # noqa: S101  it has just been found
                biases.setdefault(name, []).append((source, module))
        for name, of_tensor in biases.items():
            output = self.result[name]
            self.result.update(replace(output, matrices=(1, 1, output.source.parameters), terms=bias_terms(of_tensor)))

    def _token_rows_by_tensor(self) -> dict[str, tuple[TokenRowUpdate, ...]]:
        """Return the rows of single tokens that adapters trained, by the tensor that they belong to."""
        rows: dict[str, list[tuple[BakeSource, TokenRows]]] = {}
        for source in self.sources:
            for module, tokens in source.structure.token_rows.items():
                name = self.result.ensure_tensor(f"{module}.weight", source.label)
                if name is None:
                    raise CheckFailedError(
                        f"base mismatch: {self.model.path} has no {module}.weight, of which {source.label} has rows",
                        hint=_WRONG_BASE,
                    )
                rows.setdefault(name, []).append((source, tokens))
        return {name: build_token_rows(name, self.result[name].source, of_tensor) for name, of_tensor in rows.items()}

    def _renamed(self) -> dict[str, str]:
        """Return the tensors that are renamed, as the trained class calls them, where tensors are added to the base."""
        if not self.result.added:
            return {}
        whole = [target for targets in self.targets.values() for target in targets if target.matrix is None]
        first_parts = {target.name.partition(".")[0] for target in whole}
        unwrapped = all(target.base_tensor == names.canonical_name(target.name).partition(".")[2] for target in whole)
        if not whole or not unwrapped or len(first_parts) != 1:
            return {}
        (prefix,) = first_parts
        return {name: f"{prefix}.{name}" for name in self.result.base_tensors}

    def _shards(self) -> dict[str, list[OutputTensor]]:
        renamed = self._renamed()
        shards: dict[str, list[OutputTensor]] = {}
        for file, header in self.model.shards.items():
            ordered = sorted(header.tensors.values(), key=lambda tensor: tensor.start)
            shards[_shard_name(self.model, file)] = [self.result.base_tensors[tensor.name] for tensor in ordered]
        last = list(shards)[-1]
        shards[last] += self.result.added.values()
        return {
            name: sorted(
                (replace(output, name=renamed.get(output.name, output.name)) for output in outputs),
                key=lambda output: -DTYPES[output.dtype].bits,  # the widest first: each number is aligned
            )
            for name, outputs in shards.items()
        }


def _shard_name(model: Model, file: Path) -> str:
    return WEIGHTS_NAME if len(model.shards) == 1 else file.name
