"""Merge one entry per source into one: elect a sign and average those that have it, or sum all.

Sources: Yadav et al. 2023, TIES (arXiv 2306.01708); where published code differs, each way has a name.
"""

from __future__ import annotations

import torch
from torch import Tensor

from loreg.merging.method import Parameter, Values

ELECTION = (
    Parameter("elect", "mass", "whose sign wins: the larger sum, or the larger number", choices=("mass", "count")),
    Parameter(
        "sign",
        "weighted",
        "whether signs are elected among weighted entries, or before weighting, as PEFT does",
        choices=("weighted", "unweighted"),
    ),
    Parameter(
        "mean",
        "weight",
        "what the sum of agreeing entries is divided by: their weights, their number (PEFT), nothing",
        choices=("weight", "count", "none"),
    ),
    Parameter(
        "tie",
        "plus",
        "which sign wins where the entries cancel: plus, or the majority of the whole tensor",
        choices=("plus", "majority"),
    ),
)


def merge_entries(entries: Tensor, weights: Tensor, values: Values, tie: Tensor | float = 1.0) -> Tensor:
    """Merge ``entries (T, …)``, which are changed, into (…): by elected sign, or without an election into their sum.

    The entries are weighted already, unless signs are elected before weighting; ``weights`` is (T). ``tie`` is the
    sign that wins where entries cancel.
    """
    elect = values.get("elect", "none")
    if elect == "none":
        return entries.sum(0) if values.get("sign") != "unweighted" else torch.tensordot(weights, entries, dims=1)
    # elect sign
    sign = elect_sign(entries, elect, tie)
    # disjoint merge
    agreeing = entries.mul_(sign).clamp_min_(0)
    total = agreeing.sum(0) if values["sign"] == "weighted" else torch.tensordot(weights, agreeing, dims=1)
    if values["mean"] == "none":
        return total.mul_(sign)
    counted = weights.abs() if values["mean"] == "weight" else torch.ones_like(weights)
    divisor = torch.tensordot(counted, agreeing.sign_(), dims=1)
    return total.mul_(sign).div_(divisor.clamp_min_(torch.finfo(divisor.dtype).tiny))


def elect_sign(entries: Tensor, by: str, tie: Tensor | float) -> Tensor:
    """Return the sign, ±1, that wins each entry of ``entries (T, …)``: by their sum (mass) or their number (count)."""
    score = entries.sum(0) if by == "mass" else entries.sign().sum(0)
    return score.sign_().add_(0.5 * tie).sign_()  # half a tie decides where the score is zero, and nowhere else
