"""Names with wrappers in them are read as those that PEFT writes, wherever the wrappers stand."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loreg.adapters.config import LoraConfig, parse_config
from loreg.adapters.header import Tensor
from loreg.adapters.naming import KeyNaming, normalize_names
from loreg.errors import AdapterFormatError

PREFIX = "base_model.model."
WRAPPERS = ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"]
PART = st.from_regex(r"[a-z][a-z_]{0,6}|[0-9]{1,2}", fullmatch=True).filter(
    lambda part: not part.startswith("lora_") and part not in ("module", "base_model", "modules_to_save")
)
MODULES = st.lists(PART, min_size=2, max_size=5).map(".".join)
ENDINGS = [".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector", ".lora_embedding_A"]


def config(**fields: object) -> LoraConfig:
    return parse_config({"peft_type": "LORA", "target_modules": ["x"], **fields}, "a.json")


def read_names(names: list[str], **fields: object) -> tuple[dict[str, str], KeyNaming]:
    """Return the plain name of each tensor by its name in the file."""
    tensors = {name: Tensor(name, "F32", (2, 2), 0, 16) for name in names}
    plain, naming = normalize_names(Path("a.safetensors"), tensors, config(**fields))
    return {tensor.name: name for name, tensor in plain.items()}, naming


@given(modules=st.lists(MODULES, min_size=1, max_size=4, unique=True))
def test_the_names_that_peft_writes_stay_as_they_are(modules: list[str]):
    names = [PREFIX + module + ending for module in modules for ending in ENDINGS]
    assert read_names(names) == ({name: name for name in names}, KeyNaming())


@given(module=MODULES, ending=st.sampled_from(ENDINGS), data=st.data())
def test_wrappers_anywhere_in_a_name_are_taken_out(module: str, ending: str, data: st.DataObject):
    parts = (PREFIX + module).split(".")
    wrapped = []
    for part in parts:
        wrapped += [*data.draw(st.lists(st.sampled_from(WRAPPERS), max_size=2)), part]
    name = ".".join(wrapped) + ending
    names_by_key, naming = read_names([name])
    assert names_by_key == {name: PREFIX + module + ending}
    assert set(naming.wrappers) == {f"{part}." for part in wrapped if part in WRAPPERS}
    assert naming.plain is (wrapped == parts)


@given(module=MODULES, adapter=st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True).filter(lambda n: n != "weight"))
def test_the_adapters_name_is_taken_out_of_every_kind_of_key(module: str, adapter: str):
    kinds = {
        f"lora_A.{adapter}.weight": "lora_A.weight",
        f"lora_B.{adapter}.weight": "lora_B.weight",
        f"lora_B.{adapter}.bias": "lora_B.bias",
        f"lora_embedding_A.{adapter}": "lora_embedding_A",
        f"lora_magnitude_vector.{adapter}.weight": "lora_magnitude_vector",
        f"token_adapter.trainable_tokens_delta.{adapter}": "token_adapter.trainable_tokens_delta",
    }
    names_by_key, naming = read_names([f"{PREFIX}{module}.{kind}" for kind in kinds])
    assert names_by_key == {f"{PREFIX}{module}.{kind}": f"{PREFIX}{module}.{plain}" for kind, plain in kinds.items()}
    assert naming.adapter == adapter


@pytest.mark.parametrize(
    ("names", "plain"),
    [
        (["head.modules_to_save.default.weight"], "head.weight"),
        (["head.modules_to_save.weight"], "head.weight"),
        (["head.modules_to_save.default.dense.weight"], "head.dense.weight"),
        (["head.modules_to_save.mine.dense.weight", "head.original_module.dense.weight"], "head.dense.weight"),
        (["head.modules_to_save.dense.weight", "head.original_module.dense.weight"], "head.dense.weight"),
    ],
)
def test_the_trained_copy_of_a_module_has_the_modules_name(names: list[str], plain: str):
    names_by_key, naming = read_names([PREFIX + name for name in names])
    assert names_by_key == {PREFIX + names[0]: PREFIX + plain}
    assert naming.wrapped == (PREFIX + names[0],)
    assert naming.dropped == tuple(PREFIX + name for name in names[1:])


def test_what_peft_saved_twice_is_taken_under_its_plain_name():
    names = [f"{PREFIX}head.{inside}weight" for inside in ("", "modules_to_save.", "original_module.")]
    names_by_key, naming = read_names(names)
    assert names_by_key == {names[0]: names[0]}
    assert (naming.plain, naming.dropped) == (True, tuple(names[1:]))


def test_so_is_what_it_saved_twice_with_the_adapters_name():
    """With bias="all" PEFT saves a trained bias under both."""
    names = [f"{PREFIX}head.{inside}dense.bias" for inside in ("", "modules_to_save.default.", "original_module.")]
    names_by_key, naming = read_names(names)
    assert names_by_key == {names[0]: names[0]}
    assert naming == KeyNaming(dropped=tuple(names[1:]))


@pytest.mark.parametrize(
    "names",
    [
        [f"{PREFIX}q.lora_A.weight", f"{PREFIX}q.lora_A.default.weight"],
        [f"{PREFIX}q.lora_A.weight", f"{PREFIX}_orig_mod.q.lora_A.weight"],
        [f"ema.{PREFIX}q.lora_A.weight", f"{PREFIX}q.lora_A.weight"],
        [f"{PREFIX}h.modules_to_save.weight", f"{PREFIX}h.modules_to_save.default.weight"],
    ],
)
def test_two_names_of_one_tensor_are_refused_with_both(names: list[str]):
    with pytest.raises(AdapterFormatError, match="mean one tensor") as error:
        read_names(names)
    assert all(repr(name) in error.value.message for name in names)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"task_type": "CAUSAL_LM"}, "q"),
        ({"auto_mapping": {"base_model_class": "DistributedDataParallel"}}, "q"),
        ({"auto_mapping": {"base_model_class": "Wrapped"}}, "module.q"),
        ({"target_modules": ["module.q"]}, "module.q"),
        ({"target_modules": r"module\..*"}, "module.q"),
        ({"target_modules": "("}, "q"),
    ],
)
def test_a_part_that_is_called_module_is_the_models_own_where_its_configuration_says_so(fields: dict, expected: str):
    name = f"{PREFIX}module.q.lora_A.weight"
    assert read_names([name], **{"target_modules": ["q"], **fields})[0] == {name: f"{PREFIX}{expected}.lora_A.weight"}
