"""Print how well each predictor orders recipes as their real loss on documents does that nothing has seen.

``python benchmarks/sweep_predictors.py smollm2``: Spearman's correlation over the recipes of ``sweep_pool``, with the
real dev loss and with the real test loss. The last row is the ceiling: real dev against real test.
"""

from __future__ import annotations

import numpy as np
from sweep_calibration import collect_moments
from sweep_curve import SweepEvaluator
from sweep_mixture import Mixture, load_evaluator, read_deltas
from sweep_pool import COUNTS, Array, Pool
from sweep_setting import Setting, setting_of_command_line

from loreg.adapters.structure import read_structure
from loreg.entities import SweepCandidate
from loreg.merging.inputs import MergeInput
from loreg.merging.output_error import OutputProducts
from loreg.sweeping.loss_model import model_of_output_errors

DRAWS, LEVEL = 1000, 0.9


def predictors(name: str, setting: Setting, pool: Pool) -> dict[str, tuple[str, Array]]:
    """Return by predictor how many evaluations it costs and what it says of each recipe, lower being better."""
    weights, count = pool.weights, len(setting.adapters)
    inputs = [MergeInput(read_structure(folder), task, "") for task, folder in setting.adapters.items()]
    products = OutputProducts(inputs, collect_moments(name, setting)).products().numpy()
    errors = model_of_output_errors(products, np.eye(count)).predict(weights)
    own = model_of_output_errors(products, np.eye(count)).losses
    evaluator = load_evaluator(setting, dev=COUNTS[name], test=COUNTS[name])
    mixture = Mixture(evaluator.model, [read_deltas(folder) for folder in setting.adapters.values()])
    rows = {
        "|Σw − 1|": ("0", abs(weights.sum(1) - 1)),
        "|w|²": ("0", np.square(weights).sum(1)),
        "output error, of each task's own energy": ("0", (errors / own).mean(1)),
        "output error, summed": ("0", errors.mean(1)),
    }
    alone = [SweepCandidate("alone", tuple(map(float, row))) for row in np.eye(count)]
    whole, start, importance = SweepCandidate("all", (1.0,) * count), 1 / count, np.full(count, 1 / count)
    for has_logits, what in ((False, "the losses of tokens"), (True, "logits")):
        texts = SweepEvaluator(evaluator, mixture, has_logits)
        strength = float(texts.curve([whole], [start], 1.0).fit().common_strength(importance)[0])
        for cost, origin, where in ((count + 1, start, "1/T"), (count + 3, strength, f"{strength:.2f}")):
            model = texts.curve(alone, [origin] * count, 1.0).fit()
            rows[f"quadratic from {what}, at {where}"] = str(cost), model.predict(weights).mean(1)
    rows["real dev loss: the ceiling"] = str(len(weights)), pool.losses[:, 0].mean(1)
    return rows


def spearman(x: Array, y: Array) -> float:
    """The correlation of the ranks; equal values share the mean of theirs."""
    return float(np.corrcoef(_ranks(x), _ranks(y))[0, 1])


def _ranks(values: Array) -> Array:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((last - counts + last + 1) / 2)[inverse]


def interval(x: Array, y: Array) -> str:
    """The correlation with its interval by drawing recipes again."""
    generator = np.random.default_rng(0)
    drawn = [spearman(x[places], y[places]) for places in generator.integers(0, len(x), (DRAWS, len(x)))]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return f"{spearman(x, y):6.3f} [{low:5.2f}, {high:5.2f}]"


def main() -> None:
    name, setting = setting_of_command_line(__doc__)
    pool = Pool(name, setting)
    dev, test = pool.losses.mean(2).T
    third = test <= np.quantile(test, 1 / 3)
    print(f"\n{name}: Spearman over {len(dev)} recipes, and the third of them that is best on test\n")
    print(f"{'predictor':46}evaluations   dev     test, 90 %             best third, test")
    for what, (cost, predicted) in predictors(name, setting, pool).items():
        of_dev = f"{spearman(predicted, dev):.3f}"
        print(
            f"{what:46}{cost:>11}{of_dev:>8}  {interval(predicted, test)}   {interval(predicted[third], test[third])}"
        )


if __name__ == "__main__":
    main()
