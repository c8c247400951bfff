"""Print what a trial of eight adapters on SmolLM2 costs, part by part: merge, swap into the model, evaluate.

Processor time of one thread: what else runs on the machine counts little. An evaluation is of ``TOKENS`` tokens of each
task; below the first a sweep refuses, below the second it warns.
"""

from __future__ import annotations

import time
from statistics import median

import torch
from sweep_methods import merge
from sweep_mixture import Mixture, load_evaluator, task_losses
from sweep_setting import load_setting, quiet

TOKENS = (500, 2000)
RUNS = 3


def main() -> None:
    quiet()
    torch.set_num_threads(1)
    setting = load_setting("smollm2")
    evaluator = load_evaluator(setting, dev=2, test=2)
    print("\nseconds of a processor, medians of 3         merge   swap   evaluate 500 / 2,000 tokens a task   merge")
    for method in ("linear", "regmean", "tsv", "wudi", "ties"):
        seconds: dict[str, list[float]] = {"merge": [], "swap": [], "evaluate": []}
        for _ in range(RUNS):
            start = time.process_time()
            merged = merge("smollm2", setting, method, {})
            merged_at = time.process_time()
            mixture = Mixture(evaluator.model, [merged])
            mixture.weights = [0.3]
            swapped_at = time.process_time()
            task_losses(evaluator, "dev")
            seconds["evaluate"].append(time.process_time() - swapped_at)
            seconds["merge"].append(merged_at - start)
            seconds["swap"].append(swapped_at - merged_at)
            mixture.remove()
        parts = {name: median(values) for name, values in seconds.items()}
        evaluations = [parts["evaluate"] * tokens / (2 * 127) for tokens in TOKENS]
        shares = [parts["merge"] / (parts["merge"] + parts["swap"] + seconds) for seconds in evaluations]
        print(
            f"{method:40}{parts['merge']:10.2f}{parts['swap']:7.3f}{evaluations[0]:11.1f} / {evaluations[1]:.1f}"
            f"{'':19}{100 * shares[0]:5.1f} / {100 * shares[1]:.1f} %",
            flush=True,
        )


if __name__ == "__main__":
    main()
