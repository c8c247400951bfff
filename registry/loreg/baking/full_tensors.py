"""Whole tensors of an adapter in the place of the base's: ``modules_to_save``, biases, a resized vocabulary."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from loreg.adapters.full_tensors import choose_full_tensors, refuse_factors_of_full_modules, was_trained
from loreg.adapters.header import Tensor
from loreg.adapters.keys import weight_of_full_tensor
from loreg.baking.configuration import vocabulary_of
from loreg.baking.dtypes import FLOATS
from loreg.baking.result import ResultTensors, as_matrix
from loreg.baking.shard import OutputTensor
from loreg.baking.tensor_updates import BakeSource
from loreg.bases.weight_lookup import is_in_a_layer
from loreg.errors import CheckFailedError, MergeError


def take_full_tensors(
    result: ResultTensors, sources: Sequence[BakeSource], chosen: int | None, notes: list[str]
) -> dict[str, Tensor]:
    """Put whole tensors of one source in the place of the base's; ``chosen`` is that source, where there is a choice.

    First what PEFT saved of the base itself because the vocabulary was resized: that is what every weight that is tied
    to it is. Returns those that were trained, by the names that they got.
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
    of_the_base = {key for key in extras if _is_the_bases_own(result, source, key)}
    trained = {}
    for key in sorted(extras, key=lambda key: key not in of_the_base):
        if key in of_the_base:
            _replace_group(result, source, key, notes)
        else:
            trained[_replace(result, source, key, notes)] = extras[key]
    _resize_what_is_tied(result)
    count = "1 whole tensor is" if len(extras) == 1 else f"{len(extras)} whole tensors are"
    notes.append(f"{count} taken from {source.label}")
    return trained


def refuse_an_uneven_vocabulary(result: ResultTensors, config: Mapping[str, object]) -> None:
    """Raise MergeError where tensors of the vocabulary would not all have the same size.

    ``config`` are the changed fields of ``config.json``. What no adapter can hold, as a buffer of the model, is named
    before what can be saved with one: a head and its embedding, but not the embeddings of an encoder and a decoder,
    of which transformers resizes some and PEFT saves those that the forward pass does not use.
    """
    groups = [(weights, _outputs_of(result, weights)) for weights in result.lookup.could_be_tied]
    size = vocabulary_of({**result.model.config, **config})
    tied = {output.name for _, outputs in groups for output in outputs}
    old = _of_old_size(result, size)
    _refuse_old_size((output for output in old if output.name not in tied), size)
    for weights, outputs in groups:
        ordered = sorted(outputs, key=lambda output: output.name not in result.whole)
        for one, other in itertools.pairwise(ordered):
            rows = [output.source.shape[:1] for output in (one, other)]
            if rows[0] != rows[1]:
                modules = sorted({weight.split(".")[-2] for weight in weights})
                save_both = f"save both with the adapter: modules_to_save={modules}"
                raise MergeError(
                    f"{one.name} would have {rows[0][0]} rows and {other.name} {rows[1][0]}",
                    hint=save_both if len(weights) == 2 else "serve it as an adapter",
                )
    _refuse_old_size(old, size)


def _of_old_size(result: ResultTensors, size: int | None) -> list[OutputTensor]:
    """The tensors that would stay as long as the base's vocabulary, where that becomes ``size``."""
    old = vocabulary_of(result.model.config)
    outputs = (*result.kept.values(), *result.added.values()) if old != size else ()
    stay = [o for o in outputs if o.name not in result.whole and not is_in_a_layer(o.name)]
    return [o for o in stay if old in o.source.shape and o.source.shape[:1] != (size,)]


def _refuse_old_size(outputs: Iterable[OutputTensor], size: int | None) -> None:
    for output in outputs:
        raise MergeError(
            f"{output.name} is {output.source.shape}, and the vocabulary has {size} tokens now",
            hint="serve it as an adapter",
        )


def _outputs_of(result: ResultTensors, weights: frozenset[str]) -> list[OutputTensor]:
    """The tensors of the result that weights which can be tied are."""
    places = [place.name for weight in weights for place in result.lookup.find(weight)[:1] if not place.part.how]
    tied = [name for group in result.groups for name in group.members.values() if weights & set(group.members)]
    found = dict.fromkeys((*map(result.raw.__getitem__, places), *tied))
    return [result[name] for name in found if name in result]


