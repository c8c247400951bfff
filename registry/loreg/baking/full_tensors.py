"""Replace tensors of the base by an adapter's whole ones: ``modules_to_save``, biases, a resized vocabulary."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from loreg.adapters.dtypes import FLOATS
from loreg.adapters.full_tensors import choose_full_tensors, refuse_factors_of_full_modules, was_trained
from loreg.adapters.header import Tensor
from loreg.adapters.keys import weight_of_full_tensor
from loreg.baking.configuration import vocabulary_size
from loreg.baking.float_codec import read_bytes
from loreg.baking.result import ResultTensors, as_matrix
from loreg.baking.shard import OutputTensor
from loreg.baking.tensor_updates import BakeSource
from loreg.bases.weight_lookup import is_in_layer
from loreg.errors import CheckFailedError, MergeError


def take_full_tensors(
    result: ResultTensors, sources: Sequence[BakeSource], chosen: int | None, notes: list[str]
) -> dict[str, Tensor]:
    """Put the whole tensors of one source in the place of the base's; ``chosen`` is that source, if there is a choice.

    First what PEFT saved untrained, because the vocabulary was resized: all weights that are tied to it become that.
    Returns the trained tensors by their names in the result.
    """
    structures, labels = [source.structure for source in sources], [source.label for source in sources]
    taken = choose_full_tensors(
        [structure.full_tensors for structure in structures], labels, _are_same(sources), chosen
    )
    if taken is None:
        return {}
    refuse_factors_of_full_modules(structures, labels, taken)
    source = sources[taken]
    extras = source.structure.full_tensors
    untrained = {key for key in extras if _is_untrained(result, source, key)}
    trained: dict[str, Tensor] = {}
    for key in sorted(extras, key=lambda key: key not in untrained):
        if key in untrained:
            _replace_group(result, source, key, notes)
        else:
            trained[_replace(result, source, key, notes)] = extras[key]
    _resize_tied_biases(result)
    count = "1 whole tensor is" if len(extras) == 1 else f"{len(extras)} whole tensors are"
    notes.append(f"{count} taken from {source.label}")
    return trained


def refuse_uneven_vocabulary(result: ResultTensors, config: Mapping[str, object]) -> None:
    """Raise MergeError where tensors of the vocabulary would not all have the same size.

    ``config`` are the changed fields of ``config.json``. A tensor that no adapter can hold, as a buffer of the model,
    is named before one that can be saved with it: a head and its embedding can, but not the embeddings of an encoder
    and a decoder, of which transformers resizes some and PEFT saves those that the forward pass does not use.
    """
    groups = [(weights, _outputs_of(result, weights)) for weights in result.lookup.tieable_groups]
    size = vocabulary_size({**result.model.config, **config})
    tied = {output.name for _, outputs in groups for output in outputs}
    old = _outputs_of_old_size(result, size)
    _refuse_old_size((output for output in old if output.name not in tied), size)
    for weights, outputs in groups:
        ordered = sorted(outputs, key=lambda output: output.name not in result.full_tensors)
        for first, second in itertools.pairwise(ordered):
            rows = [output.source.shape[:1] for output in (first, second)]
            if rows[0] != rows[1]:
                modules = sorted({weight.split(".")[-2] for weight in weights})
                save_both = f"save both with the adapter: modules_to_save={modules}"
                raise MergeError(
                    f"{first.name} would have {rows[0][0]} rows and {second.name} {rows[1][0]}",
                    hint=save_both if len(weights) == 2 else "serve it as an adapter",
                )
    _refuse_old_size(old, size)


def _outputs_of_old_size(result: ResultTensors, size: int | None) -> list[OutputTensor]:
    """Return the tensors that would keep the size of the base's vocabulary, where that becomes ``size``."""
    old = vocabulary_size(result.model.config)
    outputs = (*result.base_tensors.values(), *result.added.values()) if old != size else ()
    return [
        output
        for output in outputs
        if output.name not in result.full_tensors and not is_in_layer(output.name)
        if old in output.source.shape and output.source.shape[:1] != (size,)
    ]


def _refuse_old_size(outputs: Iterable[OutputTensor], size: int | None) -> None:
    for output in outputs:  # the first of them is named
        raise MergeError(
            f"{output.name} is {output.source.shape}, and the vocabulary has {size} tokens now",
            hint="serve it as an adapter",
        )


