"""Measure what adapters lose when they are copied to an upgraded base, and what two cleverer transfers would keep.

``undone`` takes back the base's change on what the adapter reads, so that it meets there what it was trained on.
``projected`` carries the delta over in the singular vectors of both bases, as Cross-LoRA (arXiv 2508.05232) does, with
the 320 largest. Each loss is written down when it is measured: a run that was cut off goes on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from base_upgrade_bases import UPGRADES
from safetensors.torch import load_file
from sweep_tasks import conversations
from sweep_texts import held_out_rows, load_base, load_tokenizer, token_losses
from torch import Tensor

from loreg.adapters.structure import read_structure
from loreg.adapters.tensors import open_adapter

ROWS = 6
_SINGULAR_VECTORS = 320
#: The upgrades to which the cleverer transfers are tried: each costs some minutes.
TRANSFERRED_TO = ("baked three", "trained ×4")
TRANSFERS = ("undone", "projected")
LOSSES = UPGRADES / "losses.jsonl"

#: By module: ``b (out, r)`` with the scale in it, and ``a (r, in)``.
Delta = dict[str, tuple[Tensor, Tensor]]


class Question(NamedTuple):
    """One loss: of a base, on the texts of a task, with its adapter as ``how`` says; empty for the base alone."""

    base: str
    task: str
    how: str


def test_rows(rows: Mapping[str, Tensor], adapters: Mapping[str, Path]) -> dict[str, Tensor]:
    """The texts of each adapter's task; of the two from elsewhere those that they were trained on."""
    tokenizer = load_tokenizer()
    trained = {
        name: held_out_rows(tokenizer, list(conversations("english", (name,))), ROWS)
        for name in adapters
        if name not in rows
    }
    return {name: rows[name][:ROWS] if name in rows else trained[name] for name in adapters}


def measure_losses(
    old: Path, upgrades: Mapping[str, Path], adapters: Mapping[str, Path], rows: Mapping[str, Tensor]
) -> dict[Question, float]:
    """Return every loss in nats a token; those that are there already are not measured again."""
    losses = _read()
    deltas = {name: read_delta(folder) for name, folder in adapters.items()}
    before = load_file(old / "model.safetensors")
    for base, folder in {"": old, **upgrades}.items():
        hows = ["", "copied", *(TRANSFERS if base in TRANSFERRED_TO else [])]
        missing = [Question(base, task, how) for task in adapters for how in hows]
        missing = [question for question in missing if question not in losses]
        if not missing:
            continue
        model, after = load_base(folder), load_file(folder / "model.safetensors")
        vectors: dict[str, tuple[Tensor, ...]] = {}
        for question in missing:
            delta = deltas[question.task] if question.how else {}
            if question.how == "undone":
                delta = {name: _undo(*pair, before, after, name) for name, pair in delta.items()}
            elif question.how == "projected":
                delta = {name: _project(*pair, before, after, name, vectors) for name, pair in delta.items()}
            losses[question] = loss_with(model, delta, rows[question.task])
            with LOSSES.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps([*question, losses[question]]) + "\n")
            print(f"{base or 'old':18} {question.task:11} {question.how:10} {losses[question]:.4f}", flush=True)
    return losses


def _read() -> dict[Question, float]:
    if not LOSSES.is_file():
        return {}
    lines = (json.loads(line) for line in LOSSES.read_text(encoding="utf-8").splitlines())
    return {Question(*key): value for *key, value in lines}


def read_delta(folder: Path) -> Delta:
    """Read the factors of every module."""
    with open_adapter(read_structure(folder)) as adapter:
        delta = {}
        for name, module in adapter.structure.modules.items():
            factors = adapter.factors(name)
            delta[name] = module.scale * factors.b[0].float(), factors.a[0].float()
        return delta


@torch.no_grad()
def loss_with(model: torch.nn.Module, delta: Delta, rows: Tensor) -> float:
    """The mean loss with the delta added by hooks to the modules that it names."""
    hooks = []
    for name, (b, a) in delta.items():

        def add(module: object, inputs: tuple[Tensor, ...], output: Tensor, b: Tensor = b, a: Tensor = a) -> Tensor:
            return output + (inputs[0] @ a.T) @ b.T

        hooks.append(model.get_submodule(name).register_forward_hook(add))
    try:
        return float(token_losses(model, rows).double().mean())
    finally:
        for hook in hooks:
            hook.remove()


def _undo(
    b: Tensor, a: Tensor, before: Mapping[str, Tensor], after: Mapping[str, Tensor], name: str
) -> tuple[Tensor, Tensor]:
    """Return the factors of ``Δ − (W′ − W)·V·Vᵀ``, with V an orthonormal basis of what the adapter reads."""
    v_ir, l_rr = torch.linalg.qr(a.T)
    change = after[f"{name}.weight"].float() - before[f"{name}.weight"].float()
    return b @ l_rr.T - change @ v_ir, v_ir.T


def _project(
    b: Tensor,
    a: Tensor,
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    name: str,
    vectors: dict[str, tuple[Tensor, ...]],
) -> tuple[Tensor, Tensor]:
    """Carry the delta from the leading singular vectors of W to those of W′, on both sides."""
    if name not in vectors:
        vectors[name] = (*_leading(before[f"{name}.weight"].float()), *_leading(after[f"{name}.weight"].float()))
    u, v, u_new, v_new = vectors[name]
    return u_new @ (u_new.T @ (u @ (u.T @ b))), ((a @ v) @ v.T @ v_new) @ v_new.T


def _leading(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the leading singular vectors, left (out, k) and right (in, k), from the smaller Gram matrix."""
    tall = weight if weight.shape[0] >= weight.shape[1] else weight.T
    values, right = torch.linalg.eigh(tall.double().T @ tall.double())
    right = right[:, -min(_SINGULAR_VECTORS, len(values)) :].float()
    left = torch.linalg.qr(tall @ right)[0]
    return (left, right) if tall is weight else (right, left)
