"""TIES, DARE, DELLA and other methods on the entries of the dense deltas; their result has full rank, and is truncated.

The steps stand in ``merging/entrywise.py``, the rules of which entries are kept in ``merging/pruning.py``.
"""

from __future__ import annotations

from loreg.merging.entrywise import EntrywiseMerge
from loreg.merging.method import Method, MethodFamily, Parameter
from loreg.merging.pruning import AT_RANDOM, BETWEEN, LARGE_AT_RANDOM, LARGEST
from loreg.merging.sign_election import ELECTION
from loreg.merging.thresholds import ThresholdCalibration
from loreg.merging.tiled_delta import dense_view

_DENSITY = "the share of entries that is kept"
_SEED = Parameter("seed", 0, "of the draw, which also depends on the source's digest and the module", 0, 2**63)
_THRESHOLD = Parameter(
    "threshold",
    "tensor",
    "whether entries compete within their tensor or over all modules",
    choices=("tensor", "global"),
)
_PRECISION = Parameter(
    "precision",
    "double",
    "of the arithmetic on entries; single is faster, and entries that lie at a cut may change sides",
    choices=("double", "single"),
)
_RESCALE_PRUNED = Parameter(
    "rescale", "none", "make up for what was dropped: not, or to the same sum of magnitudes", choices=("none", "l1")
)
_RESCALE_DRAWN = Parameter(
    "rescale", "density", "make up for what was dropped: by 1/probability, to the same sum of magnitudes, or not",
    choices=("density", "l1", "none"),
)  # fmt: skip
_OPTIONAL_ELECTION = (
    Parameter("elect", "none", "elect signs after dropping, as TIES does", choices=("none", "mass", "count")),
    *ELECTION[1:],
)

METHODS = (
    Method(
        name="magnitude_prune",
        family=MethodFamily.ELEMENTWISE,
        summary="the largest entries of each delta, summed",
        source="PEFT, magnitude_prune; Han et al. 2015, arXiv 1506.02626",
        merge=EntrywiseMerge(dense_view, LARGEST),
        parameters=(Parameter("density", 0.5, _DENSITY, 0, 1), _THRESHOLD, _RESCALE_PRUNED, _PRECISION),
        full_rank=True,
        calibrate=ThresholdCalibration(dense_view, LARGEST),
    ),
    Method(
        name="ties",
        family=MethodFamily.ELEMENTWISE,
        summary="the largest entries of each delta; the elected sign decides which of them are averaged",
        source="Yadav et al. 2023, TIES-Merging, arXiv 2306.01708",
        merge=EntrywiseMerge(dense_view, LARGEST),
        parameters=(
            Parameter("density", 0.2, _DENSITY, 0, 1),
            *ELECTION,
            _THRESHOLD,
            _RESCALE_PRUNED,
            _PRECISION,
        ),
        full_rank=True,
        calibrate=ThresholdCalibration(dense_view, LARGEST),
    ),
    Method(
        name="dare_linear",
        family=MethodFamily.ELEMENTWISE,
        summary="random entries of each delta, rescaled and summed",
        source="Yu et al. 2024, DARE, arXiv 2311.03099",
        merge=EntrywiseMerge(dense_view, AT_RANDOM),
        parameters=(Parameter("density", 0.5, _DENSITY, 1e-6, 1), _SEED, _RESCALE_DRAWN, _PRECISION),
        full_rank=True,
    ),
    Method(
        name="dare_ties",
        family=MethodFamily.ELEMENTWISE,
        summary="random entries of each delta, rescaled; the elected sign decides which of them are averaged",
        source="Yu et al. 2024, DARE, arXiv 2311.03099, with the election of TIES",
        merge=EntrywiseMerge(dense_view, AT_RANDOM),
        parameters=(Parameter("density", 0.5, _DENSITY, 1e-6, 1), _SEED, *ELECTION, _RESCALE_DRAWN, _PRECISION),
        full_rank=True,
    ),
    Method(
        name="della",
        family=MethodFamily.ELEMENTWISE,
        summary="random entries, large ones more likely; the elected sign decides which of them are averaged",
        source="Deep et al. 2024, DELLA-Merging, arXiv 2406.11617",
        merge=EntrywiseMerge(dense_view, LARGE_AT_RANDOM),
        parameters=(
            Parameter("density", 0.5, _DENSITY, 1e-6, 1),
            Parameter("epsilon", 0.15, "how far the probabilities spread around the density", 0, 1),
            _SEED,
            Parameter("elect", "mass", "elect signs after dropping, or sum", choices=("mass", "count", "none")),
            *ELECTION[1:],
            _RESCALE_DRAWN,
            _PRECISION,
        ),
        full_rank=True,
    ),
    Method(
        name="breadcrumbs",
        family=MethodFamily.ELEMENTWISE,
        summary="each delta without its largest and its smallest entries, summed",
        source="Davari & Belilovsky 2024, Model Breadcrumbs, arXiv 2312.06795",
        merge=EntrywiseMerge(dense_view, BETWEEN),
        parameters=(
            Parameter("density", 0.9, _DENSITY, 0, 1),
            Parameter("gamma", 0.01, "the share of largest entries that is dropped", 0, 1),
            *_OPTIONAL_ELECTION,
            _THRESHOLD,
            _RESCALE_PRUNED,
            _PRECISION,
        ),
        full_rank=True,
        calibrate=ThresholdCalibration(dense_view, BETWEEN),
    ),
)
