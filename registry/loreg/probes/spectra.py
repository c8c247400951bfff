"""The probe ``spectra``: the singular values of the delta of every module, from its factors alone."""

from __future__ import annotations

from loreg.identity.blas import one_blas_thread
from loreg.identity.factors import open_factors, singular_values
from loreg.probes.adapter import ProbedAdapter

NAME = "spectra"
RELEASE = "1"


def spectra(adapter: ProbedAdapter) -> dict[str, object]:
    """Return the singular values (k) by module, the largest first; of experts a list for each.

    DoRA's magnitudes are not in it. Modules whose factors cannot be read are listed as ``unreadable``.
    """
    values: dict[str, object] = {}
    with one_blas_thread(), open_factors(adapter.structure) as file:
        modules = file.modules
        for name in modules:
            of_experts = singular_values(file.read(name)).tolist()
            values[name] = of_experts[0] if len(of_experts) == 1 else of_experts
    return {"modules": values, "unreadable": sorted(adapter.structure.modules.keys() - modules.keys())}
