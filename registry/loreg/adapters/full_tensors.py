"""Choose the source that the full tensors of a merge, which cannot be blended, are taken from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from loreg.adapters.config import LoraConfig
from loreg.adapters.header import Tensor
from loreg.adapters.keys import PREFIX, TRAINED_ROWS_SUFFIX, strip_base_layer, weight_of_full_tensor
from loreg.adapters.structure import AdapterStructure
from loreg.errors import MergeError, UsageError


def choose_full_tensors(
    tensors: Sequence[Mapping[str, Tensor]], labels: Sequence[str], same: bool, chosen: int | None
) -> int | None:
    """Return the position of the source whose full tensors the result takes; None if no source has any.

    ``tensors`` are those of each source; ``same`` says whether all that have any have the same ones, to the bit.
    ``chosen`` is the position that the user asked for. Raises MergeError with the choice to make where they differ,
    UsageError if the chosen source has none.
    """
    candidates = [position for position, source_tensors in enumerate(tensors) if source_tensors]
    if chosen is not None:
        if candidates and chosen not in candidates:
            raise UsageError(
                f"--extras: {labels[chosen]} has no whole tensors", hint=f"--extras {labels[candidates[0]]}"
            )
        return chosen if candidates else None
    if len(candidates) > 1 and not same:
        descriptions = "; ".join(f"{labels[p]}: {_describe(tensors[p])}" for p in candidates)
        raise MergeError(
            f"whole tensors cannot be blended ({descriptions})",
            hint=" or ".join(f"--extras {labels[p]}" for p in candidates) + " takes them from one source",
        )
    return candidates[0] if candidates else None


def refuse_factors_of_full_modules(structures: Sequence[AdapterStructure], labels: Sequence[str], chosen: int) -> None:
    """Raise MergeError where a source has factors for a module that the result takes whole from another one.

    ``chosen`` is the position of the source whose full tensors the result takes.
    """
    names = [strip_base_layer(name).removeprefix(PREFIX) for name in structures[chosen].full_tensors]
    full_modules = {name.rpartition(".")[0] for name in names if not name.endswith(".bias")}
    for structure, label in zip(structures, labels, strict=True):
        for module in structure.modules:
            if module in full_modules:
                raise MergeError(
                    f"module {module} is whole in {labels[chosen]} and has factors in {label}: PEFT would drop these",
                    hint=f"--extras {label}" if structure.full_tensors else "merge them without that module",
                )


def was_trained(key: str, config: LoraConfig) -> bool:
    """Whether the full tensor ``key`` was trained (``modules_to_save``, ``bias``).

    If not, PEFT saved the base's own, as it does with embeddings where the vocabulary was resized.
    """
    module, _, last = weight_of_full_tensor(key).rpartition(".")
    modules_to_save = config.raw.get("modules_to_save") or ()
    if any(module == name or module.endswith(f".{name}") for name in map(str, modules_to_save)):
        return True
    if last == "bias":
        return config.raw.get("bias") not in (None, "none")
    # PEFT then trains what is tied to a module together with it, and names only the one.
    return bool(modules_to_save and config.raw.get("ensure_weight_tying")) and ".base_layer." not in key


def _describe(tensors: Mapping[str, Tensor]) -> str:
    name, tensor = next(iter(sorted(tensors.items(), key=lambda item: -len(item[1].shape))))
    more = f" and {len(tensors) - 1} more" if len(tensors) > 1 else ""
    what = f"rows for {tensor.shape[0]} tokens" if name.endswith(TRAINED_ROWS_SUFFIX) else str(tensor.shape)
    return f"{name.removeprefix(PREFIX).removesuffix(TRAINED_ROWS_SUFFIX)} {what}{more}"
