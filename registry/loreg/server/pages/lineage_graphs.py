"""Lay out a lineage in layers, what came first on the left, which a template draws as SVG (Sugiyama et al. 1981)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from loreg.entities import LineageEdge
from loreg.entities.display.text import printable
from loreg.server.pages.paths import ref_path
from loreg.value import Value

_WIDTH, _HEIGHT, _APART, _BELOW, _MARGIN = 230, 34, 90, 14, 6  # pixels: of a node, between layers, between nodes
_MAX_NAME = 30  # characters
_MAX_LAYERS = 64
_MAX_WEIGHTS = 60  # that are written beside their edges
_SWEEPS = 4
_MAX_CENTRED = 12  # nodes of a layer: of longer ones the first lie at the top, where a reader begins


class Node(Value, frozen=True):
    """A version, or what is related to one: ``kind`` is center, version, base, export, bake, folder, gone or hidden."""

    x: int
    y: int
    name: str
    path: str
    kind: str


class Arrow(Value, frozen=True):
    """A curve from a parent to a child, with its label and where that is written; empty if it is not.

    ``anchor`` is SVG's: which end of the text is there.
    """

    curve: str
    label: str
    x: int
    y: int
    anchor: str
    title: str


class LineageGraph(Value, frozen=True):
    """A picture of ``width`` × ``height`` pixels; ``label`` says it in words."""

    width: int
    height: int
    nodes: tuple[Node, ...]
    arrows: tuple[Arrow, ...]
    label: str


class Link(Value, frozen=True):
    """An edge between two nodes, each named by what only it has; ``label`` says what it is, or its weight."""

    parent: str
    child: str
    label: str


class Relative(Value, frozen=True):
    """What is no version: above ``of`` if it is a base, else below it; ``of`` empty for the version in the middle."""

    key: str
    name: str
    path: str
    kind: str
    label: str
    of: str = ""


def name_source(edge: LineageEdge) -> str:
    """Return what a page calls the parent of an edge."""
    return edge.parent_ref or edge.parent.label


def kind_of_source(edge: LineageEdge) -> str:
    """Return which kind of node the parent of an edge is; a folder's name is no ref."""
    if edge.parent_ref:
        return "version"
    if edge.parent.is_hidden:
        return "hidden"
    return "gone" if ":" in edge.parent.label else "folder"


def draw_lineage(
    ref: str,
    digest: str,
    above: Sequence[LineageEdge],
    below: Sequence[LineageEdge],
    relatives: Sequence[Relative] = (),
) -> LineageGraph:
    """Return the picture of a version with what it was made from and into, and what else is related to it.

    Of the ``relatives`` a base comes before those that it came from.
    """
    shown: dict[str, tuple[str, str, str]] = {ref: (ref, ref_path(ref), "center")}
    links = [_link(edge, ref, digest, shown) for edge in (*above, *below)]
    upward, downward = links[: len(above)], links[len(above) :]
    layers = _find_layers(ref, upward, downward)
    links += _add_relatives(ref, relatives, shown, layers)
    places = _place(_order(layers, links))
    nodes = tuple(Node(*places[key], printable(shown[key][0], _MAX_NAME), *shown[key][1:]) for key in places)
    return LineageGraph(
        width=max(x for x, _ in places.values()) + _WIDTH + _MARGIN,
        height=max(y for _, y in places.values()) + _HEIGHT + _MARGIN,
        nodes=nodes,
        arrows=tuple(_draw_all(links, places, shown)),
        label=f"Lineage of {ref}: {len(upward)} edges to what it was made from, {len(downward)} to what was made of it",
    )


def _link(edge: LineageEdge, ref: str, digest: str, shown: dict[str, tuple[str, str, str]]) -> Link:
    """Return the edge between nodes, and add these to ``shown``; equal content is one node, whatever its name."""
    parent = ref if edge.parent.digest == digest else edge.parent_ref or f"sha256:{edge.parent.digest}"
    shown.setdefault(parent, (name_source(edge), ref_path(edge.parent_ref), kind_of_source(edge)))
    shown.setdefault(edge.child, (edge.child, ref_path(edge.child), "version"))
    return Link(parent, edge.child, f"{edge.parent.weight:.4g} ×")


