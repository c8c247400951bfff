"""What becomes of each tensor of the base: copied, changed, replaced or added."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loreg.adapters.extras import choose_extras, refuse_factors_of_whole_modules
from loreg.adapters.header import BITS, Tensor
from loreg.adapters.keys import PREFIX
from loreg.baking.configuration import config_of_heads
from loreg.baking.factors import Hit, Source, bias_terms, terms_of
from loreg.baking.numbers import FLOATS
from loreg.baking.shard import Output
from loreg.baking.tying import Tying
from loreg.bases import names
from loreg.bases.identify import leaf_of
from loreg.bases.model import WEIGHTS_NAME, Model
from loreg.bases.touched import Part, parts
from loreg.bases.verdict import shape_that_does_not_fit
from loreg.errors import CheckFailedError, MergeError

#: Models whose experts lie as (experts, in, out); of a square matrix the shape does not say.
_TRANSPOSED_EXPERTS = ("gpt_oss", "aria", "openai_privacy_filter", "llama4", "llama4_text")


@dataclass(frozen=True)
class Plan:
    """The files of the result with their tensors in order, changed fields of ``config.json``, what to tell a person."""

    shards: Mapping[str, Sequence[Output]]
    config: Mapping[str, Any]
    notes: tuple[str, ...]

    @property
    def changed(self) -> int:
        """How many tensors are not the base's very bytes, or not the base's at all."""
        return sum(not output.is_copied for outputs in self.shards.values() for output in outputs)


def make_plan(model: Model, sources: Sequence[Source], extras: int | None, dtype: str | None) -> Plan:
    """Decide on every tensor. ``extras`` is the source whose whole tensors are taken, where there is a choice.

    Raises CheckFailedError where the adapter does not fit the base, MergeError for what cannot be baked, naming it.
    """
    return _Planner(model, sources, dtype).plan(extras)


class _Planner:
    def __init__(self, model: Model, sources: Sequence[Source], dtype: str | None) -> None:
        self.model, self.sources, self.dtype = model, sources, dtype
        self.files = model.tensors
        self.raw = names.by_canonical_name({name: name for name in self.files})
        self.index = names.Index(self.raw)
        self.parts = {source: parts(source.layout, self.raw) for source in sources}
        spoken_of = [part.name for some in self.parts.values() for part in some]
        spoken_of += [_plain(key) for source in sources for key in source.layout.extras]
        self.tying = Tying(model, self.raw, spoken_of)
        self.outputs: dict[str, Output] = {name: self._kept(name, *found) for name, found in self.files.items()}
        self.added: dict[str, Output] = {}
        self.notes: list[str] = []

    def plan(self, extras: int | None) -> Plan:
        replaced = self._replace(extras)
        hits = self._hits()
        config = self._settle_tying(hits, replaced)
        if self.tying.head in self.added or self.tying.head in self.outputs:
            self._refuse_uneven_vocabulary()
        for name, some in hits.items():
            self._change(name, some)
        self._add_biases()
        renamed = self._names()
        if self.dtype:
            config |= {key: _CONFIG_NAME[self.dtype] for key in ("torch_dtype", "dtype") if key in self.model.config}
        of_heads, notes = config_of_heads(self.model, self.sources, self.added, replaced)
        return Plan(self._shards(renamed), config | of_heads, (*self.notes, *notes))

    def _kept(self, name: str, file: Path, tensor: Tensor) -> Output:
        return Output(name, file, tensor, self._stored_as(tensor.dtype), _as_matrix(tensor.shape))

    def _stored_as(self, dtype: str) -> str:
        return self.dtype if self.dtype and dtype in FLOATS else dtype

    def _hits(self) -> dict[str, list[Hit]]:
        """The parts of all adapters by the tensor that they fall on, by its name in the result."""
        hits: dict[str, list[Hit]] = {}
        for source in self.sources:
            for part in self.parts[source]:
                name = self._place(source, part)
                hits.setdefault(name, []).append(Hit(source, part, self._is_transposed(source, part, name)))
        return hits

    def _place(self, source: Source, part: Part) -> str:
        if part.found is None or self.tying.lacks(part.name):
            raise CheckFailedError(
                f"base mismatch: {self.model.path} has no tensor {part.name}, which {source.label} changes",
                hint="--base names the model that the adapter was trained on",
            )
        name = self.tying.place(part.name, self.raw[part.found])
        if name == self.tying.head:
            self._make_head()
        tensor = self.output(name).source
        if tensor.dtype not in FLOATS:
            raise MergeError(
                f"{self.model.path} is quantised: {name} is {tensor.dtype}, and rounding a delta to that would lose it",
                hint="bake into the model that it was quantised from: --base ./the/unquantised/model",
            )
        if reason := shape_that_does_not_fit(part, tensor.shape):
            raise CheckFailedError(
                f"base mismatch: {reason}", hint="--base names the model that the adapter was trained on"
            )
        return name

    def output(self, name: str) -> Output:
        """What is known so far of the tensor of that name."""
        return self.added.get(name) or self.outputs[name]

    def _is_transposed(self, source: Source, part: Part, name: str) -> bool:
        form = part.module.form
        assert form is not None  # noqa: S101  parts are made of modules that have one
        if form.kind == "experts" and part.matrix is None:
            shape = self.output(name).source.shape
            if form.out == form.in_:
                return self.model.config.get("model_type") in _TRANSPOSED_EXPERTS
            return shape[-2:] == (form.in_, form.out)
        return form.kind == "embedding" or (
            form.kind == "linear" and bool(source.layout.config.raw.get("fan_in_fan_out"))
        )

    def _change(self, name: str, hits: Sequence[Hit]) -> None:
        output = self.output(name)
        experts = any(hit.part.module.form.kind == "experts" and hit.part.matrix is None for hit in hits)  # type: ignore[union-attr]
        shape = output.source.shape
        self._set(
            replace(
                output,
                matrices=(shape[0], shape[1], shape[2]) if experts and len(shape) == 3 else _as_matrix(shape),
                terms=terms_of(hits),
                at_once=any(hit.transposed and "magnitude" in hit.part.module.parts for hit in hits),
            )
        )

    def _set(self, output: Output) -> None:
        (self.added if output.name in self.added else self.outputs)[output.name] = output

    def _add_biases(self) -> None:
        hits: dict[str, list[Any]] = {}
        for source in self.sources:
            for module in source.layout.modules.values():
                if "bias" not in module.parts:
                    continue
                found = self.index.find(f"{module.name}.bias")
                if found is None:
                    raise MergeError(
                        f"{source.label} cannot be baked: lora_bias is true, and {module.name} has no bias in the base",
                        hint="serve it as an adapter",
                    )
                hits.setdefault(self.raw[found], []).append((source, module))
        for name, some in hits.items():
            output = self.output(name)
            self._set(replace(output, matrices=(1, 1, output.source.parameters), terms=bias_terms(some)))

    def _replace(self, chosen: int | None) -> dict[str, Tensor]:
        """Put whole tensors of an adapter in the place of the base's; returns them by the names that they got."""
        layouts, labels = [source.layout for source in self.sources], [source.label for source in self.sources]
        taken = choose_extras(layouts, labels, _same_extras(self.sources), chosen)
        if taken is None:
            return {}
        refuse_factors_of_whole_modules(layouts, labels, taken)
        source = self.sources[taken]
        replaced = {}
        for key, tensor in source.layout.extras.items():
            wanted = _plain(key)
            found = None if self.tying.lacks(wanted) else self.index.find(wanted)
            name = self.tying.place(wanted, self.raw[found]) if found else wanted
            if found and name in self.outputs:
                self._refuse_another_shape(source, name, tensor, self.outputs[name].source)
                dtype = self.outputs[name].dtype
                self.outputs[name] = Output(name, source.layout.weights, tensor, dtype, _as_matrix(tensor.shape))
            else:
                dtype = self.dtype or self._usual_dtype()
                self.added[name] = Output(name, source.layout.weights, tensor, dtype, _as_matrix(tensor.shape))
            if tensor.dtype != dtype and not {tensor.dtype, dtype} <= set(FLOATS):
                raise MergeError(
                    f"{source.label} cannot be baked: {key} is {tensor.dtype}, the base has it as {dtype}",
                    hint="save the adapter with the dtype of the base",
                )
            replaced[name] = tensor
        many = "1 whole tensor is" if len(replaced) == 1 else f"{len(replaced)} whole tensors are"
        self.notes.append(f"{many} taken from {source.label}")
        return replaced

    def _refuse_another_shape(self, source: Source, name: str, new: Tensor, old: Tensor) -> None:
        if new.shape == old.shape:
            return
        if len(new.shape) != len(old.shape) or new.shape[1:] != old.shape[1:]:
            raise CheckFailedError(
                f"base mismatch: {name} is {new.shape} in {source.label}, this base has {old.shape}",
                hint="--base names the model that the adapter was trained on",
            )
        self.notes.append(f"{name} has {new.shape[0]} rows now, the base had {old.shape[0]}")

    def _usual_dtype(self) -> str:
        counted: Counter[str] = Counter()
        for _, tensor in self.files.values():
            if tensor.dtype in FLOATS:
                counted[tensor.dtype] += tensor.parameters
        return counted.most_common(1)[0][0]

    def _settle_tying(self, hits: dict[str, list[Hit]], replaced: Mapping[str, Tensor]) -> dict[str, Any]:
        """Where one of two tied matrices changes and the other does not, they are written side by side from now on.

        They stay one where the adapter was trained so (``ensure_weight_tying``), or where both became the same.
        Returns the changed fields of ``config.json``.
        """
        tying, embedding, head = self.tying, self.tying.embedding, self.tying.head
        if not tying.is_touched({*hits, *replaced}):
            return {}
        whole = not hits.keys() & {embedding, head}
        if all(source.layout.config.raw.get("ensure_weight_tying") for source in self.sources) or (
            whole and (self._same_content(embedding, head) or self._is_the_pair(replaced))
        ):
            if head in hits:
                hits.setdefault(embedding, hits.pop(head))
            self.added.pop(head, None)
            if tying.stored and embedding in hits:
                hits[head] = hits[embedding]
            return {}
        self._make_head()
        self.notes.append(f"{head} and {embedding} were one tensor; they are two now: tie_word_embeddings is false")
        return tying.untied(self.model.config)

    def _is_the_pair(self, replaced: Mapping[str, Tensor]) -> bool:
        """Whether the embedding that an adapter keeps whole is the base's own, tied as it was: PEFT saves that beside
        the factors when the vocabulary was resized; only a copy that was trained is in ``modules_to_save``."""
        embedding, head = self.tying.embedding, self.tying.head
        if embedding not in replaced or head in replaced:
            return False
        module = embedding.removesuffix(".weight")
        trained = [name for source in self.sources for name in source.layout.config.raw.get("modules_to_save") or ()]
        resized = replaced[embedding].shape != self.files[embedding][1].shape
        return resized or not any(module == name or module.endswith(f".{name}") for name in trained)

    def _refuse_uneven_vocabulary(self) -> None:
        embedding, head = (self.outputs.get(self.tying.embedding), self.output(self.tying.head))
        if embedding is not None and embedding.source.shape[:1] != head.source.shape[:1]:
            raise MergeError(
                f"{embedding.name} would have {embedding.source.shape[0]} rows and {head.name} {head.source.shape[0]}",
                hint="save both with the adapter: modules_to_save=['embed_tokens', 'lm_head']",
            )

    def _make_head(self) -> None:
        """A head of its own, which begins as the embedding."""
        if self.tying.head not in self.added and self.tying.head not in self.outputs:
            file, tensor = self.files[self.tying.embedding]
            self.added[self.tying.head] = replace(self._kept(self.tying.embedding, file, tensor), name=self.tying.head)

    def _same_content(self, one: str, other: str) -> bool:
        if other not in self.added and other not in self.outputs:
            return False
        both = [self.output(name) for name in (one, other)]
        leaves = [leaf_of(output.file, output.source) for output in both]
        return leaves[0] == leaves[1]

    def _names(self) -> dict[str, str]:
        """The names in the result: the base's, or those of the class that was trained where tensors are added to it."""
        if not self.added:
            return {}
        every = [part for some in self.parts.values() for part in some]
        first = {part.name.partition(".")[0] for part in every}
        unwrapped = all(part.found == names.canonical(part.name).partition(".")[2] for part in every)
        if not unwrapped or len(first) != 1:
            return {}
        (prefix,) = first
        return {name: f"{prefix}.{name}" for name in self.outputs}

    def _shards(self, renamed: Mapping[str, str]) -> dict[str, list[Output]]:
        shards: dict[str, list[Output]] = {}
        for file, header in self.model.shards.items():
            order = sorted(header.tensors.values(), key=lambda tensor: tensor.start)
            shards[_shard_name(self.model, file)] = [self.outputs[tensor.name] for tensor in order]
        last = list(shards)[-1]
        shards[last] += self.added.values()
        return {
            name: sorted(
                (replace(output, name=renamed.get(output.name, output.name)) for output in outputs),
                key=lambda output: -BITS[output.dtype],  # each number at a multiple of its size
            )
            for name, outputs in shards.items()
        }


_CONFIG_NAME = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def _plain(key: str) -> str:
    """What a model calls the whole tensor that an adapter keeps under ``key``."""
    return key.removeprefix(PREFIX).replace(".base_layer.", ".")


def _shard_name(model: Model, file: Path) -> str:
    return WEIGHTS_NAME if len(model.shards) == 1 else file.name


def _as_matrix(shape: Sequence[int]) -> tuple[int, int, int]:
    """A tensor as one matrix: its first dimension, and the others together."""
    return (1, shape[0], math.prod(shape[1:])) if shape else (1, 1, 1)


def _same_extras(sources: Sequence[Source]) -> bool:
    """Whether all adapters that have whole tensors have the same ones, to the bit."""
    having = [source for source in sources if source.layout.extras]
    contents = [{name: _bytes_of(source, tensor) for name, tensor in source.layout.extras.items()} for source in having]
    return all(content == contents[0] for content in contents)


def _bytes_of(source: Source, tensor: Tensor) -> tuple[str, tuple[int, ...], bytes]:
    with source.layout.weights.open("rb") as stream:
        stream.seek(tensor.start)
        return tensor.dtype, tensor.shape, stream.read(tensor.end - tensor.start)
