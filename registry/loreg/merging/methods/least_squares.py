"""RegMean and WUDI: the delta that does least harm to the sources, in the least squares of what each of them weighs.

Both minimise ``Σ wₜ·tr((D − Δₜ) Mₜ (D − Δₜ)ᵀ)``, whose solution is ``D = (Σ wₜ·Δₜ·Mₜ)(Σ wₜ·Mₜ)⁻¹``. They differ in Mₜ
(in, in), the importance of the directions of the input to task t: RegMean takes the second moments of its data, WUDI
the delta's own Gram matrix. All of it lives in the row space of the sources, k × k.

Suffixes: n modules, t sources, m vectors of the left frame, i of the right frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from loreg.algebra.decompositions import pinv, svd
from loreg.algebra.spectrum import Spectrum, decompose
from loreg.errors import UsageError
from loreg.merging.batch import Batch
from loreg.merging.method import Method, MethodFamily, Parameter, Values

#: From the deltas in coordinates (n, T, m, m') and what else there is: Mₜ (n, T, m', m').
Importances = Callable[[Batch, Tensor, Values], Tensor]

_ZERO = 1e-12  # of the largest singular value: what is not larger is rounding
#: Sine between rows of A below which moments say nothing of their difference: it would be made of rounding. They are
#: products of activations in single precision or less, and are divided by its square.
_MIN_SINE = 1e-3


@dataclass(frozen=True)
class LeastSquares:
    """A method's ``merge``: weigh the deltas by direction, as a function says. One delta alone stays as it is."""

    importances: Importances

    def __call__(self, batch: Batch, values: Values) -> Spectrum:
        """Return the spectrum of ``(Σ wₜ·Δₜ·Mₜ)(Σ wₜ·Mₜ + ridge·I)⁻¹``, the weights scaled to a mean of 1."""
        framed = batch.framed
        deltas_ntmi = framed.cores().transpose(0, 1)
        weights_nt11 = _relative(batch.weights).unsqueeze(-1).unsqueeze(-1)
        if deltas_ntmi.shape[1] == 1:
            return decompose(framed.left, framed.right, (weights_nt11 * deltas_ntmi).sum(1))
        weighed_ntii = weights_nt11 * self.importances(batch, deltas_ntmi, values)
        size = deltas_ntmi.shape[-1]
        ridge_ii = values.get("ridge", 0.0) * torch.eye(size, dtype=torch.float64, device=deltas_ntmi.device)
        inverse_nii = pinv(weighed_ntii.sum(1) + ridge_ii, _ZERO)
        return decompose(
            framed.left, framed.right, (deltas_ntmi @ weighed_ntii).sum(1) @ inverse_nii, batch.norms().amax(-1)
        )


def input_moments(batch: Batch, deltas_ntmi: Tensor, values: Values) -> Tensor:
    """Return ``Cₜ = E[xxᵀ]`` of each task in the row space of the deltas, shrunk towards its mean eigenvalue.

    ``(1 − λ)·C + λ·(tr C / p)·I``, p the dimension of that space: this depends on no basis of it, on no order of the
    sources, and on the deltas alone, not on how they are factored.
    """
    if batch.moments is None:
        raise UsageError("regmean merges by the moments of data, and there are none", hint="--calibration FILE")
    # from the rows of A to the frame: A_cat = rᵀqᵀ, so that C = r⁻ᵀ K r⁻¹, on rows of length 1
    r_nik = batch.framed.right.r
    lengths_nk = r_nik.norm(dim=-2)
    lengths_nk = torch.where(lengths_nk > 0, lengths_nk, 1.0)
    back_nki = pinv(r_nik / lengths_nk.unsqueeze(-2), _MIN_SINE).unsqueeze(1)
    moments_ntkk = batch.moments / (lengths_nk.unsqueeze(-1) * lengths_nk.unsqueeze(-2)).unsqueeze(1)
    # on the row space of the deltas, which may be less than that of the A's
    space_n1ii = _row_space(deltas_ntmi).unsqueeze(1)
    moments_ntii = space_n1ii @ (back_nki.mT @ moments_ntkk @ back_nki) @ space_n1ii
    # shrink
    dimension_n11 = space_n1ii.diagonal(dim1=-2, dim2=-1).sum(-1).clamp_min(1)
    mean_nt11 = (moments_ntii.diagonal(dim1=-2, dim2=-1).sum(-1) / dimension_n11).unsqueeze(-1).unsqueeze(-1)
    shrinkage = values["shrinkage"]
    identity_ii = torch.eye(deltas_ntmi.shape[-1], dtype=torch.float64, device=deltas_ntmi.device)
    shrunk_ntii: Tensor = (1 - shrinkage) * moments_ntii + shrinkage * mean_nt11 * identity_ii
    return shrunk_ntii


