"""sweep: find the recipe to merge by, in few evaluations, and push what was tried."""

from __future__ import annotations

import contextlib
import hashlib
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from loreg.canonical_json import canonical_json
from loreg.entities import Progress, SweepOptions, SweepResult, no_progress
from loreg.entities.display.pictures import refuse_picture, save_picture
from loreg.errors import ConflictError, UsageError
from loreg.merging.shared_modules import refuse_different_bases
from loreg.refs import is_path, parse_adapter_name
from loreg.sweeping.evaluation_data import read_evaluation_data
from loreg.sweeping.journal import Journal, SweepRequest, is_identity, sweeps_folder
from loreg.verbs.sweep_request import describe_request, refuse_without_permission, refuse_wrong_request
from loreg.workspace.common_base import common_base, refuse_another_base
from loreg.workspace.context import Context
from loreg.workspace.resolve_sources import require_torch, resolve_sources

if TYPE_CHECKING:
    from loreg.verbs.sweep_trials import TrialBook


def sweep(
    context: Context,
    sources: Sequence[str],
    evaluate: str | Callable[[Path], object] | None = None,
    data: Sequence[str] = (),
    options: SweepOptions = SweepOptions(),
    *,
    base: str | None = None,
    calibration: str | None = None,
    name: str | None = None,
    dry_run: bool = False,
    on: str = "",
    device: str = "auto",
    plot: Path | str | None = None,
    progress: Progress = no_progress,
    resumed: str = "",
) -> SweepResult:
    """Find the recipe to merge ``sources`` by. See :meth:`loreg.registry.Registry.sweep`.

    Raises ConflictError if this is another sweep than ``resumed``.
    """
    refuse_picture(plot)
    if name is not None:
        parse_adapter_name(name)
    refuse_wrong_request(sources, evaluate, data, options, base, calibration, on)
    if not dry_run:
        refuse_without_permission(context, parse_adapter_name(name).namespace if name is not None else "")
    texts = read_evaluation_data(data) if data else None
    require_torch()
    from loreg.merging.methods import find_method
    from loreg.verbs.sweep_moments import sweep_moments
    from loreg.verbs.sweep_texts import sweep_texts
    from loreg.verbs.sweep_trials import TrialBook

    for method in options.methods:
        find_method(method)
    with resolve_sources(context, sources, progress) as opened:
        common, base_notes = common_base(context, opened, allow_derived=False)
        if base is not None:
            refuse_another_base(context, base, opened)
        structures, labels = [source.structure for source in opened], [source.label for source in opened]
        refuse_different_bases(structures, labels, one_base=common is not None or base is not None)
        request = describe_request(context, opened, evaluate, texts, options, base, calibration)
        identity = hashlib.sha256(canonical_json(request)).hexdigest()[:12]
        if resumed and identity != resumed:
            raise ConflictError(
                f"an adapter, the base, moments, a text or a task of the sweep {resumed} has changed since it began",
                hint="loreg sweep with what is there now: it is another sweep",
            )
        book = TrialBook(
            context,
            sources,
            opened,
            identity,
            base=base,
            base_digest=common.digest if common else None,
            name=None if dry_run else name or f"sweep-{identity}",
            device=device,
            extras=options.extras,
            progress=progress,
            calibration=Path(calibration).expanduser() if calibration is not None else None,
        )
        with book.journal.drive(), _say_how_to_go_on(identity, isinstance(evaluate, str | None)):
            book.journal.write_request(
                SweepRequest(
                    folder=str(Path.cwd()),
                    sources=tuple(s if is_path(s) else o.label for s, o in zip(sources, opened, strict=True)),
                    evaluate=evaluate if isinstance(evaluate, str) else None,
                    by_function=not isinstance(evaluate, str | None),
                    data=tuple(data),
                    options=options,
                    base=base,
                    calibration=calibration,
                    name=name,
                    dry_run=dry_run,
                    on=on,
                )
            )
            if texts is not None:
                result = sweep_texts(book, texts, options)
            elif evaluate is not None:
                result = _sweep_by(evaluate, book, options, on)
            else:
                result = sweep_moments(book, options)
    result = msgspec.structs.replace(result, notes=(*base_notes, *result.notes))
    if plot is not None:
        save_picture(result.plot(), plot)
    return result


@contextlib.contextmanager
def _say_how_to_go_on(identity: str, by_command: bool) -> Iterator[None]:
    """Add the command that goes on to what ends a sweep from outside; a function's program is run again instead."""
    try:
        yield
    except KeyboardInterrupt as interruption:
        if by_command:
            interruption.add_note(f"loreg sweep --resume {identity}")
        raise


def _sweep_by(evaluate: str | Callable[[Path], object], book: TrialBook, options: SweepOptions, on: str) -> SweepResult:
    """Let a program or a function evaluate: what it says of the first trial shows whether it knows tokens."""
    from loreg.sweeping.score_search import CENTRE
    from loreg.verbs.sweep_losses import sweep_losses
    from loreg.verbs.sweep_measure import open_measurer
    from loreg.verbs.sweep_scores import at_weights, sweep_scores

    with open_measurer(book, evaluate, options, on) as measurer:
        centre = at_weights([CENTRE] * len(book.opened))
        losses = {} if measurer.trial(centre).error else measurer.losses(centre)
        return sweep_losses(measurer, losses, options) if losses else sweep_scores(measurer, options)


def resume_sweep(
    context: Context,
    identity: str,
    *,
    budget: int | None = None,
    on: str | None = None,
    device: str = "auto",
    plot: Path | str | None = None,
    progress: Progress = no_progress,
) -> SweepResult:
    """Go on with a sweep. See :meth:`loreg.registry.Registry.resume_sweep`."""
    if not is_identity(identity):
        message = f"{identity[:40]!r} is no ID of a sweep: expected 12 hexadecimal digits"
        raise UsageError(message, hint="loreg sweep --help")
    request = Journal(sweeps_folder(context.base_cache) / identity).read_request()
    if request.by_function:
        raise UsageError(
            f"the sweep {identity} was evaluated by a function of a program",
            hint="run that program again: it goes on where it was ended",
        )
    if (folder := Path(request.folder)) != Path.cwd():
        raise UsageError(
            f"the sweep {identity} was begun in {folder}, where its files and programs are",
            hint=f"cd {shlex.quote(str(folder))} && loreg sweep --resume {identity}",
        )
    options = request.options if budget is None else msgspec.structs.replace(request.options, budget=budget)
    return sweep(
        context,
        request.sources,
        request.evaluate,
        request.data,
        options,
        base=request.base,
        calibration=request.calibration,
        name=request.name,
        dry_run=request.dry_run,
        on=request.on if on is None else on,
        device=device,
        plot=plot,
        progress=progress,
        resumed=identity,
    )
