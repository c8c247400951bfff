"""Print how many evaluations each search needs for 90, 95 and 99 % of the best gain that weights can have.

``python benchmarks/sweep_peers.py minilm`` evaluates 140 weights for real once, and keeps the losses in ``.sweep``; the
searches then run on an emulator of these evaluations, from twenty seeds each. Where the emulator is least the real loss
is taken too, and both are printed. With 55 evaluations of six adapters it was off by 0.05 of a gain of 0.5: too few.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import cmaes
import numpy as np
from sweep_emulator import EQUAL_STRENGTHS, Array, Emulator, evaluate, recipes
from sweep_mixture import TaskLosses, classification_losses, language_losses
from sweep_searches import SEARCHES, Loss, best_losses, evaluations_to
from sweep_setting import HOME, KINDS, Setting, load_setting, quiet

#: What of the development data an evaluation reads here: rows, or examples, of each task.
ROWS, EXAMPLES = 2, 16
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


def fit_emulator(file: Path, plan: Array, evaluator: Callable[[], TaskLosses]) -> tuple[Emulator, Array, Array]:
    """Evaluate the plan and what the emulator thinks best, until it is right there within 1 % of the gain or 20 times.

    Returns the emulator, the best weights, and the real mean losses of all that was evaluated, the plan first.
    """
    for _ in range(20):
        losses = evaluate(file, plan, evaluator).mean(1)
        emulator = Emulator(plan, losses)
        best = minimum(emulator, plan.shape[1]).round(4)
        real = evaluate(file, best[None], evaluator).mean()
        plan = np.vstack([plan, best])
        if abs(real - emulator(best)) < 0.01 * (losses[0] - real):
            break
    return emulator, best, np.append(losses, real)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=[*KINDS])
    parser.add_argument("--near", type=int, default=90, help="draws from the near box that are evaluated for real")
    parser.add_argument("--wide", type=int, default=40, help="draws from the wide box")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--budget", type=int, default=200, help="evaluations of a search")
    options = parser.parse_args()
    quiet()
    setting = load_setting(options.name)
    count = len(setting.adapters)
    evaluator = cache(partial(task_losses, options.name, setting))
    file = evaluations_file(options.name, setting)
    emulator, best, losses = fit_emulator(file, recipes(count, options.wide, options.near), evaluator)
    base, least = losses[0], emulator(best)
    near = emulator.errors[losses[:-1] <= np.quantile(losses, 1 / 3)]
    print(f"\n{options.name}: {len(losses)} real evaluations of {count} adapters on as many tasks; mean loss, nats\n")
    print(f"no adapter {base:.4f}")
    for strength, loss in zip(EQUAL_STRENGTHS, losses[1 + count :], strict=False):
        print(f"{strength:.2f} each  {loss:.4f}")
    print(f"best       {losses[-1]:.4f}   at {' '.join(f'{weight:.2f}' for weight in best)}")
    print(f"the emulator there {least:.4f}; off by {_rms(emulator.errors):.4f}, in the best third by {_rms(near):.4f}")
    print_searches(lambda asked: emulator(np.clip(asked, LOW, HIGH)), count, base, least, options.seeds, options.budget)


def evaluations_file(name: str, setting: Setting) -> Path:
    """The file of evaluations of these very adapters on so much data."""
    digest = hashlib.sha256(f"{ROWS} {EXAMPLES}".encode())
    for folder in setting.adapters.values():
        digest.update((folder / "adapter_model.safetensors").read_bytes())
    return HOME / name / f"evaluations-{digest.hexdigest()[:12]}.jsonl"


def _rms(errors: Array) -> float:
    return float(np.sqrt(np.square(errors).mean()))


if __name__ == "__main__":
    main()
