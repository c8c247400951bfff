"""Factors that are stacked, one pair for each expert, as PEFT keeps them: gate and up as one parameter.

Megatron exports each projection of all experts as A (E, r, in) and B (E, out, r). transformers 5 has gate and up in one
parameter (``gate_up_proj``, the rows of gate first), and PEFT one pair of factors for it: B is block-diagonal, as in
PEFT 0.21, ``transformers_weight_conversion.py`` (PeftConcatenate).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from loreg.adapters.header import Tensor
from loreg.adapters.module_shape import ModuleShape
from loreg.adapters.parameters import owner_of
from loreg.errors import AdapterFormatError

#: What exports call the halves of gate_up_proj and down_proj, with Mixtral's own words beside.
_HALVES = (("gate_proj", "w1"), ("up_proj", "w3"))
_WHOLE = {"w2": "down_proj"}


@dataclass(frozen=True)
class Block:
    """The factors ``a`` and ``b`` of one module of the file, of the form ``form``.

    They are the rows of B from ``row`` on, and B is multiplied with ``times``.
    """

    shape: ModuleShape
    a: Tensor
    b: Tensor
    row: int = 0
    times: float = 1.0


@dataclass(frozen=True)
class Stack:
    """One projection of all experts: the ``blocks`` that its factors are made of; their product is scaled."""

    shape: ModuleShape
    blocks: tuple[Block, ...]
    scale: float


def as_parameters(stacks: Mapping[str, Stack]) -> dict[str, Stack]:
    """The same deltas by the names of the parameters that transformers has. Raises AdapterFormatError if gate and up
    are not of the same experts."""
    found: dict[str, Stack] = {}
    halves: dict[str, dict[int, Stack]] = {}
    for name, stack in stacks.items():
        owner, parameter = owner_of(name, stack.shape.parameter), stack.shape.parameter
        half = next((i for i, names in enumerate(_HALVES) if parameter in names), None)
        if half is not None:
            halves.setdefault(owner, {})[half] = stack
        else:
            whole = _WHOLE.get(parameter, parameter)
            form = replace(stack.shape, parameter=whole, stacked=False)
            found[f"{owner}.{whole}"] = replace(stack, shape=form)
    for owner, both in halves.items():
        found[f"{owner}.gate_up_proj"] = _joined(owner, both)
    return found


def _joined(owner: str, both: Mapping[int, Stack]) -> Stack:
    """Gate and up as one: A of both below each other, B block-diagonal. A half that is not there is zero."""
    shapes = {(stack.shape.matrices, stack.shape.out, stack.shape.in_) for stack in both.values()}
    if len(shapes) > 1:
        raise AdapterFormatError(
            f"gate and up of {owner} do not fit together: {' and '.join(map(str, sorted(shapes)))}",
            hint="export the adapter again from the program that trained it",
        )
    ((experts, out, in_),) = shapes
    scale = next(iter(both.values())).scale or 1.0
    blocks = tuple(
        replace(block, row=half * out, times=stack.scale / scale)
        for half, stack in sorted(both.items())
        for block in stack.blocks
    )
    rank = sum(block.shape.rank for block in blocks)
    form = ModuleShape("experts", rank, 2 * out, in_, matrices=experts, parameter="gate_up_proj")
    return Stack(form, blocks, scale)
