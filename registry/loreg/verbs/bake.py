"""bake: write adapters and their base as one model."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from loreg.adapters.dtypes import BY_TORCH_NAME
from loreg.adapters.structure import WEIGHTS_NAME, read_structure
from loreg.baking.bake import ShardWriter, write_here
from loreg.baking.weighted_sum import Summand, WeightedSum
from loreg.bases import cache
from loreg.bases.common_base import DERIVED, SAME
from loreg.bases.compatibility import BaseTensors
from loreg.bases.identify import architecture_digest, identify, identify_headers
from loreg.bases.model import Model, read_model
from loreg.entities import BakeResult, BaseRelation, MergeOptions, Progress, Verdict, VerdictKind, no_progress
from loreg.errors import CheckFailedError, MergeError, NotFoundError, UsageError, explain_os_errors
from loreg.fleet.bake_shards import ShardsOnWorkers
from loreg.fleet.ray_tasks import RayExecutor, parse_cluster
from loreg.storage import digest_of
from loreg.workspace.atomic_folder import refuse_unless_free
from loreg.workspace.bake_writer import FILE_NAME, BakeWriter
from loreg.workspace.base_lookup import assess_fit, base_of_identity, trained_adapter
from loreg.workspace.context import Context
from loreg.workspace.resolve_sources import (
    ResolvedSource,
    find_position,
    refuse_wrong_weights,
    resolve_sources,
    source_weights,
)

SCHEMA = "loreg.bake/1"


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
    on: str = "",
    progress: Progress = no_progress,
) -> BakeResult:
    """Write the model at the path ``base`` with the refs or folders ``sources`` added to it, to the new ``folder``.

    See :meth:`loreg.registry.Registry.bake`; ``start_over`` removes what an interrupted call with other arguments left.
    """
    folder, base = Path(folder), Path(base).expanduser()
    weights = source_weights(sources, options)
    target_dtype = _parse_dtype(dtype)
    cluster = parse_cluster(on) if on else None
    refuse_unless_free(folder, FILE_NAME)
    recipe: Mapping[str, object] = {}
    with resolve_sources(context, sources, progress) as opened, contextlib.ExitStack() as stack:
        refuse_wrong_weights(sources, options)
        with explain_os_errors(base, "check the folder of the base and its permissions"):
            model = read_model(base)
            _refuse_quantised(context, model, opened)
            verdicts, content = _assess_base(context, model, opened, options.allow_derived, progress)
        extras_source = find_position(options.extras, sources, opened) if options.extras is not None else None
        if options.is_exact_sum:
            summands = tuple(Summand(source.label, source.digest, source.structure) for source in opened)
            total = WeightedSum(
                summands, weights, options.weights_for, options.scale, extras=extras_source, dtype=target_dtype
            )
        else:
            from loreg.verbs.merge import merge

            merged = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="loreg-bake-"))) / "merged"
            result = merge(context, sources, options, base=base, device=device, folder=merged, on=on, progress=progress)
            recipe = {**result.provenance.recipe, "weights": digest_of(merged / WEIGHTS_NAME).sha256}
            whole = Summand("the merged adapter", "", read_structure(merged))
            total, extras_source = WeightedSum((whole,), (1.0,), dtype=target_dtype), None
        plan = total.plan(model)
        record = {
            **_record(options, opened, weights),
            "extras": opened[extras_source].label if extras_source is not None else None,
            "dtype": dtype,
            "base": {"content": content, "struct": architecture_digest(model), "verdicts": [v.kind for v in verdicts]},
        }
        write_shards: ShardWriter = write_here
        if cluster is not None:
            write_shards = ShardsOnWorkers(total, model, lambda: RayExecutor(cluster))
        written = BakeWriter(folder, model, plan, record, verify, progress, write_shards).write(recipe, start_over)
    outputs = [output for shard in plan.shards.values() for output in shard]
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


def _record(options: MergeOptions, opened: Sequence[ResolvedSource], weights: Sequence[float]) -> dict[str, object]:
    """Return what the model's record says of the sources and of how they are combined."""
    return {
        "schema": SCHEMA,
        "sources": [
            {"label": source.label, "digest": source.digest, "weight": weight}
            for source, weight in zip(opened, weights, strict=True)
        ],
        "method": options.method,
        "parameters": dict(options.parameters),
        "rank": options.rank,
        "initial": list(options.initial),
        "weights_for": {pattern: list(weights) for pattern, weights in options.weights_for.items()},
        "lambda": options.scale,
    }


def _assess_base(
    context: Context, model: Model, opened: Sequence[ResolvedSource], allow_derived: bool, progress: Progress
) -> tuple[tuple[Verdict, ...], str | None]:
    """Return the verdict on the base for each source, and its content digest if it was needed or is cached.

    Raises CheckFailedError for a base that a source does not fit.
    """
    is_cached = all(cache.recall(context.base_cache, file) is not None for file in model.shards)
    if is_cached or any(source.base is not None and source.base.complete for source in opened):
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
    """Raise MergeError, with a hint, for a base whose weights are quantised."""
    quantised = model.config.get("quantization_config")
    if not quantised:
        return
    kind = quantised.get("quant_method", "quantised") if isinstance(quantised, dict) else "quantised"
    origin = next((source.base for source in opened if source.base is not None), None)
    if all(cache.recall(context.base_cache, file) is not None for file in model.shards):
        identified = identify(model.path, cache_folder=context.base_cache).base
        with contextlib.suppress(NotFoundError):
            edges = [e for e in context.backend.base(identified.digest).edges if e.child == identified.digest]
            parents = [edge.parent for edge in edges if edge.kind == BaseRelation.QUANTIZED_FROM]
            origin = context.backend.base(parents[0]).base if parents else origin
    origin_note = f". It was made from {origin.title}" if origin else ""
    raise MergeError(
        f"{model.path} is quantised ({kind}): rounding a delta to its steps would lose it{origin_note}",
        hint="bake into the model that it was quantised from: --base ./the/unquantised/model",
    )


def _parse_dtype(name: str | None) -> str | None:
    if name is not None and name not in BY_TORCH_NAME:
        raise UsageError(f"there is no dtype {name!r} to bake to", hint=f"--dtype {' | '.join(BY_TORCH_NAME)}")
    return BY_TORCH_NAME[name] if name else None
