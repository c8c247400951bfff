"""An adapter as one server takes it: the transforms that its profile asks for, decided by headers alone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from loreg.adapters.config import dump_config
from loreg.adapters.header import BITS, Tensor
from loreg.adapters.keys import PREFIX, factor_key
from loreg.adapters.module_shape import ModuleShape
from loreg.adapters.parameters import file_modules
from loreg.adapters.structure import AdapterStructure
from loreg.baking.dtypes import NUMPY_DTYPES
from loreg.checking.profile import EFFECTS, Profile
from loreg.exporting.config_document import stripped, with_ranks_and_scales, without_paths
from loreg.exporting.editable import EditableAdapter, EditableModule, load_editable
from loreg.exporting.transforms import TRANSFORMS, TensorDigests, cast

#: What safetensors calls the dtypes that somebody may ask for.
DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
#: In a file the widest numbers come first, then by name: the order of safetensors' own ``Dtype``, the last first.
_WIDTHS = (
    "U64", "I64", "F64", "C64", "F32", "U32", "I32", "BF16", "F16", "U16", "I16", "F8_E8M0", "F8_E4M3", "F8_E5M2", "I8",
    "U8", "F6_E3M2", "F6_E2M3", "F4", "BOOL",
)  # fmt: skip


@dataclass(frozen=True)
class Output:
    """One tensor to be written: a ``copy`` of one in the file, or the part ``part`` (0 is A, 1 is B) of ``module``."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    copy: Tensor | None = None
    module: EditableModule | None = None
    part: int = 0

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return math.prod(self.shape) * BITS[self.dtype] // 8


@dataclass(frozen=True)
class Plan:
    """What an export writes, but for the numbers: ``changes`` says it in words, ``before`` is what was read."""

    before: EditableAdapter
    editable: EditableAdapter
    document: Mapping[str, Any]
    changes: tuple[str, ...]

    @cached_property
    def outputs(self) -> tuple[Output, ...]:
        """Every tensor in the order in which it lies in the file, by the name that PEFT gives it."""
        found = {name: _whole(name, tensor, self.editable.dtype) for name, tensor in self.editable.full_tensors.items()}
        files = file_modules({name: module.shape for name, module in self.editable.modules.items()})
        for name, module in self.editable.modules.items():
            found |= {output.name: output for output in _of_module(files[name], module, self.editable.dtype)}
        return tuple(sorted(found.values(), key=lambda output: (_WIDTHS.index(output.dtype), output.name)))

    @cached_property
    def header(self) -> bytes:
        """The beginning of the safetensors file, up to the first tensor."""
        document: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        position = 0
        for output in self.outputs:
            end = position + output.size
            document[output.name] = {
                "dtype": output.dtype,
                "shape": list(output.shape),
                "data_offsets": [position, end],
            }
            position = end
        raw = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
        raw += b" " * (-len(raw) % 8)
        return len(raw).to_bytes(8, "little") + raw

    @property
    def size(self) -> int:
        """Bytes of the safetensors file."""
        return len(self.header) + sum(output.size for output in self.outputs)

    @property
    def configuration(self) -> bytes:
        """The bytes of ``adapter_config.json``."""
        return dump_config(self.document)

    @property
    def rounds(self) -> bool:
        """Whether some numbers may differ in their last bits from machine to machine: those of what is cut down."""
        return any(module.truncated_to for module in self.editable.modules.values())


def plan_export(
    structure: AdapterStructure, profile: Profile, tensor_digests: TensorDigests | None, dtype: str | None = None
) -> Plan:
    """Change the adapter as far as the server of ``profile`` asks for it, and no further.

    ``tensor_digests`` are the tensors of its base by canonical name, None if that is not known: then names cannot be
    compared, and modules are only added where a like one is there. Only what the server refuses or gets wrong is
    mended, not what makes it slow. ``dtype`` is a key of :data:`DTYPES` for every tensor, None leaves them. No weight
    is read. Raises CheckFailedError where a shape is not known.
    """
    before = editable = load_editable(structure)
    minded = [rule for rule in profile.rules if EFFECTS[rule.effect][0] == "error"]
    changes = []
    for transform in TRANSFORMS:
        asked = {rule.condition: profile.value(rule) for rule in minded if rule.condition in transform.conditions}
        if asked:
            editable, told = transform.change(editable, asked, tensor_digests)
            changes += [told] if told else []
    joined = any(module.shape is not None and module.shape.stacked for module in structure.modules.values())
    document = with_ranks_and_scales(editable) if changes or joined else dict(editable.document)
    if dtype is not None and any(tensor.dtype != DTYPES[dtype] for tensor in structure.tensors.values()):
        editable = cast(editable, DTYPES[dtype])
        changes.append(f"every tensor is {dtype}")
    document = stripped(without_paths(document), profile.reads)
    if left_out := sorted(before.document.keys() - document.keys()):
        fields = f"{', '.join(left_out[:3])}" + (f" and {len(left_out) - 3} more" if len(left_out) > 3 else "")
        changes.append(f"fields left out of adapter_config.json: {fields}")
    return Plan(before, editable, document, tuple(changes))


def _whole(name: str, tensor: Tensor, dtype: str) -> Output:
    return Output(name, dtype if dtype and tensor.dtype in NUMPY_DTYPES else tensor.dtype, tensor.shape, copy=tensor)


def _of_module(file: str, module: EditableModule, dtype: str) -> Iterator[Output]:
    for part, (name, shape) in enumerate(zip(module.shape.tensor_names, factor_shapes(module.shape), strict=True)):
        copy = (module.blocks[0].a, module.blocks[0].b)[part] if module.copied else None
        yield Output(factor_key(file, name), module.dtypes[part], shape, copy, module, part)
    for end, tensor in module.others.items():
        yield _whole(f"{PREFIX}{file}{end}", tensor, dtype)


def factor_shapes(form: ModuleShape) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes in which the two factors lie in a file, that of A first."""
    if form.kind == "experts":
        return (form.matrices * form.rank, form.in_), (form.out, form.rank * form.matrices)
    if form.kind == "convolution":
        return (form.rank, *form.kernel), (form.out, form.rank, *[1] * (len(form.kernel) - 1))
    return (form.rank, form.in_), (form.out, form.rank)
