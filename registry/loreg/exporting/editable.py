"""An adapter to be changed for a server, without its numbers: what each module is, and how its factors come about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from loreg.adapters.header import Tensor
from loreg.adapters.keys import PREFIX, factor_key
from loreg.adapters.module import Module
from loreg.adapters.module_shape import ModuleShape
from loreg.adapters.parameters import as_peft_targets
from loreg.adapters.structure import AdapterStructure
from loreg.errors import CheckFailedError
from loreg.exporting.stacked import Block, Stack, as_parameters


@dataclass(frozen=True)
class EditableModule:
    """One module: its delta is ``scale · B @ A``, stored in ``dtypes``, those of A and of B.

    The factors are those of its ``blocks`` side by side, zeros if there are none; truncated to the rank
    ``truncated_to`` if that is not 0; padded with zeros to the rank of ``shape``; then B is multiplied with
    ``b_multiplier``. ``other_tensors`` are its further tensors by the end of their names; ``origin`` is what the module
    was called in the adapter that was read, empty if it was not there.
    """

    shape: ModuleShape
    dtypes: tuple[str, str]
    scale: float
    blocks: tuple[Block, ...]
    other_tensors: Mapping[str, Tensor]
    origin: str
    truncated_to: int = 0
    b_multiplier: float = 1.0

    @property
    def rank_in(self) -> int:
        """The rank that the factors have before they are truncated or padded."""
        return sum(block.shape.rank for block in self.blocks)

    @property
    def is_recomputed(self) -> bool:
        """Whether its factors are other numbers than those in the file, and not only the same ones laid out anew."""
        stored = {(block.a.dtype, block.b.dtype) for block in self.blocks}
        times = {self.b_multiplier, *(block.b_multiplier for block in self.blocks)}
        return bool(self.blocks) and (self.truncated_to > 0 or times != {1.0} or stored != {self.dtypes})

    @property
    def is_copied(self) -> bool:
        """Whether its factors lie in the file that was read as they will lie in the one that is written."""
        is_single = len(self.blocks) == 1 and not self.blocks[0].shape.stacked
        return is_single and not self.is_recomputed and self.rank_in == self.shape.rank


@dataclass(frozen=True)
class EditableAdapter:
    """An adapter without its numbers: modules and whole tensors by name, and the document of ``adapter_config.json``.

    ``dtype`` is what every floating-point tensor is to be stored in; empty if each keeps its own.
    """

    modules: Mapping[str, EditableModule]
    full_tensors: Mapping[str, Tensor]
    document: Mapping[str, Any]
    dtype: str = ""

    @property
    def types(self) -> list[str]:
        """The last parts of the names of its modules, sorted."""
        return sorted({name.rpartition(".")[2] for name in self.modules})


def load_editable(structure: AdapterStructure) -> EditableAdapter:
    """Prepare the adapter to be changed, with stacked experts as the parameters that PEFT targets.

    Raises CheckFailedError for factors of a shape that loreg does not know.
    """
    modules, stacks = {}, {}
    for name, module in structure.modules.items():
        if module.shape is None:
            raise CheckFailedError(f"it cannot be exported: {module.why_unreadable}", hint="serve it with PEFT itself")
        if module.shape.stacked:
            stacks[name] = Stack(module.shape, (_block(module, module.shape),), module.scale)
        else:
            modules[name] = _editable_module(module, module.shape)
    for name, stack in as_parameters(stacks).items():
        modules[name] = EditableModule(
            stack.shape, _common_dtypes(stack.blocks), stack.scale, stack.blocks, {}, origin=name
        )
    shapes = {name: module.shape for name, module in modules.items()}
    document = dict(structure.config.raw)
    if any(shape.parameter for shape in shapes.values()):
        document = as_peft_targets(document, shapes)
    return EditableAdapter(dict(sorted(modules.items())), structure.full_tensors_and_token_rows, document)


def _block(module: Module, shape: ModuleShape) -> Block:
    a, b = (module.tensors[part] for part in shape.tensor_names)
    return Block(shape, a, b)


def _editable_module(module: Module, shape: ModuleShape) -> EditableModule:
    block = _block(module, shape)
    other_tensors = {
        factor_key("", part).removeprefix(PREFIX): tensor
        for part, tensor in module.tensors.items()
        if part not in shape.tensor_names
    }
    dtypes = block.a.dtype, block.b.dtype
    return EditableModule(shape, dtypes, module.scale, (block,), other_tensors, origin=module.name)


def _common_dtypes(blocks: Iterable[Block]) -> tuple[str, str]:
    """Return the dtypes of A and B: those of the blocks, or where these differ one that holds the numbers of all."""
    blocks = tuple(blocks)
    return _common_dtype(block.a.dtype for block in blocks), _common_dtype(block.b.dtype for block in blocks)


def _common_dtype(dtypes: Iterable[str]) -> str:
    different = set(dtypes)
    if len(different) == 1:
        return different.pop()
    return "F64" if "F64" in different else "F32"


def most_common(values: Iterable[float]) -> float:
    """Return the most frequent value, the first of several; values that differ by rounding count as one."""
    counts: Counter[float] = Counter()
    first: dict[float, float] = {}
    for value in values:
        rounded = float(f"{value:.12g}")
        counts[rounded] += 1
        first.setdefault(rounded, value)
    return first[counts.most_common(1)[0][0]]
