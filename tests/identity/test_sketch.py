"""A sketch is what docs/format.md says it is, and tells deltas apart whatever their factors and dtypes are."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import module_kinds
from deployments import HISTORY, MOVIES, NEWS, SCIENCE
from factories import change_config, change_tensors, copy, deltas_by_hand, train
from loreg.adapters.structure import read_structure
from loreg.adapters.tensors import open_adapter
from loreg.entities import Sketch
from loreg.identity.sketch import cosine, decode_vector, sign_words, sketch_adapter

WEIGHTS = "adapter_model.safetensors"


def sketch(folder: Path) -> Sketch:
    return sketch_adapter(read_structure(folder))


def vector(folder: Path) -> np.ndarray:
    return decode_vector(sketch(folder).vector)


def signs_by_the_page(module: str, side: str, places: int, matrix: int = 0) -> np.ndarray:
    """The probes (256, places) of a side, one bit at a time, as the page defines them."""
    width = min(places, 256)
    key = f"loreg.sketch/1\0{module}\0{matrix}\0{side}\0{places}".encode()
    head, row = (places + 7) // 8, (width + 7) // 8
    stream = hashlib.shake_128(key).digest(head + 256 * row)

    def sign(offset: int, bit: int) -> int:
        return -1 if stream[offset + bit // 8] >> (bit % 8) & 1 else 1

    return np.array(
        [[sign(0, i) * sign(head + j * row, i % width) for i in range(places)] for j in range(256)], np.float64
    )


def sketch_by_the_page(folder: Path) -> np.ndarray:
    """The numbers of a sketch from dense deltas."""
    total = np.zeros(256)
    for module, delta in deltas_by_hand(folder).items():
        u, v = (signs_by_the_page(module, side, n) for side, n in zip(("out", "in"), delta.shape, strict=True))
        total += np.einsum("jo,oi,ji->j", u, delta.numpy(), v, optimize=True)
    return total


@pytest.mark.parametrize("folder", [NEWS, SCIENCE], ids=lambda folder: folder.name)
def test_the_numbers_are_those_of_the_dense_deltas_with_the_probes_of_the_page(folder: Path):
    expected = sketch_by_the_page(folder)
    actual = vector(folder)
    assert np.linalg.norm(actual - expected) < 1e-6 * np.linalg.norm(expected)


def test_the_norm_is_that_of_all_deltas(tmp_path: Path):
    for folder in (NEWS, train(tmp_path / "one", 1, r=2)):
        expected = sum(float(delta.square().sum()) for delta in deltas_by_hand(folder).values()) ** 0.5
        assert sketch(folder).norm == pytest.approx(expected, rel=1e-9)


def test_the_digest_of_the_data_is_the_sha256_of_what_follows_the_header_and_new_metadata_leaves_it(tmp_path: Path):
    content = (NEWS / WEIGHTS).read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    assert sketch(NEWS).data == hashlib.sha256(content[8 + length :]).hexdigest()
    other = copy(NEWS, tmp_path / "other")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = {"format": "pt", "ss_output_name": "mine"}
    text = json.dumps(header).encode()
    (other / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    assert sketch(other) == sketch(NEWS)


def test_it_does_not_depend_on_how_a_delta_is_factored_and_hardly_on_the_dtype(tmp_path: Path):
    tensors = load_file(SCIENCE / WEIGHTS)
    torch.manual_seed(0)
    mix = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64))[0] * 3
    mixed = {n: t.double() @ mix if "lora_B" in n else mix.inverse() @ t.double() for n, t in tensors.items()}
    refactored = vector(change_tensors(copy(SCIENCE, tmp_path / "refactored"), mixed))
    assert 1 - cosine(vector(SCIENCE), refactored) < 1e-12
    rounded = change_tensors(copy(SCIENCE, tmp_path / "bf16"), {n: t.bfloat16() for n, t in tensors.items()})
    assert 1 - cosine(vector(SCIENCE), vector(rounded)) < 1e-4
    alpha = json.loads((SCIENCE / "adapter_config.json").read_text())["lora_alpha"]
    doubled = change_config(copy(SCIENCE, tmp_path / "doubled"), lora_alpha=2 * alpha)
    assert np.allclose(vector(doubled), 2 * vector(SCIENCE), rtol=1e-6)


def test_it_estimates_the_cosine_of_two_deltas(tmp_path: Path):
    folders = [NEWS, MOVIES, *(train(tmp_path / str(seed), seed) for seed in range(40))]
    errors = []
    for pair in [(NEWS, MOVIES), (SCIENCE, HISTORY), *((folders[i], folders[i + 1]) for i in range(2, 41))]:
        one, other = map(deltas_by_hand, pair)
        shared = one.keys() & other.keys()
        inner = sum(float((one[m] * other[m]).sum()) for m in shared)
        norms = [sum(float(d.square().sum()) for d in deltas.values()) ** 0.5 for deltas in (one, other)]
        errors.append(cosine(*map(vector, pair)) - inner / (norms[0] * norms[1]))
    # 256 products of mean ⟨Δ, Δ'⟩: the standard error is 1/16, somewhat more for deltas of low rank.
    assert np.sqrt(np.mean(np.square(errors))) < 2 / 16
    assert abs(np.mean(errors)) < 3 * 2 / 16 / len(errors) ** 0.5


@pytest.mark.parametrize("form", module_kinds.FORMS)
def test_every_kind_of_module_is_sketched_as_the_matrices_that_it_is(form: str, tmp_path: Path):
    targets, options = module_kinds.FORMS[form]
    structure = read_structure(module_kinds.train(tmp_path / "a", 3, targets, **options))
    total, energy = np.zeros(256), 0.0
    with open_adapter(structure) as adapter:
        for module in structure.modules:
            factors = adapter.factors(module)
            deltas = (adapter.scale(module) * factors.b.double() @ factors.a.double()).numpy()
            for matrix, delta in enumerate(deltas):
                u, v = (
                    signs_by_the_page(module, s, n, matrix) for s, n in zip(("out", "in"), delta.shape, strict=True)
                )
                total += np.einsum("jo,oi,ji->j", u, delta, v, optimize=True)
                energy += float(np.square(delta).sum())
    assert np.allclose(decode_vector(sketch_adapter(structure).vector), total, rtol=1e-5, atol=1e-6)
    assert sketch_adapter(structure).norm == pytest.approx(energy**0.5, rel=1e-9)


def test_an_adapter_whose_numbers_are_codes_has_a_digest_and_no_vector(tmp_path: Path):
    folder = train(tmp_path / "plain", 1)
    name, tensor = next(iter(load_file(folder / WEIGHTS).items()))
    quantised = change_tensors(copy(folder, tmp_path / "quantised"), {name: tensor.to(torch.float8_e4m3fn)})
    assert (sketch(quantised).vector, sketch(quantised).norm) == ("", 0)
    assert sketch(quantised).data != sketch(folder).data


def test_the_signs_are_the_bits_of_four_integers():
    numbers = np.arange(1, 257, dtype=np.float64)
    numbers[[0, 65, 255]] *= -1
    assert sign_words(numbers) == (1, 2, 0, -(2**63))


def test_the_text_of_a_vector_is_base64_of_little_endian_floats():
    numbers = struct.unpack("<256f", base64.b64decode(sketch(NEWS).vector))
    assert list(numbers) == list(vector(NEWS))
