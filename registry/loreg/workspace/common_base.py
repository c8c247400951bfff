"""Find the one base that all adapters to be combined are for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from loreg.bases.common_base import find_common_base
from loreg.entities import BaseModel, VerdictKind
from loreg.errors import CheckFailedError
from loreg.workspace.base_lookup import assess_fit, find_base, load_base, trained_adapter
from loreg.workspace.context import Context
from loreg.workspace.resolve_sources import ResolvedSource


def common_base(
    context: Context, opened: Sequence[ResolvedSource], allow_derived: bool
) -> tuple[BaseModel | None, tuple[str, ...]]:
    """Return the base of all sources, None if it is not known of each, and notes on the choice.

    Raises CheckFailedError if two do not fit, as :func:`loreg.bases.common_base.find_common_base` does.
    """
    return find_common_base(opened, partial(load_base, context), context.backend.base_path, allow_derived=allow_derived)


def refuse_another_base(context: Context, base: Path | str, opened: Sequence[ResolvedSource]) -> None:
    """Raise CheckFailedError for a source whose tensors do not fit the model at the path ``base``."""
    model = find_base(context, str(Path(base).expanduser().absolute()))
    for source in opened:
        verdict = assess_fit(context, trained_adapter(context, source.structure, None), model)
        if verdict.kind == VerdictKind.MISMATCH:
            raise CheckFailedError(
                f"base mismatch: {source.label} does not fit {model.base.title}: {verdict.reason}",
                hint="--base names the folder of the model that the adapters were trained on",
            )