def own_gram(batch: Batch, deltas_ntmi: Tensor, values: Values) -> Tensor:
    """Return ``ΔₜᵀΔₜ / ‖Δₜ‖²``: the rows of a delta stand for the inputs that it was trained on."""
    gram_ntii = deltas_ntmi.mT @ deltas_ntmi
    trace_nt11 = gram_ntii.diagonal(dim1=-2, dim2=-1).sum(-1).unsqueeze(-1).unsqueeze(-1)
    return torch.where(trace_nt11 > 0, gram_ntii / trace_nt11.clamp_min(1e-300), 0.0)


def _relative(weights_nt: Tensor) -> Tensor:
    """Return the weights with a mean of 1; zeros where all are zero."""
    mean_n1 = weights_nt.mean(-1, keepdim=True)
    return torch.where(mean_n1 > 0, weights_nt / torch.where(mean_n1 > 0, mean_n1, 1.0), 0.0)


def _row_space(deltas_ntmi: Tensor) -> Tensor:
    """Return the projection (n, m', m') on the rows of all deltas, whatever their norms."""
    norms_nt11 = torch.linalg.matrix_norm(deltas_ntmi).unsqueeze(-1).unsqueeze(-1)
    directions_ntmi = torch.where(norms_nt11 > 0, deltas_ntmi / norms_nt11.clamp_min(1e-300), 0.0)
    _, s_np, vh_npi = svd(directions_ntmi.flatten(1, 2))
    spanned_np1 = (s_np > s_np[..., :1] * _ZERO).to(s_np).unsqueeze(-1)
    projection_nii: Tensor = vh_npi.mT @ (vh_npi * spanned_np1)
    return projection_nii


METHODS = (
    Method(
        name="regmean",
        family=MethodFamily.LEAST_SQUARES,
        summary="the delta whose outputs on each task's text are nearest to those of that task's adapter",
        source="Jin et al. 2023, RegMean, arXiv 2212.09849",
        concept=(
            "``(Σ wₜ·Δₜ·Cₜ)(Σ wₜ·Cₜ)⁻¹``, Cₜ the second moments of what the module sees of the text of task t, "
            "collected by ``loreg.collect_calibration`` and given by ``--calibration``. It minimises ``Σ wₜ·‖(D − "
            "Δₜ)·Xₜ‖²`` over D in the row space of the adapters. The moments are not normalised: a task whose inputs "
            "are larger at a module counts more there. They are shrunk towards a multiple of the identity (the paper "
            "shrinks the off-diagonal in the basis of the inputs, which is not known here, and which a basis of the "
            "adapters' rows would make depend on how they are factored). Weights are relative importances, none "
            "negative: strength is ``--lambda``. A module that one source alone has stays as it is."
        ),
        use=(
            "where there is a little text of each task: on held-out text of eight adapters of SmolLM2-135M it was the "
            "best of eighteen methods, at ``--lambda`` 1 as well (loss lower by .066 [.057, .075] than the plain sum "
            "at its best strength, a quarter more gain), of six classifiers of MiniLM better than the sum by .023 "
            "[.010, .037]"
        ),
        merge=LeastSquares(input_moments),
        parameters=(
            Parameter(
                "shrinkage", 0.1, "how far the moments are drawn to their mean: 0 not, 1 is a mean of the deltas", 0, 1
            ),
        ),
        min_sources=2,
        needs_moments=True,
        relative_weights=True,
    ),
    Method(
        name="wudi",
        family=MethodFamily.LEAST_SQUARES,
        summary="the delta that interferes least with the rows of each, in closed form",
        source="Cheng et al. 2025, WUDI-Merging, arXiv 2503.08099",
        concept=(
            "The minimum of ``Σ wₜ·‖(D − Δₜ)·Δₜᵀ‖² / ‖Δₜ‖²``, where the rows of a delta stand for the inputs of its "
            "task. The paper walks there by Adam; it is ``(Σ wₜ·Δₜ·Gₜ)(Σ wₜ·Gₜ + ridge·I)⁻¹`` with ``Gₜ = ΔₜᵀΔₜ / "
            "‖Δₜ‖²``, the weights scaled to a mean of 1: relative importances, none negative. Strength is "
            "``--lambda``. A module that one source alone has stays as it is."
        ),
        use=(
            "where there is no data, with its strength tuned: at ``--lambda`` 1 it overshoots. At 0.54 it was the best "
            "of six classifiers of MiniLM (loss lower by .044 [.038, .049] than the plain sum at its best strength); "
            "at 0.45 better than that of eight adapters of SmolLM2-135M by .013 [.009, .019], less than other methods"
        ),
        merge=LeastSquares(own_gram),
        parameters=(Parameter("ridge", 0.01, "damps directions that weigh less than this share of a delta", 0, 1),),
        relative_weights=True,
        adds_up=True,
    ),
)
