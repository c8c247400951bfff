"""A base is its numbers, however they are stored."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from loreg.bases.identify import identify, identify_headers
from loreg.bases.model import read_model
from loreg.errors import AdapterFormatError, ConflictError, IntegrityError, NotFoundError


def digest(path: Path) -> str:
    return identify(path).base.digest


def model(dtype: torch.dtype = torch.bfloat16) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {f"layer.{i}.weight": torch.randn(5, 3).to(torch.bfloat16).to(dtype) for i in range(4)}


def write(folder: Path, tensors: dict[str, torch.Tensor], name: str = "model.safetensors", **metadata: str) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / name, metadata or None)
    return folder


@pytest.fixture
def original(tmp_path: Path) -> str:
    return digest(write(tmp_path / "original", model()))


def test_an_upcast_is_the_same_base(tmp_path: Path, original: str):
    assert digest(write(tmp_path / "f32", model(torch.float32))) == original
    assert digest(write(tmp_path / "f64", model(torch.float64))) == original


def test_float16_is_the_same_as_its_upcast(tmp_path: Path):
    half = {"w": torch.randn(7, 5).half()}
    assert digest(write(tmp_path / "f16", half)) == digest(write(tmp_path / "f32", {"w": half["w"].float()}))


def test_shards_names_and_metadata_do_not_matter(tmp_path: Path, original: str):
    tensors = list(model().items())
    folder = write(tmp_path / "sharded", dict(tensors[:1]), "model-00001-of-00002.safetensors", format="pt", by="me")
    write(folder, dict(tensors[1:]), "model-00002-of-00002.safetensors")
    assert digest(folder) == original
    names = {n: f"model-0000{1 if n == tensors[0][0] else 2}-of-00002.safetensors" for n, _ in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    write(folder, {"other": torch.ones(1)}, "not-of-the-model.safetensors")
    assert digest(folder) == original


def test_a_single_file_is_a_model_too(tmp_path: Path, original: str):
    assert digest(write(tmp_path / "one", model()) / "model.safetensors") == original


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tensor=st.integers(0, 3),
    element=st.integers(0, 14),
    bit=st.integers(0, 31),
    dtype=st.sampled_from([torch.bfloat16, torch.float16, torch.float32]),
)
def test_one_flipped_bit_is_another_base(tmp_path: Path, tensor: int, element: int, bit: int, dtype: torch.dtype):
    folder = write(tmp_path / "flip", model(dtype))
    before = digest(folder)
    tensors = load_file(folder / "model.safetensors")
    integers = tensors[f"layer.{tensor}.weight"].view(torch.int32 if dtype == torch.float32 else torch.int16).view(-1)
    width = 32 if dtype == torch.float32 else 16
    flipped = (int(integers[element]) ^ (1 << (bit % width))) % (1 << width)
    integers[element] = flipped - (1 << width) if flipped >= 1 << (width - 1) else flipped
    write(folder, tensors)
    assert digest(folder) != before


@pytest.mark.parametrize(
    "change",
    [
        {"layer.0.weight": torch.ones(3, 5)},
        {"renamed": torch.ones(1)},
        {"layer.0.weight": torch.ones(5, 3, dtype=torch.int32)},
    ],
)
def test_other_shapes_names_and_kinds_are_another_base(tmp_path: Path, original: str, change: dict):
    assert digest(write(tmp_path / "other", {**model(), **change})) != original


def test_a_value_that_only_a_wider_type_holds_widens_only_its_tensor(tmp_path: Path):
    tensors = {**model(torch.float32), "fine": torch.tensor([1.0 + 2**-23])}
    tensor_digests = json.loads(identify(write(tmp_path / "m", tensors)).tensor_list)["tensors"]
    assert {name: tensor["dtype"] for name, tensor in tensor_digests.items()} == {
        **dict.fromkeys(model(), "BF16"),
        "fine": "F32",
    }
    wider = write(tmp_path / "w", {"x": torch.tensor([1.0 + 2**-40], dtype=torch.float64)})
    assert json.loads(identify(wider).tensor_list)["tensors"]["x"]["dtype"] == "F64"


def test_nan_and_infinity_survive_the_narrowing(tmp_path: Path):
    values = torch.tensor([float("nan"), float("inf"), -0.0, 1e-40], dtype=torch.bfloat16)
    dtypes = (torch.bfloat16, torch.float32)
    digests = {digest(write(tmp_path / str(dtype)[6:], {"x": values.to(dtype)})) for dtype in dtypes}
    assert len(digests) == 1


def test_the_real_minilm(minilm: Path):
    identity = identify(minilm, ("minilm",))
    reference = load_file(minilm / "model.safetensors")
    assert identity.base.tensors == len(reference)
    assert identity.base.parameters == sum(tensor.numel() for tensor in reference.values())


def test_progress_ends_at_the_size_of_all_tensors(tmp_path: Path):
    calls: list[tuple[str, int, int]] = []
    identify(write(tmp_path / "m", model()), (), lambda *call: calls.append(call))
    assert calls[-1][1] == calls[-1][2] == 4 * 15 * 2


def test_what_is_no_model_is_refused(tmp_path: Path):
    with pytest.raises(NotFoundError, match="there is no model at"):
        identify(tmp_path)
    with pytest.raises(NotFoundError):
        identify(tmp_path / "nowhere")
    for name in ("pytorch_model.bin", "consolidated.00.pth"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(AdapterFormatError, match="as a pickle"):
            identify(tmp_path)
        (tmp_path / name).unlink()
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(IntegrityError):
        identify(tmp_path)


def test_a_tied_head_that_was_saved_is_the_same_base(tmp_path: Path):
    embedding = torch.randn(6, 4)
    tied = {"model.embed_tokens.weight": embedding, "model.norm.weight": torch.ones(4)}
    with_head = write(tmp_path / "head", {**tied, "lm_head.weight": embedding.clone()})
    assert digest(with_head) == digest(write(tmp_path / "tied", tied))
    untied = write(tmp_path / "untied", {**tied, "lm_head.weight": embedding + torch.eye(6, 4)})
    assert digest(untied) != digest(with_head)
    assert identify(untied).base.struct == identify(with_head).base.struct


def test_a_wrapper_does_not_change_the_base(tmp_path: Path):
    plain = {"model.layers.0.q_proj.weight": torch.randn(4, 4), "lm_head.weight": torch.randn(6, 4)}
    wrapped = {"model.language_model.layers.0.q_proj.weight": plain["model.layers.0.q_proj.weight"]}
    wrapped["lm_head.weight"] = plain["lm_head.weight"]
    assert digest(write(tmp_path / "new", wrapped)) == digest(write(tmp_path / "plain", plain))


def test_the_structure_is_shapes_and_what_they_do_not_say(tmp_path: Path):
    def struct(folder: Path) -> str:
        return identify(folder).base.struct

    one = write(tmp_path / "one", model())
    two = write(tmp_path / "two", {name: tensor + 1 for name, tensor in model(torch.float32).items()})
    assert struct(one) == struct(two)
    assert identify_headers(read_model(two)).base.struct == struct(two)
    (two / "config.json").write_text('{"num_attention_heads": 8}')
    assert struct(one) != struct(two)
    (one / "config.json").write_text('{"num_attention_heads": 8, "num_key_value_heads": 8, "dtype": "float32"}')
    assert struct(one) == struct(two)


def test_what_was_hashed_once_is_remembered_until_the_file_changes(tmp_path: Path):
    folder, cache = write(tmp_path / "m", model()), tmp_path / "cache"
    first = identify(folder, cache_folder=cache)
    calls: list[int] = []
    again = identify(folder, (), lambda what, done, total: calls.append(done), cache)
    assert again == first
    assert calls == []
    write(folder, {name: tensor + 1 for name, tensor in model().items()})
    assert identify(folder, cache_folder=cache).base.digest == digest(folder) != first.base.digest
    entry = next(cache.iterdir())
    entry.write_text("{")
    assert identify(folder, cache_folder=cache).base.digest == digest(folder)


def test_a_model_larger_than_a_buffer_is_hashed_as_a_whole(tmp_path: Path):
    """Against hashlib on the whole tensor: bf16 as it lies, a float32 that is no bf16 from its very last number."""
    bf16 = torch.randn(3, 700_001).to(torch.bfloat16)
    f32 = bf16.float()
    f32[-1, -1] = 1 + 2**-20
    folder = write(tmp_path / "m", {"a": bf16, "b": f32})
    tensor_digests = json.loads(identify(folder).tensor_list)["tensors"]
    for name, kind, tensor in (("a", "BF16", bf16.view(torch.int16)), ("b", "F32", f32)):
        expected = hashlib.sha256(f"{kind} [3, 700001]\n".encode() + tensor.numpy().tobytes()).hexdigest()
        assert tensor_digests[name] == {"dtype": kind, "shape": [3, 700001], "sha256": expected}


def test_a_tensor_in_two_shards_is_a_conflict(tmp_path: Path):
    folder = write(tmp_path / "m", model(), "a.safetensors")
    write(folder, model(), "b.safetensors")
    with pytest.raises(ConflictError, match="twice"):
        identify(folder)


def test_an_index_that_lies_and_a_missing_shard_are_refused(tmp_path: Path):
    folder = write(tmp_path / "m", model())
    index = folder / "model.safetensors.index.json"
    weight_map = dict.fromkeys(model(), "model.safetensors")
    index.write_text(json.dumps({"weight_map": {**weight_map, "phantom": "model.safetensors"}}))
    with pytest.raises(IntegrityError, match="it has 'phantom' in model"):
        identify(folder)
    index.write_text(json.dumps({"weight_map": dict(list(weight_map.items())[1:])}))
    with pytest.raises(IntegrityError, match=r"it has 'layer\.0\.weight' in no shard"):
        identify(folder)
    index.write_text(json.dumps({"weight_map": {**weight_map, "x": "model-00002.safetensors"}}))
    with pytest.raises(NotFoundError, match=r"the shard model-00002\.safetensors is missing"):
        identify(folder)


@pytest.mark.parametrize("index", ["{", "{}", '{"weight_map": {"x": "../../etc/passwd"}}', "[]"])
def test_an_index_that_is_wrong_is_refused(tmp_path: Path, index: str):
    folder = write(tmp_path / "m", model())
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(AdapterFormatError, match="has no weight_map"):
        identify(folder)
