"""Hold loreg to PEFT on one adapter, stage by stage."""

from __future__ import annotations

import json
import shutil
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from loreg.entities import MergeOptions
from loreg.errors import CheckFailedError, LoregError
from loreg.registry import Registry
from zoo.inputs import answer, difference
from zoo.models import Base, load
from zoo.options import Option
from zoo.refusals import reason_for
from zoo.trained import TOLERANCE, NotTrainableError, Trained, dense, merged_by_hand, parameters_of
from zoo.trained import load as load_adapter

STAGES = ("check", "base", "merge", "bake", "export", "extract")
WEIGHTS = [0.6, 0.4]

#: What a verdict can be: right, refused for a reason (see zoo.refusals), refused though PEFT can do it, silently wrong,
#: a finding on what is sound, an error without a name, not asked of loreg because PEFT or transformers cannot do it.
KINDS = ("ok", "refused", "REFUSED", "WRONG", "false alarm", "CRASHED", "-")


@dataclass(frozen=True)
class Verdict:
    """What became of one stage of one case: its ``error`` relative to the largest answer, or why there is none."""

    stage: str
    kind: str
    error: float = 0.0
    code: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Case:
    """One adapter on one base, and a second of the same kind to merge it with."""

    base: Base
    option: Option
    first: Trained
    second: Trained
    room: Path
    registry: Registry

    @property
    def whole_is_trained(self) -> bool:
        """Say whether the adapter holds more than factors, which a merge takes from one of the sources."""
        return self.first.trains_whole or self.option.saves_embeddings


def assess(case: Case) -> Iterator[Verdict]:
    """Answer a verdict for each stage."""
    stages: dict[str, Callable[[Case], Verdict]] = {
        "check": _check,
        "base": _base,
        "merge": _merge,
        "bake": _bake,
        "export": _export,
        "extract": _extract,
    }
    for stage in STAGES:
        try:
            yield stages[stage](case)
        except NotTrainableError as error:
            yield Verdict(stage, "-", detail=str(error))
        except LoregError as error:
            kind = "refused" if reason_for(stage, case.option.name, error.message) else "REFUSED"
            yield Verdict(stage, kind, code=error.code, detail=f"{error.message}. Hint: {error.hint}")
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            yield Verdict(stage, "CRASHED", detail=f"{type(error).__name__}: {error} ({where})")


def _check(case: Case) -> Verdict:
    """The adapter alone."""
    (report,) = case.registry.check([str(case.first.folder)])
    return _alarms("check", [f"{f.code} {f.message}" for f in report.findings if not _is_right(case, f.code)])


def _base(case: Case) -> Verdict:
    """Beside the folder of its base, and pushed with it, nothing is said against the adapter: the base is exact."""
    (beside,) = case.registry.check([str(case.first.folder)], base=str(case.base.folder))
    pushed = case.registry.push(case.first.folder, _ref(case), base=str(case.base.folder))
    ref, digest = pushed.version.ref, pushed.version.base.digest
    (report,) = case.registry.check([ref], base=digest)
    findings = [f for f in beside.findings if f.code != "LB003"]  # headers alone do not say which weights these are
    alarms = [f"{f.code} {f.message}" for f in (*findings, *report.findings) if not _is_right(case, f.code)]
    matches = [m.verdict for m in case.registry.bases.match(ref) if m.base == pushed.version.base]
    alarms += [f"verdict {v.kind}: {v.reason}" for v in matches if v.kind != "exact"]
    return _alarms("base", alarms)


def _merge(case: Case) -> Verdict:
    sources = [str(case.first.folder), str(case.second.folder)]
    merged = case.room / "merged"
    case.registry.merge(
        sources,
        MergeOptions(
            weights=WEIGHTS,
            extras=sources[0] if case.whole_is_trained else None,
            rank=_full_rank(case) if _is_dora(case) else None,
        ),
        base=case.base.folder if _is_dora(case) else None,
        folder=merged,
    )
    return _as_adapter("merge", case, merged, merged_by_hand(case.base, [case.first, case.second], WEIGHTS))


def _is_dora(case: Case) -> bool:
    """DoRA's delta needs the base, and has more than the adapter's rank: all that the largest weight can have."""
    return bool(case.first.fields.get("use_dora"))


def _bake(case: Case) -> Verdict:
    baked = case.room / "baked"
    result = case.registry.bake([str(case.first.folder)], case.base.folder, baked)
    verdict, _ = as_model("bake", case, baked)
    return verdict if verdict.kind == "ok" else replace(verdict, detail="; ".join((verdict.detail, *result.notes)))


