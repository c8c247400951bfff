"""Reduce the sources of a merge, files on this machine, to what a preview is made from; refuse what no merge takes."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from loreg.adapters.full_tensors import choose_full_tensors, refuse_factors_of_full_modules
from loreg.adapters.header import Tensor
from loreg.adapters.keys import strip_base_layer
from loreg.adapters.structure import AdapterStructure
from loreg.errors import MergeError
from loreg.identity.factors import open_factors
from loreg.merging.compatibility import require_mergeable
from loreg.merging.inputs import MergeInput
from loreg.merging.shared_modules import refuse_different_bases
from loreg.previewing.joint_frames import FrameGroup, reduce_sources


@dataclass(frozen=True)
class ReducedSources:
    """The frames of all modules, and the bytes that a merge writes beside factors: whole tensors and biases.

    ``biased`` are the positions of the sources that have biases (``lora_bias``).
    """

    groups: tuple[FrameGroup, ...]
    other_bytes: int
    biased: tuple[int, ...] = ()


def reduce_inputs(inputs: Sequence[MergeInput], *, one_base: bool) -> ReducedSources:
    """Reduce the sources of a merge, in order; ``one_base`` says that all are known to be of one base.

    Raises MergeError for what ``loreg merge`` would refuse, and for DoRA and PiSSA, whose deltas need more than the
    adapter.
    """
    structures, labels = [source.structure for source in inputs], [source.label for source in inputs]
    refuse_different_bases(structures, labels, one_base=one_base)
    require_mergeable(inputs)
    refuse_magnitudes(inputs)
    tensors = [structure.full_tensors_and_token_rows for structure in structures]
    owner = choose_full_tensors(tensors, labels, _have_same_tensors(structures), None)
    if owner is not None:
        refuse_factors_of_full_modules(structures, labels, owner)
    with contextlib.ExitStack() as stack:
        groups = reduce_sources([stack.enter_context(open_factors(structure)) for structure in structures], labels)
    full_bytes = sum(tensor.end - tensor.start for tensor in tensors[owner].values()) if owner is not None else 0
    biased = tuple(i for i, structure in enumerate(structures) if _has_biases(structure))
    return ReducedSources(tuple(groups), full_bytes + _bias_bytes(structures, groups), biased)


def refuse_magnitudes(inputs: Sequence[MergeInput]) -> None:
    """Raise MergeError for a source with DoRA magnitudes, whose delta needs the base."""
    for source in inputs:
        for module in source.structure.modules.values():
            if "magnitude" in module.tensors:
                raise MergeError(
                    f"{source.label} cannot be previewed: module {module.name} has a DoRA magnitude, its delta needs "
                    "the base",
                    hint="--base DIR names the folder of the model it was trained on",
                )


def _has_biases(structure: AdapterStructure) -> bool:
    return any("bias" in module.tensors for module in structure.modules.values())


def _bias_bytes(structures: Sequence[AdapterStructure], groups: Sequence[FrameGroup]) -> int:
    """Return the bytes of the biases (``lora_bias``): every module of the result has one if any source has any."""
    if not any("bias" in module.tensors for structure in structures for module in structure.modules.values()):
        return 0
    return sum(len(group.modules) * group.kind.shape.out * group.kind.bits // 8 for group in groups)


def _have_same_tensors(structures: Sequence[AdapterStructure]) -> bool:
    """Return whether all adapters that have whole tensors have the same ones, to the bit."""
    with_tensors = [structure for structure in structures if structure.full_tensors_and_token_rows]
    return all(_are_same(first, second) for first, second in itertools.pairwise(with_tensors))


def _are_same(first: AdapterStructure, second: AdapterStructure) -> bool:
    one, other = _by_plain_name(first), _by_plain_name(second)
    indices = [[rows.indices for rows in structure.token_rows.values()] for structure in (first, second)]
    if one.keys() != other.keys() or indices[0] != indices[1]:
        return False
    return all(
        (tensor.dtype, tensor.shape) == (other[name].dtype, other[name].shape)
        and _read(first, tensor) == _read(second, other[name])
        for name, tensor in one.items()
    )


def _by_plain_name(structure: AdapterStructure) -> dict[str, Tensor]:
    return {strip_base_layer(name): tensor for name, tensor in structure.full_tensors_and_token_rows.items()}


def _read(structure: AdapterStructure, tensor: Tensor) -> bytes:
    with structure.weights.open("rb") as stream:
        stream.seek(tensor.start)
        return stream.read(tensor.end - tensor.start)
