"""Conditions on an adapter that a server profile can name: each yields in words what holds, or nothing.

A profile is data: it names a condition, what its server then does, and where that was read. The docstring of a
condition is what ``loreg check --explain`` prints, with the profile's value in the place of ``value``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from loreg.adapters.keys import PREFIX
from loreg.adapters.module import Module
from loreg.adapters.module_shape import ModuleKind
from loreg.adapters.structure import AdapterStructure
from loreg.bases import names
from loreg.checking.files import list_other_safetensors
from loreg.checking.full_tensors import full_biases, full_modules
from loreg.checking.missing_modules import missing_in_layers, missing_partners
from loreg.checking.rules import Subject

#: Takes an adapter and the value that the profile has for the condition.
Condition = Callable[[Subject, Any], Iterable[str]]
CONDITIONS: dict[str, Condition] = {}


def declare_condition(condition: Condition) -> Condition:
    """Make the function below known to profiles by its name."""
    CONDITIONS[condition.__name__] = condition
    return condition


@declare_condition
def rank_over(subject: Subject, max_rank: int) -> Iterable[str]:
    """A module has a higher rank than ``value``."""
    highest = max(subject.structure.modules.values(), key=lambda module: module.rank)
    if highest.rank > max_rank:
        yield f"rank {highest.rank} ({highest.name}) is over {max_rank}"


@declare_condition
def scale_is_rslora(subject: Subject, _: object) -> Iterable[str]:
    """``use_rslora`` is true, and √r is not 1."""
    if subject.structure.config.use_rslora and any(module.rank != 1 for module in subject.structure.modules.values()):
        yield "use_rslora is true: the scale is alpha/√r"


@declare_condition
def ranks_differ(subject: Subject, _: object) -> Iterable[str]:
    """Modules have different ranks."""
    ranks = sorted({module.rank for module in subject.structure.modules.values()})
    if len(ranks) > 1:
        yield f"ranks from {ranks[0]} to {ranks[-1]}"


@declare_condition
def ranks_differ_within_a_type(subject: Subject, _: object) -> Iterable[str]:
    """Modules of one type have different ranks."""
    for module_type, modules in _group_by_type(subject.structure).items():
        ranks = sorted({module.rank for module in modules})
        if len(ranks) > 1:
            yield f"{module_type} has ranks from {ranks[0]} to {ranks[-1]}"


@declare_condition
def scales_are_not_global(subject: Subject, _: object) -> Iterable[str]:
    """A module's scale is not lora_alpha / r of the configuration."""
    config = subject.structure.config
    scale = config.lora_alpha / (math.sqrt(config.r) if config.use_rslora else config.r)
    others = [
        module for module in subject.structure.modules.values() if not math.isclose(module.scale, scale, rel_tol=1e-6)
    ]
    if others:
        yield f"{len(others)} modules have another scale than lora_alpha/r, e.g. {others[0].name}: {others[0].scale:g}"


@declare_condition
def has_alpha_pattern(subject: Subject, _: object) -> Iterable[str]:
    """``alpha_pattern`` gives a module another alpha than ``lora_alpha``."""
    alpha = subject.structure.config.lora_alpha
    others = [module for module in subject.structure.modules.values() if module.alpha != alpha]
    if others:
        yield f"alpha_pattern gives {len(others)} modules another alpha, e.g. {others[0].name}: {others[0].alpha:g}"


@declare_condition
def is_dora(subject: Subject, _: object) -> Iterable[str]:
    """It has DoRA magnitudes."""
    if subject.structure.config.use_dora or any("magnitude" in m.tensors for m in subject.structure.modules.values()):
        yield "it is a DoRA adapter"


@declare_condition
def has_whole_modules(subject: Subject, accepted: list[str] | None) -> Iterable[str]:
    """It has whole modules, named in ``modules_to_save`` or not; accepted: ``value``."""
    modules = full_modules(subject.structure.full_tensors)
    yield from _say_kept_whole([name for name in modules if name.rpartition(".")[2] not in (accepted or ())])


@declare_condition
def has_whole_norms(subject: Subject, norm_marks: list[str]) -> Iterable[str]:
    """It has whole modules with one of ``value`` in their names."""
    modules = full_modules(subject.structure.full_tensors)
    norms = [name for name in modules if any(mark in f".{name}" for mark in norm_marks)]
    yield from _say_kept_whole(norms[:1])


@declare_condition
def has_whole_modules_but_norms(subject: Subject, norm_marks: list[str]) -> Iterable[str]:
    """It has whole modules without any of ``value`` in their names."""
    modules = full_modules(subject.structure.full_tensors)
    yield from _say_kept_whole([name for name in modules if not any(mark in f".{name}" for mark in norm_marks)])


def _say_kept_whole(modules: list[str]) -> Iterable[str]:
    if modules:
        yield f"{', '.join(modules[:3])} {'is' if len(modules) == 1 else 'are'} kept whole"


@declare_condition
def has_copies_of_the_base(subject: Subject, accepted: list[str]) -> Iterable[str]:
    """It has weights of the base beside factors (PEFT's ``save_embedding_layers``); accepted: ``value``."""
    ending = ".base_layer.weight"
    copies = [
        key.removeprefix(PREFIX).removesuffix(ending) for key in subject.structure.full_tensors if key.endswith(ending)
    ]
    others = [name for name in copies if name.rpartition(".")[2] not in accepted]
    if others:
        yield f"the base's weight of {others[0]} lies beside its factors"


