"""Whole tensors that travel with an adapter: from which of several sources they are taken."""

from __future__ import annotations

from collections.abc import Sequence

from loreg.adapters.keys import PREFIX, plain_extra
from loreg.adapters.layout import Layout
from loreg.errors import MergeError, UsageError


def choose_extras(layouts: Sequence[Layout], labels: Sequence[str], same: bool, chosen: int | None) -> int | None:
    """The source whose whole tensors the result takes; None if no source has any.

    ``same`` says whether all sources that have extras have the same ones, to the bit. Raises MergeError with the
    choice to make where they differ, UsageError if the chosen one has none.
    """
    having = [position for position, layout in enumerate(layouts) if layout.extras]
    if chosen is not None:
        if having and chosen not in having:
            raise UsageError(f"--extras: {labels[chosen]} has no whole tensors", hint=f"--extras {labels[having[0]]}")
        return chosen if having else None
    if len(having) > 1 and not same:
        of_each = "; ".join(f"{labels[p]}: {_describe(layouts[p])}" for p in having)
        raise MergeError(
            f"whole tensors cannot be blended ({of_each})",
            hint=" or ".join(f"--extras {labels[p]}" for p in having) + " takes them from one source",
        )
    return having[0] if having else None


def refuse_factors_of_whole_modules(layouts: Sequence[Layout], labels: Sequence[str], extras: int) -> None:
    """Raise MergeError where a source has factors for a module that the result takes whole from another one."""
    names = [plain_extra(name).removeprefix(PREFIX) for name in layouts[extras].extras]
    whole = {name.rpartition(".")[0] for name in names if not name.endswith(".bias")}
    for layout, label in zip(layouts, labels, strict=True):
        for module in layout.modules:
            if module in whole:
                raise MergeError(
                    f"module {module} is whole in {labels[extras]} and has factors in {label}: PEFT would drop these",
                    hint=f"--extras {label}" if layout.extras else "merge them without that module",
                )


def _describe(layout: Layout) -> str:
    name, tensor = next(iter(sorted(layout.extras.items(), key=lambda item: -len(item[1].shape))))
    more = f" and {len(layout.extras) - 1} more" if len(layout.extras) > 1 else ""
    return f"{name.removeprefix('base_model.model.')} {tensor.shape}{more}"
