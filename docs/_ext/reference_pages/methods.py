"""``methods.md``: the merge methods, each with its parameters, its source and a readable definition."""

from __future__ import annotations

from loreg.merging.method import Method
from loreg.merging.methods import METHODS
from reference_pages.markdown import code, escape, sentence, table

_HEAD = """\
# Merge methods

`loreg merge --method NAME` takes one of these; `loreg methods NAME` prints its parameters. `--param NAME=VALUE` sets
one, `--weights` what each source counts. What a merge kept is in its [certificate](../concepts/certificate.md).

The code under *Definition* is the method on dense matrices with NumPy, as the paper has it: what the tests hold loreg's
own code against, which never makes the dense matrix where it need not.

"""
_FAMILIES = {
    "exact": "The weighted sum, and others whose coefficients follow from the angles between the deltas. Nothing is "
    "lost unless a rank is asked for.",
    "elementwise": "They work on the entries of the dense deltas. The result has full rank and is written at `--rank "
    "N`, by default the largest rank of the sources.",
    "shared basis": "TIES on the entries of the deltas in a basis that all sources share.",
    "spectral": "They rebuild the singular values of the merged delta.",
    "least squares": "They weigh each delta by direction: by how much its task's text has there, or by its own rows.",
    "factors": "What other libraries do to factors, to reproduce it.",
}
#: The functions of tests/oracles.py that define each method; factor_average has none, for its definition is one line.
DEFINITIONS = {
    "linear": ("linear",),
    "slerp": ("slerp",),
    "karcher": ("karcher",),
    "model_stock": ("model_stock",),
    "magnitude_prune": ("magnitude_prune",),
    "ties": ("ties", "elect"),
    "dare_linear": ("dare",),
    "dare_ties": ("dare",),
    "della": ("della",),
    "breadcrumbs": ("breadcrumbs",),
    "knots_ties": ("knots_ties",),
    "core_ties": ("core_ties", "bases"),
    "ctm": ("tucker",),
    "tsv": ("tsv",),
    "iso": ("iso",),
    "iso_cts": ("iso_cts",),
    "svc": ("svc",),
    "regmean": ("regmean",),
    "wudi": ("wudi",),
    "factor_average": (),
}
_AFTER = {
    "dare_linear": "The kept deltas are summed with the weights.",
    "dare_ties": "The kept deltas are merged by [`elect`](#ties) of TIES.",
    "della": "The kept deltas are merged by [`elect`](#ties) of TIES.",
    "ctm": "In the coordinates `u.T @ delta @ v` entries are dropped and merged by [`elect`](#ties) of TIES.",
    "factor_average": "`(Σ √|wₜ|·Bₜ) @ (Σ ±√|wₜ|·Aₜ)`, √scale in each factor.",
}
_SHARED = {
    "top": "The largest entries",
    "uniform": "The random numbers of a draw",
    "polar": "The nearest orthonormal columns",
    "real_directions": "Singular vectors of a value that is not zero",
}


def render() -> dict[str, str]:
    """Return the page of methods by its path. Fails for a method of which no definition is known."""
    families: dict[str, list[Method]] = {}
    for method in METHODS.values():
        families.setdefault(method.family, []).append(method)
    parts = [_HEAD + table(["Method", "What it does", "Result"], map(_row, METHODS.values()))]
    for family, members in families.items():
        parts.append(f"## {family.capitalize()}\n\n{_FAMILIES[family]}\n")
        parts += [_render_method(method) for method in members]
    parts.append("## What the definitions share\n")
    parts += [f"**{title}**\n\n{_include(name)}" for name, title in _SHARED.items()]
    return {"methods.md": "\n".join(parts)}


def _row(method: Method) -> tuple[str, str, str]:
    rank = "full rank, truncated" if method.full_rank else "low rank, whole"
    return f"[{code(method.name)}](#{method.name})", sentence(method.summary), rank


def _render_method(method: Method) -> str:
    parts = [
        f"({method.name})=\n### `{method.name}`\n",
        f"{sentence(method.summary[0].upper() + method.summary[1:])}.\n",
        f"**Concept**\n: {sentence(method.concept)}\n",
        f"**Use it**\n: {sentence(method.use)}.\n",
        f"**Sources**\n: {_count_sources(method)}\n",
        f"**Rank**\n: {_describe_rank(method)}\n",
        f"**Reference**\n: {sentence(method.source)}\n",
    ]
    if method.parameters:
        rows = [(code(p.name), code(str(p.default)), escape(p.range), sentence(p.about)) for p in method.parameters]
        parts.append("**Parameters**\n\n" + table(["Parameter", "Default", "Possible", "What it is"], rows))
    parts.append("**Definition**\n")
    parts += [_include(name) for name in DEFINITIONS[method.name]]
    if method.name in _AFTER:
        parts.append(_AFTER[method.name] + "\n")
    return "\n".join(parts)


def _count_sources(method: Method) -> str:
    if method.max_sources == method.min_sources:
        return f"exactly {method.min_sources}"
    return f"{method.min_sources} or more" + (f", {method.max_sources} at most" if method.max_sources else "")


def _describe_rank(method: Method) -> str:
    if method.full_rank:
        return "the merged delta has full rank: it is written at `--rank N`, by default the largest of the sources"
    return "kept whole by default; `--rank N` truncates it"


def _include(name: str) -> str:
    return f"```{{literalinclude}} ../../tests/oracles.py\n:pyobject: {name}\n```\n"
