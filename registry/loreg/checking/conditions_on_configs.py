"""Conditions of server profiles on ``adapter_config.json``: servers believe it, some of them against the tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable

from loreg.adapters.config import LoraConfig
from loreg.adapters.patterns import fullmatch
from loreg.checking.conditions import declare_condition
from loreg.checking.full_tensors import find_fields_without_tensors, find_unnamed_modules
from loreg.checking.rules import Subject


@declare_condition
def configured_rank_over(subject: Subject, max_rank: int) -> Iterable[str]:
    """``r`` or a rank in ``rank_pattern`` is over ``value``, whatever ranks the tensors have."""
    config = subject.structure.config
    ranks = {"r": config.r, **{f"rank_pattern of {name}": rank for name, rank in config.rank_pattern.values.items()}}
    highest = max(ranks, key=lambda field: ranks[field])
    if ranks[highest] > max_rank:
        yield f"rank {ranks[highest]} ({highest}) is over {max_rank}"


@declare_condition
def r_over(subject: Subject, max_rank: int) -> Iterable[str]:
    """``r`` is over ``value``, whatever ranks the tensors have."""
    if subject.structure.config.r > max_rank:
        yield f"r is {subject.structure.config.r}, over {max_rank}"


@declare_condition
def names_what_is_not_there(subject: Subject, accepted: list[str]) -> Iterable[str]:
    """``bias``, ``lora_bias`` or ``modules_to_save`` name what is not in the file; accepted: ``value``."""
    structure = subject.structure
    has_lora_bias = any("bias" in module.tensors for module in structure.modules.values())
    fields = find_fields_without_tensors(structure.config.raw, structure.full_tensors, has_lora_bias, accepted)
    for field, content in fields.items():
        yield f"{field} is {content!r}, and nothing of it is in the file"


@declare_condition
def has_whole_modules_unnamed(subject: Subject, types: list[str]) -> Iterable[str]:
    """It has whole modules of the types ``value`` that ``modules_to_save`` does not name."""
    if unnamed := find_unnamed_modules(subject.structure.config.raw, subject.structure.full_tensors, types):
        yield f"{unnamed[0]} is kept whole, and modules_to_save does not name it"


@declare_condition
def changed_the_base(subject: Subject, accepted: list[str]) -> Iterable[str]:
    """Training moved a part of the base into it (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA); accepted: ``value``."""
    init = subject.structure.config.raw.get("init_lora_weights")
    if (subject.structure.config.changes_the_base or init == "loftq") and init not in accepted:
        yield f"init_lora_weights is {init!r}: it is for a changed base"


@declare_condition
def starts_otherwise_than(subject: Subject, known_inits: list[str]) -> Iterable[str]:
    """``init_lora_weights`` is a name other than ``value``, in upper or lower case."""
    init = subject.structure.config.raw.get("init_lora_weights")
    if isinstance(init, str) and init.lower() not in known_inits:
        yield f"init_lora_weights is {init!r}"


@declare_condition
def sets_a_field(subject: Subject, fields: list[str]) -> Iterable[str]:
    """The configuration sets any of ``value``."""
    for name in fields:
        if subject.structure.config.raw.get(name):
            yield f"{name} is set"


@declare_condition
def lacks_a_field(subject: Subject, fields: list[str]) -> Iterable[str]:
    """The configuration leaves out any of ``value``."""
    missing = [name for name in fields if name not in subject.structure.config.raw]
    if missing:
        yield f"adapter_config.json has no {', '.join(missing)}"


@declare_condition
def has_field_outside(subject: Subject, known_fields: list[str]) -> Iterable[str]:
    """The configuration has a field that is not among ``value``, whatever its content."""
    unknown = [name for name in subject.structure.config.raw if name not in known_fields]
    if unknown:
        more = f" and {len(unknown) - 4} more" if len(unknown) > 4 else ""
        yield f"adapter_config.json has fields that it does not know: {', '.join(unknown[:4])}{more}"


@declare_condition
def targets_are_a_pattern(subject: Subject, accepted: list[str]) -> Iterable[str]:
    """``target_modules`` is one string and not a list of names; accepted: ``value``."""
    targets = subject.structure.config.raw.get("target_modules")
    if isinstance(targets, str) and targets not in accepted:
        yield f"target_modules is the pattern {targets[:60]!r}"


@declare_condition
def alpha_is_no_integer(subject: Subject, _: object) -> Iterable[str]:
    """``lora_alpha`` is not written as a whole number."""
    if not isinstance(subject.structure.config.lora_alpha, int):
        yield f"lora_alpha is {subject.structure.config.lora_alpha!r}"


@declare_condition
def patterns_mean_another_rank(subject: Subject, _: object) -> Iterable[str]:
    """``rank_pattern`` gives a module another rank in PEFT before 0.12 than in later releases."""
    for module in subject.structure.modules.values():
        if (rank := _old_peft_values(subject.structure.config, module.name)[0]) != module.rank:
            yield f"{module.name} has rank {module.rank}, and rank_pattern is read as {rank}"
            return


@declare_condition
def patterns_mean_another_alpha(subject: Subject, _: object) -> Iterable[str]:
    """``alpha_pattern`` gives a module another alpha in PEFT before 0.12 than in later releases."""
    for module in subject.structure.modules.values():
        if (alpha := _old_peft_values(subject.structure.config, module.name)[1]) != module.alpha:
            yield f"{module.name} has alpha {module.alpha:g}, and alpha_pattern is read as {alpha:g}"
            return


_PLAIN = re.compile(r"[A-Za-z0-9_.]*")


def _old_peft_values(config: LoraConfig, module: str) -> tuple[int, float]:
    """Return rank and alpha as PEFT 0.10 takes them: one key for both, the first of all that matches after a dot."""
    ranks, alphas = config.rank_pattern.values, config.alpha_pattern.values
    keys = (key for key in (*ranks, *alphas) if _may_end(module, key))  # there may be as many as modules
    matching = (key for key in keys if fullmatch(rf".*\.{key}", module, config.pattern_budget))
    key = next(matching, module)
    return ranks.get(key, config.r), alphas.get(key, config.lora_alpha)


def _may_end(module: str, key: str) -> bool:
    """Return whether a module's name may end as the pattern says: a plain one's last part is no pattern."""
    return _PLAIN.fullmatch(key) is None or module.endswith(key.rpartition(".")[2])
