"""bake: adapters and their base become one model."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from loreg.adapters.config import why_not_mergeable
from loreg.adapters.dtypes import BY_TORCH_NAME
from loreg.adapters.patterns import Patterns
from loreg.adapters.structure import read_structure
from loreg.baking.bake import MODEL_NAME, has_model_files, open_staging, staging_path, write_model
from loreg.baking.plan import Plan, make_plan
from loreg.baking.tensor_updates import BakeSource
from loreg.baking.verify import verify as compare_sample
from loreg.baking.verify import verify_whole
from loreg.bases import cache
from loreg.bases.compatibility import BaseTensors
from loreg.bases.identify import architecture_digest, identify, identify_headers
from loreg.bases.model import Model, read_model
from loreg.entities import BakeResult, BaseRelation, MergeOptions, Progress, Verdict, VerdictKind, no_progress
from loreg.errors import (
    AdapterFormatError,
    CheckFailedError,
    ConflictError,
    IntegrityError,
    MergeError,
    NotFoundError,
    UsageError,
    explain_os_errors,
)
from loreg.storage.durable import make_folders
from loreg.workspace.atomic_folder import is_free, move_into_place, refuse_unless_free
from loreg.workspace.base_lookup import assess_fit, base_of_identity, trained_adapter
from loreg.workspace.common_base import DERIVED, SAME
from loreg.workspace.context import Context
from loreg.workspace.resolve_sources import (
    ResolvedSource,
    position_of,
    refuse_wrong_weights,
    resolve_sources,
    weights_of,
)

FILE_NAME = "loreg_bake.json"
SCHEMA = "loreg.bake/1"
_INPUTS = ("sources", "method", "parameters", "rank", "initial", "weights_for", "lambda", "extras", "dtype")


def bake(
    context: Context,
    sources: Sequence[str],
    base: Path | str,
    folder: Path | str,
    options: MergeOptions = MergeOptions(),
    *,
    dtype: str | None = None,
    verify: bool = False,
    start_over: bool = False,
    device: str = "auto",
    progress: Progress = no_progress,
) -> BakeResult:
    """Write the model at the path ``base`` with the refs or folders ``sources`` added to it, to the new ``folder``.

    See :meth:`loreg.registry.Registry.bake`; ``start_over`` removes what an interrupted call with other arguments left.
    """
    folder, base = Path(folder), Path(base).expanduser()
    weights = weights_of(sources, options)
    stored_as = _dtype(dtype)
    refuse_unless_free(folder, FILE_NAME)
    recipe: Mapping[str, object] = {}
    with resolve_sources(context, sources, progress) as opened, contextlib.ExitStack() as stack:
        refuse_wrong_weights(sources, options)
        with explain_os_errors(base, "check the folder of the base and its permissions"):
            model = read_model(base)
            _refuse_quantised(context, model, opened)
            verdicts, content = _verdicts(context, model, opened, options.allow_derived, progress)
        chosen = position_of(options.extras, sources, opened) if options.extras is not None else None
        if options.is_exact_sum:
            added = _exact_sources(opened, weights, options)
        else:
            from loreg.verbs.merge import merge

            merged = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="loreg-bake-"))) / "merged"
            result = merge(context, sources, options, base=base, device=device, folder=merged, progress=progress)
            recipe = result.provenance.recipe
            added, chosen = [BakeSource("the merged adapter", "", read_structure(merged), lambda module: 1.0)], None
        plan = make_plan(model, added, chosen, stored_as)
        record = {
            "schema": SCHEMA,
            "sources": [
                {"label": s.label, "digest": s.digest, "weight": w} for s, w in zip(opened, weights, strict=True)
            ],
            "method": options.method,
            "parameters": dict(options.parameters),
            "rank": options.rank,
            "initial": list(options.initial),
            "weights_for": {pattern: list(weights) for pattern, weights in options.weights_for.items()},
            "lambda": options.scale,
            "extras": opened[chosen].label if chosen is not None else None,
            "dtype": dtype,
            "base": {"content": content, "struct": architecture_digest(model), "verdicts": [v.kind for v in verdicts]},
        }
        with _explained(folder):
            written = _BakeWriter(folder, model, plan, record, verify, progress).write(recipe, start_over)
    outputs = [output for some in plan.shards.values() for output in some]
    notes = [f"{s.label}: {v.reason}" for s, v in zip(opened, verdicts, strict=True) if v.kind != VerdictKind.EXACT]
    return BakeResult(
        folder=folder,
        changed=plan.changed,
        copied=len(outputs) - plan.changed,
        size=sum(output.size for output in outputs),
        verdicts=verdicts,
        resumed=written.resumed,
        verified=written.verified,
        notes=(*notes, *plan.notes),
        already=written.already,
    )


def _explained(folder: Path) -> contextlib.AbstractContextManager[None]:
    staging = staging_path(folder)
    hint = f"the same command goes on where this one stopped; rm -r {staging} gives it up"
    return explain_os_errors(staging, hint)


@dataclass(frozen=True)
class _WriteOutcome:
    """How many shards an earlier bake had written, how many tensors were compared, whether all was there before."""

    resumed: int = 0
    verified: int = 0
    already: bool = False


@dataclass(frozen=True)
class _BakeWriter:
    """What is written, and where to."""

    folder: Path
    model: Model
    plan: Plan
    record: Mapping[str, object]
    verify: bool
    progress: Progress

    def write(self, recipe: Mapping[str, object], start_over: bool) -> _WriteOutcome:
        """Write the model, unless it is there already. Raises ConflictError if something else is."""
        if not is_free(self.folder):
            return self._as_it_is()
        make_folders(self.folder.resolve().parent)
        with open_staging(self.folder, self._inputs(recipe), start_over=start_over) as staging:
            if not is_free(self.folder):  # another bake has ended since
                return self._as_it_is()
            document = f"{json.dumps(self.record, indent=1, ensure_ascii=False)}\n".encode()
            resumed = write_model(staging, self.model, self.plan, {FILE_NAME: document}, self.progress)
            checked = compare_sample(staging / MODEL_NAME, self.plan) if self.verify else 0
            self.progress("placing", 1, 1)
            move_into_place(staging / MODEL_NAME, self.folder)
        return _WriteOutcome(resumed, checked)

    def _as_it_is(self) -> _WriteOutcome:
        """Look at what lies in the folder. Raises ConflictError unless this bake would write the same."""
        _refuse_another_bake(self.folder, self.record)
        checked = compare_sample(self.folder, self.plan) if self.verify else 0
        try:
            same = has_model_files(self.folder, self.model, self.plan, FILE_NAME)
            if same:
                verify_whole(self.folder, self.plan, self.progress)
        except (IntegrityError, AdapterFormatError):
            same = False
        if not same:
            raise ConflictError(
                f"{self.folder} is not empty and not what this bake makes; nothing was changed",
                hint="choose a new folder for --to",
            )
        return _WriteOutcome(verified=checked, already=True)

    def _inputs(self, recipe: Mapping[str, object]) -> dict[str, object]:
        """All that the bytes of the shards depend on: only a bake with the same goes on with them."""
        outline = [
            (name, o.name, o.dtype, o.source.shape, o.source.start, str(o.file), o.matrices, o.is_copied)
            for name, outputs in self.plan.shards.items()
            for o in outputs
        ]
        text = json.dumps([outline, self.model.config], sort_keys=True, default=str)
        return {
            **self.record,
            "recipe": recipe,
            "shards": [(*cache.file_stamp(file), file.stat().st_ctime_ns) for file in self.model.shards],
            "outline": hashlib.sha256(text.encode()).hexdigest(),
            "loreg": version("loreg"),
        }


def _exact_sources(
    opened: Sequence[ResolvedSource], weights: Sequence[float], options: MergeOptions
) -> list[BakeSource]:
    """Return the sources of the exact weighted sum. Raises MergeError for what their factors alone do not say."""
    patterns = Patterns({pattern: tuple(weights) for pattern, weights in options.weights_for.items()})
    added = []
    for number, source in enumerate(opened):
        config = source.structure.config
        reason = why_not_mergeable(config)
        if config.changes_the_base:
            reason = f"init_lora_weights is {config.raw['init_lora_weights']!r}: its delta needs the initial adapter"
        unreadable = next((m.why_unreadable for m in source.structure.modules.values() if m.shape is None), "")
        if reason or unreadable:
            raise MergeError(
                f"{source.label} cannot be baked: {reason or unreadable}",
                hint="--initial DIR names the adapter that was saved before training"
                if config.changes_the_base
                else "serve it as an adapter",
            )

        def weight(module: str, number: int = number) -> float:
            return options.scale * patterns.first(module, tuple(weights))[number]

        added.append(BakeSource(source.label, source.digest, source.structure, weight))
    return added


def _verdicts(
    context: Context, model: Model, opened: Sequence[ResolvedSource], allow_derived: bool, progress: Progress
) -> tuple[tuple[Verdict, ...], str | None]:
    """How well the base fits each source, and the base's content digest if it was needed or is known already.

    Raises CheckFailedError for a base that is another one than that of a source.
    """
    remembered = all(cache.recall(context.base_cache, file) is not None for file in model.shards)
    if remembered or any(source.base is not None and source.base.complete for source in opened):
        candidate: BaseTensors = base_of_identity(
            identify(model.path, (model.path.resolve().name,), progress, context.base_cache)
        )
    else:
        candidate = base_of_identity(identify_headers(model, (model.path.resolve().name,)))
    verdicts = []
    for source in opened:
        verdict = assess_fit(context, trained_adapter(context, source.structure, source.base), candidate)
        accepted = verdict.kind in SAME or (verdict.kind in DERIVED and allow_derived)
        known_to_differ = source.base is not None and source.base.complete
        if verdict.kind == VerdictKind.MISMATCH or (known_to_differ and not accepted):
            raise CheckFailedError(
                f"base mismatch: {source.label} does not fit {candidate.base.title}: {verdict.reason}",
                hint="--allow-derived bakes it all the same"
                if verdict.kind in DERIVED
                else "loreg base match shows which base it fits",
            )
        verdicts.append(verdict)
    return tuple(verdicts), candidate.base.digest if candidate.base.complete else None


def _refuse_quantised(context: Context, model: Model, opened: Sequence[ResolvedSource]) -> None:
    """Raise MergeError with the way out for a base whose weights were rounded to a few bits."""
    quantised = model.config.get("quantization_config")
    if not quantised:
        return
    kind = quantised.get("quant_method", "quantised") if isinstance(quantised, dict) else "quantised"
    origin = next((source.base for source in opened if source.base is not None), None)
    if all(cache.recall(context.base_cache, file) is not None for file in model.shards):
        known = identify(model.path, cache_folder=context.base_cache).base
        with contextlib.suppress(NotFoundError):
            edges = [e for e in context.backend.base(known.digest).edges if e.child == known.digest]
            parents = [edge.parent for edge in edges if edge.kind == BaseRelation.QUANTIZED_FROM]
            origin = context.backend.base(parents[0]).base if parents else origin
    known_as = f". It was made from {origin.title}" if origin else ""
    raise MergeError(
        f"{model.path} is quantised ({kind}): rounding a delta to its steps would lose it{known_as}",
        hint="bake into the model that it was quantised from: --base ./the/unquantised/model",
    )


def _refuse_another_bake(folder: Path, record: Mapping[str, Any]) -> None:
    """Raise ConflictError unless the folder says that it was baked from the same, in the same way."""
    try:
        found = json.loads((folder / FILE_NAME).read_bytes())
        same = all(found.get(key) == json.loads(json.dumps(record[key])) for key in _INPUTS)
        same = same and found.get("base", {}).get("struct") == record["base"]["struct"]
    except (OSError, ValueError, AttributeError):
        same = False
    if not same:
        raise ConflictError(
            f"{folder} is the result of another bake", hint=f"{FILE_NAME} in it says of which; choose a new folder"
        )


def _dtype(name: str | None) -> str | None:
    if name is not None and name not in BY_TORCH_NAME:
        raise UsageError(f"there is no dtype {name!r} to bake to", hint=f"--dtype {' | '.join(BY_TORCH_NAME)}")
    return BY_TORCH_NAME[name] if name else None
