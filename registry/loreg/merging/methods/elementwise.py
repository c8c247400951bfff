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
        concept=(
            "Of each delta the ``⌊density·n⌋`` entries of largest magnitude are kept and the rest set to zero; what is "
            "left is summed with the weights."
        ),
        use="to see what pruning alone does before signs are elected, or to thin out adapters that hardly disagree",
        merge=EntrywiseMerge(dense_view, LARGEST),
        parameters=(Parameter("density", 0.5, _DENSITY, 0, 1), _THRESHOLD, _RESCALE_PRUNED, _PRECISION),
        full_rank=True,
        adds_up=True,
        calibrate=ThresholdCalibration(dense_view, LARGEST),
    ),
    Method(
        name="ties",
        family=MethodFamily.ELEMENTWISE,
        summary="the largest entries of each delta; the elected sign decides which of them are averaged",
        source="Yadav et al. 2023, TIES-Merging, arXiv 2306.01708",
        concept=(
            "Trim: of each delta only the largest entries stay. Elect sign: for each entry, the sign whose weighted "
            "sum is larger wins. Disjoint merge: entries that have that sign are averaged by their weights, the others "
            "are left out."
        ),
        use=(
            "to join adapters of different tasks whose entries often differ in sign; the paper keeps 20 % of them and "
            "tunes the scale of the result, --lambda"
        ),
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
        concept=(
            "Of each delta random entries are set to zero and the rest divided by the density, so that its expectation "
            "stays; what is left is summed with the weights. The draw is seeded by the source's digest and the module: "
            "it is the same on every machine."
        ),
        use=(
            "to join adapters whose deltas are small and redundant, as those of fine-tuning often are; the draw adds "
            "noise of full rank, more of it at a lower density, so that a given rank keeps less"
        ),
        merge=EntrywiseMerge(dense_view, AT_RANDOM),
        parameters=(Parameter("density", 0.5, _DENSITY, 1e-6, 1), _SEED, _RESCALE_DRAWN, _PRECISION),
        full_rank=True,
    ),
    Method(
        name="dare_ties",
        family=MethodFamily.ELEMENTWISE,
        summary="random entries of each delta, rescaled; the elected sign decides which of them are averaged",
        source="Yu et al. 2024, DARE, arXiv 2311.03099, with the election of TIES",
        concept=(
            "DARE's random drop and rescaling, then the election of TIES: the winning sign of each entry is elected, "
            "and entries that have it are averaged."
        ),
        use="where dare_linear leaves too many entries on which the sources disagree",
        merge=EntrywiseMerge(dense_view, AT_RANDOM),
        parameters=(Parameter("density", 0.5, _DENSITY, 1e-6, 1), _SEED, *ELECTION, _RESCALE_DRAWN, _PRECISION),
        full_rank=True,
    ),
    Method(
        name="della",
        family=MethodFamily.ELEMENTWISE,
        summary="random entries, large ones more likely; the elected sign decides which of them are averaged",
        source="Deep et al. 2024, DELLA-Merging, arXiv 2406.11617",
        concept=(
            "MAGPRUNE: within each row, entries are kept by a random draw whose probability grows with the rank of "
            "their magnitude, from density − epsilon/2 to density + epsilon/2, and divided by it. Then signs are "
            "elected and entries that have the winning one are averaged."
        ),
        use="as DARE with TIES, where large entries should be dropped less often than small ones",
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
        concept=(
            "The largest entries of each delta, a share gamma, and its smallest ones are set to zero; those between "
            "are summed with the weights. With ``elect`` signs are elected first."
        ),
        use="to join many adapters of which single large entries would dominate the sum",
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
        adds_up=True,
        calibrate=ThresholdCalibration(dense_view, BETWEEN),
    ),
)
