"""The table of dtypes against safetensors, torch and NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from loreg.adapters.dtypes import BY_TORCH_NAME, DTYPES, FLOATS
from loreg.adapters.header import read_header

STORED = (
    "uint64", "int64", "float64", "complex64", "float32", "uint32", "int32", "bfloat16", "float16", "uint16", "int16",
    "float8_e8m0fnu", "float8_e4m3fn", "float8_e5m2", "int8", "uint8", "bool",
)  # fmt: skip


def test_widths_and_the_order_in_a_file_are_those_of_safetensors(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    save_file({name: torch.zeros(3, dtype=getattr(torch, name)) for name in STORED}, path)
    tensors = sorted(read_header(path).tensors.values(), key=lambda tensor: tensor.start)
    assert [DTYPES[tensor.dtype].bits * 3 // 8 for tensor in tensors] == [t.end - t.start for t in tensors]
    order = [list(DTYPES).index(tensor.dtype) for tensor in tensors]
    assert order == sorted(order)
    assert len(set(order)) == len(STORED)
    assert {name for name in DTYPES if DTYPES[name].bits % 8 == 0} == {tensor.dtype for tensor in tensors}


def test_floats_are_torchs(tmp_path: Path):
    assert {name for name, dtype in DTYPES.items() if dtype.torch_name} == set(FLOATS)
    path = tmp_path / "x.safetensors"
    save_file({typed: torch.zeros(1, dtype=getattr(torch, typed)) for typed in BY_TORCH_NAME}, path)
    assert {typed: tensor.dtype for typed, tensor in read_header(path).tensors.items()} == BY_TORCH_NAME
    for name in FLOATS:
        assert 2.0 ** (1 - DTYPES[name].precision) == torch.finfo(getattr(torch, DTYPES[name].torch_name)).eps
        assert np.dtype(DTYPES[name].numpy).itemsize * 8 == DTYPES[name].bits
