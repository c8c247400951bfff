"""Rules on how an adapter was saved: gathered, as PEFT writes it, with what was trained and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from loreg.adapters.keys import PREFIX, weight_of_full_tensor
from loreg.adapters.patterns import PatternBudget, endings, match
from loreg.adapters.structure import GATHER_HINT, NOT_GATHERED, AdapterStructure
from loreg.checking.rules import Subject, declare_rule
from loreg.checking.structure import is_in_pieces, is_outside_the_layers
from loreg.errors import AdapterFormatError

_FLAT = "_flat_param"  # what FSDP calls the pieces of several parameters in one
#: What PEFT itself adds to modules_to_save when it loads an adapter of these tasks (``peft_model.py``).
_HEADS = {
    "SEQ_CLS": ("classifier", "score"), "TOKEN_CLS": ("classifier", "score"), "QUESTION_ANS": ("qa_outputs",),
}  # fmt: skip
#: What PEFT writes into target_parameters for any mixture of experts, whatever the model has of it.
_WRITTEN_BY_PEFT = ("gate.weight", "gate_up_proj", "down_proj")


@declare_rule("LR018", "error", GATHER_HINT, "peft#2450, peft#2892, accelerate#3508, DeepSpeed#7900")
def every_tensor_was_gathered(subject: Subject) -> Iterable[str]:
    """Every tensor has its numbers: ZeRO-3 and FSDP keep them in pieces on several GPUs until they are gathered."""
    structure = subject.structure
    pieces = {
        t.name: t for t in structure.tensors.values() if 0 in t.shape or t.name.rpartition(".")[2].startswith(_FLAT)
    }
    for module in structure.modules.values():
        factors = (module.tensors[part] for part in ("A", "B") if part in module.tensors)
        pieces |= {tensor.name: tensor for tensor in factors if is_in_pieces(tensor.shape)}
    if pieces:
        some = next(iter(pieces.values()))
        first = f"e.g. {some.name} {some.shape}"
        yield f"{len(pieces)} of {len(structure.tensors)} tensors are empty or pieces, {first}: {NOT_GATHERED}"


@declare_rule(
    "LR019", "error", "loreg export DIR --profile peft --to NEW writes it as PEFT does, with the same numbers"
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
    "LR020", "warning", "model.save_pretrained(DIR) writes what was trained; PEFT puts these over the base's own"
)
def every_whole_tensor_was_asked_for(subject: Subject) -> Iterable[str]:
    """Whole tensors are those of modules_to_save and bias, or embedding and head as PEFT saves them."""
    structure = subject.structure
    unasked = {key: tensor for key, tensor in structure.full_tensors.items() if not _is_asked_for(key, structure)}
    weights = {weight_of_full_tensor(key) for key, tensor in unasked.items() if len(tensor.shape) == 2}
    vocabulary = {name.rpartition(".")[0] for name in weights if is_outside_the_layers(name)}
    others = [key for key in unasked if weight_of_full_tensor(key).rpartition(".")[0] not in vocabulary]
    if others or len(vocabulary) > 2:  # PEFT saves embedding and head, each with its bias
        first = min(unasked)
        yield f"{len(unasked)} whole tensors are in the file that no field names, e.g. {first} {unasked[first].shape}"


def _is_asked_for(key: str, structure: AdapterStructure) -> bool:
    raw, name = structure.config.raw, weight_of_full_tensor(key)
    module, _, last = name.rpartition(".")
    if last == "bias" and raw.get("bias") not in (None, "none", False):
        return True
    saved = raw.get("modules_to_save")
    whole = (*(map(str, saved) if isinstance(saved, list) else ()), *_HEADS.get(structure.config.task_type, ()))
    parts = module.split(".")
    above = [".".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    # PEFT compares ends, and not whole parts of names: of DistilBERT classifier is pre_classifier too.
    return any(name.endswith(whole) for name in above)


@declare_rule("LR021", "warning", "loreg export DIR --profile peft --to NEW leaves them out")
def no_copy_lies_beside(subject: Subject) -> Iterable[str]:
    """The file has what was trained once, and not what it was before: PEFT saves both where it saves embeddings."""
    # With biases that are trained everywhere PEFT writes those of a module that is saved whole twice.
    twice = ".bias" if subject.structure.config.raw.get("bias") not in (None, "none") else "\0"
    dropped = [name for name in subject.structure.naming.dropped if not name.endswith(twice)]
    if dropped:
        many = "1 tensor is a copy" if len(dropped) == 1 else f"{len(dropped)} tensors are copies"
        yield f"{many} in PEFT's wrapper, and not taken, e.g. {dropped[0]}"


@declare_rule("LR022", "warning", "mend or remove it: what it was to change was trained without it", "peft#3582")
def every_pattern_matches_a_module(subject: Subject) -> Iterable[str]:
    """What the configuration says of modules by pattern matches some module of the adapter."""
    structure = subject.structure
    config, raw = structure.config, structure.config.raw
    names = [module.weight if module.parameter else module.name for module in structure.modules.values()]
    for field, patterns in (("rank_pattern", config.rank_pattern), ("alpha_pattern", config.alpha_pattern)):
        for pattern in patterns.matching_none(names):
            why = _why_no_match(pattern, names, config.pattern_budget)
            yield f"{field} has {pattern!r}, which matches no module of the adapter{why}"
    yield from _unmatched_targets(raw.get("target_modules"), names, config.pattern_budget)
    parameters = {end for module in structure.modules.values() if module.parameter for end in endings(module.weight)}
    targets = raw.get("target_parameters")
    for target in targets if isinstance(targets, list) else ():
        if target not in _WRITTEN_BY_PEFT and str(target) not in parameters:
            yield f"target_parameters has {target!r}, and no factors of it are in the file"
    layers = raw.get("layers_to_transform")
    listed = layers if isinstance(layers, list) else [layers] if isinstance(layers, int) else []
    numbers = {part for name in names for part in name.split(".") if part.isdecimal()}
    idle = [layer for layer in listed if str(layer) not in numbers]
    if idle:
        yield f"layers_to_transform has {', '.join(map(str, idle[:8]))}, and no module of such a layer is in the file"


def _unmatched_targets(targets: object, names: list[str], patience: PatternBudget) -> Iterator[str]:
    """Entries of a list of target_modules that no name of a module can end with.

    One that is a name is nothing to mention: lists for many models, and PEFT's own for all-linear, have more than the
    adapter.
    """
    ends = {end for name in names for end in endings(name.removesuffix(".base_layer.out_proj"))}
    for target in map(str, targets if isinstance(targets, list) else ()):
        is_pattern = any(sign in target for sign in r"^$*+?()[]{}|\\")
        if (is_pattern or target.startswith("base_model.")) and target not in ends:
            why = ": in a list PEFT reads names, not patterns" if is_pattern else _why_no_match(target, names, patience)
            yield f"target_modules has {target!r}, which matches no module of the adapter{why}"


def _why_no_match(pattern: str, names: list[str], patience: PatternBudget) -> str:
    """What keeps a pattern from matching, if without it there is a match."""
    shorter = pattern.removeprefix("^").removeprefix("base_model.").removeprefix("model.")
    for without in (pattern.removeprefix("^"), pattern.removeprefix("base_model.model."), shorter):
        if without != pattern and any(_would_match(without, name, patience) for name in names):
            return f"; {without!r} would"
    return ""


def _would_match(pattern: str, name: str, patience: PatternBudget) -> bool:
    try:
        return match(rf"(.*\.)?({pattern})$", name, patience) is not None
    except AdapterFormatError:
        if patience.seconds_left <= 0:
            raise
        return False


@declare_rule("LR023", "error", "adapter_config.json is of another adapter: take the one saved with these weights")
def token_rows_are_those_of_the_configuration(subject: Subject) -> Iterable[str]:
    """trainable_token_indices says which tokens the saved rows are of, one for each row."""
    structure = subject.structure
    for module, tokens in structure.token_rows.items():
        rows = tokens.tensor.shape[0] if tokens.tensor.shape else 0
        if len(tokens.tensor.shape) != 2 or rows != len(tokens.indices):
            told = f"{len(tokens.indices)} tokens"
            yield f"{module} has rows of the shape {tokens.tensor.shape}, trainable_token_indices names {told} of it"
        elif len(set(tokens.indices)) < rows or min(tokens.indices, default=0) < 0:
            yield f"trainable_token_indices names a token of {module} twice, or one below 0"
    if structure.config.raw.get("trainable_token_indices") and not structure.token_rows:
        yield "trainable_token_indices is set, and no rows of single tokens are in the file"