def _add_relatives(
    ref: str, relatives: Sequence[Relative], shown: dict[str, tuple[str, str, str]], layers: dict[str, int]
) -> list[Link]:
    """Add what is no version: exports and bakes on the right of it, bases on the left of all that came of them."""
    links = []
    first = min(layers.values())
    for relative in relatives:
        of = relative.of or ref
        shown.setdefault(relative.key, (relative.name, relative.path, relative.kind))
        if relative.kind == "base":
            below = layers[of] if relative.of else first
            layers[relative.key] = min(layers.get(relative.key, below - 1), below - 1)
            links.append(Link(relative.key, of, relative.label))
        else:
            layers[relative.key] = layers[of] + 1
            links.append(Link(of, relative.key, relative.label))
    return links


def _find_layers(ref: str, upward: Sequence[Link], downward: Sequence[Link]) -> dict[str, int]:
    """Return the layer of each node: the longest way from the version in the middle, which has 0."""
    layers = {ref: 0}
    for _ in range(_MAX_LAYERS):
        before = dict(layers)
        for link in upward:
            layers[link.parent] = min(layers.get(link.parent, 0), layers.get(link.child, 0) - 1)
        for link in downward:
            layers[link.child] = max(layers.get(link.child, 0), layers.get(link.parent, 0) + 1)
        layers[ref] = 0
        if layers == before:
            break
    return {key: layers.get(key, 0) for link in (*upward, *downward) for key in (link.parent, link.child)} | {ref: 0}


def _order(layers: Mapping[str, int], links: Sequence[Link]) -> list[list[str]]:
    """Return the nodes layer by layer; in each those first whose neighbours are first, so that few edges cross."""
    by_layer: defaultdict[int, list[str]] = defaultdict(list)
    for key, layer in layers.items():
        by_layer[layer].append(key)
    neighbours: defaultdict[str, list[str]] = defaultdict(list)
    for link in links:
        neighbours[link.parent].append(link.child)
        neighbours[link.child].append(link.parent)
    rows = [by_layer[layer] for layer in sorted(by_layer)]
    for _ in range(_SWEEPS):
        rank = {key: (i + 0.5) / len(row) for row in rows for i, key in enumerate(row)}
        means = {key: sum(rank[other] for other in others) / len(others) for key, others in neighbours.items()}
        rows = [sorted(row, key=lambda key: means.get(key, rank[key])) for row in rows]
    return rows


def _place(rows: Sequence[Sequence[str]]) -> dict[str, tuple[int, int]]:
    longest = max(map(len, rows))
    step = _HEIGHT + _BELOW
    places = {}
    for column, row in enumerate(rows):
        top = (longest - len(row)) * step // 2 if longest <= _MAX_CENTRED else 0
        for i, key in enumerate(row):
            places[key] = (_MARGIN + column * (_WIDTH + _APART), _MARGIN + top + i * step)
    return places


def _draw_all(
    links: Sequence[Link], places: Mapping[str, tuple[int, int]], shown: Mapping[str, tuple[str, str, str]]
) -> Iterator[Arrow]:
    """Yield the arrows; of several into one node each is labelled where it begins, else where it ends."""
    into = Counter(link.child for link in links)
    for link in links:
        yield _draw(link, places, shown, is_labelled=len(links) <= _MAX_WEIGHTS, at_start=into[link.child] > 1)


def _draw(
    link: Link,
    places: Mapping[str, tuple[int, int]],
    shown: Mapping[str, tuple[str, str, str]],
    *,
    is_labelled: bool,
    at_start: bool,
) -> Arrow:
    (x1, y1), (x2, y2) = places[link.parent], places[link.child]
    x1, y1, y2 = x1 + _WIDTH, y1 + _HEIGHT // 2, y2 + _HEIGHT // 2
    bend = max(_APART // 2, (x2 - x1) // 2)
    title = f"{printable(shown[link.parent][0])} in {printable(shown[link.child][0])}: {link.label}"
    curve = f"M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"
    label = link.label if is_labelled else ""
    if at_start:
        return Arrow(curve, label, x1 + 8, y1 - 6 if y1 >= y2 else y1 + 14, "start", title)
    return Arrow(curve, label, x2 - 8, y2 - 6 if y1 <= y2 else y2 + 14, "end", title)
