"""How the loss of a token bends with the sources' weights, from the logits or the losses at nearby weights.

Shapes: N tokens, V words of the vocabulary, K sources. Suffixes: n tokens, v words, k sources.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

#: Entries of the logits of all sources that are worked on at a time: more take longer, they fit no cache.
_ENTRIES = 1 << 22


def curve_of_logits(
    logits_nv: Tensor, stepped: Sequence[Tensor], labels_n: Tensor, step: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return loss (N), gradient (N, K) and Gauss–Newton curvature (N, K, K) of the cross-entropy of each token.

    ``stepped`` has the logits (N, V) with the weight of one source larger by ``step``, for each of K sources. With
    J the derivative of the logits and p their softmax, the gradient is ``E_p[J] − J_label`` and the curvature
    ``Cov_p[J]``: what is left of the Hessian where the logits are linear in the weights (Schraudolph 2002).
    """
    parts = []
    size = max(1, _ENTRIES // (logits_nv.shape[-1] * (len(stepped) + 1)))
    for span in (slice(start, start + size) for start in range(0, len(labels_n), size)):
        logits, labels = logits_nv[span].float(), labels_n[span].unsqueeze(-1)
        log_p = torch.log_softmax(logits, -1)
        p_nv = log_p.exp()
        j_nkv = torch.stack([(z[span].float() - logits) / step for z in stepped], dim=1)
        mean_nk = (j_nkv @ p_nv.unsqueeze(-1)).squeeze(-1)
        centred_nkv = (j_nkv - mean_nk.unsqueeze(-1)) * p_nv.sqrt().unsqueeze(1)
        of_label_nk = j_nkv.gather(-1, labels.unsqueeze(1).expand(-1, len(stepped), 1)).squeeze(-1)
        parts.append((-log_p.gather(-1, labels).squeeze(-1), mean_nk - of_label_nk, centred_nkv @ centred_nkv.mT))
    loss, gradient, curvature = (torch.cat(column).double() for column in zip(*parts, strict=True))
    return loss, gradient, curvature


def curve_of_losses(losses_n: Tensor, stepped: Sequence[Tensor], step: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return loss (N), gradient (N, K) and curvature (N, K, K) of each token, from its losses (N) alone.

    The curvature is the empirical Fisher ``u uᵀ``, u the derivative of the loss by differences: where only losses are
    known, its mean over many tokens stands for the curvature that logits would give.
    """
    slopes_nk = torch.stack([(losses.double() - losses_n.double()) / step for losses in stepped], dim=-1)
    return losses_n.double(), slopes_nk, slopes_nk.unsqueeze(-1) * slopes_nk.unsqueeze(-2)


def sum_by_document(values: Tensor, documents: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.float64]:
    """Return the sums (count, …) of ``values (N, …)`` by document; ``documents (N)`` says whose each token is."""
    sums = torch.zeros((count, *values.shape[1:]), dtype=torch.float64)
    return np.asarray(sums.index_add_(0, torch.from_numpy(documents), values.cpu().double()).numpy())
