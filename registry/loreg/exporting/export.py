"""Plan an adapter as one server takes it: apply the transforms that its profile asks for, by headers alone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from loreg.adapters.config import dump_config
from loreg.adapters.dtypes import BY_TORCH_NAME, DTYPES, FLOATS
from loreg.adapters.header import Tensor
from loreg.adapters.keys import PREFIX, factor_key
from loreg.adapters.module_shape import ModuleKind, ModuleShape
from loreg.adapters.parameters import module_names_in_file
from loreg.adapters.structure import AdapterStructure
from loreg.checking.profile import EFFECTS, Profile
from loreg.entities import Severity
from loreg.exporting.config_document import prune_fields, remove_paths, set_ranks_and_scales
from loreg.exporting.configuration import TensorDigests
from loreg.exporting.editable import EditableAdapter, EditableModule, load_editable
from loreg.exporting.transforms import TRANSFORMS, cast

#: What a caller may ask for, by the names that people type: every floating-point type but float64.
EXPORT_DTYPES = {typed: name for typed, name in BY_TORCH_NAME.items() if name != "F64"}
#: In a file the tensors lie by dtype, the widest first, then by name.
_FILE_ORDER = tuple(DTYPES)


@dataclass(frozen=True)
class Output:
    """One tensor to be written: a copy of one in the file, or factor ``factor_index`` (0: A, 1: B) of ``module``."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    copied_from: Tensor | None = None
    module: EditableModule | None = None
    factor_index: int = 0

    @property
    def size(self) -> int:
        """How many bytes the tensor has in the file."""
        return math.prod(self.shape) * DTYPES[self.dtype].bits // 8


@dataclass(frozen=True)
class Plan:
    """What an export writes, but for the numbers: ``before`` is the adapter as read, ``changes`` say it in words."""

    before: EditableAdapter
    after: EditableAdapter
    document: Mapping[str, object]
    changes: tuple[str, ...]

    @cached_property
    def outputs(self) -> tuple[Output, ...]:
        """Every tensor to be written, by the name that PEFT gives it, in the order of the file."""
        dtype = self.after.dtype
        outputs = [_full_tensor_output(name, tensor, dtype) for name, tensor in self.after.full_tensors.items()]
        owners = module_names_in_file({name: module.shape for name, module in self.after.modules.items()})
        for name, module in self.after.modules.items():
            outputs += _module_outputs(owners[name], module, dtype)
        by_name = {output.name: output for output in outputs}
        return tuple(sorted(by_name.values(), key=lambda output: (_FILE_ORDER.index(output.dtype), output.name)))

    @cached_property
    def header(self) -> bytes:
        """The bytes of the safetensors file up to the first tensor."""
        document: dict[str, object] = {"__metadata__": {"format": "pt"}}
        position = 0
        for output in self.outputs:
            end = position + output.size
            document[output.name] = {
                "dtype": output.dtype,
                "shape": list(output.shape),
                "data_offsets": [position, end],
            }
            position = end
        encoded = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
        encoded += b" " * (-len(encoded) % 8)
        return len(encoded).to_bytes(8, "little") + encoded

    @property
    def size(self) -> int:
        """How many bytes the safetensors file has."""
        return len(self.header) + sum(output.size for output in self.outputs)

    @property
    def config_bytes(self) -> bytes:
        """The bytes of ``adapter_config.json``."""
        return dump_config(self.document)

    @property
    def is_machine_dependent(self) -> bool:
        """Whether some numbers may differ in their last bits from machine to machine: those of truncated modules."""
        return any(module.truncated_to for module in self.after.modules.values())


def plan_export(
    structure: AdapterStructure, profile: Profile, tensor_digests: TensorDigests | None, dtype: str | None = None
) -> Plan:
    """Change the adapter as far as the server of ``profile`` asks for it, and no further.

    ``tensor_digests`` are the tensors of its base by canonical name, None if the base is not known: then names cannot
    be compared, and modules are only added where a like one is there. Only what the server refuses or gets wrong is
    changed, not what makes it slow. ``dtype`` is a key of :data:`EXPORT_DTYPES` for every tensor, None leaves them. No
    weight
    is read. Raises CheckFailedError where a shape is not known.
    """
    before = after = load_editable(structure)
    errors = [rule for rule in profile.rules if EFFECTS[rule.effect][0] == Severity.ERROR]
    changes = []
    for transform in TRANSFORMS:
        values = {rule.condition: profile.value(rule) for rule in errors if rule.condition in transform.conditions}
        if values:
            after, change = transform.apply(after, values, tensor_digests)
            changes += [change] if change else []
    has_stacks = any(module.shape is not None and module.shape.stacked for module in structure.modules.values())
    document = set_ranks_and_scales(after) if changes or has_stacks else dict(after.document)
    if dtype is not None and any(tensor.dtype != EXPORT_DTYPES[dtype] for tensor in structure.tensors.values()):
        after = cast(after, EXPORT_DTYPES[dtype])
        changes.append(f"every tensor is {dtype}")
    document = prune_fields(remove_paths(document), profile.reads)
    if left_out := sorted(before.document.keys() - document.keys()):
        fields = f"{', '.join(left_out[:3])}" + (f" and {len(left_out) - 3} more" if len(left_out) > 3 else "")
        changes.append(f"fields left out of adapter_config.json: {fields}")
    return Plan(before, after, document, tuple(changes))


def _full_tensor_output(name: str, tensor: Tensor, dtype: str) -> Output:
    stored_as = dtype if dtype and tensor.dtype in FLOATS else tensor.dtype
    return Output(name, stored_as, tensor.shape, copied_from=tensor)


def _module_outputs(owner: str, module: EditableModule, dtype: str) -> Iterator[Output]:
    """Yield the tensors of a module that PEFT keeps under ``owner`` in the file."""
    factors = zip(module.shape.tensor_names, factor_shapes(module.shape), module.dtypes, strict=True)
    for index, (part, shape, factor_dtype) in enumerate(factors):
        source = (module.blocks[0].a, module.blocks[0].b)[index] if module.is_copied else None
        yield Output(factor_key(owner, part), factor_dtype, shape, source, module, index)
    for end, tensor in module.other_tensors.items():
        yield _full_tensor_output(f"{PREFIX}{owner}{end}", tensor, dtype)


def factor_shapes(shape: ModuleShape) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes in which the two factors lie in a file, that of A first."""
    if shape.kind == ModuleKind.EXPERTS:
        return (shape.matrices * shape.rank, shape.in_), (shape.out, shape.rank * shape.matrices)
    if shape.kind == ModuleKind.CONVOLUTION:
        return (shape.rank, *shape.kernel), (shape.out, shape.rank, *[1] * (len(shape.kernel) - 1))
    return (shape.rank, shape.in_), (shape.out, shape.rank)
