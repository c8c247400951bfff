"""Turn stacked factors, one pair for each expert, into those of the parameters that PEFT targets.

Megatron exports each projection of all experts as A (E, r, in) and B (E, out, r). transformers 5 has gate and up in one
parameter (``gate_up_proj``, the rows of gate first), and PEFT one pair of factors for it: B is block-diagonal, as in
PEFT 0.21, ``transformers_weight_conversion.py`` (PeftConcatenate).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from loreg.adapters.header import Tensor
from loreg.adapters.module_shape import ModuleKind, ModuleShape
from loreg.adapters.parameters import owner_of
from loreg.errors import AdapterFormatError

#: What exports call the two halves of gate_up_proj, and what Mixtral calls them.
_HALVES = (("gate_proj", "w1"), ("up_proj", "w3"))
#: Mixtral's names of other parameters.
_MIXTRAL_NAMES = {"w2": "down_proj"}


@dataclass(frozen=True)
class Block:
    """The factors ``a`` and ``b`` of one module of the file, which have ``shape``.

    They make the rows of B from ``row`` on, and B is multiplied with ``b_multiplier``.
    """

    shape: ModuleShape
    a: Tensor
    b: Tensor
    row: int = 0
    b_multiplier: float = 1.0


@dataclass(frozen=True)
class Stack:
    """One projection of all experts: the ``blocks`` that its factors are made of, and the scale of their product."""

    shape: ModuleShape
    blocks: tuple[Block, ...]
    scale: float


def as_parameters(stacks: Mapping[str, Stack]) -> dict[str, Stack]:
    """Return the same deltas by the names of the parameters that transformers has.

    Raises AdapterFormatError if gate and up are not of the same experts.
    """
    parameters: dict[str, Stack] = {}
    halves: dict[str, dict[int, Stack]] = {}
    for name, stack in stacks.items():
        owner, parameter = owner_of(name, stack.shape.parameter), stack.shape.parameter
        half = next((i for i, names in enumerate(_HALVES) if parameter in names), None)
        if half is not None:
            halves.setdefault(owner, {})[half] = stack
        else:
            parameter = _MIXTRAL_NAMES.get(parameter, parameter)
            shape = replace(stack.shape, parameter=parameter, stacked=False)
            parameters[f"{owner}.{parameter}"] = replace(stack, shape=shape)
    for owner, gate_and_up in halves.items():
        parameters[f"{owner}.gate_up_proj"] = _join_gate_and_up(owner, gate_and_up)
    return parameters


def _join_gate_and_up(owner: str, gate_and_up: Mapping[int, Stack]) -> Stack:
    """Join gate (0) and up (1): A of both below each other, B block-diagonal. A half that is not there is zero."""
    shapes = {(stack.shape.matrices, stack.shape.out, stack.shape.in_) for stack in gate_and_up.values()}
    if len(shapes) > 1:
        raise AdapterFormatError(
            f"gate and up of {owner} do not fit together: {' and '.join(map(str, sorted(shapes)))}",
            hint="export the adapter again from the program that trained it",
        )
    ((experts, out, in_),) = shapes
    scale = next(iter(gate_and_up.values())).scale or 1.0
    blocks = tuple(
        replace(block, row=half * out, b_multiplier=stack.scale / scale)
        for half, stack in sorted(gate_and_up.items())
        for block in stack.blocks
    )
    rank = sum(block.shape.rank for block in blocks)
    shape = ModuleShape(ModuleKind.EXPERTS, rank, 2 * out, in_, matrices=experts, parameter="gate_up_proj")
    return Stack(shape, blocks, scale)