@declare_condition
def has_biases(subject: Subject, _: object) -> Iterable[str]:
    """It has full biases or biases of LoRA, whatever ``bias`` and ``lora_bias`` say."""
    if biases := full_biases(subject.structure.full_tensors):
        yield f"{len(biases)} full biases are in the file, e.g. {biases[0]}"
    modules = [module.name for module in subject.structure.modules.values() if "bias" in module.tensors]
    if modules:
        yield f"{len(modules)} modules have biases of LoRA, e.g. {modules[0]}"


@declare_condition
def has_embeddings(subject: Subject, _: object) -> Iterable[str]:
    """It has factors of embeddings, or whole ones."""
    for module in subject.structure.modules.values():
        if module.shape is not None and module.shape.kind == ModuleKind.EMBEDDING:
            yield f"{module.name} is an embedding"
    for key in subject.structure.full_tensors:
        if names.is_embedding(names.canonical_name(key.removeprefix(PREFIX).replace(".base_layer.", "."))):
            yield f"{key.removeprefix(PREFIX)} is a whole embedding"


@declare_condition
def has_tokens(subject: Subject, _: object) -> Iterable[str]:
    """It has trained single tokens, named in ``trainable_token_indices`` or not."""
    if subject.structure.config.raw.get("trainable_token_indices"):
        yield "trainable_token_indices is set"
    elif subject.structure.token_rows:
        yield f"rows for single tokens of {next(iter(subject.structure.token_rows))} are in the file"


@declare_condition
def has_experts(subject: Subject, _: object) -> Iterable[str]:
    """It has factors of ``target_parameters``."""
    if subject.structure.config.raw.get("target_parameters"):
        yield "target_parameters is set"
    elif parameters := [module.name for module in subject.structure.modules.values() if module.parameter]:
        yield f"{parameters[0]} is a parameter"


@declare_condition
def has_convolutions(subject: Subject, _: object) -> Iterable[str]:
    """It has factors of convolutions."""
    for module in subject.structure.modules.values():
        if module.shape is not None and module.shape.kind == ModuleKind.CONVOLUTION:
            yield f"{module.name} is a convolution"
            return


@declare_condition
def touches_a_type_outside(subject: Subject, known_types: list[str]) -> Iterable[str]:
    """It has modules whose type is not among ``value``."""
    others = sorted(_group_by_type(subject.structure).keys() - set(known_types))
    if others:
        yield f"module types {', '.join(others[:4])} are not among {', '.join(known_types)}"


@declare_condition
def has_one_without_the_other(subject: Subject, pair: list[str]) -> Iterable[str]:
    """A layer has the first of the module types ``value`` and not the second."""
    module_type, partner = pair[0], pair[1]
    missing = missing_partners(subject.structure.modules, module_type, partner)
    if missing:
        yield f"it has {module_type} and no {partner} beside it, e.g. no {missing[0]}"


@declare_condition
def type_is_missing_in_a_layer(subject: Subject, _: object) -> Iterable[str]:
    """A module type is there in some layers (of the base, if it is known) and not in others."""
    tensor_digests = subject.base.tensor_digests if subject.base is not None else None
    missing: dict[str, list[str]] = {}
    for name in missing_in_layers(subject.structure.modules, tensor_digests):
        missing.setdefault(name.rpartition(".")[2], []).append(name)
    for module_type, modules in missing.items():
        yield f"{module_type} is missing in {len(modules)} layer{'s' if len(modules) > 1 else ''}, e.g. {modules[0]}"


@declare_condition
def rank_is_padded(subject: Subject, tensor_parallel: int) -> Iterable[str]:
    """The kernels of Punica pad its rank, on ``value`` GPUs, and it has more than one module type."""
    modules = subject.structure.modules.values()
    padded = sorted({module.rank for module in modules if kernel_rank(module.rank, tensor_parallel) != module.rank})
    if padded and len(_group_by_type(subject.structure)) > 1:
        yield f"rank {padded[0]} is padded to {kernel_rank(padded[0], tensor_parallel)}"


def kernel_rank(rank: int, tensor_parallel: int) -> int:
    """Return the rank at which the SGMV kernels of Punica (arXiv 2310.18547) run: 8 per GPU, else a multiple of 16."""
    return 8 * tensor_parallel if rank <= 8 * tensor_parallel else math.ceil(rank / 16) * 16


@declare_condition
def has_magnitudes_on(subject: Subject, types: list[str]) -> Iterable[str]:
    """Modules of the types ``value`` have DoRA magnitudes."""
    modules = [m.name for m in subject.structure.modules.values() if m.type in types and "magnitude" in m.tensors]
    if modules:
        yield f"{len(modules)} modules have DoRA magnitudes, e.g. {modules[0]}"


@declare_condition
def has_another_safetensors(subject: Subject, _: object) -> Iterable[str]:
    """Another safetensors file lies beside the weights."""
    for name in list_other_safetensors(subject.files):
        yield f"{name} lies in the folder"


def _group_by_type(structure: AdapterStructure) -> Mapping[str, list[Module]]:
    groups: dict[str, list[Module]] = {}
    for module in structure.modules.values():
        groups.setdefault(module.type, []).append(module)
    return groups
