"""What may be recorded of an upgrade: figures that are numbers, and words that a page can show."""

from __future__ import annotations

import math

from loreg.entities import NewUpgrade, NewVerdict
from loreg.errors import UsageError

MAX_VERDICTS = 100  # that are recorded at once
_MAX_REASON, _MAX_TASK, _MAX_LOSSES = 1000, 128, 100


def validate_upgrade(upgrade: NewUpgrade) -> None:
    """Raise UsageError for too many verdicts, a version that is there twice, or what no measurement gives."""
    if not 0 < len(upgrade.verdicts) <= MAX_VERDICTS:
        raise _refuse(f"there are {len(upgrade.verdicts):,} verdicts, expected 1 to {MAX_VERDICTS}")
    if len({verdict.ref for verdict in upgrade.verdicts}) < len(upgrade.verdicts):
        raise _refuse("one version has two verdicts")
    _validate_numbers("the base", upgrade.tensors, upgrade.changed, upgrade.change)
    for verdict in upgrade.verdicts:
        _validate_verdict(verdict)


def _validate_verdict(verdict: NewVerdict) -> None:
    what = f"the verdict on {verdict.ref[:100]!r}"
    _validate_numbers(what, verdict.tensors, verdict.changed, verdict.read, verdict.written, verdict.change)
    _validate_numbers(what, 0, 0, abs(verdict.overlap or 0.0))
    if not verdict.reason.isprintable() or len(verdict.reason) > _MAX_REASON or len(verdict.losses) > _MAX_LOSSES:
        raise _refuse(f"{what} has a reason that cannot be shown, or more than {_MAX_LOSSES} losses")
    for loss in verdict.losses:
        if not loss.task.isprintable() or not 0 < len(loss.task) <= _MAX_TASK:
            raise _refuse(f"{what} has a loss on {loss.task[:50]!r}, which is no task")
        _validate_numbers(what, loss.tokens, 0, loss.old_base, loss.before, loss.new_base, loss.after)


def _validate_numbers(what: str, count: int, part: int, *figures: float | None) -> None:
    numbers = [figure for figure in figures if figure is not None]
    if not 0 <= part <= count < 2**31 or not all(math.isfinite(number) and number >= 0 for number in numbers):
        raise _refuse(f"{what} has figures that cannot be: expected finite ones from 0 on")


def _refuse(message: str) -> UsageError:
    return UsageError(message, hint="loreg base upgrade ./old ./new")
