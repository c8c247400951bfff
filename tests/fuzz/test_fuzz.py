"""Headers, configurations and cards from a stranger: no crash, no hang, no bomb. More of them in the slow tests."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from deployments import DORA, NEWS, SCIENCE
from fuzz.targets import bounded, look, look_at_bytes, to_bytes

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())


def documents(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Configuration and header of a real adapter; of the header the first few tensors."""
    raw = (folder / "adapter_model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    header.pop("__metadata__", None)
    return json.loads((folder / "adapter_config.json").read_text()), dict(list(header.items())[:6])


REAL = [documents(folder) for folder in (SCIENCE, NEWS, DORA)]
NAMES = sorted({name for _, header in REAL for name in header})
FIELDS = sorted({name for config, _ in REAL for name in config})
DTYPES = ["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I64", "U8", "BOOL", "F4", "C64"]
texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from([*NAMES, *FIELDS, "LORA", "all-linear", "none", "pissa", "/a", "C:\\x", r"(a+)+$", ".*", "q_proj"]),
)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.integers(0, 64), st.floats(), texts)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)
shapes = st.lists(st.integers(0, 40), max_size=4)
modules = st.sampled_from(["a.0.q_proj", "a.1.q_proj", "a.0.v_proj", "lm_head", "embed_tokens", "x", "", "é.1."])
ends = st.sampled_from([
    ".lora_A.weight", ".lora_B.weight", ".lora_B.bias", ".lora_embedding_A", ".lora_embedding_B", ".weight", ".bias",
    ".lora_magnitude_vector", ".base_layer.lora_A.weight", ".base_layer.bias", "", ".lora_", "\x07",
])  # fmt: skip
made_up = st.builds(lambda module, end: f"base_model.model.{module}{end}", modules, ends)
tensor_names = st.one_of(st.sampled_from(NAMES), made_up, texts)


@st.composite
def headers(draw: st.DrawFn) -> dict[str, Any]:
    """Sound headers of odd tensors, a third of them with something broken."""
    header: dict[str, Any] = {}
    at = 0
    for name in draw(st.lists(tensor_names, max_size=8, unique=True)):
        dtype, shape = draw(st.sampled_from(DTYPES)), draw(shapes)
        bits = {"F64": 64, "F32": 32, "I64": 64, "C64": 64, "F4": 4, "F16": 16, "BF16": 16}.get(dtype, 8)
        size = bits
        for n in shape:
            size *= n
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size // 8]}
        at += size // 8
    if header and draw(st.integers(0, 2)) == 0:
        entry = header[draw(st.sampled_from(sorted(header)))]
        entry[draw(st.sampled_from(["dtype", "shape", "data_offsets", "more"]))] = draw(anything)
    if draw(st.integers(0, 9)) == 0:
        header["__metadata__"] = draw(anything)
    return header


@st.composite
def configurations(draw: st.DrawFn) -> Any:
    """Real configurations with fields changed; now and then anything at all."""
    if draw(st.integers(0, 19)) == 0:
        return draw(anything)
    config = dict(draw(st.sampled_from(REAL))[0])
    for name in draw(st.lists(st.sampled_from(FIELDS) | texts, max_size=4)):
        config[name] = draw(anything)
    return config


cards = st.one_of(st.just(""), st.builds(lambda text: f"---\n{text}\n---\n", st.text(max_size=60)))
quick = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
# The phases that look for new cases; shrinking is for those who read a failure.
thorough = settings(
    quick,
    max_examples=int(os.environ.get("LOREG_FUZZ_CASES", "4000")),
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)


def try_headers(header: dict[str, Any], config: Any, card: str) -> None:
    with bounded():
        look_at_bytes(to_bytes(config, header, card))


def try_configurations(config: Any, real: int) -> None:
    with bounded():
        look_at_bytes(to_bytes(config, REAL[real][1]))


test_odd_headers = quick(given(headers(), configurations(), cards)(try_headers))
test_odd_configurations = quick(given(configurations(), st.integers(0, 2))(try_configurations))
test_more_odd_headers = pytest.mark.slow(thorough(given(headers(), configurations(), cards)(try_headers)))
test_more_odd_configurations = pytest.mark.slow(
    thorough(given(configurations(), st.integers(0, 2))(try_configurations))
)


@quick
@given(st.binary(max_size=200), st.integers(0, 2**64 - 1), st.integers(0, 400))
def test_any_bytes(raw: bytes, length: int, size: int):
    with bounded():
        look(b'{"peft_type": "LORA"}', struct.pack("<Q", length) + raw, size)
        look(raw, struct.pack("<Q", len(raw)) + raw, len(raw) + 8, raw.decode(errors="replace"))


@pytest.mark.parametrize("case", CORPUS, ids=lambda path: path.name)
def test_the_corpus_of_the_coverage_guided_fuzzer(case: Path):
    """`make fuzz` finds such cases and keeps one for every branch that it reached."""
    with bounded():
        look_at_bytes(case.read_bytes())


def test_the_corpus_reaches_the_rules():
    codes = {finding.code for case in CORPUS for finding in look_at_bytes(case.read_bytes())}
    assert {"LR001", "LR002", "LR003", "LR004", "LR006", "LR007", "LR009", "LR014", "LR015", "LR016"} <= codes


def test_a_hang_and_a_bomb_would_be_found():
    with pytest.raises(TimeoutError), bounded():
        while True:
            pass
