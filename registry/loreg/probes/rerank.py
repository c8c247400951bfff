"""The probe ``rerank``: make of an adapter the best one at another rank, to the bit as ``loreg rerank`` makes it."""

from __future__ import annotations

from pathlib import Path

from loreg.adapters.structure import read_structure
from loreg.checking.run import refuse_empty_tensors
from loreg.entities import Commit, MapOptions, ProbedVersion, Provenance, Source
from loreg.errors import UsageError
from loreg.identity.sketch import sketch_adapter
from loreg.manifest import Manifest
from loreg.merging import provenance
from loreg.merging.inputs import MergeInput
from loreg.probes.adapter import ProbedAdapter
from loreg.refs import AdapterName, parse_adapter_name, parse_ref

RELEASE = "1"  # of what is made
_MAX_NAME = 64  # characters of a template
_HINT = "loreg map rerank --rank 8 --name '{namespace}/{name}-r8'"


def rerank(options: MapOptions, adapter: ProbedAdapter) -> dict[str, object]:
    """Leave the adapter of the other rank in the folder of the output; return what it lost."""
    from loreg.merging.execute import execute_recipe
    from loreg.merging.ranks import read_rank_rule
    from loreg.merging.recipe import Recipe

    output = adapter.output
    assert output is not None  # noqa: S101  a probe that makes something has one
    name_for(options.name, output.ref)  # before it is made
    refuse_empty_tensors(output.ref, adapter.structure)
    recipe = Recipe((Source(output.ref, output.digest, 1.0),), rank=read_rank_rule({"fixed": options.rank}))
    merged = execute_recipe([MergeInput(adapter.structure, output.ref, output.digest)], recipe)
    made_by = Provenance(recipe.sources, merged.recipe.to_json(), merged.certificate)
    provenance.write_merged(output.folder, merged.adapter, made_by)
    return {"epsilon": merged.certificate["total"]["epsilon"]}


def to_commit(options: MapOptions, version: ProbedVersion, folder: Path, made: Manifest) -> Commit:
    """Return the version that the adapter in ``folder`` becomes, whose stored files are ``made``."""
    structure = read_structure(folder)
    return Commit(
        adapter=name_for(options.name, version.ref),
        manifest=made,
        base=version.base,
        base_hint=structure.config.base_hint,
        sketch=sketch_adapter(structure),
    )


def name_for(template: str, ref: str) -> AdapterName:
    """Return the name that the template gives to what is made of the version ``ref``. Raises UsageError.

    >>> str(name_for("{namespace}/{name}-r8", "team/news:v3")), str(name_for("{namespace}/{name}-r8", "news:v3"))
    ('team/news-r8', 'news-r8')
    """
    adapter = parse_ref(ref).adapter
    name = template.replace("{namespace}", adapter.namespace).replace("{name}", adapter.name)
    return parse_adapter_name(name.removeprefix("/"))


def require_options(options: MapOptions) -> None:
    """Raise UsageError unless the options say at which rank, and give each adapter a name of its own."""
    if options.rank < 1:
        raise UsageError("the rank to bring adapters to is not named", hint=_HINT)
    missing = [field for field in ("{namespace}", "{name}") if field not in options.name]
    if missing or len(options.name) > _MAX_NAME:
        raise UsageError(
            f"{options.name[:80]!r} gives adapters no names of their own: expected {{namespace}} and {{name}} in it, "
            f"for those of each, in {_MAX_NAME} characters at most",
            hint=_HINT,
        )
    name_for(options.name, "team/news:v1")
