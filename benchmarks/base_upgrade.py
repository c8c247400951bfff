"""Print what adapters of SmolLM2-135M lose on upgraded bases, and how well weights alone predict who loses.

Eight adapters of the sweeps' tasks, measured on held-out texts, and the two of science and history, measured on texts
that they were trained on; each copied to eight upgrades of its base (base_upgrade_bases.py). An adapter loses in two
senses: it is *worse* where its loss is higher than before by more than a tenth of what it gained, and it has *less to
give* where it gains, over the new base alone, less than nine tenths of what it gained over the old one. Losses are
kept in ``.sweep/smollm2/upgrades``: a run that was cut off goes on.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from base_upgrade_bases import make_upgrades
from base_upgrade_losses import ROWS, TRANSFERRED_TO, TRANSFERS, Question, measure_losses, test_rows
from sweep_setting import load_setting, quiet

from loreg.adapters.structure import read_structure
from loreg.bases.compatibility import BaseTensors
from loreg.bases.identify import identify, parse_tensor_digests
from loreg.bases.model import read_model
from loreg.upgrading.base_pass import BaseWeights, ComparedAdapter, measure_bases
from loreg.upgrading.touched_change import TouchedChange
from loreg.upgrading.touched_tensors import touched_tensors

SHARED = Path(__file__).parents[1] / "examples" / "adapters"
KEPT = 0.9

#: What is asked of the weights, each greater where more is to be lost.
FIGURES: dict[str, Callable[[TouchedChange], float]] = {
    "read: ‖D·V‖ / ‖Δ‖": lambda total: (total.read / total.delta) ** 0.5,
    "written: ‖Uᵀ·D‖ / ‖Δ‖": lambda total: (total.written / total.delta) ** 0.5,
    "both: ‖Uᵀ·D·V‖ / ‖Δ‖": lambda total: (total.both / total.delta) ** 0.5,
    "taken in: |⟨D, Δ⟩| / ‖Δ‖²": lambda total: abs(total.inner) / total.delta,
    "change: ‖D‖ / ‖W‖": lambda total: (total.change / total.weight) ** 0.5 if total.weight else 0.0,
}


def main() -> None:
    quiet()
    setting = load_setting("smollm2", rows=ROWS)
    adapters = {**setting.adapters, **{name: SHARED / f"smollm2-{name}-r8" for name in ("history", "science")}}
    upgrades = make_upgrades(setting.base, setting.adapters)
    rows = test_rows(setting.test, adapters)
    losses = measure_losses(setting.base, upgrades, adapters, rows)
    totals, changes = _measure(setting.base, upgrades, adapters)
    pairs = [(upgrade, task) for upgrade in upgrades for task in adapters]
    kept = {pair: _gain(losses, *pair) / _gain(losses, "", pair[1]) for pair in pairs}
    copied = {pair: losses[Question(*pair, "copied")] - losses[Question("", pair[1], "copied")] for pair in pairs}
    worse = {pair: copied[pair] / _gain(losses, "", pair[1]) for pair in pairs}
    _print_upgrades(upgrades, adapters, changes, totals, kept, worse, losses)
    _print_predictors("is worse", totals, {pair: share > 1 - KEPT for pair, share in worse.items()})
    _print_predictors("has less to give", totals, {pair: share < KEPT for pair, share in kept.items()})
    _print_transfers(adapters, losses)


def _gain(losses: Mapping[Question, float], base: str, task: str, how: str = "copied") -> float:
    return losses[Question(base, task, "")] - losses[Question(base, task, how)]


def _measure(
    base: Path, upgrades: Mapping[str, Path], adapters: Mapping[str, Path]
) -> tuple[dict[tuple[str, str], TouchedChange], dict[str, float]]:
    """Return what each adapter meets of each upgrade, all of its modules together, and how far each base moved."""
    old, structures = _open(base), {task: read_structure(folder) for task, folder in adapters.items()}
    totals, changes = {}, {}
    for upgrade, folder in upgrades.items():
        new = _open(folder)
        compared = [ComparedAdapter(s, touched_tensors(s, old.tensors, new.tensors)) for s in structures.values()]
        measured = measure_bases(old, new, compared)
        changes[upgrade] = measured.change
        for task, modules in zip(adapters, measured.adapters, strict=True):
            totals[upgrade, task] = sum(modules.values(), TouchedChange())
    return totals, changes


def _open(folder: Path) -> BaseWeights:
    identity = identify(folder)
    return BaseWeights(
        BaseTensors(identity.base, parse_tensor_digests(identity.tensor_list, identity.base)), read_model(folder)
    )


def _print_upgrades(
    upgrades: Mapping[str, Path],
    adapters: Mapping[str, Path],
    changes: Mapping[str, float],
    totals: Mapping[tuple[str, str], TouchedChange],
    kept: Mapping[tuple[str, str], float],
    worse: Mapping[tuple[str, str], float],
    losses: Mapping[Question, float],
) -> None:
    print(
        f"\n{len(adapters)} adapters copied to {len(upgrades)} upgrades: ‖D‖/‖W‖ of what changed, what is read of it,"
    )
    print(f"the loss of the base alone beside the old one, the gain kept, how many are worse, keep < {KEPT:.0%}\n")
    header = f"{'change':>8}{'read':>7}{'least':>7}{'most':>7}{'base':>8}{'kept':>7}{'least':>7}{'worse':>7}{'less':>6}"
    print(f"{'upgrade':18}{header}")
    for upgrade in upgrades:
        reads = [FIGURES["read: ‖D·V‖ / ‖Δ‖"](totals[upgrade, task]) for task in adapters]
        shares = [kept[upgrade, task] for task in adapters]
        drift = statistics.mean(
            losses[Question(upgrade, task, "")] - losses[Question("", task, "")] for task in adapters
        )
        counts = (
            sum(worse[upgrade, task] > 1 - KEPT for task in adapters),
            sum(share < KEPT for share in shares),
        )
        print(
            f"{upgrade:18}{changes[upgrade]:8.2%}{statistics.median(reads):7.2f}{min(reads):7.2f}{max(reads):7.2f}"
            f"{drift:+8.2f}{statistics.median(shares):7.0%}{min(shares):7.0%}{counts[0]:7}{counts[1]:6}"
        )


def _print_predictors(
    what: str, totals: Mapping[tuple[str, str], TouchedChange], losing_pairs: Mapping[tuple[str, str], bool]
) -> None:
    pairs, losing = list(losing_pairs), list(losing_pairs.values())
    print(f"\nAUC for who {what}, {sum(losing)} of {len(pairs)} pairs; and the mean of those within an upgrade\n")
    upgrades = list(dict.fromkeys(upgrade for upgrade, _ in pairs))
    for name, figure in FIGURES.items():
        values = [figure(totals[pair]) for pair in pairs]
        within = []
        for upgrade in upgrades:
            own = [i for i, pair in enumerate(pairs) if pair[0] == upgrade]
            if len({losing[i] for i in own}) == 2:
                within.append(_auc([values[i] for i in own], [losing[i] for i in own]))
        mean = f"{statistics.mean(within):.2f} ({len(within)} upgrades)" if within else "–"
        print(f"{name:28}{_auc(values, losing):6.2f}   within an upgrade {mean}")


def _auc(values: Sequence[float], labels: Sequence[bool]) -> float:
    """The chance that a figure of one that loses is above one that does not; ties count half (Mann–Whitney)."""
    above = [v for v, label in zip(values, labels, strict=True) if label]
    below = [v for v, label in zip(values, labels, strict=True) if not label]
    if not above or not below:
        return float("nan")
    return sum((a > b) + 0.5 * (a == b) for a in above for b in below) / (len(above) * len(below))


def _print_transfers(adapters: Mapping[str, Path], losses: Mapping[Question, float]) -> None:
    print("\ncopying beside cleverer transfers: mean loss on the new base, and for how many adapters each is best\n")
    print(f"{'upgrade':18}{'base alone':>12}" + "".join(f"{how:>14}" for how in ("copied", *TRANSFERS)))
    for upgrade in TRANSFERRED_TO:
        by_how = {
            how: [losses[Question(upgrade, task, how)] for task in adapters] for how in ("", "copied", *TRANSFERS)
        }
        best = [min(("copied", *TRANSFERS), key=lambda how: by_how[how][i]) for i in range(len(adapters))]
        cells = "".join(f"{statistics.mean(by_how[how]):9.3f} ({best.count(how):2})" for how in ("copied", *TRANSFERS))
        print(f"{upgrade:18}{statistics.mean(by_how['']):12.3f}{cells}")


if __name__ == "__main__":
    main()
