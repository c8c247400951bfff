"""How a token's loss bends, beside torch's own derivatives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import hessian, jacrev

from loreg.sweeping import curvature
from loreg.sweeping.curvature import curve_of_logits, curve_of_losses

TOKENS, WORDS, SOURCES = 7, 11, 3


def linear_logits(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits at 0, how they move with each weight (K, N, V), and labels."""
    generator = torch.Generator().manual_seed(seed)
    at_zero = torch.randn(TOKENS, WORDS, generator=generator, dtype=torch.float64)
    moves = torch.randn(SOURCES, TOKENS, WORDS, generator=generator, dtype=torch.float64)
    return at_zero, moves, torch.randint(0, WORDS, (TOKENS,), generator=generator)


def loss(weights: Tensor, at_zero: Tensor, moves: Tensor, labels: Tensor) -> Tensor:
    logits = at_zero + torch.einsum("k,knv->nv", weights, moves)
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none")


@pytest.mark.parametrize("at_a_time", [1, 1 << 27])
def test_where_logits_are_linear_it_is_the_derivative_and_the_hessian(monkeypatch: pytest.MonkeyPatch, at_a_time: int):
    monkeypatch.setattr(curvature, "_ENTRIES", at_a_time)
    at_zero, moves, labels = linear_logits()
    origin = torch.tensor([0.3, 0.1, 0.5], dtype=torch.float64)
    logits = at_zero + torch.einsum("k,knv->nv", origin, moves)
    step = 0.15
    losses, gradients, curvatures = curve_of_logits(logits, [logits + step * move for move in moves], labels, step)
    arguments = (at_zero, moves, labels)
    torch.testing.assert_close(losses, loss(origin, *arguments), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradients, jacrev(loss)(origin, *arguments), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(curvatures, hessian(loss)(origin, *arguments), atol=1e-4, rtol=1e-4)


def test_a_weight_that_moves_no_logit_bends_nothing():
    at_zero, moves, labels = linear_logits()
    _, gradients, curvatures = curve_of_logits(at_zero, [at_zero, at_zero + moves[1]], labels, 1.0)
    assert gradients[:, 0].abs().max() == 0
    assert curvatures[:, 0].abs().max() == 0


def test_losses_alone_give_slopes_and_their_products():
    losses = torch.tensor([1.0, 2.0])
    stepped = [torch.tensor([1.3, 2.0]), torch.tensor([0.7, 2.6])]
    loss_n, slopes, products = curve_of_losses(losses, stepped, 0.5)
    assert loss_n.tolist() == [1.0, 2.0]
    torch.testing.assert_close(slopes, torch.tensor([[0.6, -0.6], [0.0, 1.2]]).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(products[0], torch.tensor([[0.36, -0.36], [-0.36, 0.36]]).double(), atol=1e-6, rtol=0)