def _outputs_of(result: ResultTensors, weights: frozenset[str]) -> list[OutputTensor]:
    """Return the tensors of the result that hold a group of weights which can be tied."""
    stored = [
        location.name
        for weight in weights
        for location in result.lookup.find(weight)[:1]
        if not location.part.conversion
    ]
    tied = [name for group in result.groups for name in group.members.values() if weights & set(group.members)]
    held = dict.fromkeys((*map(result.file_names.__getitem__, stored), *tied))
    return [result[name] for name in held if name in result]


def _resize_tied_biases(result: ResultTensors) -> None:
    """Put the bias of a resized head in the place of those that are tied to it, which no layer uses."""
    for weights in result.lookup.tieable_groups:
        names = {name: weight for weight in weights if (name := result.name_of(weight)) is not None}
        for name in names.keys() & result.full_tensors.keys():
            tensor = result.full_tensors[name]
            if len(tensor.shape) == 1 and tensor.shape != result.untrained[name].source.shape:
                for tied in names.keys() - result.full_tensors.keys():
                    result.ensure_tensor(names[tied], "the adapter")
                    result.update(replace(result[name], name=tied))
                    result.full_tensors[tied] = tensor


def _is_untrained(result: ResultTensors, source: BakeSource, key: str) -> bool:
    weight = weight_of_full_tensor(key)
    tied = weight.endswith(".weight") and result.tied_group_of(weight) is not None
    return tied and not was_trained(key, source.structure.config)


def _replace_group(result: ResultTensors, source: BakeSource, key: str, notes: list[str]) -> None:
    group = result.tied_group_of(weight_of_full_tensor(key))
    assert group is not None  # noqa: S101  such a tensor belongs to one
    for name in group.stored:
        _put_in_place(result, source, key, name, notes)
        result.untrained[name] = result.base_tensors[name]


def _replace(result: ResultTensors, source: BakeSource, key: str, notes: list[str]) -> str:
    weight = weight_of_full_tensor(key)
    name = result.ensure_tensor(weight, source.label)
    locations = result.lookup.find(weight)
    if locations and locations[0].part.conversion:
        raise MergeError(
            f"{source.label} cannot be baked: {weight} is whole in it, and the files hold it as {locations[0].name}",
            hint="serve it as an adapter",
        )
    if name is not None:
        _put_in_place(result, source, key, name, notes)
        return name
    tensor, dtype = source.structure.full_tensors[key], result.usual_dtype()
    _refuse_other_dtype(source, key, dtype)
    result.added[weight] = OutputTensor(weight, source.structure.weights, tensor, dtype, as_matrix(tensor.shape))
    result.full_tensors[weight] = tensor
    return weight


def _put_in_place(result: ResultTensors, source: BakeSource, key: str, name: str, notes: list[str]) -> None:
    old, tensor = result[name], source.structure.full_tensors[key]
    result.untrained.setdefault(name, old)
    if tensor.shape != old.source.shape:
        if len(tensor.shape) != len(old.source.shape) or tensor.shape[1:] != old.source.shape[1:]:
            raise CheckFailedError(
                f"base mismatch: {name} is {tensor.shape} in {source.label}, this base has {old.source.shape}",
                hint="--base names the model that the adapter was trained on",
            )
        notes.append(f"{name} has {tensor.shape[0]} rows now, the base had {old.source.shape[0]}")
    _refuse_other_dtype(source, key, old.dtype)
    result.update(OutputTensor(name, source.structure.weights, tensor, old.dtype, as_matrix(tensor.shape)))
    result.full_tensors[name] = tensor


def _refuse_other_dtype(source: BakeSource, key: str, dtype: str) -> None:
    saved = source.structure.full_tensors[key].dtype
    if saved != dtype and not {saved, dtype} <= set(FLOATS):
        raise MergeError(
            f"{source.label} cannot be baked: {key} is {saved}, the base has it as {dtype}",
            hint="save the adapter with the dtype of the base",
        )


def _are_same(sources: Sequence[BakeSource]) -> bool:
    """Return whether all adapters with whole tensors have the same ones, to the bit."""
    with_tensors = [source for source in sources if source.structure.full_tensors]
    contents = [
        {
            name: (tensor.dtype, tensor.shape, read_bytes(source.structure.weights, tensor))
            for name, tensor in source.structure.full_tensors.items()
        }
        for source in with_tensors
    ]
    return all(content == contents[0] for content in contents)
