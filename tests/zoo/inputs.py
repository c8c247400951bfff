"""What a tiny model is asked, and which of its outputs is compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from zoo.sizes import IMAGE_TOKEN

_OUTPUTS = ("logits", "logits_per_image", "prediction_logits", "last_hidden_state", "image_embeds")


def inputs_for(kind: str, config: Any) -> dict[str, Tensor]:
    """Return seeded inputs of that kind for a model with this configuration."""
    generator = torch.Generator().manual_seed(11)

    def tokens(length: int) -> Tensor:
        return torch.randint(3, 60, (2, length), generator=generator)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    if kind == "text":
        return {"input_ids": tokens(12)}
    if kind == "text-to-text":
        return {"input_ids": tokens(12), "decoder_input_ids": tokens(9)}
    if kind == "picture":
        side = config.image_size if isinstance(getattr(config, "image_size", None), int) else 32
        return {"pixel_values": noise(2, getattr(config, "num_channels", 3), side, side)}
    if kind == "wave":
        return {"input_values": noise(2, 900)}
    if kind == "spectrogram-to-text":
        frames = 2 * config.max_source_positions
        return {"input_features": noise(2, config.num_mel_bins, frames), "decoder_input_ids": tokens(9)}
    if kind == "spectrogram":
        return {"input_values": noise(2, config.max_length, config.num_mel_bins)}
    if kind == "picture-and-text":
        side = config.vision_config.image_size
        return {"input_ids": tokens(12), "pixel_values": noise(2, 3, side, side)}
    if kind.startswith(("picture-text", "pictures-text", "patches-text")):
        return _with_picture(kind, tokens, noise, config)
    raise ValueError(f"there are no inputs called {kind!r}")


def _with_picture(
    kind: str, tokens: Callable[[int], Tensor], noise: Callable[..., Tensor], config: Any
) -> dict[str, Tensor]:
    """A text in which a picture stands for so many tokens, as the model's processor would prepare it."""
    form, count = kind.split(":")
    place = torch.full((2, int(count)), IMAGE_TOKEN)
    before, after = tokens(3), tokens(6)
    if form == "patches-text":  # the start of a picture is marked, and its patches lie flat, one picture after another
        before[:, -1] = IMAGE_TOKEN - 1
    ids = {"input_ids": torch.cat([before, place, after], dim=1)}
    vision = config.vision_config
    if form == "patches-text":
        flat = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        grid = torch.tensor([[1, 4, 4]] * 2)
        marks = (ids["input_ids"] == IMAGE_TOKEN).int()
        return {**ids, "pixel_values": noise(32, flat), "image_grid_thw": grid, "mm_token_type_ids": marks}
    side = vision.image_size[0] if isinstance(vision.image_size, list | tuple) else vision.image_size
    return {**ids, "pixel_values": noise(2, *((1,) if form == "pictures-text" else ()), 3, side, side)}


def run(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """Return the model's main output for ``inputs``: its logits, or what a model without a head ends in."""
    outputs = model(**inputs)
    for name in _OUTPUTS:
        if isinstance(value := outputs.get(name), Tensor):
            return value
    raise ValueError(f"{type(model).__name__} answers {list(outputs)}, expected one of {', '.join(_OUTPUTS)}")


def answer(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """Return :func:`run` without gradients, in float64."""
    with torch.no_grad():
        return run(model, inputs).double()


def difference(actual: Tensor, expected: Tensor) -> float:
    """Return the largest difference, relative to the largest number that is expected; infinite for other shapes."""
    if actual.shape != expected.shape or not bool(torch.isfinite(actual).all()):
        return float("inf")
    return float((actual - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
