"""What a sweep is asked to do: whether that can be done, and what makes one sweep another."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from loreg.bases.identify import identify
from loreg.entities import Access, Role, SweepOptions
from loreg.errors import NotAllowedError, UnauthenticatedError, UsageError
from loreg.fleet.ray_tasks import parse_cluster
from loreg.sweeping.evaluation_data import EvaluationData
from loreg.sweeping.function_identity import identify_function
from loreg.sweeping.input_files import digest_tasks, digest_tokenizer
from loreg.sweeping.lm_evaluation_harness import is_harness
from loreg.verbs.merge import calibration_digest
from loreg.workspace.context import Context
from loreg.workspace.resolve_sources import ResolvedSource


def refuse_without_permission(context: Context, namespace: str) -> None:
    """Raise NotAllowedError if the caller may not push there: a push that is refused would come after all the work."""
    caller = context.backend.whoami()
    if Access(caller.author, caller.permissions).may(Role.WRITE, namespace):
        return
    where = f"in the namespace {namespace!r}" if namespace else "among adapters without a namespace"
    if not caller.permissions:
        raise UnauthenticatedError(f"without a token nobody may write {where}", hint="loreg login --help; or --dry-run")
    raise NotAllowedError(
        f"{caller.author} may not write {where}, where the trials would become versions",
        hint="--push NAMESPACE/NAME names a place of yours; --dry-run pushes nothing",
    )


def refuse_wrong_request(
    sources: Sequence[str],
    evaluate: str | Callable[[Path], object] | None,
    data: Sequence[str],
    options: SweepOptions,
    base: str | None,
    calibration: str | None,
    on: str,
) -> None:
    """Raise UsageError for what cannot be swept so."""
    if len(sources) < 2:
        raise UsageError(f"{len(sources)} adapters: expected two or more to blend", hint="loreg sweep --help")
    if evaluate is None and not data and calibration is None:
        raise UsageError(
            "nothing says how good a merge is",
            hint="--data texts.jsonl --base DIR, or --eval 'python score.py {dir}', or --calibration FILE",
        )
    if evaluate is not None and data:
        raise UsageError("--eval and --data are two ways to evaluate", hint="leave one of them out")
    if data and base is None:
        raise UsageError("texts are evaluated with the base model: which?", hint="--base DIR names its folder")
    if options.budget < 3:
        raise UsageError(f"a budget of {options.budget} evaluations is too small", hint="--budget 20")
    if (options.jobs is not None and options.jobs < 1) or not (
        options.timeout is None or 0 < options.timeout < math.inf
    ):
        raise UsageError("jobs and timeout are 1 or more, and more than 0 seconds", hint="--jobs 2 --timeout 600")
    if options.gpus and not on:
        raise UsageError("--gpus is what a trial has of a cluster: there is none", hint="--on ray")
    if on:
        parse_cluster(on)
        _refuse_idle_cluster(evaluate, data)
    if any(not 0 <= weight < math.inf for weight in options.importance.values()):
        raise UsageError("the importance of a task is a number of at least 0", hint="--importance news=2")


def _refuse_idle_cluster(evaluate: str | Callable[[Path], object] | None, data: Sequence[str]) -> None:
    """Raise UsageError where no trial is evaluated by what could run elsewhere."""
    if data:
        raise UsageError(
            "--data loads the base once, here, and swaps adapters in it: --on is for trials of --eval",
            hint="leave --on out; or --eval with a program that loads the base and prints the loss of each token",
        )
    if evaluate is None:
        raise UsageError("--calibration alone evaluates nothing: --on is for trials of --eval", hint="leave --on out")


def describe_request(
    context: Context,
    opened: Sequence[ResolvedSource],
    evaluate: str | Callable[[Path], object] | None,
    texts: EvaluationData | None,
    options: SweepOptions,
    base: str | None,
    calibration: str | None,
) -> dict[str, object]:
    """Return what makes one sweep another: adapters, base, texts and tasks by content; not what it may spend."""
    chosen = msgspec.to_builtins(options)
    for spending in ("budget", "jobs", "timeout", "gpus"):
        del chosen[spending]
    model = identify(Path(base).expanduser(), cache_folder=context.base_cache).base.digest if base else None
    read = digest_tokenizer(Path(base).expanduser()) if base and texts else {}
    if isinstance(evaluate, str) and is_harness(evaluate):
        read = digest_tasks(evaluate)
    return {
        "sources": [source.digest for source in opened],
        "evaluate": evaluate if isinstance(evaluate, str | None) else identify_function(evaluate),
        "data": texts.digest if texts else "",
        "options": chosen,
        "base": model,
        "read": read,
        "calibration": calibration_digest(Path(calibration).expanduser() if calibration is not None else None),
    }
