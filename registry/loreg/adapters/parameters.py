"""Find which parameter of which module factors in a file act on: LoRA on an ``nn.Parameter`` (``target_parameters``).

PEFT wraps the owner once for every parameter, the first that the module declares innermost: the factors of experts'
``gate_up_proj`` lie at ``experts.base_layer``, those of ``down_proj`` at ``experts``. Everywhere else in
loreg each is called as the parameter.

Source: PEFT 0.21, ``tuners_utils.py`` (``_inject_parameters``), ``lora/layer.py`` (ParamWrapper) and
``transformers_weight_conversion.py``, which targets parameters without naming their owner.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from loreg.adapters.config import LoraConfig
from loreg.adapters.module_shape import ModuleShape
from loreg.adapters.patterns import endings
from loreg.errors import AdapterFormatError

_BASE_LAYER = ".base_layer"
#: The parameters beside each other in one module, in the order in which transformers 5.23 declares them.
_FAMILIES = (
    ("gate_up_proj", "down_proj"),
    ("gate_up_proj", "gate_up_proj_bias", "down_proj", "down_proj_bias"),
    ("gate_proj", "up_proj", "down_proj"),
    ("w1", "v1", "w2"),
    ("weight", "bias"),
)
_EXPERT_PARAMETERS = frozenset(name for family in _FAMILIES[:-1] for name in family)
_ORDER = {
    name: position
    for position, name in enumerate((
        "gate_up_proj", "gate_up_proj_bias", "gate_proj", "up_proj", "down_proj", "down_proj_bias", "w1", "v1", "w2",
        "weight", "bias",
    ))
}  # fmt: skip


def find_parameter(module: str, config: LoraConfig, modules: Collection[str]) -> tuple[str, str] | None:
    """Return the owner and the name of the parameter that the factors at ``module`` act on; None if it is the module.

    ``modules`` are all that have factors, as the file names them. Raises AdapterFormatError for a configuration that
    names too many parameters.
    """
    targets = config.target_parameters
    if not targets:
        return None
    owner, depth = module, 0
    while owner.endswith(_BASE_LAYER):
        owner, depth = owner.removesuffix(_BASE_LAYER), depth + 1
    levels = depth + 1
    while owner + _BASE_LAYER * levels in modules:
        levels += 1
    candidates = {name for end in endings(owner) if end for name in targets.get(end, ())}
    bare = targets.get("", frozenset())
    if bare and _may_own(owner, bare, levels, config):
        candidates |= bare
    if not candidates:
        return None
    declared = _in_order(candidates, levels)
    return owner, declared[max(0, len(declared) - 1 - depth)]


def _may_own(owner: str, parameters: Collection[str], levels: int, config: LoraConfig) -> bool:
    """Whether a module can have one of the parameters that are targeted without naming their owner.

    PEFT refuses a module that target_modules selects too. Experts lie in modules that are called so.
    """
    if levels > 1:
        return True
    if "expert" not in owner.rpartition(".")[2] and _EXPERT_PARAMETERS.issuperset(parameters):
        return False
    targets = config.raw.get("target_modules")
    if targets == "all-linear":
        return "expert" in owner.rpartition(".")[2]
    try:
        return not config.selects(owner)
    except AdapterFormatError:  # an invalid pattern: a rule reports it
        return False


def _in_order(parameters: Collection[str], levels: int) -> list[str]:
    """Return the parameters that one module has of these, in the order in which it declares them.

    They are as many as the ``levels`` of factors in the file, if the configuration names more.
    """
    if len(parameters) != levels:
        families = [[name for name in family if name in parameters] for family in _FAMILIES]
        fitting = next((family for family in families if len(family) == levels), None)
        if fitting is not None:
            return fitting
    return sorted(parameters, key=lambda name: (_ORDER.get(name, len(_ORDER)), name))


def parameter_name(owner: str, parameter: str) -> str:
    """Return the module name of a parameter's factors: the parameter's, or its owner's if it is the owner's weight."""
    return owner if parameter == "weight" else f"{owner}.{parameter}"


def owner_of(name: str, parameter: str) -> str:
    """Return the module that has the parameter whose factors are called ``name``."""
    return name if parameter == "weight" else name.removesuffix(f".{parameter}")


def pattern_name(name: str, shape: ModuleShape) -> str:
    """Return the name under which PEFT looks up a module's rank and alpha in ``rank_pattern`` and ``alpha_pattern``."""
    return f"{name}.weight" if shape.parameter == "weight" else name


def target_parameters_of(shapes: Mapping[str, ModuleShape]) -> list[str] | None:
    """Return ``target_parameters`` for these modules; None if none of them is a parameter."""
    return sorted(pattern_name(name, shape) for name, shape in shapes.items() if shape.parameter) or None


def module_names_in_file(shapes: Mapping[str, ModuleShape]) -> dict[str, str]:
    """Return the name of the module at which PEFT keeps the factors of each of these; they are all of one adapter."""
    names = {name: name for name in shapes}
    owners: dict[str, dict[str, str]] = {}
    for name, shape in shapes.items():
        if shape.parameter:
            owners.setdefault(owner_of(name, shape.parameter), {})[shape.parameter] = name
    for owner, parameters in owners.items():
        declared = _in_order(parameters, len(parameters))
        for depth, parameter in enumerate(reversed(declared)):
            names[parameters[parameter]] = owner + _BASE_LAYER * depth
    return names


def as_peft_targets(document: Mapping[str, object], shapes: Mapping[str, ModuleShape]) -> dict[str, object]:
    """Return the configuration with these modules' ``target_parameters``, and ``target_modules`` without their names.

    ``lora_dropout`` becomes 0: PEFT takes none on parameters, and it matters in training alone.
    """
    targets = document.get("target_modules")
    parameter_types = {shape.parameter for shape in shapes.values() if shape.parameter}
    if isinstance(targets, list):
        ordinary = {end for name, shape in shapes.items() if not shape.parameter for end in endings(name)}
        targets = [
            name for name in targets if str(name).rpartition(".")[2] not in parameter_types or str(name) in ordinary
        ]
    parameters = target_parameters_of(shapes)
    return {**document, "target_modules": targets, "target_parameters": parameters, "lora_dropout": 0.0}
