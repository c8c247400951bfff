"""Write an adapter as PEFT would have, where only names or leftovers of training keep PEFT from reading it.

No number is changed: names lose what the model was wrapped in and the adapter's name; copies that PEFT does not read
are left out, and whole tensors that ZeRO-3 left empty and nobody trained. A configuration that does not mention DoRA,
as torchtune's, says so where every module has a magnitude.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from loreg.adapters.keys import PREFIX, weight_of_full_tensor
from loreg.adapters.structure import AdapterStructure
from loreg.checking.profile import read_profile
from loreg.checking.rules import Subject
from loreg.checking.run import check_adapter
from loreg.entities import Finding, Severity
from loreg.exporting.folder import FILE_NAME, ExportSource, plan_for_profile, write_folder

_NAMES, _PIECES, _DORA = "LR019", "LR018", "LR007"
#: The rules that what is written keeps, whatever was read.
MENDED_RULES = (_NAMES, _PIECES, _DORA)


def describe_mend(structure: AdapterStructure, errors: Sequence[Finding]) -> str:
    """Return in a line what mending would do; empty where it cannot help, or is not needed."""
    if not errors or any(finding.code not in MENDED_RULES for finding in errors):
        return ""
    remaining = check_adapter(Subject(_mended(structure)))
    if any(finding.severity == Severity.ERROR and finding.code not in (_NAMES, "LR015") for finding in remaining):
        return ""
    return "; ".join(_describe(structure))


def write_mended(structure: AdapterStructure, label: str, folder: Path) -> None:
    """Write weights, configuration and card of the adapter into the existing ``folder``, as PEFT reads them.

    Raises CheckFailedError if that is not enough.
    """
    source = ExportSource(label, "", _mended(structure))
    write_folder(plan_for_profile(source, read_profile("peft"), None), folder)
    (folder / FILE_NAME).unlink()  # it is a record of an export, with a certificate of what moved; nothing did


def _mended(structure: AdapterStructure) -> AdapterStructure:
    structure = _without_leftovers(structure)
    if not _is_unnamed_dora(structure):
        return structure
    config = structure.config
    return replace(structure, config=replace(config, use_dora=True, raw={**config.raw, "use_dora": True}))


def _is_unnamed_dora(structure: AdapterStructure) -> bool:
    """Return whether every module has a magnitude, of which the configuration does not say what it is for."""
    modules = structure.modules.values()
    if not modules or "use_dora" in structure.config.raw:
        return False
    return all("magnitude" in module.tensors for module in modules)


def _without_leftovers(structure: AdapterStructure) -> AdapterStructure:
    leftovers = set(_leftovers(structure))
    if not leftovers:
        return structure
    full_tensors = {name: tensor for name, tensor in structure.full_tensors.items() if name not in leftovers}
    dropped = {structure.full_tensors[name].name for name in leftovers}
    tensors = {name: tensor for name, tensor in structure.tensors.items() if name not in dropped}
    return replace(structure, full_tensors=full_tensors, tensors=tensors)


def _leftovers(structure: AdapterStructure) -> list[str]:
    """Return the whole tensors without a number that no field of the configuration asks for.

    PEFT saves embeddings and heads that it only looked at; under ZeRO-3 they come out empty, and the base has them.
    """
    raw = structure.config.raw
    saved = raw.get("modules_to_save")
    asked = [str(name) for name in saved] if isinstance(saved, list) else []
    if raw.get("bias") not in (None, "none", False):
        return []
    return [
        name
        for name, tensor in structure.full_tensors.items()
        if 0 in tensor.shape and not any(part in asked for part in weight_of_full_tensor(name).split("."))
    ]


def _describe(structure: AdapterStructure) -> Iterator[str]:
    naming = structure.naming
    if wrappers := [wrapper.rstrip(".") for wrapper in naming.wrappers if wrapper != PREFIX]:
        yield f"names lose {', '.join(wrappers)}, which the model was wrapped in"
    if PREFIX in naming.wrappers:
        yield f"names have {PREFIX} once"
    if naming.adapter:
        yield f"names lose the adapter's name, {naming.adapter!r}"
    if naming.wrapped:
        yield f"{_count(len(naming.wrapped), 'whole tensor')} out of PEFT's wrapper"
    if any(module.shape is not None and module.shape.stacked for module in structure.modules.values()):
        yield "stacked experts become target_parameters"
    if _is_unnamed_dora(structure):
        yield "use_dora becomes true, for every module has a magnitude"
    if leftovers := _leftovers(structure):
        names = ", ".join(weight_of_full_tensor(name) for name in leftovers[:2])
        yield f"{_count(len(leftovers), 'tensor')} that ZeRO-3 left empty and nobody trained left out: {names}"


def _count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {what}s"
