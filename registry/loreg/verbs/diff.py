"""diff: say field by field how two adapters differ."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from loreg.adapters.card import CARD_NAME, read_card
from loreg.adapters.structure import AdapterStructure
from loreg.canonical_json import canonical_json
from loreg.entities import AdapterDiff, Details, FieldDiff, ModuleDiff, Progress, no_progress
from loreg.entities.display.text import tell_apart
from loreg.errors import LoregError
from loreg.refs import is_path
from loreg.workspace.context import Context, show_version
from loreg.workspace.resolve_sources import ResolvedSource, has_torch, merge_inputs, resolve_sources

_MAX_CARD_LINES = 500
#: Where the configuration says nothing of training: paths of machines, and the version that wrote it.
_SAYS_NOTHING = frozenset({"inference_mode", "auto_mapping", "peft_version", "base_model_name_or_path"})


def diff(context: Context, a: str, b: str, *, progress: Progress = no_progress) -> AdapterDiff:
    """Compare two refs or folders. See :meth:`loreg.registry.Registry.diff`."""
    (metrics_a, card_a), (metrics_b, card_b) = (_describe(context, source) for source in (a, b))
    with resolve_sources(context, [a, b], progress) as (x, y):
        modules, notes = _compare_modules(x, y, progress)
        return AdapterDiff(
            x.label,
            y.label,
            _metric_fields(metrics_a, metrics_b),
            _fields(_configuration(x.structure), _configuration(y.structure)),
            modules,
            _card_lines(card_a, card_b, x.label, y.label),
            notes,
        )


def diff_headers(a: Details, b: Details, x: AdapterStructure, y: AdapterStructure) -> AdapterDiff:
    """Compare two versions by what is said of them and by their headers; no delta is compared."""
    (metrics_a, card_a), (metrics_b, card_b) = map(_described, (a, b))
    return AdapterDiff(
        a.version.ref,
        b.version.ref,
        _metric_fields(metrics_a, metrics_b),
        _fields(_configuration(x), _configuration(y)),
        _compare_ranks(x, y),
        _card_lines(card_a, card_b, a.version.ref, b.version.ref),
    )


def _describe(context: Context, source: str) -> tuple[dict[str, float], str]:
    """Return the metrics of a source, by name and data, and its card."""
    if is_path(source):
        return {}, read_card(Path(source).expanduser() / CARD_NAME)
    return _described(show_version(context, source))


def _described(details: Details) -> tuple[dict[str, float], str]:
    return {metric.measured: metric.value for metric in details.version.metrics}, details.card


def _metric_fields(a: Mapping[str, float], b: Mapping[str, float]) -> tuple[FieldDiff, ...]:
    """Return the metrics whose numbers are not equal, each with as many digits as it takes to see that."""
    fields = []
    for name in sorted({*a, *b}):
        if name in a and name in b:
            if a[name] != b[name]:
                fields.append(FieldDiff(name, *tell_apart(a[name], b[name])))
        else:
            fields.append(FieldDiff(name, *(f"{side[name]:g}" if name in side else "" for side in (a, b))))
    return tuple(fields)


def _configuration(structure: AdapterStructure) -> dict[str, str]:
    return {
        name: canonical_json(value, ascii_only=False).decode()
        for name, value in structure.config.raw.items()
        if name not in _SAYS_NOTHING
    }


def _fields(a: Mapping[str, str], b: Mapping[str, str]) -> tuple[FieldDiff, ...]:
    names = sorted({*a, *b})
    return tuple(FieldDiff(n, a.get(n, ""), b.get(n, "")) for n in names if a.get(n) != b.get(n))


def _compare_modules(
    x: ResolvedSource, y: ResolvedSource, progress: Progress
) -> tuple[tuple[ModuleDiff, ...], tuple[str, ...]]:
    """Return all modules of both, by name, and what kept their deltas from being compared."""
    ranks = _compare_ranks(x.structure, y.structure)
    if not has_torch():
        return ranks, ("without torch no delta is compared: pip install 'loreg[merge]'",)
    from loreg.merging.compare import compare_modules

    try:
        numbers = compare_modules(*merge_inputs([x, y], [], None), progress=progress)
    except LoregError as error:
        return ranks, (f"the deltas are not compared: {error.message}",)
    compared = (
        ModuleDiff(module.name, module.rank_a, module.rank_b, *numbers.get(module.name, ())) for module in ranks
    )
    return tuple(compared), ()


def _compare_ranks(x: AdapterStructure, y: AdapterStructure) -> tuple[ModuleDiff, ...]:
    """Return all modules of both with their ranks, by name; those that only the second has come last."""
    names = (*x.modules, *(name for name in y.modules if name not in x.modules))
    ranks_a, ranks_b = ({name: module.rank for name, module in side.modules.items()} for side in (x, y))
    return tuple(ModuleDiff(name, ranks_a.get(name, 0), ranks_b.get(name, 0)) for name in names)


def _card_lines(a: str, b: str, label_a: str, label_b: str) -> tuple[str, ...]:
    before, after = (f"{label} {CARD_NAME}" for label in (label_a, label_b))
    lines = difflib.unified_diff(a.splitlines(), b.splitlines(), before, after, n=1, lineterm="")
    return tuple(islice(lines, _MAX_CARD_LINES))
