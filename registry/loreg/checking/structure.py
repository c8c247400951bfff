"""Rules on the adapter itself: do its tensors agree with each other and with its configuration?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from loreg.adapters.layout import Module, configured_rank
from loreg.adapters.patterns import fullmatch
from loreg.adapters.scan import Scan
from loreg.bases.names import is_embedding, is_head
from loreg.checking.findings import Subject, rule
from loreg.errors import AdapterFormatError

_HUGE = 1e4
_PAIRS = (("A", "B"), ("embedding_A", "embedding_B"))
#: What these variants of PEFT save beside A and B. LR009 says that loreg does not carry the field out.
_OF_VARIANTS = {
    "kasa_config": ".lora_diag",
    "velora_config": ".lora_velora_embed",
    "monteclora_config": ".lora_monteclora_sampler.",
}


@rule("LR001", "error", "save the adapter again: a factor without its partner does nothing")
def every_factor_has_its_partner(subject: Subject) -> Iterable[str]:
    """A module has both factors of a pair."""
    for module in subject.layout.modules.values():
        if not any(a in module.parts and b in module.parts for a, b in _PAIRS):
            yield f"module {module.name} has {', '.join(sorted(module.parts))}, expected A and B"


@rule("LR002", "error", "the two files are of different adapters: save the adapter again")
def factors_agree(subject: Subject) -> Iterable[str]:
    """A is (r, in) and B is (out, r) with the same r."""
    for module in subject.layout.modules.values():
        for a_part, b_part in _PAIRS:
            if a_part not in module.parts or b_part not in module.parts:
                continue
            a, b = module.parts[a_part].shape, module.parts[b_part].shape
            if len(a) < 2 or len(b) < 2 or 0 in (*a, *b):
                yield f"module {module.name}: {a_part} is {a} and {b_part} is {b}, expected two dimensions, none 0"
            elif len(a) == len(b) == 2 and a[0] != b[1]:
                yield f"module {module.name}: {a_part} is {a} and {b_part} is {b}; their ranks differ"


@rule("LR003", "error", "adapter_config.json is of another adapter: take the one saved with these weights")
def ranks_match_the_configuration(subject: Subject) -> Iterable[str]:
    """r and rank_pattern say the rank that the tensors have; else PEFT refuses to load them."""
    config = subject.layout.config
    for module in _plain(subject):
        promised = configured_rank(config, module.name)
        if module.rank != promised:
            field = "r" if promised == config.r else "rank_pattern"
            yield f"module {module.name} has rank {module.rank}, {field} says {promised}"


@rule("LR004", "error", "rename or remove them: every reader ignores them without a word")
def every_tensor_has_a_place(subject: Subject) -> Iterable[str]:
    """PEFT looks at each tensor."""
    config = subject.layout.config.raw
    of_variants = [tensor for field, tensor in _OF_VARIANTS.items() if config.get(field)]
    for name in subject.layout.strangers:
        if not any(tensor in name for tensor in of_variants):
            yield f"tensor {name!r} is not named base_model.model.…"


@rule("LR005", "error", "train again with a lower learning rate, or push an earlier checkpoint")
def every_number_is_finite(subject: Subject) -> Iterable[str]:
    """No NaN and no infinity in any tensor."""
    for name, scan in (subject.scans or {}).items():
        if scan.nonfinite:
            yield f"tensor {name} has {scan.nonfinite} NaN or infinite numbers"


@rule("LR006", "error", "name these modules in target_modules: PEFT leaves out what it does not select")
def the_configuration_selects_every_module(subject: Subject) -> Iterable[str]:
    """target_modules matches each module that has factors; PEFT ignores the tensors of the others."""
    targets = subject.layout.config.raw.get("target_modules")
    if targets is None or targets == "all-linear":
        return
    ties = bool(subject.layout.config.raw.get("ensure_weight_tying"))  # then PEFT selects the tied matrix by itself
    selects = _selector(targets)
    for module in _plain(subject):
        tied = ties and (is_head(f"{module.name}.weight") or is_embedding(f"{module.name}.weight"))
        try:
            selected = tied or selects(module.name)
        except AdapterFormatError as error:  # a pattern that is none, or that takes too long
            yield f"target_modules selects nothing: {error.message}"
            return
        if not selected:
            yield f"module {module.name} is not selected by target_modules"


@rule("LR007", "error", "set use_dora to what the adapter was trained with")
def magnitudes_agree_with_use_dora(subject: Subject) -> Iterable[str]:
    """DoRA magnitudes are there exactly if use_dora says so: else the adapter means something else."""
    config = subject.layout.config
    for module in _plain(subject):
        if ("magnitude" in module.parts) != config.use_dora:
            found = "no magnitude, use_dora is true" if config.use_dora else "a magnitude, use_dora is false"
            yield f"module {module.name} has {found}"


@rule("LR008", "warning", "was it trained? PEFT starts with B at zero")
def the_adapter_does_something(subject: Subject) -> Iterable[str]:
    """Some B is not zero."""
    found = [scans["B"] for _, scans in _scanned(subject, _plain(subject)) if "B" in scans]
    if found and all(scan.zero for scan in found):
        yield f"all {len(found)} B factors are exactly zero"


@rule("LR009", "warning", "loreg stores the adapter as it is, and will refuse to merge it")
def every_field_is_known(subject: Subject) -> Iterable[str]:
    """No configuration field is set that loreg does not know."""
    for name in subject.layout.config.settings_not_understood():
        yield f"{name} is set in adapter_config.json, and loreg does not carry it out"


@rule("LR010", "warning", "was the learning rate too high? Compare with an earlier checkpoint", "")
def no_number_is_huge(subject: Subject) -> Iterable[str]:
    """No factor has numbers far beyond what training makes: one of 10,000 swamps every other."""
    factors = [part for pair in _PAIRS for part in pair]
    for module, scans in _scanned(subject, subject.layout.modules.values()):
        for part, scan in scans.items():
            if part in factors and not scan.nonfinite and scan.largest > _HUGE:
                yield f"tensor {module.parts[part].name} has a number of magnitude {scan.largest:.2g}"


@rule("LR011", "warning", "was it trained? The product with a zero factor is zero", "")
def every_module_does_something(subject: Subject) -> Iterable[str]:
    """No module has a zero factor beside others that have none."""
    found = list(_scanned(subject, _plain(subject)))
    zero = [module.name for module, scans in found if any(scans[part].zero for part in ("A", "B") if part in scans)]
    if zero and len(zero) < len(found):
        yield f"{len(zero)} of {len(found)} modules do nothing, e.g. {zero[0]}: one of their factors is exactly zero"


def _plain(subject: Subject) -> Iterator[Module]:
    """Modules with A and B. Embeddings, and experts under target_parameters, have names and ranks of their own."""
    if subject.layout.config.raw.get("target_parameters"):
        return iter(())
    return (module for module in subject.layout.modules.values() if "A" in module.parts or "B" in module.parts)


def _scanned(subject: Subject, modules: Iterable[Module]) -> Iterator[tuple[Module, dict[str, Scan]]]:
    """What scanning showed of the tensors of these modules, by part; nothing if the weights were not read."""
    scans = subject.scans
    if scans is not None:
        for module in modules:
            yield module, {part: scans[tensor.name] for part, tensor in module.parts.items() if tensor.name in scans}


def _selector(targets: object) -> Callable[[str], bool]:
    """Whether PEFT selects a module; of attention that is one module, out_proj inside it comes along."""
    names = tuple(f".{name}" for name in targets) if isinstance(targets, list) else ()

    def selects(module: str) -> bool:
        module = module.removesuffix(".base_layer.out_proj")
        return fullmatch(targets, module) if isinstance(targets, str) else f".{module}".endswith(names)

    return selects
