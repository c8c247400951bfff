"""Whole tensors that travel with an adapter: from which of several sources they are taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from loreg.adapters.config import LoraConfig
from loreg.adapters.header import Tensor
from loreg.adapters.keys import PREFIX, TOKENS, plain_full_name, weight_of_full_tensor
from loreg.adapters.structure import AdapterStructure
from loreg.errors import MergeError, UsageError


def choose_full_tensors(
    extras: Sequence[Mapping[str, Tensor]], labels: Sequence[str], same: bool, chosen: int | None
) -> int | None:
    """The source whose whole tensors the result takes; None if no source has any.

    ``extras`` are those of each source; ``same`` says whether all that have any have the same ones, to the bit. Raises
    MergeError with the choice to make where they differ, UsageError if the chosen one has none.
    """
    having = [position for position, some in enumerate(extras) if some]
    if chosen is not None:
        if having and chosen not in having:
            raise UsageError(f"--extras: {labels[chosen]} has no whole tensors", hint=f"--extras {labels[having[0]]}")
        return chosen if having else None
    if len(having) > 1 and not same:
        of_each = "; ".join(f"{labels[p]}: {_describe(extras[p])}" for p in having)
        raise MergeError(
            f"whole tensors cannot be blended ({of_each})",
            hint=" or ".join(f"--extras {labels[p]}" for p in having) + " takes them from one source",
        )
    return having[0] if having else None


def refuse_factors_of_full_modules(structures: Sequence[AdapterStructure], labels: Sequence[str], extras: int) -> None:
    """Raise MergeError where a source has factors for a module that the result takes whole from another one."""
    names = [plain_full_name(name).removeprefix(PREFIX) for name in structures[extras].full_tensors]
    whole = {name.rpartition(".")[0] for name in names if not name.endswith(".bias")}
    for structure, label in zip(structures, labels, strict=True):
        for module in structure.modules:
            if module in whole:
                raise MergeError(
                    f"module {module} is whole in {labels[extras]} and has factors in {label}: PEFT would drop these",
                    hint=f"--extras {label}" if structure.full_tensors else "merge them without that module",
                )


def was_trained(key: str, config: LoraConfig) -> bool:
    """Whether a whole tensor was trained (``modules_to_save``, ``bias``).

    Else PEFT saved the base's own, as it does with embeddings where the vocabulary was resized.
    """
    module, _, last = weight_of_full_tensor(key).rpartition(".")
    named = config.raw.get("modules_to_save") or ()
    if any(module == name or module.endswith(f".{name}") for name in map(str, named)):
        return True
    if last == "bias":
        return config.raw.get("bias") not in (None, "none")
    # PEFT then trains what is tied to a module together with it, and names only the one.
    return bool(named and config.raw.get("ensure_weight_tying")) and ".base_layer." not in key


def _describe(extras: Mapping[str, Tensor]) -> str:
    name, tensor = next(iter(sorted(extras.items(), key=lambda item: -len(item[1].shape))))
    more = f" and {len(extras) - 1} more" if len(extras) > 1 else ""
    what = f"rows for {tensor.shape[0]} tokens" if name.endswith(TOKENS) else str(tensor.shape)
    return f"{name.removeprefix(PREFIX).removesuffix(TOKENS)} {what}{more}"