def _export(case: Case) -> Verdict:
    """As PEFT 0.10 takes it, which today's PEFT takes too."""
    exported = case.room / "exported"
    try:
        case.registry.export(str(case.first.folder), "peft:0.10", exported, base=str(case.base.folder))
    except CheckFailedError as error:
        config = json.loads((case.first.folder / "adapter_config.json").read_text(encoding="utf-8"))
        if newer := [field for field in NEWER_THAN_0_10 if config.get(field)]:
            raise NotTrainableError(f"PEFT 0.10 has no {', '.join(newer)}") from error
        raise
    return _as_adapter("export", case, exported, case.first.answer)


def _extract(case: Case) -> Verdict:
    """Taken out of the baked model without loss and baked again, the adapter makes the same model."""
    baked = case.room / "baked"
    if not baked.is_dir() or (first := as_model("bake", case, baked))[0].kind != "ok":
        raise NotTrainableError("there is no right baked model")
    extracted, again = case.room / "extracted", case.room / "again"
    case.registry.extract(case.base.folder, baked, rank=_full_rank(case), folder=extracted)
    case.registry.bake([str(extracted)], case.base.folder, again)
    verdict, model = as_model("extract", case, again)
    if verdict.kind != "ok":
        return verdict
    old, new = parameters_of(first[1]), parameters_of(model)
    return max(
        (_compared("extract", new[name].double(), old[name].double(), name) for name in old), key=lambda v: v.error
    )


def _full_rank(case: Case) -> int:
    """Return the largest rank that a weight of the base can have."""
    return max(min(p[0].numel(), len(p)) for p in case.base.model.parameters() if p.ndim > 1)


def as_model(stage: str, case: Case, folder: Path) -> tuple[Verdict, Any]:
    """Hold a model that loreg wrote to PEFT's answer, as transformers reads it."""
    try:
        model, complaints = load(type(case.base.model), folder)
    except Exception as error:
        return Verdict(stage, "WRONG", float("inf"), detail=f"transformers: {type(error).__name__}: {error}"), None
    verdict = _compared(stage, answer(model, case.base.inputs), case.first.answer)
    if minded := complaints - case.base.complaints:
        verdict = Verdict(stage, "WRONG", verdict.error, detail=f"transformers: {', '.join(sorted(minded)[:6])}")
    return verdict, model


def _as_adapter(stage: str, case: Case, folder: Path, expected: Any) -> Verdict:
    """Hold an adapter that loreg wrote to an answer, as PEFT reads it on the base that the first was trained on."""
    try:
        model = load_adapter(case.first.start, folder)
    except Exception as error:
        return Verdict(stage, "WRONG", float("inf"), detail=f"PEFT: {type(error).__name__}: {error}")
    return _compared(stage, answer(model, case.base.inputs), expected)


def _compared(stage: str, actual: Any, expected: Any, detail: str = "") -> Verdict:
    error = difference(actual, expected)
    return Verdict(stage, "ok" if error <= TOLERANCE else "WRONG", error, detail=detail)


def _alarms(stage: str, alarms: list[str]) -> Verdict:
    codes = " ".join(sorted({text.split()[0] for text in alarms}))
    return Verdict(stage, "false alarm" if alarms else "ok", code=codes, detail="; ".join(alarms[:3]))


#: Fields of an adapter that PEFT 0.10 does not carry out.
NEWER_THAN_0_10 = ("lora_bias", "target_parameters", "trainable_token_indices")


def _is_right(case: Case, code: str) -> bool:
    """Say whether a finding tells a person something true of such an adapter."""
    if code == "LB005":
        return _parts_what_was_tied(case)
    if code == "LR022":  # modules whose factors would get no gradient are left out of the adapter, not of its patterns
        return bool(case.first.fields.get("alpha_pattern"))
    copies = case.option.saves_embeddings and bool(case.first.fields.get("modules_to_save"))
    return code == "LR017" or (code == "LR021" and copies) or (code == "LB004" and case.option.grown)


def _parts_what_was_tied(case: Case) -> bool:
    """Say whether PEFT's model has two matrices where the base has one."""
    matrix = {name: id(p) for name, p in case.base.model.named_parameters(remove_duplicate=False) if p.ndim == 2}
    merged = parameters_of(dense(case.first.model))
    pairs = ((a, b) for a in matrix for b in matrix if a < b and matrix[a] == matrix[b])
    return any(not torch.equal(merged[a], merged[b]) for a, b in pairs)


def _ref(case: Case) -> str:
    return f"zoo/{case.option.name.replace('+', '-')}"


def clean(case: Case) -> None:
    """Remove what the stages wrote."""
    shutil.rmtree(case.room, ignore_errors=True)
