"""Print how many evaluations each search needs for 90, 95 and 99 % of the best gain that weights can have.

``python benchmarks/sweep_peers.py smollm2`` evaluates 140 weights for real once and keeps them in ``.sweep``; searches
that know nothing but a loss then run from twenty seeds on an emulator of these evaluations. What a sweep finds
is evaluated for real, for it looks at the texts themselves. Where the emulator is least the real loss
is taken too.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable

import numpy as np
from sweep_curve import SweepEvaluator
from sweep_emulator import Emulator, fit_emulator
from sweep_mixture import Mixture, load_evaluator, read_deltas
from sweep_pool import COUNTS, EQUAL_STRENGTHS, Array, Pool
from sweep_searches import SEARCHES, best_losses, evaluations_to
from sweep_setting import KINDS, Setting, load_setting, quiet

from loreg.sweeping.token_search import EQUAL, FREE, STRENGTH, TokenSearch

SHARES = (0.90, 0.95, 0.99)
ORDER = (EQUAL, STRENGTH, FREE)


def print_searches(emulator: Emulator, count: int, base: float, least: float, seeds: int, budget: int) -> None:
    """Print a row for each search: medians over the seeds, and of the last share 10 and 90 % quantiles."""
    print(f"\n{'evaluations to':42}   90 %   95 %   99 %   [10 %, 90 %]     gain after 6 / 12 / 20 / 40")
    for name, make in SEARCHES.items():
        runs = [best_losses(make(count, seed), emulator, budget) for seed in range(seeds)]
        needed = np.array([[evaluations_to(share, run, base, least) for share in SHARES] for run in runs])
        medians = [_count(number, budget) for number in np.quantile(needed, 0.5, axis=0, method="higher")]
        low, high = (_count(np.quantile(needed[:, 2], q, method="higher"), budget) for q in (0.1, 0.9))
        after = [np.median([(base - run[place - 1]) / (base - least) for run in runs]) for place in (6, 12, 20, 40)]
        gains = " / ".join(f"{100 * gain:3.0f}" for gain in after)
        print(f"{name:42} {''.join(f'{m:>7}' for m in medians)}   {f'[{low}, {high}]':14}   {gains} %", flush=True)


def print_sweep(pool: Pool, name: str, setting: Setting, least: float) -> None:
    """Print what ``loreg sweep`` finds, evaluated for real, and how many evaluations were made until then."""
    evaluator = load_evaluator(setting, dev=COUNTS[name], test=COUNTS[name])
    mixture = Mixture(evaluator.model, [read_deltas(folder) for folder in setting.adapters.values()])
    count = len(setting.adapters)
    base, importance = pool.losses[0, 0].mean(), np.full(count, 1 / count)
    print("\nloreg sweep, evaluated for real: share of the best gain, and after how many evaluations")
    for has_logits in (True, False):
        texts = SweepEvaluator(evaluator, mixture, has_logits)
        search = TokenSearch(
            texts, count, texts.texts("dev"), texts.texts("test"), importance, count + 6, (), 0, None, (1.0,), 0.0
        )
        answer = search.run()
        candidates = sorted({answer.best, *answer.differences}, key=lambda candidate: ORDER.index(candidate.what))
        print("with logits" if has_logits else "with the losses of tokens")
        for spent, candidate in enumerate(candidates, count + 4):
            share = 100 * (base - pool.evaluate(np.array(candidate.strengths))[0].mean()) / (base - least)
            print(
                f"  {candidate.what:24}{share:7.1f} % after {spent:2}   at {_weights(candidate.strengths)}", flush=True
            )


def _count(number: float, budget: int) -> str:
    return f"{number:.0f}" if np.isfinite(number) else f">{budget}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=[*KINDS])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--budget", type=int, default=400, help="evaluations of a search")
    options = parser.parse_args()
    quiet()
    setting = load_setting(options.name)
    pool = Pool(options.name, setting)
    losses, count = pool.losses[:, 0].mean(1), len(setting.adapters)
    emulator, best = fit_emulator(pool.weights, losses, lambda weights: float(pool.evaluate(weights)[0].mean()))
    real, base = float(pool.evaluate(best)[0].mean()), losses[0]
    print(f"\n{options.name}: {count} adapters on as many tasks; mean dev loss, nats, of {len(losses)} evaluations\n")
    print(f"no adapter {base:.4f}")
    for strength, loss in zip(EQUAL_STRENGTHS, losses[1 + count :], strict=False):
        print(f"{strength:.2f} each  {loss:.4f}")
    print(f"best       {real:.4f}   at {_weights(best)}")
    near = emulator.errors[: len(losses)][losses <= np.quantile(losses, 1 / 3)]
    added = emulator.errors[len(losses) :]
    print(
        f"the emulator, in shares of the best gain: off {_share(emulator(best) - real, base - real)} there, near it "
        f"{_share(_rms(added), base - real)}, in the best third {_share(_rms(near), base - real)}, "
        f"everywhere {_share(_rms(emulator.errors), base - real)}"
    )
    print_sweep(pool, options.name, setting, real)
    print_searches(emulator, count, base, min(real, emulator(best)), options.seeds, options.budget)


def _weights(weights: Iterable[float]) -> str:
    return " ".join(f"{weight:.2f}" for weight in weights)


def _share(loss: float, gain: float) -> str:
    return f"{100 * loss / gain:.1f} %"


def _rms(errors: Array) -> float:
    return float(np.sqrt(np.square(errors).mean()))


if __name__ == "__main__":
    main()
