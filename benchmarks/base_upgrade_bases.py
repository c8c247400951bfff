"""Make upgrades of SmolLM2-135M, as folders that ``loreg base upgrade`` compares with it.

Baked ones have an adapter, or three, added to their weights. Trained ones are the base after a short training of all
weights, or of the MLPs alone, on texts of three tasks; ``×4`` is the same change four times over. ``4 bit`` is the base
rounded to 15 steps for each 64 weights, and written out again. All are stored in bfloat16, as bases are released.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sweep_setting import HOME, read_splits
from sweep_texts import ROW, load_base, load_tokenizer, token_losses, token_stream
from torch import Tensor

from loreg.adapters.structure import read_structure
from loreg.adapters.tensors import open_adapter

UPGRADES = HOME / "smollm2" / "upgrades"
STEPS, ROWS, LEARNING_RATE, SEED = 24, 2, 1e-3, 17
TRAINED_ON = ("chat", "reviews", "technology")
_GROUP, _LEVELS = 64, 7

Weights = dict[str, Tensor]
Make = Callable[[Path, Mapping[str, Path]], Weights]


def make_upgrades(base: Path, adapters: Mapping[str, Path], names: Sequence[str] = ()) -> dict[str, Path]:
    """Make what is not there yet, of these names or of all, and return the folder of each upgrade by its name."""
    folders = {}
    for name in names or KINDS:
        make = KINDS[name]
        folders[name] = UPGRADES / name.replace(" ", "-")
        if not (folders[name] / "model.safetensors").is_file():
            print(f"making the upgrade {name}", flush=True)
            _write(base, make(base, adapters), folders[name])
    return folders


def _baked(*tasks: str) -> Make:
    def bake(base: Path, adapters: Mapping[str, Path]) -> Weights:
        weights = _read(base)
        for task in tasks:
            with open_adapter(read_structure(adapters[task])) as adapter:
                for name, module in adapter.structure.modules.items():
                    factors = adapter.factors(name)
                    weights[module.weight] += module.scale * (factors.b[0].float() @ factors.a[0].float())
        return weights

    return bake


def _trained(part: str, strength: float = 1.0) -> Make:
    """Train the weights whose names contain ``part``, once, and go ``strength`` times as far as the training went."""

    def make(base: Path, adapters: Mapping[str, Path]) -> Weights:
        before, kept = _read(base), UPGRADES / f"trained{part}.safetensors"
        if not kept.is_file():
            kept.parent.mkdir(parents=True, exist_ok=True)
            save_file(_train(base, part), kept)
        after = load_file(kept)
        return {
            name: tensor + strength * (after[name] - tensor) if name in after else tensor
            for name, tensor in before.items()
        }

    return make


def _train(base: Path, part: str) -> Weights:
    """Return the trained weights, in float32. Adafactor keeps next to no state: the base is trained in 1.1 GB."""
    torch.manual_seed(SEED)
    splits = read_splits("smollm2")
    stream = token_stream(load_tokenizer(), [text for task in TRAINED_ON for text in splits[task].train])
    model = load_base(base)
    trained = {name: weight.requires_grad_() for name, weight in model.named_parameters() if part in name}
    optimizer = torch.optim.Adafactor(trained.values(), lr=LEARNING_RATE)
    generator = torch.Generator().manual_seed(SEED)
    for step in range(STEPS):
        places = torch.randint(0, len(stream) - ROW, (ROWS,), generator=generator).tolist()
        loss = token_losses(model, torch.stack([stream[place : place + ROW] for place in places])).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"  step {step + 1} of {STEPS}: {loss.item():.3f}", flush=True)
    return {name: weight.detach().clone() for name, weight in trained.items()}


def _rounded(base: Path, adapters: Mapping[str, Path]) -> Weights:
    weights = _read(base)
    for name, tensor in weights.items():
        if "_proj" in name:
            groups = tensor.reshape(-1, _GROUP)
            step = (groups.abs().amax(1, keepdim=True) / _LEVELS).clamp_min(1e-12)
            weights[name] = ((groups / step).round() * step).reshape(tensor.shape)
    return weights


def _read(base: Path) -> Weights:
    return {name: tensor.float() for name, tensor in load_file(base / "model.safetensors").items()}


def _write(base: Path, weights: Weights, folder: Path) -> None:
    """Write the model with the base's configuration and tokenizer, whole or not at all."""
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(base, unfinished, ignore=shutil.ignore_patterns("*.safetensors"))
    tensors = {name: tensor.bfloat16().contiguous() for name, tensor in weights.items()}
    save_file(tensors, unfinished / "model.safetensors", {"format": "pt"})
    config = json.loads((base / "config.json").read_text())
    (unfinished / "config.json").write_text(json.dumps(config, indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)


KINDS: dict[str, Make] = {
    "baked technology": _baked("technology"),
    "baked spanish": _baked("spanish"),
    "baked three": _baked("spanish", "technology", "sport"),
    "4 bit": _rounded,
    "trained": _trained(""),
    "trained ×4": _trained("", 4.0),
    "trained MLPs": _trained("mlp"),
    "trained MLPs ×4": _trained("mlp", 4.0),
}
