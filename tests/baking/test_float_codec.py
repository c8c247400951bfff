"""Rounding without torch is torch's rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loreg.baking.float_codec import NUMPY_DTYPES, Scratch, decode, encode

TORCH = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def bits(tensor: torch.Tensor) -> np.ndarray:
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.view(integers[tensor.element_size()]).numpy()


def same(actual: np.ndarray, expected: torch.Tensor) -> bool:
    """To the bit, but that one NaN is as good as another."""
    expected_bits = bits(expected)
    return bool(((actual.view(expected_bits.dtype) == expected_bits) | torch.isnan(expected).numpy()).all())


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32", "F64"])
@given(seed=st.integers(0, 2**32 - 1))
def test_rounding_is_to_nearest_even_for_any_bits(dtype: str, seed: int):
    single = np.random.default_rng(seed).integers(0, 2**32, 400, dtype=np.uint32).view(np.float32)
    expected = torch.from_numpy(single.copy()).to(TORCH[dtype])
    assert same(encode(single.copy(), dtype, Scratch()), expected)
    assert np.isnan(single[torch.isnan(expected).numpy()]).all()


def test_ties_go_to_the_even_neighbour():
    halfway = np.array([1 + 2**-8, 1 + 3 * 2**-8, -(1 + 2**-8), 1 + 2**-8 + 2**-20], np.float32)
    assert same(encode(halfway, "BF16", Scratch()), torch.from_numpy(halfway).bfloat16())


def test_float64_is_rounded_once():
    """In two steps the first number would be rounded down, to the tie, and then to even: down again."""
    number = np.array([1 + 2**-8 + 2**-40, 1 + 3 * 2**-8 - 2**-40, -(1 + 2**-8 + 2**-40), 1e300, np.inf])
    rounded = decode(encode(number, "BF16", Scratch()), "BF16", np.dtype(np.float64), Scratch())
    assert rounded.tolist() == [1 + 2**-7, 1 + 2**-7, -(1 + 2**-7), np.inf, np.inf]


@pytest.mark.parametrize("wide", [np.float32, np.float64])
@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_every_stored_number_comes_back(dtype: str, wide: type):
    stored = np.arange(2**16, dtype=np.uint16) if dtype != "F32" else np.arange(0, 2**32, 65521, dtype=np.uint32)
    stored = stored.view(NUMPY_DTYPES[dtype])
    numbers = decode(stored, dtype, np.dtype(wide), Scratch())
    expected = torch.from_numpy(stored.view(np.int16 if dtype != "F32" else np.int32)).view(TORCH[dtype])
    widened = expected.to(torch.float32 if wide == np.float32 else torch.float64)
    assert same(numbers, widened)
    again = encode(numbers.copy(), dtype, Scratch())
    assert same(again, expected)