def _resize_what_is_tied(result: ResultTensors) -> None:
    """Let the bias of a head that got another size take the place of those that are tied to it, which no layer uses."""
    for weights in result.lookup.could_be_tied:
        names = {name: weight for weight in weights if (name := result.name_of(weight)) is not None}
        for name in names.keys() & result.whole.keys():
            tensor = result.whole[name]
            if len(tensor.shape) == 1 and tensor.shape != result.untrained[name].source.shape:
                for other in names.keys() - result.whole.keys():
                    result.place(names[other], "the adapter")
                    result.decide(replace(result[name], name=other))
                    result.whole[other] = tensor


def _is_the_bases_own(result: ResultTensors, source: BakeSource, key: str) -> bool:
    weight = weight_of_full_tensor(key)
    tied = weight.endswith(".weight") and result.group_of(weight) is not None
    return tied and not was_trained(key, source.structure.config)


def _replace_group(result: ResultTensors, source: BakeSource, key: str, notes: list[str]) -> None:
    group = result.group_of(weight_of_full_tensor(key))
    assert group is not None  # noqa: S101  such a tensor belongs to one
    for name in group.stored:
        _put(result, source, key, name, notes)
        result.untrained[name] = result.kept[name]


def _replace(result: ResultTensors, source: BakeSource, key: str, notes: list[str]) -> str:
    weight = weight_of_full_tensor(key)
    name = result.place(weight, source.label)
    places = result.lookup.find(weight)
    if places and places[0].part.how:
        raise MergeError(
            f"{source.label} cannot be baked: {weight} is whole in it, and the files hold it as {places[0].name}",
            hint="serve it as an adapter",
        )
    if name is not None:
        _put(result, source, key, name, notes)
        return name
    tensor, dtype = source.structure.full_tensors[key], result.usual_dtype()
    _refuse_another_dtype(source, key, dtype)
    result.added[weight] = OutputTensor(weight, source.structure.weights, tensor, dtype, as_matrix(tensor.shape))
    result.whole[weight] = tensor
    return weight


def _put(result: ResultTensors, source: BakeSource, key: str, name: str, notes: list[str]) -> None:
    old, tensor = result[name], source.structure.full_tensors[key]
    result.untrained.setdefault(name, old)
    if tensor.shape != old.source.shape:
        if len(tensor.shape) != len(old.source.shape) or tensor.shape[1:] != old.source.shape[1:]:
            raise CheckFailedError(
                f"base mismatch: {name} is {tensor.shape} in {source.label}, this base has {old.source.shape}",
                hint="--base names the model that the adapter was trained on",
            )
        notes.append(f"{name} has {tensor.shape[0]} rows now, the base had {old.source.shape[0]}")
    _refuse_another_dtype(source, key, old.dtype)
    result.decide(OutputTensor(name, source.structure.weights, tensor, old.dtype, as_matrix(tensor.shape)))
    result.whole[name] = tensor


def _refuse_another_dtype(source: BakeSource, key: str, dtype: str) -> None:
    found = source.structure.full_tensors[key].dtype
    if found != dtype and not {found, dtype} <= set(FLOATS):
        raise MergeError(
            f"{source.label} cannot be baked: {key} is {found}, the base has it as {dtype}",
            hint="save the adapter with the dtype of the base",
        )


def _are_same(sources: Sequence[BakeSource]) -> bool:
    """Whether all adapters that have whole tensors have the same ones, to the bit."""
    having = [source for source in sources if source.structure.full_tensors]
    contents = [
        {name: _bytes_of(source, tensor) for name, tensor in source.structure.full_tensors.items()} for source in having
    ]
    return all(content == contents[0] for content in contents)


def _bytes_of(source: BakeSource, tensor: Tensor) -> tuple[str, tuple[int, ...], bytes]:
    with source.structure.weights.open("rb") as stream:
        stream.seek(tensor.start)
        return tensor.dtype, tensor.shape, stream.read(tensor.end - tensor.start)
