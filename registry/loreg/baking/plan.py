"""What becomes of each tensor of the base: copied, changed, replaced or added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loreg.adapters.header import BITS
from loreg.baking.configuration import head_config
from loreg.baking.dtypes import FLOATS
from loreg.baking.full_tensors import refuse_an_uneven_vocabulary, take_full_tensors
from loreg.baking.result import ResultTensors, as_matrix
from loreg.baking.shard import OutputTensor
from loreg.baking.tensor_updates import BakeSource, TensorUpdate, bias_terms, build_terms
from loreg.baking.token_rows import TokenRowUpdate, token_rows
from loreg.baking.untying import PlannedChanges, resolve_ties
from loreg.bases import names
from loreg.bases.affected_tensors import TargetTensor, build_lookup, target_tensors
from loreg.bases.compatibility import why_shape_differs
from loreg.bases.model import WEIGHTS_NAME, Model
from loreg.errors import CheckFailedError, MergeError

_WRONG_BASE = "--base names the model that the adapter was trained on"
_CONFIG_NAME = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class Plan:
    """The files of the result with their tensors in order, changed fields of ``config.json``, what to tell a person."""

    shards: Mapping[str, Sequence[OutputTensor]]
    config: Mapping[str, Any]
    notes: tuple[str, ...]

    @property
    def changed(self) -> int:
        """How many tensors are not the base's very bytes, or not the base's at all."""
        return sum(not output.is_copied for outputs in self.shards.values() for output in outputs)


def make_plan(model: Model, sources: Sequence[BakeSource], extras: int | None, dtype: str | None) -> Plan:
    """Decide on every tensor. ``extras`` is the source whose whole tensors are taken, where there is a choice.

    Raises CheckFailedError where the adapter does not fit the base, MergeError for what cannot be baked, naming it.
    """
    return _Planner(model, sources, dtype).plan(extras)


class _Planner:
    def __init__(self, model: Model, sources: Sequence[BakeSource], dtype: str | None) -> None:
        self.model, self.sources = model, sources
        canonical = names.by_canonical_name({name: name for name in model.tensors})
        lookups = {source: build_lookup(source.structure, canonical, model.config) for source in sources}
        self.parts = {source: target_tensors(source.structure, lookups[source]) for source in sources}
        # The result is of the class that was trained: that of an adapter with a head of its own, where one has.
        lookup = lookups[max(sources, key=lambda source: bool(source.structure.full_tensors))]
        self.result = ResultTensors(model, lookup, dtype)
        self.notes: list[str] = []

    def plan(self, extras: int | None) -> Plan:
        result = self.result
        whole = take_full_tensors(result, self.sources, extras, self.notes)
        changes = PlannedChanges(self._updates(), self._rows(), whole)
        config = resolve_ties(result, changes, self.notes)
        for name, hits in changes.updates.items():
            self._change(name, hits)
        for name, rows in changes.rows.items():
            result.decide(replace(result[name], rows=rows))
        self._add_biases()
        if result.dtype:
            fields = [key for key in ("torch_dtype", "dtype") if key in self.model.config]
            config |= dict.fromkeys(fields, _CONFIG_NAME[result.dtype])
        of_heads, notes = head_config(
            self.model, self.sources, result.added, result.whole, result.with_a_row_a_token(), result.more_tokens()
        )
        refuse_an_uneven_vocabulary(result, of_heads)
        return Plan(self._shards(), config | of_heads, (*self.notes, *notes))

    def _updates(self) -> dict[str, list[TensorUpdate]]:
        """The parts of all adapters by the tensor that they fall on, by its name in the result."""
        hits: dict[str, list[TensorUpdate]] = {}
        for source in self.sources:
            for part in self.parts[source]:
                name = self._place(source, part)
                hits.setdefault(name, []).append(TensorUpdate(source, part, self._lies_transposed(source, part, name)))
        return hits

    def _place(self, source: BakeSource, part: TargetTensor) -> str:
        cannot = part.why_not
        if part.into is not None and "magnitude" in part.module.tensors:
            cannot = "it has a DoRA magnitude, and the files hold it as some rows of another tensor"
        if cannot:
            raise MergeError(f"{source.label} cannot be baked: {part.name}: {cannot}", hint="serve it as an adapter")
        name = None
        if part.place is not None:
            is_whole = part.matrix is None and part.into is None
            name = self.result.place(part.name, source.label) if is_whole else self.result.raw[part.place]
        if name is None:
            raise CheckFailedError(
                f"base mismatch: {self.model.path} has no tensor {part.name}, which {source.label} changes",
                hint=_WRONG_BASE,
            )
        tensor = self.result[name].source
        if tensor.dtype not in FLOATS:
            raise MergeError(
                f"{self.model.path} is quantised: {name} is {tensor.dtype}, and rounding a delta to that would lose it",
                hint="bake into the model that it was quantised from: --base ./the/unquantised/model",
            )
        if reason := why_shape_differs(part, tensor.shape):
            raise CheckFailedError(f"base mismatch: {reason}", hint=_WRONG_BASE)
        return name

    def _lies_transposed(self, source: BakeSource, part: TargetTensor, name: str) -> bool:
        transposed = part.lies_transposed(self.result[name].source.shape)
        if transposed is None:
            raise MergeError(
                f"{source.label} cannot be baked: {name} is square, and nothing says which way it lies: the class of "
                f"{self.model.path} is not known",
                hint="save the model with its config.json: model.save_pretrained(DIR)",
            )
        return transposed

    def _change(self, name: str, hits: Sequence[TensorUpdate]) -> None:
        output = self.result[name]
        experts = any(hit.target.module.shape.kind == "experts" and hit.target.matrix is None for hit in hits)  # type: ignore[union-attr]
        shape = output.source.shape
        self.result.decide(
            replace(
                output,
                matrices=(shape[0], shape[1], shape[2]) if experts and len(shape) == 3 else as_matrix(shape),
                terms=build_terms(hits, shape[0] if len(shape) < 3 else shape[-2]),
                at_once=any(hit.transposed and "magnitude" in hit.target.module.tensors for hit in hits),
            )
        )

    def _add_biases(self) -> None:
        hits: dict[str, list[Any]] = {}
        for source in self.sources:
            for module in source.structure.modules.values():
                if "bias" not in module.tensors:
                    continue
                places = self.result.lookup.find(f"{module.name}.bias")
                if not places or places[0].part.how:
                    raise MergeError(
                        f"{source.label} cannot be baked: lora_bias is true, and {module.name} has no bias in the base",
                        hint="serve it as an adapter",
                    )
                name = self.result.place(f"{module.name}.bias", source.label)
                hits.setdefault(str(name), []).append((source, module))
        for name, some in hits.items():
            output = self.result[name]
            self.result.decide(replace(output, matrices=(1, 1, output.source.parameters), terms=bias_terms(some)))

    def _rows(self) -> dict[str, tuple[TokenRowUpdate, ...]]:
        """The rows of single tokens that an adapter trained, by the tensor that they belong to."""
        found: dict[str, list[Any]] = {}
        for source in self.sources:
            for module, tokens in source.structure.token_rows.items():
                name = self.result.place(f"{module}.weight", source.label)
                if name is None:
                    raise CheckFailedError(
                        f"base mismatch: {self.model.path} has no {module}.weight, of which {source.label} has rows",
                        hint=_WRONG_BASE,
                    )
                found.setdefault(name, []).append((source, tokens))
        return {name: token_rows(name, self.result[name].source, some) for name, some in found.items()}

    def _names(self) -> dict[str, str]:
        """The names in the result: the base's, or those of the class that was trained where tensors are added to it."""
        if not self.result.added:
            return {}
        every = [part for some in self.parts.values() for part in some if part.matrix is None]
        first = {part.name.partition(".")[0] for part in every}
        unwrapped = all(part.place == names.canonical_name(part.name).partition(".")[2] for part in every)
        if not every or not unwrapped or len(first) != 1:
            return {}
        (prefix,) = first
        return {name: f"{prefix}.{name}" for name in self.result.kept}

    def _shards(self) -> dict[str, list[OutputTensor]]:
        renamed = self._names()
        shards: dict[str, list[OutputTensor]] = {}
        for file, header in self.model.shards.items():
            order = sorted(header.tensors.values(), key=lambda tensor: tensor.start)
            shards[_shard_name(self.model, file)] = [self.result.kept[tensor.name] for tensor in order]
        last = list(shards)[-1]
        shards[last] += self.result.added.values()
        return {
            name: sorted(
                (replace(output, name=renamed.get(output.name, output.name)) for output in outputs),
                key=lambda output: -BITS[output.dtype],  # each number at a multiple of its size
            )
            for name, outputs in shards.items()
        }


def _shard_name(model: Model, file: Path) -> str:
    return WEIGHTS_NAME if len(model.shards) == 1 else file.name
