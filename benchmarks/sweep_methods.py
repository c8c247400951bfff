"""Print each method's loss on test documents, as it is and at its best strength, beside one strength for all.

``python benchmarks/sweep_methods.py smollm2``. The strength is chosen on dev documents out of six, and of a parabola
through the best three; the moments of ``regmean`` are of training documents. Intervals are of the difference from one
strength for all, texts drawn again within their tasks: below zero a method is better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from sweep_calibration import collect_moments
from sweep_curve import SweepEvaluator
from sweep_mixture import Deltas, Evaluator, Mixture, load_evaluator, read_deltas, text_losses
from sweep_pool import COUNTS, Array
from sweep_setting import KINDS, Setting, setting_of_command_line

from loreg.adapters.structure import read_structure
from loreg.entities import RankRuleKind, Source
from loreg.errors import LoregError
from loreg.merging.execute import execute_recipe
from loreg.merging.inputs import MergeInput
from loreg.merging.methods import find_method
from loreg.merging.ranks import RankRule
from loreg.merging.recipe import Recipe
from loreg.sweeping.bootstrap import interval_of_difference
from loreg.sweeping.token_search import FREE, TokenSearch

#: What is read of each task's test documents: rows of 128 tokens, or examples.
TEST = {"smollm2": 4, "minilm": 96}
STRENGTHS = (0.1, 0.2, 0.35, 0.6, 1.0, 1.5)
#: Methods with parameters beside their defaults.
VARIANTS: tuple[tuple[str, Mapping[str, float]], ...] = (
    ("linear", {}),
    ("regmean", {}),
    ("regmean", {"shrinkage": 0.01}),
    ("regmean", {"shrinkage": 0.5}),
    ("ties", {}),
    ("ties", {"density": 0.5}),
    ("tsv", {}),
    ("wudi", {}),
    ("wudi", {"ridge": 0.1}),
    ("iso", {}),
    ("iso_cts", {}),
    ("svc", {}),
    ("knots_ties", {}),
    ("core_ties", {}),
    ("ctm", {}),
    ("karcher", {}),
    ("model_stock", {}),
    ("magnitude_prune", {}),
    ("dare_linear", {}),
    ("dare_ties", {}),
    ("della", {}),
    ("breadcrumbs", {}),
    ("factor_average", {}),
)


class Losses(NamedTuple):
    """Summed losses (D,) of texts, how many tokens each has (D,), and its task (D,)."""

    sums: Array
    tokens: Array
    tasks: Array

    def mean(self) -> float:
        """The mean over the tasks of the loss of a token."""
        return float((np.bincount(self.tasks, self.sums) / np.bincount(self.tasks, self.tokens)).mean())

    def minus(self, other: Losses) -> str:
        """The difference with its 90 % interval."""
        count = int(self.tasks.max()) + 1
        importance = np.full(count, 1 / count)
        gap = interval_of_difference(self.tasks, self.tokens, self.sums - other.sums, importance, 0)
        return f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"


def evaluate(evaluator: Evaluator, split: str, adapters: Sequence[Deltas], weights: Sequence[float]) -> Losses:
    """Evaluate the weighted sum of adapters on the texts of a split."""
    mixture = Mixture(evaluator.model, adapters)
    mixture.weights = [*weights]
    by_task = text_losses(evaluator, split).values()
    mixture.remove()
    sums, tokens = (np.concatenate([part.numpy() for part in parts]) for parts in zip(*by_task, strict=True))
    tasks = np.concatenate([np.full(len(own), task) for task, (own, _) in enumerate(by_task)])
    return Losses(sums, tokens, tasks)


def best_strength(evaluator: Evaluator, merged: Deltas) -> float:
    """Choose λ on dev texts: out of the strengths, or of the parabola in log λ through the best and its neighbours."""
    losses = [evaluate(evaluator, "dev", [merged], [strength]).mean() for strength in STRENGTHS]
    place = int(np.clip(np.argmin(losses), 1, len(STRENGTHS) - 2))
    x, y = np.log(STRENGTHS[place - 1 : place + 2]), losses[place - 1 : place + 2]
    bend, slope, _ = np.polyfit(x, y, 2)
    if bend <= 0:
        return STRENGTHS[int(np.argmin(losses))]
    return float(np.exp(np.clip(-slope / (2 * bend), x[0], x[-1])))


def merge(name: str, setting: Setting, method: str, parameters: Mapping[str, float]) -> Deltas:
    """Merge all adapters, each with weight 1; what is of full rank is kept at the sum of the ranks."""
    inputs = [MergeInput(read_structure(folder), task, "") for task, folder in setting.adapters.items()]
    rank = sum(KINDS[name].trainings[task].rank for task in setting.adapters)
    rule = find_method(method)
    recipe = Recipe(
        tuple(Source(source.label, "", 1.0) for source in inputs),
        method=method,
        parameters=dict(parameters),
        rank=RankRule(RankRuleKind.FIXED, rank) if rule.full_rank else RankRule(RankRuleKind.LOSSLESS),
        extras=0 if inputs[0].structure.full_tensors_and_token_rows else None,
    )
    calibration = collect_moments(name, setting) if rule.needs_moments else None
    modules = execute_recipe(inputs, recipe, calibration=calibration).adapter.modules
    return {key: (part.factors.b[0].float(), part.factors.a[0].float()) for key, part in modules.items()}


def free_weights(evaluator: Evaluator, adapters: Sequence[Deltas]) -> Array:
    """The weights (T,) that a sweep finds on dev texts with logits."""
    mixture, count = Mixture(evaluator.model, adapters), len(adapters)
    texts = SweepEvaluator(evaluator, mixture, has_logits=True)
    dev, test = texts.texts("dev"), texts.texts("test")
    importance = np.full(count, 1 / count)
    search = TokenSearch(texts, count, dev, test, importance, count + 6, (), 0, None, (1.0,), 0.0)
    answer = search.run()
    mixture.remove()
    (free,) = (candidate for candidate in {answer.best, *answer.differences} if candidate.what == FREE)
    return np.array(free.weights)


def main() -> None:
    name, setting = setting_of_command_line(__doc__)
    evaluator = load_evaluator(setting, dev=COUNTS[name], test=TEST[name])
    adapters = [read_deltas(folder) for folder in setting.adapters.values()]
    count = len(adapters)
    linear = merge(name, setting, "linear", {})
    strength = best_strength(evaluator, linear)
    reference = evaluate(evaluator, "test", [linear], [strength])
    base = evaluate(evaluator, "test", adapters, [0.0] * count)
    print(f"\n{name}: {count} adapters; test loss, nats: {int(base.tokens.sum())} tokens or labels", flush=True)
    print(f"\n{'recipe':30}   at λ = 1   best λ   test loss   minus one strength, 90 %")
    print(f"{'base':41}{'':9}{base.mean():12.4f}   {base.minus(reference)}")
    own = [evaluate(evaluator, "test", [adapter], [1.0]) for adapter in adapters]
    whose = np.concatenate([losses.sums[losses.tasks == task] for task, losses in enumerate(own)])
    specialists = Losses(whose, base.tokens, base.tasks)
    print(f"{'each task by its own adapter':41}{'':9}{specialists.mean():12.4f}   {specialists.minus(reference)}")
    equal = evaluate(evaluator, "test", [linear], [1 / count])
    print(f"{f'equal mixture, 1/{count} each':41}{1 / count:9.2f}{equal.mean():12.4f}   {equal.minus(reference)}")
    free = free_weights(evaluator, adapters)
    freely = evaluate(evaluator, "test", adapters, free.tolist())
    print(f"{'a weight for each, by logits':41}{'':9}{freely.mean():12.4f}   {freely.minus(reference)}", flush=True)
    for method, parameters in VARIANTS:
        words = " ".join([method, *(f"{key}={value:g}" for key, value in parameters.items())])
        try:
            merged = linear if method == "linear" else merge(name, setting, method, parameters)
        except LoregError as error:
            print(f"{words:30}   refused: {error.message}", flush=True)
            continue
        plain = evaluate(evaluator, "test", [merged], [1.0])
        tuned_at = strength if method == "linear" else best_strength(evaluator, merged)
        tuned = reference if method == "linear" else evaluate(evaluator, "test", [merged], [tuned_at])
        gap = "0" if method == "linear" else tuned.minus(reference)
        print(f"{words:30}{plain.mean():11.4f}{tuned_at:9.2f}{tuned.mean():12.4f}   {gap}", flush=True)
    pairs = zip(setting.adapters, free, strict=True)
    print(f"\nthe weights by logits: {', '.join(f'{task} {weight:.2f}' for task, weight in pairs)}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
