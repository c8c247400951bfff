"""Resolve names in signatures to where they are documented: by their public path, or in Python's own documentation."""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from reference_pages.errors import list_errors

_PYTHON = "https://docs.python.org/3/library/"
#: What signatures name of others: the page where it is explained.
_ELSEWHERE = {
    "Path": f"{_PYTHON}pathlib.html#pathlib.Path",
    "datetime": f"{_PYTHON}datetime.html#datetime.datetime",
    "timedelta": f"{_PYTHON}datetime.html#datetime.timedelta",
    "Any": f"{_PYTHON}typing.html#typing.Any",
    "StrEnum": f"{_PYTHON}enum.html#enum.StrEnum",
    "Enum": f"{_PYTHON}enum.html#enum.Enum",
    "Protocol": f"{_PYTHON}typing.html#typing.Protocol",
    "Generic": f"{_PYTHON}typing.html#typing.Generic",
    **{
        name: f"{_PYTHON}collections.abc.html#collections.abc.{name}"
        for name in ("Mapping", "Sequence", "Callable", "Iterable", "Iterator", "Generator")
    },
    **{name: f"{_PYTHON}stdtypes.html#{name}" for name in ("str", "int", "float", "bool", "dict", "tuple", "list")},
    "object": f"{_PYTHON}functions.html#object",
    "None": f"{_PYTHON}constants.html#None",
    "Exception": f"{_PYTHON}exceptions.html#Exception",
    "BaseException": f"{_PYTHON}exceptions.html#BaseException",
    "Self": f"{_PYTHON}typing.html#typing.Self",
    "DataFrame": "https://pandas.pydata.org/docs/reference/api/pandas.DataFrame.html",
    "Figure": "https://matplotlib.org/stable/api/figure_api.html#matplotlib.figure.Figure",
    "Tensor": "https://docs.pytorch.org/docs/stable/tensors.html",
    "Module": "https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html",
    "device": "https://docs.pytorch.org/docs/stable/tensor_attributes.html#torch.device",
    "dtype": "https://docs.pytorch.org/docs/stable/tensor_attributes.html#torch.dtype",
}
_ERROR = re.compile(rf"(?<![\w`.])({'|'.join(kind.__name__ for kind in list_errors())})\b")


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.reference | None:
    """Return a reference to the one documented object that has the last part of the name, else to another's page."""
    if node.get("refdomain") != "py":
        return None
    name = node["reftarget"].rpartition(".")[2]
    objects = env.domains["py"].objects  # type: ignore[attr-defined]
    targets = [path for path in objects if path.rpartition(".")[2] == name and objects[path].objtype != "method"]
    if len(targets) == 1 and node["reftarget"].split(".")[0] not in ("pathlib", "torch"):
        target = objects[targets[0]]
        uri = app.builder.get_relative_uri(node["refdoc"], target.docname) + f"#{target.node_id}"
        return nodes.reference("", "", content.deepcopy(), internal=True, refuri=uri, reftitle=targets[0])
    if name in _ELSEWHERE:
        return nodes.reference("", "", content.deepcopy(), internal=False, refuri=_ELSEWHERE[name])
    return None


def print_factories(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Print the default of a field that is made anew each time: an empty mapping, in all of loreg's values."""
    return (signature.replace("<factory>", "{}") if signature else signature), returns


def link_errors(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Make links of the errors that a docstring says are raised."""
    lines[:] = [_ERROR.sub(r":class:`~loreg.errors.\1`", line) for line in lines]


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.connect("missing-reference", resolve)
    app.connect("autodoc-process-signature", print_factories)
    app.connect("autodoc-process-docstring", link_errors)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
