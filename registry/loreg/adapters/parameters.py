"""LoRA on an ``nn.Parameter`` (``target_parameters``): which parameter of which module the factors in a file act on.

PEFT wraps the owner once for every parameter, the first that the module declares innermost: the factors of experts'
``gate_up_proj`` lie at ``experts.base_layer``, those of ``down_proj`` at ``experts``. Here each is called as the
parameter.

Source: PEFT 0.21, ``tuners_utils.py`` (``_inject_parameters``), ``lora/layer.py`` (ParamWrapper) and
``transformers_weight_conversion.py``, which targets parameters without naming their owner.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from loreg.adapters.config import LoraConfig
from loreg.adapters.module_shape import ModuleShape
from loreg.adapters.patterns import endings
from loreg.errors import AdapterFormatError

_WRAPPED = ".base_layer"
#: The parameters beside each other in one module, in the order in which transformers 5.23 declares them.
_FAMILIES = (
    ("gate_up_proj", "down_proj"),
    ("gate_up_proj", "gate_up_proj_bias", "down_proj", "down_proj_bias"),
    ("gate_proj", "up_proj", "down_proj"),
    ("w1", "v1", "w2"),
    ("weight", "bias"),
)
_OF_EXPERTS = frozenset(name for family in _FAMILIES[:-1] for name in family)
_ORDER = {
    name: position
    for position, name in enumerate((
        "gate_up_proj", "gate_up_proj_bias", "gate_proj", "up_proj", "down_proj", "down_proj_bias", "w1", "v1", "w2",
        "weight", "bias",
    ))
}  # fmt: skip


def parameter_of(module: str, config: LoraConfig, modules: Collection[str]) -> tuple[str, str] | None:
    """The owner and the name of the parameter that the factors at ``module`` act on; None if it is a module itself.

    ``modules`` are all that have factors, as the file names them.
    """
    targets = config.target_parameters
    if not targets:
        return None
    owner, depth = module, 0
    while owner.endswith(_WRAPPED):
        owner, depth = owner.removesuffix(_WRAPPED), depth + 1
    levels = depth + 1
    while owner + _WRAPPED * levels in modules:
        levels += 1
    named = {name for end in endings(owner) if end for name in targets.get(end, ())}
    bare = targets.get("", frozenset())
    if bare and _may_own(owner, bare, levels, config):
        named |= bare
    if not named:
        return None
    declared = _in_order(named, levels)
    return owner, declared[max(0, len(declared) - 1 - depth)]


def _may_own(owner: str, parameters: Collection[str], levels: int, config: LoraConfig) -> bool:
    """Whether a module can have one of the parameters that are targeted without naming their owner.

    PEFT refuses a module that target_modules selects too. Experts lie in modules that are called so.
    """
    if levels > 1:
        return True
    if "expert" not in owner.rpartition(".")[2] and _OF_EXPERTS.issuperset(parameters):
        return False
    targets = config.raw.get("target_modules")
    if targets == "all-linear":
        return "expert" in owner.rpartition(".")[2]
    try:
        return not config.selects(owner)
    except AdapterFormatError:  # a pattern that is none: a rule says so
        return False


def _in_order(parameters: Collection[str], levels: int) -> list[str]:
    """The parameters that one module has of these, as it declares them: as many as the file has ``levels`` of, if the
    configuration names more."""
    if len(parameters) != levels:
        families = [[name for name in family if name in parameters] for family in _FAMILIES]
        fitting = next((family for family in families if len(family) == levels), None)
        if fitting is not None:
            return fitting
    return sorted(parameters, key=lambda name: (_ORDER.get(name, len(_ORDER)), name))


def parameter_name(owner: str, parameter: str) -> str:
    """What the factors of a parameter are called: as the parameter, and as its owner if that is the owner's weight."""
    return owner if parameter == "weight" else f"{owner}.{parameter}"


def owner_of(name: str, parameter: str) -> str:
    """The module that has the parameter whose factors are called ``name``."""
    return name if parameter == "weight" else name.removesuffix(f".{parameter}")


def pattern_name(name: str, form: ModuleShape) -> str:
    """The name under which PEFT looks up the rank and alpha of the module in ``rank_pattern`` and ``alpha_pattern``."""
    return f"{name}.weight" if form.parameter == "weight" else name


def target_parameters_of(forms: Mapping[str, ModuleShape]) -> list[str] | None:
    """What ``target_parameters`` says of these modules; None if none of them is a parameter."""
    return sorted(pattern_name(name, form) for name, form in forms.items() if form.parameter) or None


def file_modules(forms: Mapping[str, ModuleShape]) -> dict[str, str]:
    """Under which module PEFT keeps the factors of each of these, all of one adapter."""
    found = {name: name for name in forms}
    owners: dict[str, dict[str, str]] = {}
    for name, form in forms.items():
        if form.parameter:
            owners.setdefault(owner_of(name, form.parameter), {})[form.parameter] = name
    for owner, parameters in owners.items():
        declared = _in_order(parameters, len(parameters))
        for depth, parameter in enumerate(reversed(declared)):
            found[parameters[parameter]] = owner + _WRAPPED * depth
    return found


def as_peft_targets(document: Mapping[str, Any], forms: Mapping[str, ModuleShape]) -> dict[str, Any]:
    """The configuration with ``target_parameters`` of these modules, and without their names in ``target_modules``.

    PEFT takes no dropout on parameters; it is of training alone.
    """
    targets = document.get("target_modules")
    types = {form.parameter for form in forms.values() if form.parameter}
    if isinstance(targets, list):
        ordinary = {end for name, form in forms.items() if not form.parameter for end in endings(name)}
        targets = [name for name in targets if str(name).rpartition(".")[2] not in types or str(name) in ordinary]
    parameters = target_parameters_of(forms)
    return {**document, "target_modules": targets, "target_parameters": parameters, "lora_dropout": 0.0}
