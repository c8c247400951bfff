"""An adapter to be changed for a server, without its numbers: what each module is, and how its factors come about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from loreg.adapters.header import Tensor
from loreg.adapters.keys import PREFIX, factor_key
from loreg.adapters.module_shape import ModuleShape
from loreg.adapters.parameters import as_peft_targets
from loreg.adapters.structure import AdapterStructure, Module
from loreg.errors import CheckFailedError
from loreg.exporting.stacked import Block, Stack, as_parameters


@dataclass(frozen=True)
class EditableModule:
    """One module: its delta is ``scale · B @ A``, stored in ``dtypes``, those of A and of B.

    The factors are those of its ``blocks`` side by side, zeros if there are none; cut down to the rank ``cut`` if that
    is not 0; padded with zeros to the rank of ``form``; then B is multiplied with ``times``. ``others`` are its further
    tensors by the end of their names; ``origin`` is what the module was called in the adapter that was read, empty if
    it was not there.
    """

    shape: ModuleShape
    dtypes: tuple[str, str]
    scale: float
    blocks: tuple[Block, ...]
    others: Mapping[str, Tensor]
    origin: str
    truncated_to: int = 0
    times: float = 1.0

    @property
    def rank_in(self) -> int:
        """The rank that the factors have before they are cut or padded."""
        return sum(block.shape.rank for block in self.blocks)

    @property
    def computed(self) -> bool:
        """Whether its factors are other numbers than those in the file, and not these laid out anew."""
        stored = {(block.a.dtype, block.b.dtype) for block in self.blocks}
        times = {self.times, *(block.times for block in self.blocks)}
        return bool(self.blocks) and (self.truncated_to > 0 or times != {1.0} or stored != {self.dtypes})

    @property
    def copied(self) -> bool:
        """Whether its factors lie in the file as they will lie in the next."""
        one = len(self.blocks) == 1 and not self.blocks[0].shape.stacked
        return one and not self.computed and self.rank_in == self.shape.rank


@dataclass(frozen=True)
class EditableAdapter:
    """The modules and whole tensors by name, and the document of ``adapter_config.json``.

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
    """What the adapter is, with stacked experts as the parameters that PEFT targets.

    Raises CheckFailedError for factors that are of no form that loreg knows.
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
        modules[name] = EditableModule(stack.shape, _widest(stack.blocks), stack.scale, stack.blocks, {}, origin=name)
    forms = {name: module.shape for name, module in modules.items()}
    document = dict(structure.config.raw)
    if any(form.parameter for form in forms.values()):
        document = as_peft_targets(document, forms)
    return EditableAdapter(dict(sorted(modules.items())), structure.full_tensors_and_token_rows, document)


def _block(module: Module, form: ModuleShape) -> Block:
    a, b = (module.tensors[part] for part in form.tensor_names)
    return Block(form, a, b)


def _editable_module(module: Module, form: ModuleShape) -> EditableModule:
    block = _block(module, form)
    others = {
        factor_key("", part).removeprefix(PREFIX): tensor
        for part, tensor in module.tensors.items()
        if part not in form.tensor_names
    }
    return EditableModule(form, (block.a.dtype, block.b.dtype), module.scale, (block,), others, origin=module.name)


def _widest(blocks: Iterable[Block]) -> tuple[str, str]:
    """The dtypes of A and B: those of the blocks, or where these differ one that holds the numbers of all."""
    found = []
    for dtypes in zip(*((block.a.dtype, block.b.dtype) for block in blocks), strict=True):
        alike = dtypes[0] if len(set(dtypes)) == 1 else "F32"
        found.append("F64" if "F64" in dtypes else alike)
    a, b = found
    return a, b


def most_common(values: Iterable[float]) -> float:
    """The value that is there most often, the first of several; values that differ by rounding are one."""
    counted: Counter[float] = Counter()
    first: dict[float, float] = {}
    for value in values:
        key = float(f"{value:.12g}")
        counted[key] += 1
        first.setdefault(key, value)
    return first[counted.most_common(1)[0][0]]
