"""``loreg sweep``: which method, which weights."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TYPE_CHECKING

import click

from loreg_cli.merge_options import device_option, given_options, plot_option
from loreg_cli.options import format_option, open_registry, table_options
from loreg_cli.output import echo, print_json, print_table, warn
from loreg_cli.progress import progress_bar

if TYPE_CHECKING:
    from loreg.entities import SweepResult, SweepTrial

_MANY = 12  # trials; of more, the best are printed
_FEW = 3  # adapters whose weights are worth a column; those of more take the room of all tasks


@click.command()
@click.argument("sources", metavar="[REF|DIR]...", nargs=-1)
@click.option("--eval", "evaluate", metavar="CMD", help="Prints how good {dir} is; or module:function, lm-eval:TASKS.")
@click.option("--data", multiple=True, metavar="[TASK=]FILE", help="Texts by task, evaluated with the base in place.")
@click.option("--base", metavar="DIR", help="The base model: --data and lm-eval run it.")
@click.option("--calibration", metavar="FILE", help="Moments, for regmean; alone they rank recipes untried.")
@click.option("--budget", type=click.IntRange(3), metavar="N", help="Evaluations to spend. Default: 20.")
@click.option(
    "--method", "methods", multiple=True, metavar="METHOD", help="Beside linear. Default: regmean, tsv, wudi."
)
@click.option("--importance", multiple=True, metavar="TASK=N", help="How much a task counts; 1 by default.")
@click.option("--metric", metavar="NAME", help="What CMD prints. Default: score.")
@click.option("--lower-is-better", is_flag=True, help="... and lower is better, where the name does not say it.")
@click.option("--timeout", type=float, metavar="SECONDS", help="A trial of CMD that takes longer has failed.")
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="Trials of CMD side by side.")
@click.option("--on", metavar="ray[://HOST]", help="Trials of CMD run on Ray: started here, or a cluster.")
@click.option("--gpus", type=click.IntRange(1), metavar="N", help="... where each has N GPUs of its own.")
@click.option("--extras", metavar="REF|DIR", help="Whole tensors (classifiers) come from it.")
@click.option("--seed", type=int, metavar="N", help="Of what is drawn.")
@click.option("--push", "name", metavar="NAME", help="Trials become its versions. Default: sweep-ID.")
@click.option("--dry-run", is_flag=True, help="Push nothing.")
@click.option("--resume", metavar="ID", help="Go on with a sweep, as it was asked for.")
@device_option
@plot_option
@table_options
@format_option
def sweep(
    sources: tuple[str, ...],
    evaluate: str | None,
    data: tuple[str, ...],
    base: str | None,
    calibration: str | None,
    budget: int | None,
    methods: tuple[str, ...],
    importance: tuple[str, ...],
    metric: str | None,
    lower_is_better: bool,
    timeout: float | None,
    jobs: int | None,
    on: str | None,
    gpus: int | None,
    extras: str | None,
    seed: int | None,
    name: str | None,
    dry_run: bool,
    resume: str | None,
    device: str,
    plot: Path | None,
    format_: str,
) -> None:
    """Find the method and the weights to merge adapters by, in few evaluations.

    \b
    loreg sweep team/news team/chat --base ./SmolLM2 --data texts.jsonl
    loreg sweep a b c --eval 'python score.py {dir}' --metric accuracy --budget 20

    A line of texts.jsonl is {"task": "news", "text": "…"}. What was evaluated is kept: the same command goes on where
    it was ended.
    """
    import msgspec

    from loreg.entities import SweepOptions
    from loreg.parsing import parse_importance

    options = given_options(
        budget=budget,
        methods=methods or None,
        importance=parse_importance(importance) or None,
        metric=metric,
        higher_is_better=False if lower_is_better else None,
        timeout=timeout,
        jobs=jobs,
        gpus=gpus,
        extras=extras,
        seed=seed,
    )
    with progress_bar() as progress:
        if resume is not None:
            if sources or evaluate or data or base or calibration or name or dry_run or options.keys() - {"budget"}:
                raise click.UsageError("--resume goes on as the sweep was asked for: only --budget and --on go with it")
            result = open_registry().resume_sweep(
                resume, budget=budget, on=on, device=device, plot=plot, progress=progress
            )
        else:
            if evaluate is None and (data or calibration):
                _refuse_idle_options(options.keys(), has_texts=bool(data))
            result = open_registry().sweep(
                sources,
                evaluate,
                data,
                msgspec.convert(options, SweepOptions),
                base=base,
                calibration=calibration,
                name=name,
                dry_run=dry_run,
                on=on or "",
                device=device,
                plot=plot,
                progress=progress,
            )
    _print_sweep(result, format_)


def _refuse_idle_options(options: AbstractSet[str], *, has_texts: bool) -> None:
    """Raise UsageError for an option that would change nothing: of the other way to evaluate."""
    if options & {"metric", "higher_is_better", "timeout", "jobs"}:
        way = "--data" if has_texts else "--calibration alone"
        raise click.UsageError(f"--metric, --lower-is-better, --timeout and --jobs go with --eval, not with {way}")
    if not has_texts and options & {"budget", "seed"}:
        raise click.UsageError("--budget and --seed go with --eval or --data: --calibration alone evaluates nothing")


def _print_sweep(result: SweepResult, format_: str) -> None:
    for note in result.notes:
        warn(note)
    if format_ == "json":
        print_json(result)
        return
    best = result.answer
    if format_ == "quiet":
        click.echo(best.version or ",".join(f"{strength:g}" for strength in best.candidate.strengths))
        return
    scored = [trial for trial in result.trials if not trial.error]
    shown = sorted([*scored, *result.baselines], key=lambda trial: _overall(trial, result))[:_MANY]
    scores = [task.upper() for task in result.tasks]
    columns = ["TRIAL", "RECIPE", "λ", "WEIGHTS", "MEAN", *scores, "FRONT"]
    rows = [_row(trial, result) for trial in shown]
    drop = [*scores[::-1], "WEIGHTS"] if len(result.sources) <= _FEW else ["WEIGHTS", *scores[::-1]]
    print_table(columns, rows, right=["TRIAL", "λ", "MEAN", *scores], drop=drop)
    echo("")
    echo(f"take {best.version or f'trial {best.number}'}: {best.candidate.what}")
    if len(set(best.candidate.weights)) > 1:
        for source, strength in zip(result.sources, best.candidate.strengths, strict=True):
            echo(f"  {strength:g} of {source}")
    for comparison in result.comparisons:
        gap = comparison.difference
        what = result.trials[comparison.trial].candidate.what
        interval = f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}] {result.metric}"
        echo(f"  {what}: {interval}{', no difference' if gap.holds_zero else ''}")
    if result.weights_sd:
        by_size = sorted(result.weights_sd) if len(result.weights_sd) > _FEW else result.weights_sd
        ends = (by_size[0], by_size[-1]) if len(by_size) > _FEW else by_size
        spread = (" to " if len(by_size) > _FEW else ", ").join(f"{sd:.2f}" for sd in ends)
        echo(f"  other texts of the kind would move free weights by {spread} (sd)")
    echo(f"{result.evaluations:g} evaluations; what they gave is kept as sweep {result.id}")
    if result.promote:
        echo(result.promote)


def _overall(trial: SweepTrial, result: SweepResult) -> float:
    return -_mean(trial) if result.higher_is_better else _mean(trial)


def _mean(trial: SweepTrial) -> float:
    scores = trial.confirmed or trial.scores
    return sum(scores.values()) / len(scores)


def _row(trial: SweepTrial, result: SweepResult) -> list[str]:
    candidate, is_trial = trial.candidate, trial.number >= 0
    scores = trial.confirmed or trial.scores
    mark = "taken" if trial.number == result.best else "yes" if trial.number in result.front else ""
    weights = ",".join(f"{weight:g}" for weight in candidate.weights)
    return [
        str(trial.number) if is_trial else "",
        candidate.what,
        f"{candidate.scale:g}" if is_trial else "",
        weights if is_trial else "",
        _figures(_mean(trial)),
        *(_figures(scores[task]) for task in result.tasks),
        mark,
    ]


def _figures(score: float) -> str:
    """Return four significant digits, also those that are zero: numbers of one column are of one length."""
    return f"{score:.4g}" if abs(score) >= 1000 else f"{score:#.4g}"
