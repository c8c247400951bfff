"""Rules on the adapter itself: whether its tensors agree with each other and with its configuration.

The docstring of a rule is what ``loreg check --explain`` prints: what is right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from loreg.adapters.module import Module, configured_rank
from loreg.adapters.module_shape import is_convolution
from loreg.adapters.parameters import owner_of
from loreg.adapters.scan import NumberScan
from loreg.adapters.selection import why_skipped
from loreg.adapters.structure import AdapterStructure
from loreg.checking.rules import Subject, declare_rule
from loreg.entities import Severity
from loreg.errors import AdapterFormatError

_MAX_MAGNITUDE = 1e4  # of one number of a factor: training makes far smaller ones
_FACTOR_PAIRS = (("A", "B"), ("embedding_A", "embedding_B"))
#: Tensors that variants of LoRA save beside A and B, by the field that asks for them; LR009 tells of the field.
_VARIANT_TENSORS = {
    "kasa_config": ".lora_diag",
    "velora_config": ".lora_velora_embed",
    "monteclora_config": ".lora_monteclora_sampler.",
}


@declare_rule("LR001", Severity.ERROR, "save the adapter again: a factor without its partner does nothing")
def every_factor_has_its_partner(subject: Subject) -> Iterable[str]:
    """A module has both factors of a pair."""
    for module in subject.structure.modules.values():
        if not any(a in module.tensors and b in module.tensors for a, b in _FACTOR_PAIRS):
            yield f"module {module.name} has {', '.join(sorted(module.tensors))}, expected A and B"


@declare_rule("LR002", Severity.ERROR, "the two files are of different adapters: save the adapter again")
def factors_agree(subject: Subject) -> Iterable[str]:
    """A is (r, in) and B is (out, r) with the same r."""
    for module in subject.structure.modules.values():
        for a_part, b_part in _FACTOR_PAIRS:
            if a_part not in module.tensors or b_part not in module.tensors or module.shape is not None:
                continue
            a, b = module.tensors[a_part].shape, module.tensors[b_part].shape
            if is_in_pieces(a) or is_in_pieces(b) or is_convolution(a, b):
                continue  # a convolution in groups has no ModuleShape, and PEFT loads it
            if len(a) == len(b) == 2:
                if a[0] != b[1]:
                    yield f"module {module.name}: {a_part} is {a} and {b_part} is {b}; their ranks differ"
            else:
                yield f"module {module.name}: {a_part} is {a} and {b_part} is {b}, expected (r, in) and (out, r)"


@declare_rule(
    "LR003", Severity.ERROR, "adapter_config.json is of another adapter: take the one saved with these weights"
)
def ranks_match_the_configuration(subject: Subject) -> Iterable[str]:
    """r and rank_pattern say the rank that the tensors have; else PEFT refuses to load them."""
    config = subject.structure.config
    for module in _modules_with_factors(subject.structure):
        rank = configured_rank(config, module.weight if module.parameter else module.name)
        field = "r" if rank == config.r else "rank_pattern"
        if any(is_in_pieces(tensor.shape) for part, tensor in module.tensors.items() if part in ("A", "B")):
            continue
        if module.rank != rank:
            yield f"module {module.name} has rank {module.rank}, {field} says {rank}"
        elif module.parameter and module.shape is None and (rows := _count_rows(module, "A")) % rank:
            yield f"A of {module.name} has {rows} rows, and {field} says that each expert has {rank} of them"
    yield from _check_expert_counts(subject.structure)


def _check_expert_counts(structure: AdapterStructure) -> Iterator[str]:
    """Yield the modules whose parameters would be of different numbers of experts, which a wrong rank makes of them."""
    experts: dict[str, dict[str, int]] = {}
    for module in structure.modules.values():
        if module.parameter and module.shape is not None and module.shape.matrices > 1:
            experts.setdefault(owner_of(module.name, module.parameter), {})[module.parameter] = module.shape.matrices
    for owner, counts in experts.items():
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{count} for {parameter}" for parameter, count in sorted(counts.items()))
            yield f"by r and rank_pattern {owner} has different numbers of experts: {listed}"


def _count_rows(module: Module, part: str) -> int:
    """Return how many rows a tensor of the module has: 0 where it is not there or has no dimensions."""
    return next(iter(module.tensors[part].shape), 0) if part in module.tensors else 0


@declare_rule("LR004", Severity.ERROR, "rename or remove them: every reader ignores them without a word")
def every_tensor_has_a_place(subject: Subject) -> Iterable[str]:
    """PEFT looks at each tensor."""
    config = subject.structure.config.raw
    variant_tensors = [tensor for field, tensor in _VARIANT_TENSORS.items() if config.get(field)]
    for name in subject.structure.unexpected_keys:
        if not any(tensor in name for tensor in variant_tensors):
            yield f"tensor {name!r} is not named base_model.model.…"


@declare_rule("LR005", Severity.ERROR, "train again with a lower learning rate, or push an earlier checkpoint")
def every_number_is_finite(subject: Subject) -> Iterable[str]:
    """No NaN and no infinity in any tensor."""
    for name, scan in (subject.scans or {}).items():
        if scan.nonfinite:
            yield f"tensor {name} has {scan.nonfinite} NaN or infinite numbers"


@declare_rule("LR006", Severity.ERROR, "name these modules in target_modules: PEFT leaves out what it does not select")
def the_configuration_selects_every_module(subject: Subject) -> Iterable[str]:
    """The configuration selects each module that has factors; PEFT ignores the tensors of the others."""
    raw = subject.structure.config.raw
    targets = raw.get("target_modules")
    if (targets is None and not raw.get("target_parameters")) or targets == "all-linear":
        return
    selects_tied = bool(raw.get("ensure_weight_tying"))  # then PEFT selects what is tied to the embedding by itself
    find_reason = why_skipped(raw, subject.structure.config.pattern_budget)
    for module in _modules_of_targets(subject.structure):
        try:
            reason = find_reason(module.name)
        except AdapterFormatError as error:  # a pattern that is none, or that takes too long
            yield f"target_modules selects nothing: {error.message}"
            return
        if reason and not (selects_tied and is_outside_the_layers(module.name)):
            yield f"module {module.name} is {reason}"


@declare_rule("LR007", Severity.ERROR, "set use_dora to what the adapter was trained with")
def magnitudes_agree_with_use_dora(subject: Subject) -> Iterable[str]:
    """DoRA magnitudes are there exactly if use_dora says so: else the adapter means something else."""
    config = subject.structure.config
    for module in _modules_of_targets(subject.structure):
        if ("magnitude" in module.tensors) != config.use_dora:
            contradiction = "no magnitude, use_dora is true" if config.use_dora else "a magnitude, use_dora is false"
            yield f"module {module.name} has {contradiction}"


@declare_rule("LR008", Severity.WARNING, "was it trained? PEFT starts with B at zero")
def the_adapter_does_something(subject: Subject) -> Iterable[str]:
    """Some B is not zero, and some scale."""
    scanned = [
        (module, scans["B"])
        for module, scans in _scans_by_part(subject, _modules_with_factors(subject.structure))
        if "B" in scans
    ]
    if scanned and all(scan.zero for _, scan in scanned):
        yield f"all {len(scanned)} B factors are exactly zero"
    elif scanned and all(module.scale == 0 for module, _ in scanned):
        yield "lora_alpha is 0: what it adds to the base is multiplied with zero"


@declare_rule("LR009", Severity.WARNING, "loreg stores the adapter as it is, and will refuse to merge it")
def every_field_is_known(subject: Subject) -> Iterable[str]:
    """No configuration field is set that loreg does not know."""
    for name in subject.structure.config.unknown_fields():
        yield f"{name} is set in adapter_config.json, and loreg does not carry it out"


@declare_rule("LR010", Severity.WARNING, "was the learning rate too high? Compare with an earlier checkpoint", "")
def no_number_is_huge(subject: Subject) -> Iterable[str]:
    """No factor has numbers far beyond what training makes: one of 10,000 swamps every other."""
    factors = [part for pair in _FACTOR_PAIRS for part in pair]
    for module, scans in _scans_by_part(subject, subject.structure.modules.values()):
        for part, scan in scans.items():
            if part in factors and not scan.nonfinite and scan.largest > _MAX_MAGNITUDE:
                yield f"tensor {module.tensors[part].name} has a number of magnitude {scan.largest:.2g}"


@declare_rule("LR011", Severity.WARNING, "was it trained? The product with a zero factor is zero", "")
def every_module_does_something(subject: Subject) -> Iterable[str]:
    """No module has a zero factor beside others that have none."""
    scanned = list(_scans_by_part(subject, _modules_with_factors(subject.structure)))
    zero = [module.name for module, scans in scanned if any(scans[part].zero for part in ("A", "B") if part in scans)]
    if zero and len(zero) < len(scanned):
        yield f"{len(zero)} of {len(scanned)} modules do nothing, e.g. {zero[0]}: one of their factors is exactly zero"


def is_in_pieces(shape: tuple[int, ...]) -> bool:
    """Tell whether a factor of this shape is a piece of one, or has no numbers at all."""
    return len(shape) == 1 or 0 in shape


def _modules_with_factors(structure: AdapterStructure) -> Iterator[Module]:
    """Return the modules with A or B. Factors of embeddings have other names."""
    return (module for module in structure.modules.values() if "A" in module.tensors or "B" in module.tensors)


def _modules_of_targets(structure: AdapterStructure) -> Iterator[Module]:
    """Return the modules with factors that target_modules is to select, and not target_parameters."""
    return (module for module in _modules_with_factors(structure) if not module.parameter)


def is_outside_the_layers(module: str) -> bool:
    """Tell whether no part of the name is the number of a layer: embeddings, heads."""
    return not any(part.isdecimal() for part in module.split("."))


def _scans_by_part(subject: Subject, modules: Iterable[Module]) -> Iterator[tuple[Module, dict[str, NumberScan]]]:
    """Yield each module with what scanning showed of its tensors, by part; nothing if the weights were not read."""
    scans = subject.scans
    if scans is not None:
        for module in modules:
            yield module, {part: scans[tensor.name] for part, tensor in module.tensors.items() if tensor.name in scans}
