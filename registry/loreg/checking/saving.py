"""Rules on how an adapter was saved: gathered, as PEFT writes it, with what was trained and nothing else.

The docstring of a rule is what ``loreg check --explain`` prints: what is right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from loreg.adapters.keys import PREFIX, weight_of_full_tensor
from loreg.adapters.patterns import PatternBudget, endings, match
from loreg.adapters.structure import GATHER_HINT, NOT_GATHERED, AdapterStructure
from loreg.checking.rules import Subject, declare_rule
from loreg.checking.structure import is_in_pieces, is_outside_the_layers
from loreg.entities import Severity
from loreg.errors import AdapterFormatError

_FLAT_PARAMETER = "_flat_param"  # what FSDP calls the pieces of several parameters in one
#: What PEFT itself adds to modules_to_save when it loads an adapter of these tasks (``peft_model.py``).
_TASK_HEADS = {
    "SEQ_CLS": ("classifier", "score"), "TOKEN_CLS": ("classifier", "score"), "QUESTION_ANS": ("qa_outputs",),
}  # fmt: skip
#: What PEFT writes into target_parameters for any mixture of experts, whatever the model has of it.
_PEFT_EXPERT_TARGETS = ("gate.weight", "gate_up_proj", "down_proj")


@declare_rule("LR018", Severity.ERROR, GATHER_HINT, "peft#2450, peft#2892, accelerate#3508, DeepSpeed#7900")
def every_tensor_was_gathered(subject: Subject) -> Iterable[str]:
    """Every tensor has its numbers: ZeRO-3 and FSDP keep them in pieces on several GPUs until they are gathered."""
    structure = subject.structure
    pieces = {
        t.name: t
        for t in structure.tensors.values()
        if 0 in t.shape or t.name.rpartition(".")[2].startswith(_FLAT_PARAMETER)
    }
    for module in structure.modules.values():
        factors = (module.tensors[part] for part in ("A", "B") if part in module.tensors)
        pieces |= {tensor.name: tensor for tensor in factors if is_in_pieces(tensor.shape)}
    if pieces:
        piece = next(iter(pieces.values()))
        first = f"e.g. {piece.name} {piece.shape}"
        yield f"{len(pieces)} of {len(structure.tensors)} tensors are empty or pieces, {first}: {NOT_GATHERED}"


@declare_rule(
    "LR019", Severity.ERROR, "loreg export DIR --profile peft --to NEW writes it as PEFT does, with the same numbers"
)
def the_file_is_as_peft_writes_it(subject: Subject) -> Iterable[str]:
    """The tensors have the names and shapes under which PEFT looks for them; else it loads nothing, without a word."""
    naming, tensors = subject.structure.naming, subject.structure.tensors
    wrappers = [wrapper for wrapper in naming.wrappers if wrapper != PREFIX]
    if wrappers:
        count = sum(any(f".{wrapper}" in f".{name}" for wrapper in wrappers) for name in tensors)
        yield f"{count} names of tensors have {', '.join(wrappers)} in them: what the model was wrapped in"
    if PREFIX in naming.wrappers:
        yield f"the names of tensors have {PREFIX} twice: PEFT was put around a PeftModel"
    if naming.adapter:
        count = sum(f".{naming.adapter}" in name for name in tensors)
        yield f"{count} names of tensors have the name of the adapter, {naming.adapter!r}, in them"
    if naming.wrapped:
        more = f" (and {len(naming.wrapped) - 1} more)" if len(naming.wrapped) > 1 else ""
        yield f"{naming.wrapped[0]}{more} has the name that it has in memory: PEFT looks for it without modules_to_save"
    stacked = [
        module for module in subject.structure.modules.values() if module.shape is not None and module.shape.stacked
    ]
    if stacked:
        shape = stacked[0].tensors["A"].shape
        yield (
            f"the factors of {len(stacked)} modules are stacked, one pair for each expert, e.g. A of {stacked[0].name} "
            f"{shape}: PEFT reads two dimensions"
        )


@declare_rule(
    "LR020", Severity.WARNING, "model.save_pretrained(DIR) writes what was trained; PEFT puts these over the base's own"
)
def every_whole_tensor_was_asked_for(subject: Subject) -> Iterable[str]:
    """Whole tensors are those of modules_to_save and bias, or embedding and head as PEFT saves them."""
    structure = subject.structure
    undeclared = {key: tensor for key, tensor in structure.full_tensors.items() if not _is_declared(key, structure)}
    matrices = {weight_of_full_tensor(key) for key, tensor in undeclared.items() if len(tensor.shape) == 2}
    vocabulary = {name.rpartition(".")[0] for name in matrices if is_outside_the_layers(name)}
    others = [key for key in undeclared if weight_of_full_tensor(key).rpartition(".")[0] not in vocabulary]
    if others or len(vocabulary) > 2:  # PEFT saves embedding and head, each with its bias
        first, count = min(undeclared), len(undeclared)
        yield f"{count} whole tensors are in the file that no field names, e.g. {first} {undeclared[first].shape}"


def _is_declared(key: str, structure: AdapterStructure) -> bool:
    raw = structure.config.raw
    module, _, last = weight_of_full_tensor(key).rpartition(".")
    if last == "bias" and raw.get("bias") not in (None, "none", False):
        return True
    saved = raw.get("modules_to_save")
    heads = _TASK_HEADS.get(structure.config.task_type, ())
    declared = (*(map(str, saved) if isinstance(saved, list) else ()), *heads)
    parts = module.split(".")
    module_and_owners = [".".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    # PEFT compares ends, and not whole parts of names: of DistilBERT classifier is pre_classifier too.
    return any(name.endswith(declared) for name in module_and_owners)


@declare_rule("LR021", Severity.WARNING, "loreg export DIR --profile peft --to NEW leaves them out")
def no_copy_lies_beside(subject: Subject) -> Iterable[str]:
    """The file has what was trained once, and not what it was before: PEFT saves both where it saves embeddings."""
    # With biases that are trained everywhere PEFT writes those of a module that is saved whole twice.
    trains_biases = subject.structure.config.raw.get("bias") not in (None, "none")
    copies = [name for name in subject.structure.naming.dropped if not (trains_biases and name.endswith(".bias"))]
    if copies:
        count = "1 tensor is a copy" if len(copies) == 1 else f"{len(copies)} tensors are copies"
        yield f"{count} in PEFT's wrapper, and not taken, e.g. {copies[0]}"


@declare_rule("LR022", Severity.WARNING, "mend or remove it: what it was to change was trained without it", "peft#3582")
def every_pattern_matches_a_module(subject: Subject) -> Iterable[str]:
    """What the configuration says of modules by pattern matches some module of the adapter."""
    structure = subject.structure
    config, raw = structure.config, structure.config.raw
    names = [module.weight if module.parameter else module.name for module in structure.modules.values()]
    for field, patterns in (("rank_pattern", config.rank_pattern), ("alpha_pattern", config.alpha_pattern)):
        for pattern in patterns.unmatched(names):
            suggestion = _suggest_pattern(pattern, names, config.pattern_budget)
            yield f"{field} has {pattern!r}, which matches no module of the adapter{suggestion}"
    yield from _check_target_list(raw.get("target_modules"), names, config.pattern_budget)
    parameters = {end for module in structure.modules.values() if module.parameter for end in endings(module.weight)}
    targets = raw.get("target_parameters")
    for target in targets if isinstance(targets, list) else ():
        if target not in _PEFT_EXPERT_TARGETS and str(target) not in parameters:
            yield f"target_parameters has {target!r}, and no factors of it are in the file"
    layers = raw.get("layers_to_transform")
    layers = layers if isinstance(layers, list) else [layers] if isinstance(layers, int) else []
    numbers = {part for name in names for part in name.split(".") if part.isdecimal()}
    absent = [layer for layer in layers if str(layer) not in numbers]
    if absent:
        yield f"layers_to_transform has {', '.join(map(str, absent[:8]))}, and no module of such a layer is in the file"


def _check_target_list(targets: object, names: list[str], budget: PatternBudget) -> Iterator[str]:
    """Yield the entries of a list of target_modules that no name of a module can end with.

    One that is a name is nothing to mention: lists for many models, and PEFT's own for all-linear, have more than the
    adapter.
    """
    ends = {end for name in names for end in endings(name.removesuffix(".base_layer.out_proj"))}
    for target in map(str, targets if isinstance(targets, list) else ()):
        is_pattern = any(sign in target for sign in r"^$*+?()[]{}|\\")
        if (is_pattern or target.startswith("base_model.")) and target not in ends:
            if is_pattern:
                reason = ": in a list PEFT reads names, not patterns"
            else:
                reason = _suggest_pattern(target, names, budget)
            yield f"target_modules has {target!r}, which matches no module of the adapter{reason}"


def _suggest_pattern(pattern: str, names: list[str], budget: PatternBudget) -> str:
    """Say which shorter pattern would match, without the anchor or prefix that keeps this one from it."""
    shortest = pattern.removeprefix("^").removeprefix("base_model.").removeprefix("model.")
    for shorter in (pattern.removeprefix("^"), pattern.removeprefix("base_model.model."), shortest):
        if shorter != pattern and any(_would_match(shorter, name, budget) for name in names):
            return f"; {shorter!r} would"
    return ""


def _would_match(pattern: str, name: str, budget: PatternBudget) -> bool:
    try:
        return match(rf"(.*\.)?({pattern})$", name, budget) is not None
    except AdapterFormatError:
        if budget.seconds_left <= 0:
            raise
        return False


@declare_rule(
    "LR023", Severity.ERROR, "adapter_config.json is of another adapter: take the one saved with these weights"
)
def token_rows_are_those_of_the_configuration(subject: Subject) -> Iterable[str]:
    """trainable_token_indices says which tokens the saved rows are of, one for each row."""
    structure = subject.structure
    for module, tokens in structure.token_rows.items():
        rows = tokens.tensor.shape[0] if tokens.tensor.shape else 0
        if len(tokens.tensor.shape) != 2 or rows != len(tokens.indices):
            count = f"{len(tokens.indices)} tokens"
            yield f"{module} has rows of the shape {tokens.tensor.shape}, trainable_token_indices names {count} of it"
        elif len(set(tokens.indices)) < rows or min(tokens.indices, default=0) < 0:
            yield f"trainable_token_indices names a token of {module} twice, or one below 0"
    if structure.config.raw.get("trainable_token_indices") and not structure.token_rows:
        yield "trainable_token_indices is set, and no rows of single tokens are in the file"
