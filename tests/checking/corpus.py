"""Broken and odd adapters, made from real ones: one for every rule and way of breaking it, with the codes it must get.

Each takes a folder that holds a copy of the real science adapter for SmolLM2 (rank 8, q and v of 30 layers) and breaks
it, unless it says that it starts from another.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from deployments import DORA, MOVIES, NEWS, SCIENCE
from factories import change_config, change_tensors

PREFIX = "base_model.model."
Q0 = f"{PREFIX}model.layers.0.self_attn.q_proj"
V0 = f"{PREFIX}model.layers.0.self_attn.v_proj"
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class Case:
    """How to break a copy of ``start``, and exactly which codes ``loreg check`` then gives with these options."""

    codes: str
    breaking: Callable[[Path], object]
    start: Path = SCIENCE
    options: Mapping[str, Any] = field(default_factory=dict)


def tensors(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / WEIGHTS)


def write(folder: Path, weights: Mapping[str, Tensor]) -> None:
    save_file(dict(weights), folder / WEIGHTS, {"format": "pt"})


def renamed(change: Callable[[str], str]) -> Callable[[Path], object]:
    return lambda f: write(f, {change(name): tensor for name, tensor in tensors(f).items()})


def number(
    value: float, dtype: torch.dtype = torch.float32, name: str = f"{Q0}.lora_A.weight"
) -> Callable[[Path], object]:
    """One number of one tensor."""

    def change(folder: Path) -> None:
        tensor = tensors(folder)[name].to(dtype)
        tensor.view(-1)[7] = value
        change_tensors(folder, {name: tensor})

    return change


def tensor(name: str, value: Tensor | None) -> Callable[[Path], object]:
    return lambda f: change_tensors(f, {name: value})


def config(**fields: Any) -> Callable[[Path], object]:
    return lambda f: change_config(f, **fields)


def every_b(change: Callable[[Tensor], Tensor]) -> Callable[[Path], object]:
    return lambda f: change_tensors(f, {n: change(t) for n, t in tensors(f).items() if "lora_B" in n})


def both(*changes: Callable[[Path], object]) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        for breaking in changes:
            breaking(folder)

    return change


def text(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda f: (f / name).write_bytes(content)


def header(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """The header of the file with something changed; the data stay as they are."""

    def broken(folder: Path) -> None:
        raw = (folder / WEIGHTS).read_bytes()
        (length,) = struct.unpack("<Q", raw[:8])
        document = json.loads(raw[8 : 8 + length])
        change(document)
        new = json.dumps(document).encode()
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(new)) + new + raw[8 + length :])

    return broken


def raw(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda f: (f / WEIGHTS).write_bytes(change((f / WEIGHTS).read_bytes()))


def entry(**fields: Any) -> Callable[[Path], object]:
    return header(lambda document: document[f"{Q0}.lora_A.weight"].update(fields))


def called(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda document: document.update({name: document.pop(f"{Q0}.lora_A.weight")})


def swap_offsets(document: dict[str, Any]) -> None:
    first, second = f"{Q0}.lora_A.weight", f"{Q0}.lora_B.weight"
    document[first]["data_offsets"] = document[second]["data_offsets"]


UNREADABLE: dict[str, Case] = {
    "no weights": Case("LR000", lambda f: (f / WEIGHTS).unlink()),
    "no configuration": Case("LR000", lambda f: (f / CONFIG).unlink()),
    "weights are a folder": Case("LR000", lambda f: ((f / WEIGHTS).unlink(), (f / WEIGHTS).mkdir())),
    "weights are empty": Case("LR000", text(WEIGHTS, b"")),
    "weights are seven bytes": Case("LR000", text(WEIGHTS, b"1234567")),
    "weights are text": Case("LR000", text(WEIGHTS, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")),
    "weights are a pickle": Case("LR000", text(WEIGHTS, b"\x80\x02}q\x00.")),
    "only a pickle": Case("LR000", lambda f: (f / WEIGHTS).rename(f / "adapter_model.bin")),
    "data is cut short": Case("LR000", raw(lambda b: b[:-1])),
    "data is cut in half": Case("LR000", raw(lambda b: b[: len(b) // 2])),
    "data is followed by more": Case("LR000", raw(lambda b: b + b"x")),
    "the header is cut short": Case("LR000", raw(lambda b: b[:100])),
    "the header's length is huge": Case("LR000", raw(lambda b: struct.pack("<Q", 2**63) + b[8:])),
    "the header's length is zero": Case("LR000", raw(lambda b: bytes(8) + b[8:])),
    "the header is not JSON": Case("LR000", raw(lambda b: b[:8] + b"[" + b[9:])),
    "the header is not UTF-8": Case("LR000", raw(lambda b: b[:8] + b"\xff\xfe" + b[10:])),
    "the header is a list": Case("LR000", text(WEIGHTS, struct.pack("<Q", 2) + b"[]")),
    "the header is deep": Case("LR000", text(WEIGHTS, struct.pack("<Q", 200_000) + b"[" * 200_000)),
    "the header has no tensor": Case("LR000", text(WEIGHTS, struct.pack("<Q", 2) + b"{}")),
    "a name twice": Case(
        "LR000", raw(lambda b: b.replace(b"layers.1.self_attn.q_proj.lora_A", b"layers.0.self_attn.q_proj.lora_A", 1))
    ),
    "a name with a control character": Case("LR000", header(called("a\x07"))),
    "a name of half a character": Case("LR000", header(called("\ud800"))),
    "metadata is a number": Case("LR000", header(lambda d: d.update(__metadata__=1))),
    "metadata is not text": Case("LR000", header(lambda d: d.update(__metadata__={"a": 1}))),
    "an entry is a number": Case("LR000", header(lambda d: d.update({f"{Q0}.lora_A.weight": 1}))),
    "no dtype": Case("LR000", header(lambda d: d[f"{Q0}.lora_A.weight"].pop("dtype"))),
    "a dtype of next year": Case("LR000", entry(dtype="F2")),
    "a dtype that is no text": Case("LR000", entry(dtype=["F32"])),
    "a wider dtype": Case("LR000", entry(dtype="F64")),
    "a negative shape": Case("LR000", entry(shape=[-8, -576])),
    "a shape of floats": Case("LR000", entry(shape=[8.0, 576.0])),
    "a shape of truth values": Case("LR000", entry(shape=[True, 4608])),
    "a huge shape": Case("LR000", entry(shape=[2**40, 2**40])),
    "a shape too small": Case("LR000", entry(shape=[8, 575])),
    "offsets that overlap": Case("LR000", header(swap_offsets)),
    "offsets beyond the end": Case("LR000", entry(data_offsets=[2**40, 2**40 + 18432])),
    "offsets backwards": Case("LR000", entry(data_offsets=[18432, 0])),
    "three offsets": Case("LR000", entry(data_offsets=[0, 18432, 18432])),
    "a hole in the data": Case("LR000", header(lambda d: d.pop(f"{Q0}.lora_A.weight"))),
    "the configuration is empty": Case("LR000", text(CONFIG, b"")),
    "the configuration is cut short": Case("LR000", lambda f: (f / CONFIG).write_bytes((f / CONFIG).read_bytes()[:50])),
    "the configuration is a list": Case("LR000", text(CONFIG, b"[]")),
    "the configuration is deep": Case("LR000", text(CONFIG, b'{"a":' * 100_000)),
    "the configuration is not UTF-8": Case("LR000", text(CONFIG, b'{"peft_type": "\xff"}')),
    "half a character in the configuration": Case("LR000", text(CONFIG, b'{"peft_type": "LORA", "x": "\\ud800"}')),
    "another kind of adapter": Case("LR000", config(peft_type="IA3")),
    "no kind of adapter": Case("LR000", lambda f: (f / CONFIG).write_text("{}")),
    "an MLX configuration": Case("LR000", lambda f: (f / CONFIG).write_text('{"fine_tune_type": "lora"}')),
    "r is zero": Case("LR000", config(r=0)),
    "r is negative": Case("LR000", config(r=-8)),
    "r is text": Case("LR000", config(r="8")),
    "r is true": Case("LR000", config(r=True)),
    "r is not a number": Case("LR000", config(r=float("nan"))),
    "lora_alpha is negative": Case("LR000", config(lora_alpha=-1)),
    "lora_alpha is null": Case("LR000", config(lora_alpha=None)),
    "lora_alpha is infinite": Case("LR000", config(lora_alpha=float("inf"))),
    "rank_pattern is a list": Case("LR000", config(rank_pattern=["q_proj"])),
    "rank_pattern has text": Case("LR000", config(rank_pattern={"q_proj": "8"})),
    "rank_pattern has zero": Case("LR000", config(rank_pattern={"q_proj": 0})),
    "alpha_pattern has null": Case("LR000", config(alpha_pattern={"q_proj": None})),
    "rank_pattern is no expression": Case("LR000", config(rank_pattern={"q_proj(": 8})),
    "kohya's names": Case("LR000", renamed(lambda n: n.replace("lora_A", "lora_down").replace("lora_B", "lora_up"))),
    "LyCORIS's names": Case("LR000", renamed(lambda n: n.replace("lora_A", "hada_").replace("lora_B", "lokr_"))),
    "diffusers' names": Case("LR000", renamed(lambda n: n.replace(PREFIX, "transformer.").replace("lora_", "lora."))),
    "loralib's names": Case("LR000", renamed(lambda n: n.removeprefix(PREFIX).removesuffix(".weight"))),
    "names without a prefix": Case("LR000", renamed(lambda n: n.removeprefix(PREFIX))),
    "of two adapters": Case(
        "LR000", renamed(lambda n: n.replace(".weight", ".sft.weight" if "q_proj" in n else ".dpo.weight"))
    ),
    "one tensor under two names": Case("LR000", tensor(f"{Q0}.lora_A.default.weight", torch.ones(8, 5))),
    "one tensor inside and outside of a wrapper": Case(
        "LR000", tensor(f"_orig_mod.{Q0}.lora_A.weight", torch.ones(8, 5))
    ),
    "a module type of 200 letters": Case("LR000", renamed(lambda n: n.replace("q_proj", "q" * 200))),
}  # fmt: skip
ITSELF: dict[str, Case] = {
    "B is missing": Case("LR001", tensor(f"{Q0}.lora_B.weight", None)),
    "A is missing": Case("LR001", tensor(f"{Q0}.lora_A.weight", None)),
    "every B is missing": Case("LR001", lambda f: write(f, {n: t for n, t in tensors(f).items() if "lora_A" in n})),
    "a magnitude alone": Case(
        "LR001", both(tensor(f"{V0}.lora_A.weight", None), tensor(f"{V0}.lora_B.weight", None)), start=DORA
    ),
    "half an embedding": Case("LR001", tensor(f"{PREFIX}model.embed_tokens.lora_embedding_A", torch.ones(8, 5))),
    "ranks of A and B differ": Case("LR002", tensor(f"{Q0}.lora_B.weight", torch.ones(576, 4))),
    "rank of A differs": Case("LR002 LR003", tensor(f"{Q0}.lora_A.weight", torch.ones(4, 576))),
    "B has three dimensions": Case("LR002", tensor(f"{Q0}.lora_B.weight", torch.ones(576, 8, 2))),
    "A is a number": Case("LR002", tensor(f"{Q0}.lora_A.weight", torch.ones(()))),
    "r is too large": Case("LR003", config(r=16)),
    "r is too small": Case("LR003", config(r=4)),
    "r is half a number": Case("LR000", config(r=7.5)),
    "rank_pattern for one module": Case("LR003", config(rank_pattern={"layers.0.self_attn.q_proj": 4})),
    "rank_pattern for a type": Case("LR003", config(rank_pattern={"v_proj": 16})),
    "rank_pattern as an expression": Case("LR003", config(rank_pattern={r".*layers\.(3|4)\..*": 2})),
    "a tensor without prefix": Case("LR004", tensor("model.layers.0.self_attn.q_proj.lora_A.weight", torch.ones(8, 5))),
    "a tensor of the optimizer": Case("LR004", tensor("optimizer.state.exp_avg", torch.ones(3))),
    "NaN": Case("LR005", number(float("nan"))),
    "infinity": Case("LR005", number(float("inf"))),
    "minus infinity in B": Case("LR005", number(float("-inf"), name=f"{V0}.lora_B.weight")),
    "NaN in bfloat16": Case("LR005", number(float("nan"), torch.bfloat16)),
    "NaN in float16": Case("LR005", number(float("nan"), torch.float16)),
    "infinity in float64": Case("LR005", number(float("inf"), torch.float64)),
    "NaN in float8": Case("LR005", number(float("nan"), torch.float8_e4m3fn)),
    "NaN in the other float8": Case("LR005", number(float("nan"), torch.float8_e5m2)),
    "NaN in a head": Case(
        "LR005", number(float("nan"), name=f"{PREFIX}classifier.weight"), start=MOVIES
    ),
    "a type is not selected": Case("LR006", config(target_modules=["v_proj"])),
    "no module is selected": Case("LR006", config(target_modules=[])),
    "a list of other names": Case("LR006", config(target_modules=["query", "value"])),
    "an expression selects too little": Case("LR006", config(target_modules=r".*layers\.[1-9].*")),
    "an expression that is none": Case("LR006", config(target_modules="q_proj(")),
    "a module is left out": Case("LR006", config(exclude_modules=["layers.0.self_attn.q_proj"])),
    "a module is left out by an expression": Case("LR006", config(exclude_modules=r".*\.0\..*")),
    "a layer is left out": Case("LR006", config(layers_to_transform=[*range(1, 30)])),
    "a module is saved whole": Case("LR006 LR016", config(modules_to_save=["q_proj"])),
    "an expression that would take years": Case("LR006", config(target_modules=r"(a+)+$")),
    "use_dora without magnitudes": Case("LR007", config(use_dora=True)),
    "magnitudes without use_dora": Case("LR007", config(use_dora=False), start=DORA),
    "one magnitude is missing": Case("LR007", tensor(f"{Q0}.lora_magnitude_vector", None), start=DORA),
    "one magnitude too many": Case("LR007", tensor(f"{Q0}.lora_magnitude_vector", torch.ones(576))),
    "every B is zero": Case("LR008", every_b(torch.zeros_like)),
    "every B is minus zero": Case("LR008", every_b(lambda t: -torch.zeros_like(t))),
    "every B is zero in bfloat16": Case("LR008", every_b(lambda t: torch.zeros_like(t, dtype=torch.bfloat16))),
    "lora_alpha is zero": Case("LR008", config(lora_alpha=0)),
    "a field of next year": Case("LR009", config(use_next_year=True)),
    "three fields of next year": Case("LR009", config(a=1, b="x", c=[0])),
    "a huge number": Case("LR010", number(2e4)),
    "a huge number in B": Case("LR010", number(-1e5, name=f"{Q0}.lora_B.weight")),
    "a huge number in bfloat16": Case("LR010", number(-2e4, torch.bfloat16)),
    "a huge number in float16": Case("LR010", number(2e4, torch.float16)),
    "a huge number in float64": Case("LR010", number(1e300, torch.float64)),
    "one A is zero": Case("LR011", tensor(f"{Q0}.lora_A.weight", torch.zeros(8, 576))),
    "one B is zero": Case("LR011", tensor(f"{Q0}.lora_B.weight", -torch.zeros(576, 8))),
    "a second safetensors": Case("LR012", text("model.safetensors", b"x")),
    "two more safetensors": Case("LR012", both(text("a.safetensors", b"x"), text("b.safetensors", b"x"))),
    "a pickle of weights": Case("LR013", text("adapter_model.bin", b"x")),
    "a pickle by joblib": Case("LR013", text("adapter_model.joblib", b"x")),
    "a checkpoint of Lightning": Case("LR013", text("pytorch_model.ckpt", b"x")),
    "code of somebody": Case("LR009 LR014", config(auto_map={"AutoModel": "org/x--model.Model"})),
    "pipelines of somebody": Case("LR009 LR014", config(custom_pipelines={"x": {"impl": "x.X"}})),
    "a path of the trainer": Case("LR015", config(base_model_name_or_path="/home/ada/llama")),
    "a path of Windows": Case("LR015", config(base_model_name_or_path="C:\\Users\\ada\\llama")),
    "a path below home": Case("LR015", config(revision="~/models/llama")),
    "a path in a list": Case("LR015", config(megatron_core=["\\\\server\\share"])),
    "a module to save that is not there": Case("LR016", config(modules_to_save=["lm_head"])),
    "a head that was taken out": Case(
        "LR016",
        lambda f: write(f, {n: t for n, t in tensors(f).items() if "lora_" in n}),
        start=NEWS,
    ),
    "A is flat": Case("LR018", tensor(f"{Q0}.lora_A.weight", torch.ones(576))),
    "B is empty": Case("LR018", tensor(f"{Q0}.lora_B.weight", torch.ones(0, 8))),
    "A is empty": Case("LR018", tensor(f"{Q0}.lora_A.weight", torch.ones(8, 0))),
    "A is not there": Case("LR018", tensor(f"{Q0}.lora_A.weight", torch.ones(0))),
    "every factor is empty": Case("LR018", lambda f: write(f, {n: torch.ones(0) for n in tensors(f)})),
    "an empty head": Case("LR018", tensor(f"{PREFIX}classifier.weight", torch.ones(0)), start=MOVIES),
    "an empty magnitude": Case("LR018", tensor(f"{Q0}.lora_magnitude_vector", torch.ones(0)), start=DORA),
    "a piece of FSDP": Case("LR004 LR018 LR019", tensor("_fsdp_wrapped_module._flat_param", torch.ones(7))),
    "of a compiled model": Case("LR019", renamed(lambda n: f"_orig_mod.{n}")),
    "of a compiled base": Case("LR019", renamed(lambda n: n.replace(PREFIX, f"{PREFIX}_orig_mod."))),
    "of compiled attention": Case("LR019", renamed(lambda n: n.replace("self_attn", "self_attn._orig_mod"))),
    "of DDP": Case("LR019", renamed(lambda n: f"module.{n}")),
    "of a base in DDP": Case("LR019", renamed(lambda n: n.replace(PREFIX, f"{PREFIX}module."))),
    "of a value head": Case("LR019", renamed(lambda n: f"pretrained_model.{n}")),
    "of PEFT in PEFT": Case("LR019", renamed(lambda n: PREFIX + n)),
    "names of a training state": Case("LR019", renamed(lambda n: n.replace(".weight", ".default.weight"))),
    "a head as in memory": Case(
        "LR019", renamed(lambda n: n.replace("classifier.", "classifier.modules_to_save.default.")), start=MOVIES
    ),
    "stacked experts": Case(
        "LR019",
        both(
            tensor(f"{PREFIX}model.layers.0.mlp.experts.down_proj.lora_A.weight", torch.ones(4, 8, 6)),
            tensor(f"{PREFIX}model.layers.0.mlp.experts.down_proj.lora_B.weight", torch.ones(4, 5, 8)),
        ),
    ),
    "a whole tensor that nobody asked for": Case("LR020", tensor(f"{PREFIX}model.norm.weight", torch.ones(576))),
    "a whole layer that nobody asked for": Case("LR020", tensor(f"{Q0}.base_layer.weight", torch.ones(576, 576))),
    "a copy of the head": Case(
        "LR021", tensor(f"{PREFIX}classifier.original_module.weight", torch.ones(2, 384)), start=MOVIES
    ),
    "a rank for no module": Case("LR022", config(rank_pattern={"k_proj": 4})),
    "an anchored alpha": Case("LR022", config(alpha_pattern={"^q_proj": 4})),
    "an alpha with PEFT's prefix": Case("LR022", config(alpha_pattern={Q0: 4})),
    "a pattern in a list": Case("LR022", config(target_modules=["q_proj", "v_proj", "k_proj$"])),
    "a layer that is not there": Case("LR022", config(layers_to_transform=[*range(31)])),
    "a parameter that is not there": Case("LR022", config(target_parameters=["experts.gate_up_proj"])),
    "fewer tokens than rows": Case(
        "LR023",
        both(
            config(trainable_token_indices=[1, 2]),
            tensor(f"{PREFIX}model.embed_tokens.token_adapter.trainable_tokens_delta", torch.ones(3, 576)),
        ),
    ),
    "tokens without rows": Case("LR023", config(trainable_token_indices=[1, 2])),
}  # fmt: skip
#: ``--base`` is a file of headers for SmolLM2's q and v projections, changed by these functions of its shapes.
Shapes = dict[str, tuple[int, ...]]
ON_A_BASE: dict[str, tuple[str, Callable[[Shapes], Shapes]]] = {
    "the right one": ("LB003", lambda s: s),
    "of another model": ("LB001", lambda s: {"other.weight": (2, 2)}),
    "with a layer less": ("LB001", lambda s: {n: t for n, t in s.items() if ".29." not in n}),
    "without v_proj": ("LB001", lambda s: {n: t for n, t in s.items() if "v_proj" not in n}),
    "below vision.text": ("LB001", lambda s: {f"vision.text.{n}": t for n, t in s.items()}),
    "under language_model, which is the same": ("LB003", lambda s: {f"language_model.{n}": t for n, t in s.items()}),
    "without model., which is the same": ("LB003", lambda s: {n.removeprefix("model."): t for n, t in s.items()}),
    "with wider layers": ("LB002", lambda s: {n: (t[0], 2 * t[1]) for n, t in s.items()}),
    "with more heads for v": ("LB002", lambda s: dict.fromkeys(s, (576, 576))),
    "transposed": ("LB002", lambda s: {n: t[::-1] for n, t in s.items()}),
}
