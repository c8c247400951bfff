"""Print how many evaluations each search needs for 90, 95 and 99 % of the best gain that weights can have.

``python benchmarks/sweep_peers.py minilm`` evaluates a hundred weights for real, once, into
``.sweep/minilm/evaluations.jsonl``; the searches then run on the emulator through them, from twenty seeds each. At the
least of the emulator the real loss is taken too, and printed beside it.
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import cmaes
import numpy as np
from sweep_emulator import Array, Emulator, evaluate, recipes
from sweep_mixture import TaskLosses, classification_losses, language_losses
from sweep_searches import SEARCHES, Loss, best_losses, evaluations_to
from sweep_setting import HOME, KINDS, Setting, load_setting, quiet

#: What of the development data an evaluation reads here: rows, or examples, of each task.
ROWS, EXAMPLES = 3, 64
#: The box that was evaluated for real, and the emulator knows: other weights are moved to its edge.
LOW, HIGH = -0.1, 1.1
SHARES = (0.90, 0.95, 0.99)


def task_losses(name: str, setting: Setting) -> TaskLosses:
    """Evaluate on the first rows, or examples, of each task's development data."""
    if name == "smollm2":
        return language_losses(setting, {task: rows[:ROWS] for task, rows in setting.dev.items()})
    chosen = np.arange(EXAMPLES)
    return classification_losses(setting, {task: examples.choose(chosen) for task, examples in setting.dev.items()})


def minimum(emulator: Emulator, count: int) -> Array:
    """The weights in the box where the emulator is least, by CMA-ES from ten places."""
    runs = []
    for seed in range(10):
        start = np.random.default_rng(seed).uniform(0, 0.7, count)
        bounds = np.array([[LOW, HIGH]] * count)
        strategy = cmaes.CMA(mean=start, sigma=0.1, bounds=bounds, seed=seed)
        for _ in range(150):
            asked = [strategy.ask() for _ in range(strategy.population_size)]
            generation = [(weights, emulator(weights)) for weights in asked]
            strategy.tell(generation)
            runs.append(min(generation, key=lambda pair: pair[1]))
    return min(runs, key=lambda pair: pair[1])[0]


def print_searches(loss: Loss, count: int, base: float, least: float, seeds: int, budget: int) -> None:
    """Print a row for each search: medians over the seeds, and of the last share 10 and 90 % quantiles."""
    print(f"\n{'evaluations to':42}   90 %   95 %   99 %   [10 %, 90 %]     gain after 6 / 12 / 20 / 40")
    for name, make in SEARCHES.items():
        runs = [best_losses(make(count, seed), loss, budget) for seed in range(seeds)]
        needed = np.array([[evaluations_to(share, run, base, least) for share in SHARES] for run in runs])
        medians = [_count(number, budget) for number in np.quantile(needed, 0.5, axis=0, method="higher")]
        low, high = (_count(np.quantile(needed[:, 2], q, method="higher"), budget) for q in (0.1, 0.9))
        after = [np.median([(base - run[place - 1]) / (base - least) for run in runs]) for place in (6, 12, 20, 40)]
        gains = " / ".join(f"{100 * gain:3.0f}" for gain in after)
        print(f"{name:42} {''.join(f'{m:>7}' for m in medians)}   {f'[{low}, {high}]':14}   {gains} %", flush=True)


def _count(number: float, budget: int) -> str:
    return f"{number:.0f}" if np.isfinite(number) else f">{budget}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=[*KINDS])
    parser.add_argument("--near", type=int, default=50, help="draws from the near box that are evaluated for real")
    parser.add_argument("--wide", type=int, default=35, help="draws from the wide box")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--budget", type=int, default=300, help="evaluations of a search")
    options = parser.parse_args()
    quiet()
    setting = load_setting(options.name)
    count = len(setting.adapters)
    begin = time.perf_counter()
    evaluator = partial(task_losses, options.name, setting)
    file = HOME / options.name / "evaluations.jsonl"
    weights, losses = evaluate(file, recipes(count, options.wide, options.near), evaluator)
    means = losses.mean(1)
    emulator = Emulator(weights, means)
    print(f"\n{len(means)} real evaluations of {count} tasks, {time.perf_counter() - begin:.0f} s of them in this run")
    for label, row in (
        ("none", 0),
        *((f"{w:.2f} each", 1 + count + i) for i, w in enumerate(weights[1 + count :, 0][:6])),
    ):
        print(f"  {label:10} {means[row]:.4f}")
    base, best = means[0], minimum(emulator, count)
    least, gain = emulator(best), means[0] - emulator(best)
    near = means <= np.quantile(means, 1 / 3)
    print(f"the emulator is off by {_rms(emulator.errors):.4f}, in the best third by {_rms(emulator.errors[near]):.4f}")
    real = evaluate(file, best.round(4)[None], evaluator)[1].mean()
    print(f"its least {least:.4f}, really {real:.4f}, at {' '.join(f'{w:.2f}' for w in best)}; best gain {gain:.4f}")
    print_searches(lambda asked: emulator(np.clip(asked, LOW, HIGH)), count, base, least, options.seeds, options.budget)


def _rms(errors: Array) -> float:
    return float(np.sqrt(np.square(errors).mean()))


if __name__ == "__main__":
    main()
