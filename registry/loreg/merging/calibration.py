"""Re-ranking on data: collect the second moments of what an adapter sees, and truncate best for them.

The error that counts is ``E‖(W − X)x‖²`` over inputs x. For W = B A it depends on the data only through
``K = E[(Ax)(Ax)ᵀ] (r, r)``: with ``K = L Lᵀ`` and ``R_B L = U S Vᵀ`` the optimum of rank p is
``X = Q_B U_p S_p V_pᵀ L⁻¹ A`` (Eckart–Young 1936 in the norm that K defines).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from loreg.adapters.keys import PREFIX
from loreg.algebra.decompositions import eigh, pinv, svd
from loreg.algebra.frames import FramedStack
from loreg.algebra.spectrum import Spectrum, decompose
from loreg.errors import IntegrityError, NotFoundError, UsageError
from loreg.merging.cross_moments import CrossMoments, collect_cross


@dataclass
class Moments:
    """Sums of ``(Ax)(Ax)ᵀ`` by module, (r, r) in float64, and how many x were seen."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, module: str, activations: Tensor) -> None:
        """Add the rows of ``activations (…, r)``."""
        rows = activations.detach().flatten(0, -2).double()
        self.sums[module] = self.sums.get(module, 0) + (rows.T @ rows).cpu()
        self.counts[module] = self.counts.get(module, 0) + rows.shape[0]

    def save(self, path: Path | str) -> None:
        """Write the means to the safetensors file that ``loreg rerank --calibration`` reads."""
        save_file({name: total / self.counts[name] for name, total in self.sums.items()}, path)


@overload
def collect(model: nn.Module, adapter: str = "default") -> AbstractContextManager[Moments]: ...
@overload
def collect(model: nn.Module, adapter: list[str] | tuple[str, ...]) -> AbstractContextManager[CrossMoments]: ...
def collect(
    model: nn.Module, adapter: str | list[str] | tuple[str, ...] = "default"
) -> AbstractContextManager[Moments] | AbstractContextManager[CrossMoments]:
    """Collect K of every linear LoRA module while ``model``, a PEFT model with ``adapter`` active, runs in the block.

    K = E[(Ax)(Ax)ᵀ] (r, r) in float64, the mean over all inputs x that the module sees; ``save`` writes the file that
    re-ranking reads. Source: Eckart and Young 1936, in the norm that K defines. Of several names, in the order in which
    they will be merged, A is that of all of them stacked (k, in), and the adapter that is active says whose text runs:
    cross moments, which ``regmean`` needs (Jin et al. 2023, arXiv 2212.09849). Raises UsageError if the model has no
    such adapter, or while it runs if not one of several is active.

    >>> from peft import LoraConfig, get_peft_model
    >>> model = get_peft_model(nn.Sequential(nn.Linear(4, 3)), LoraConfig(r=2, target_modules=["0"]))
    >>> with collect(model) as moments:
    ...     outputs = model(torch.ones(5, 4))
    >>> moments.counts, moments.sums["0"].shape
    ({'0': 5}, torch.Size([2, 2]))
    """
    return _collect(model, adapter) if isinstance(adapter, str) else collect_cross(model, adapter)


@contextlib.contextmanager
def _collect(model: nn.Module, adapter: str) -> Iterator[Moments]:
    moments = Moments()
    hooks = []
    for name, module in model.named_modules():
        factors = getattr(module, "lora_A", None)
        if isinstance(factors, nn.ModuleDict) and adapter in factors:
            hooks.append(factors[adapter].register_forward_hook(_AddMoments(moments, name.removeprefix(PREFIX))))
    if not hooks:
        raise UsageError(f"the model has no LoRA adapter {adapter!r}", hint="collect(model, adapter=…)")
    try:
        yield moments
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(frozen=True)
class _AddMoments:
    """A forward hook of ``lora_A`` that adds its output to the moments of a module."""

    moments: Moments
    name: str

    def __call__(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        self.moments.add(self.name, output)


def read_moments(path: Path, ranks: Mapping[str, int]) -> dict[str, Tensor]:
    """Read K of each module, (r, r), from a file that ``Moments.save`` wrote; ``ranks`` has r of each module.

    Raises NotFoundError or IntegrityError for the file, UsageError where a module of ``ranks`` has none that fits.
    """
    try:
        moments = load_file(path)
    except FileNotFoundError as error:
        raise NotFoundError(f"{path} does not exist", hint="loreg.collect_calibration(model) writes one") from error
    except (SafetensorError, OSError) as error:
        raise IntegrityError(f"{path} is not a safetensors file: {error}", hint="collect it again") from error
    for module, rank in ranks.items():
        shape = tuple(moments[module].shape) if module in moments else "missing"
        if shape != (rank, rank) or not moments[module].isfinite().all():
            raise UsageError(
                f"{path}: the second moments of {module} are {shape}, expected finite numbers ({rank}, {rank})",
                hint="collect them while the model runs with this adapter: loreg.collect_calibration(model)",
            )
    return moments


@dataclass(frozen=True)
class CalibratedDeltas:
    """n deltas of one source in the norm of the data: ``spectrum`` has the singular values that count there."""

    framed: FramedStack
    spectrum: Spectrum
    _root: Tensor

    def truncate(self, ranks: Tensor) -> Spectrum:
        """Return the best deltas of ranks ``ranks`` (n) on the data, as plain spectra."""
        s = self.spectrum.s
        within = torch.arange(s.shape[-1], device=s.device) < ranks.unsqueeze(-1)
        inverse = pinv(self._root, rtol=1e-12)
        core = (self.spectrum.u * (s * within).unsqueeze(-2)) @ self.spectrum.v.mT @ inverse @ self.framed.right.r.mT
        return decompose(self.framed.left, self.framed.right, core)


def whiten(framed: FramedStack, moments: Tensor) -> CalibratedDeltas:
    """Bring the deltas of one source into the norm of ``moments (n, r, r)``, the second moments of ``a @ x``."""
    values, vectors = eigh((moments + moments.mT) / 2)
    root = vectors * values.clamp_min(0).sqrt().unsqueeze(-2)
    u, s, vh = svd(framed.left.r @ root)
    return CalibratedDeltas(framed, Spectrum(None, None, u, s, vh.mT, s.square().sum(-1)), root)
