"""Read the factors of an adapter in float64 with NumPy, one module at a time: what identifying needs, without torch.

Shapes: E matrices (experts, else 1), out and in of the module, r the rank.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from loreg.adapters.dtypes import FLOATS
from loreg.adapters.header import Tensor
from loreg.adapters.module import Module
from loreg.adapters.module_shape import as_matrices
from loreg.adapters.structure import AdapterStructure
from loreg.baking.float_codec import NUMPY_DTYPES, Scratch, decode, read_into

Array = NDArray[Any]
_FLOAT64 = np.dtype(np.float64)


@dataclass(frozen=True)
class Factors:
    """The factors of one module as they are in the file, ``b (E, out, r)`` and ``a (E, r, in)``, and their scale."""

    b: Array
    a: Array
    scale: float


@dataclass(frozen=True)
class FactorFile:
    """The weights of an adapter, open to be read."""

    structure: AdapterStructure
    _stream: BinaryIO

    @property
    def modules(self) -> dict[str, Module]:
        """The modules whose factors can be read, by name."""
        return {name: module for name, module in self.structure.modules.items() if is_readable(module)}

    def read(self, name: str) -> Factors:
        """Return the factors of the module ``name``, one of :attr:`modules`, in float64."""
        module = self.structure.modules[name]
        shape = module.shape
        if shape is None:
            raise ValueError(f"{name} has no shape")
        a, b = (self.numbers(module.tensors[part]) for part in shape.tensor_names)
        b, a = as_matrices(shape, a, b)
        return Factors(b, a, module.scale)

    def numbers(self, tensor: Tensor) -> Array:
        """Return the numbers of a tensor in its own shape, in float64."""
        stored = np.empty(tensor.parameters, NUMPY_DTYPES[tensor.dtype])
        read_into(self._stream.fileno(), tensor.start, stored, str(self.structure.weights))
        return decode(stored, tensor.dtype, _FLOAT64, Scratch()).reshape(tensor.shape)


def is_readable(module: Module) -> bool:
    """Return whether the tensors of a module are factors, of dtypes that loreg computes with."""
    shape = module.shape
    return shape is not None and all(module.tensors[part].dtype in FLOATS for part in shape.tensor_names)


@contextlib.contextmanager
def open_factors(structure: AdapterStructure) -> Iterator[FactorFile]:
    """Open the weights of an adapter until the context ends; nothing is read yet."""
    with structure.weights.open("rb", buffering=0) as stream:
        yield FactorFile(structure, stream)


def singular_values(factors: Factors) -> Array:
    """Return the singular values (E, k) of the deltas, from the triangles of two QR decompositions."""
    left: Any = np.linalg.qr(factors.scale * factors.b, mode="r")
    right: Any = np.linalg.qr(factors.a.swapaxes(1, 2), mode="r")
    values: Array = np.linalg.svd(left @ right.swapaxes(1, 2), compute_uv=False)
    return values
