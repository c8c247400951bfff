"""The dtypes of safetensors files: their width, how NumPy and torch call them, which of them hold quantised weights.

The one table of the house. Imports neither NumPy nor torch, so that reading a header costs nothing.
"""

from __future__ import annotations

import msgspec


class Dtype(msgspec.Struct, frozen=True):
    """One dtype, by what safetensors calls it in :data:`DTYPES`.

    ``bits`` is the width of an element. Floating-point types that loreg computes with have a ``torch_name``, which is
    also what ``config.json`` says and what people type; a ``numpy`` code, under which their bytes are viewed (bf16 as
    the integers of its bits); and a ``precision``, the bits of the significand with the implicit one.
    ``quantised`` says that weights in it are codes or have 8 bits and fewer: alone they are not the weights.
    ``exponent`` has the bits that are all set in an element that is infinite or NaN, and in no other (IEEE 754).
    """

    bits: int
    torch_name: str = ""
    numpy: str = ""
    precision: int = 0
    quantised: bool = False
    exponent: int = 0

    @property
    def unsigned(self) -> str:
        """NumPy's code of the unsigned integers of this width; empty where an element is no whole byte."""
        return f"<u{self.bits // 8}" if self.bits % 8 == 0 else ""


#: In the order in which safetensors writes them: its own ``Dtype``, the last first.
DTYPES = {
    "U64": Dtype(64),
    "I64": Dtype(64),
    "F64": Dtype(64, "float64", "<f8", 53, exponent=0x7FF0_0000_0000_0000),
    "C64": Dtype(64),
    "F32": Dtype(32, "float32", "<f4", 24, exponent=0x7F80_0000),
    "U32": Dtype(32, quantised=True),
    "I32": Dtype(32, quantised=True),
    "BF16": Dtype(16, "bfloat16", "<u2", 8, exponent=0x7F80),
    "F16": Dtype(16, "float16", "<f2", 11, exponent=0x7C00),
    "U16": Dtype(16),
    "I16": Dtype(16),
    "F8_E8M0": Dtype(8, quantised=True),
    # Has no infinity: NaN alone is all ones (OCP 8-bit floating point, §5.2).
    "F8_E4M3": Dtype(8, quantised=True, exponent=0x7F),
    "F8_E5M2": Dtype(8, quantised=True, exponent=0x7C),
    "I8": Dtype(8, quantised=True),
    "U8": Dtype(8, quantised=True),
    "F6_E3M2": Dtype(6, quantised=True),
    "F6_E2M3": Dtype(6, quantised=True),
    "F4": Dtype(4, quantised=True),
    "BOOL": Dtype(8),
}
#: The floating-point types that loreg computes with, as messages list them.
FLOATS = ("F64", "F32", "F16", "BF16")
#: Types whose numbers are codes or have 8 bits and fewer.
QUANTISED = frozenset(name for name, dtype in DTYPES.items() if dtype.quantised)
#: The floating-point types by torch's names, which people type.
BY_TORCH_NAME = {DTYPES[name].torch_name: name for name in FLOATS}
