"""Tell what taking back the base's change on what an adapter reads is good for: the adapter, or the base alone.

Two adapters of SmolLM2-135M in ``examples/adapters`` are copied to upgrades of it that need no other adapter. The
correction ``− D·V·Vᵀ`` is added with V of what the adapter reads, of what the other adapter reads, and of random
directions, as many; and without the adapter. Losses are on texts of the adapter, on those of the other one, and on
held-out texts of a task that the upgrade was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from base_upgrade_bases import make_upgrades
from base_upgrade_losses import ROWS, Delta, loss_with, read_delta
from safetensors.torch import load_file
from sweep_setting import quiet, read_splits
from sweep_tasks import conversations
from sweep_texts import held_out_rows, load_base, load_tokenizer
from torch import Tensor

from truth.environment import smollm2

ADAPTERS = ("history", "science")
UPGRADED = ("trained", "trained ×4", "4 bit")
LEARNT = "technology"
SHARED = Path(__file__).parents[1] / "examples" / "adapters"


def main() -> None:
    quiet()
    torch.manual_seed(0)
    base, tokenizer = smollm2(), load_tokenizer()
    deltas = {name: read_delta(SHARED / f"smollm2-{name}-r8") for name in ADAPTERS}
    rows = {name: held_out_rows(tokenizer, list(conversations("english", (name,))), ROWS) for name in ADAPTERS}
    rows[LEARNT] = held_out_rows(tokenizer, read_splits("smollm2")[LEARNT].test, ROWS)
    folders = make_upgrades(base, {}, UPGRADED)
    before = load_file(base / "model.safetensors")
    print(
        "mean loss in nats a token: on texts of the adapter, of the other adapter, and of what the upgrade has learnt\n"
    )
    print(f"{'base':12}{'adapter':9}{'with':24}{'own':>8}{'other':>8}{'learnt':>8}")
    for upgrade in ("", *UPGRADED):
        folder = folders[upgrade] if upgrade else base
        model, after = load_base(folder), load_file(folder / "model.safetensors")
        for name, other in (ADAPTERS, ADAPTERS[::-1]):
            for how, delta in _ways(deltas[name], deltas[other], before, after, is_old=not upgrade).items():
                losses = [loss_with(model, delta, rows[texts]) for texts in (name, other, LEARNT)]
                print(f"{upgrade or 'old':12}{name:9}{how:24}" + "".join(f"{loss:8.3f}" for loss in losses), flush=True)


def _ways(
    own: Delta, other: Delta, before: Mapping[str, Tensor], after: Mapping[str, Tensor], *, is_old: bool
) -> dict[str, Delta]:
    """What is added to the base, by what it is called."""
    if is_old:
        return {"nothing": {}, "adapter": own}
    random = {name: (b, torch.randn_like(a)) for name, (b, a) in own.items()}
    others = {name: other[name] for name in own}
    back = {
        name: _take_back(factors, before, after)
        for name, factors in (("own", own), ("other", others), ("random", random))
    }
    return {
        "nothing": {},
        "take-back alone": back["own"],
        "adapter": own,
        "adapter, take-back": _add(own, back["own"]),
        "adapter, the other's V": _add(own, back["other"]),
        "adapter, random V": _add(own, back["random"]),
    }


def _take_back(delta: Delta, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Delta:
    """Return ``− (W′ − W)·V·Vᵀ`` as factors, with V an orthonormal basis of what each delta reads."""
    taken = {}
    for name, (_, a) in delta.items():
        v_ir = torch.linalg.qr(a.T)[0]
        change = after[f"{name}.weight"].float() - before[f"{name}.weight"].float()
        taken[name] = -change @ v_ir, v_ir.T
    return taken


def _add(one: Delta, other: Delta) -> Delta:
    return {name: (torch.cat([b, other[name][0]], 1), torch.cat([a, other[name][1]])) for name, (b, a) in one.items()}


if __name__ == "__main__":
    main()
