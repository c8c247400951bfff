"""Assess what an upgrade means for one adapter, from what has become of the tensors that it touches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from loreg.adapters.config import LoraConfig, why_not_mergeable
from loreg.entities import AdapterUpgrade, ModuleUpgrade, UpgradeVerdict, Version
from loreg.upgrading.touched_change import TouchedChange
from loreg.upgrading.touched_tensors import TensorState, TouchedTensor

#: The change that an adapter reads, by its own delta, from which on it is to be trained again.
LARGE_CHANGE = 1.0
#: The share of a delta that the change has in it, from which on the upgrade was made with the adapter itself.
TAKEN_IN = 0.5


def assess_upgrade(
    version: Version,
    config: LoraConfig,
    tensors: Sequence[TouchedTensor],
    changes: Mapping[str, TouchedChange] | None,
) -> AdapterUpgrade:
    """Return the verdict on an adapter; ``changes`` are those of its modules, None where no weights were compared."""
    changed = [tensor for tensor in tensors if tensor.state != TensorState.SAME]

    def answer(verdict: UpgradeVerdict, reason: str, total: TouchedChange | None = None) -> AdapterUpgrade:
        counts = len(tensors), len(changed)
        if total is None or not total.delta:
            return AdapterUpgrade(version, verdict, reason, *counts)
        return AdapterUpgrade(
            version,
            verdict,
            reason,
            *counts,
            read=math.sqrt(total.read / total.delta),
            written=math.sqrt(total.written / total.delta),
            change=math.sqrt(total.change / total.weight) if total.weight else None,
            overlap=total.inner / total.delta,
            modules=_modules(changes or {}),
        )

    if not changed:
        touched = f"{len(tensors)} tensors that it touches are" if len(tensors) != 1 else "tensor that it touches is"
        return answer(UpgradeVerdict.EXACT, f"the {touched} the same")
    misfit = next((tensor for tensor in tensors if tensor.state == TensorState.MISFIT), None)
    if misfit is not None:
        return answer(UpgradeVerdict.RETRAIN, misfit.reason)
    unknown = next((tensor for tensor in tensors if tensor.state == TensorState.UNKNOWN), None)
    if unknown is not None:
        return answer(UpgradeVerdict.UNKNOWN, unknown.reason)
    if config.changes_the_base:
        started = (
            f"init_lora_weights is {config.raw['init_lora_weights']!r}: its training began by changing the old base"
        )
        return answer(UpgradeVerdict.RETRAIN, started)
    if reason := why_not_mergeable(config):
        return answer(UpgradeVerdict.UNKNOWN, reason)
    if changes is None:
        count = f"{len(changed)} of {len(tensors)} {'tensors' if len(tensors) != 1 else 'tensor'} changed"
        return answer(UpgradeVerdict.UNKNOWN, f"{count}; by how much, the folders of both models tell")
    total = sum(changes.values(), TouchedChange())
    if not all(math.isfinite(figure) for figure in (total.delta, total.weight, total.change, total.read, total.inner)):
        return answer(UpgradeVerdict.UNKNOWN, "it or one of the bases has numbers that are not finite, or too large")
    read = math.sqrt(total.read / total.delta) if total.delta else 0.0
    taken_in = total.inner / total.delta if total.delta else 0.0
    if taken_in >= TAKEN_IN:
        reason = f"the upgrade has {100 * taken_in:.3g} % of it in: on the new base it would count twice"
        return answer(UpgradeVerdict.RETRAIN, reason, total)
    whole = next((f"; {tensor.reason}" for tensor in changed if tensor.target is None), "")
    reason = f"what it reads changed by {100 * read:.3g} % of its delta{whole}"
    return answer(UpgradeVerdict.RETRAIN if read >= LARGE_CHANGE else UpgradeVerdict.COPY, reason, total)


def order(adapter: AdapterUpgrade) -> tuple[int, float, str]:
    """Return where an adapter stands in a report: by verdict, then the least changed first."""
    return tuple(UpgradeVerdict).index(adapter.verdict), adapter.read or 0.0, adapter.version.ref


def _modules(changes: Mapping[str, TouchedChange]) -> tuple[ModuleUpgrade, ...]:
    modules = [
        ModuleUpgrade(
            module,
            math.sqrt(change.delta),
            math.sqrt(change.weight),
            math.sqrt(change.change),
            math.sqrt(change.read),
            math.sqrt(change.written),
            math.sqrt(change.both),
            change.inner / change.delta if change.delta else 0.0,
        )
        for module, change in changes.items()
        if change.change
    ]
    return tuple(sorted(modules, key=lambda module: (-module.read, module.module)))
