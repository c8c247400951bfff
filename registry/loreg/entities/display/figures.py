"""The pictures of loreg: each has one message, and its marks are the numbers that are printed.

Colours are those of Okabe and Ito (2008), or cividis, which readers with any colour vision tell apart; what differs in
colour differs in its line or mark too, for print. A picture is as wide as a page, 8 inches, at a legible size of text.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from loreg.entities.comparison import AdapterComparison
from loreg.entities.display.layers import LayerGrid, lay_out_by_layer
from loreg.entities.display.rank_error import RankError
from loreg.entities.display.text import format_error, format_share, printable, read_total
from loreg.entities.sweeps import SweepResult
from loreg.entities.versions import Provenance

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#6E6E6E"
_WIDTH = 8.0  # inches
_MAX_LINES = 400  # modules whose spectra are drawn; of more, every n-th
_MAX_LABEL = 34  # characters
_MAX_PRINTED = 12  # cells in a row that have room for their numbers
_MAX_SOURCES = 6
_MAX_TRIALS = 40
_MAX_SIDE_BY_SIDE = 5  # adapters of which three matrices fit beside one another
_MATRICES = {
    "cosine": "cosine of the deltas",
    "left_overlap": "overlap of columns",
    "right_overlap": "overlap of rows",
}
_STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text
}


class Picture(Figure):
    """A figure in loreg's style, which a notebook shows as the result of a cell, without pyplot."""

    def draw(self, renderer: RendererBase) -> None:
        """Draw it, in its style too what matplotlib looks up when it draws."""
        with matplotlib.rc_context(_STYLE):
            super().draw(renderer)

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        self.savefig(png, format="png", dpi=100)
        return png.getvalue()


def draw_spectra(provenance: Provenance, spectra: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the singular values of every merged delta, kept and cut, and the error that each rank would leave."""
    with _new_picture(4.0) as figure:
        left, right = figure.subplots(1, 2)
        ranks = {module["module"]: module["rank"] for module in provenance.certificate["modules"]}
        _draw_singular_values(left, spectra, ranks)
        _draw_error_by_rank(right, RankError(provenance.certificate, spectra))
        return figure


def draw_kept(provenance: Provenance) -> Figure:
    """Draw the share of each source's delta that a merge kept, module by module, as a certificate has it.

    Of more than six sources those that keep least.
    """
    total, modules = read_total(provenance), provenance.certificate["modules"]
    grid = lay_out_by_layer([module["module"] for module in modules])
    order = sorted(range(len(provenance.sources)), key=lambda i: _none_last(total["retention"][i]))
    shown = sorted(order[:_MAX_SOURCES])
    height = 0.9 + len(shown) * (0.75 + 0.24 * min(len(grid.rows), 40))
    with _new_picture(height) as figure:
        panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
        image = None
        for axes, source in zip(panels, shown, strict=True):
            image = _draw_kept_of_source(axes, grid, [module["retention"][source] for module in modules])
            label = _label(provenance.sources[source].label)
            axes.set_title(f"{label}: {format_share(total['retention'][source])} of its delta is kept", loc="left")
        panels[-1].set_xlabel("layer")
        if image is not None:
            figure.colorbar(image, ax=list(panels), label="kept of its delta", format="{x:.0%}", shrink=0.9, aspect=12)
        if len(shown) < len(order):
            figure.suptitle(f"the {len(shown)} of {len(order)} sources of which least is kept", fontsize=10)
        return figure


def draw_comparison(comparison: AdapterComparison) -> Figure:
    """Draw the cosines and the subspace overlaps of every pair as heat maps, in which adapters are numbered."""
    count = len(comparison.labels)
    if count <= _MAX_SIDE_BY_SIDE:
        with _new_picture(2.5 + 0.05 * count, "compressed") as figure:
            _draw_matrices(figure, figure.subplots(1, 3), comparison)
            return figure
    with _new_picture(8.0, None) as figure:
        # Inches from the lower left corner, and the side: squares of given places leave names the room they need.
        squares = ((2.6, 3.1, 4.5), (1.3, 0.4, 2.0), (4.9, 0.4, 2.0))
        panels = [figure.add_axes((x / _WIDTH, y / 8.0, side / _WIDTH, side / 8.0)) for x, y, side in squares]
        _draw_matrices(figure, panels, comparison)
        return figure


def draw_sweep(result: SweepResult) -> Figure:
    """Draw by how much each trial scored more than the one to take, a line a task; those of the front are blue.

    Of more than forty trials those of the front and the last.
    """
    scored = [trial for trial in result.trials if not trial.error]
    kept = {*result.front, *(trial.number for trial in scored[-_MAX_TRIALS:])} - {result.best}
    best = result.answer.confirmed or result.answer.scores
    kinds = {BLUE: "beaten by none on every task", GREY: "other trials"}
    with _new_picture(1.5 + 0.42 * len(result.tasks)) as figure:
        axes = figure.subplots()
        axes.axvline(0, color=ORANGE, linewidth=1.2, label=f"taken: {printable(result.answer.candidate.what)}")
        for trial in (trial for trial in scored if trial.number in kept):
            color = BLUE if trial.number in result.front else GREY
            scores = trial.confirmed or trial.scores
            axes.scatter(
                [scores[task] - best[task] for task in result.tasks], range(len(result.tasks)), s=36,
                marker="D" if color == BLUE else "o", facecolors="none", edgecolors=color, label=kinds.pop(color, None),
            )  # fmt: skip
        axes.set_yticks(range(len(result.tasks)), [f"{_label(task)}: {best[task]:.4g}" for task in result.tasks])
        axes.set_ylim(len(result.tasks) - 0.5, -0.5)
        side = "right" if result.higher_is_better else "left"
        where = ", on texts that nothing was chosen by" if result.answer.confirmed else ""
        axes.set_xlabel(f"{printable(result.metric)} beside the one taken; {side} is better{where}")
        axes.set_title(f"{len(scored)} trials of {len(result.sources)} adapters", loc="left")
        figure.legend(loc="outside lower left", ncols=3)
        return figure


@contextmanager
def _new_picture(
    height: float, engine: Literal["constrained", "compressed"] | None = "constrained"
) -> Iterator[Picture]:
    """Yield a picture as wide as a page, ``height`` inches high, in the style of all."""
    with matplotlib.rc_context(_STYLE):
        yield Picture(figsize=(_WIDTH, height), layout=engine)


def _draw_singular_values(axes: Axes, spectra: Mapping[str, Sequence[float]], ranks: Mapping[str, int]) -> None:
    names = list(spectra)[:: -(-len(spectra) // _MAX_LINES) or 1]
    alpha = max(0.15, min(0.9, 8 / max(len(names), 1)))
    labels = {"kept": "kept", "cut": "cut away"}
    for name in names:
        values = [value for value in spectra[name] if value > 0]
        kept = values[: ranks.get(name, len(values))]
        last = [len(kept) - 1] if len(kept) < len(values) else []
        axes.plot(
            range(1, len(kept) + 1), kept, "o-", markevery=last, color=BLUE, alpha=alpha, markersize=3,
            linewidth=1.2, label=labels.pop("kept", None),
        )  # fmt: skip
        if len(kept) < len(values):
            first = max(len(kept), 1)  # the lines of one module meet
            cut = values[first - 1 :]
            places = range(first, first + len(cut))
            axes.plot(places, cut, "--", color=ORANGE, alpha=alpha, linewidth=1, label=labels.pop("cut", None))
    axes.set(yscale="log", xlabel="number of the singular value", ylabel="singular value")
    axes.set_title(f"Singular values of {len(spectra)} merged deltas", loc="left")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for line in axes.legend(loc="upper right").get_lines():
        line.set_alpha(1)


def _draw_error_by_rank(axes: Axes, errors: RankError) -> None:
    """Draw the error if every module had one rank; the ranks that are printed lie on it, and so does a fixed rank."""
    axes.plot(range(len(errors.uniform)), errors.uniform, color=BLUE, label="one rank in every module")
    ranks_by_share = errors.sufficient
    label = f"where every module keeps {', '.join(ranks_by_share)} %"
    places = sorted(set(ranks_by_share.values()))
    if places:
        axes.plot(places, [errors.uniform[rank] for rank in places], "o", color=BLUE, markersize=4, label=label)
    near_the_end = [rank for rank in places if rank > 0.75 * len(errors.uniform)]
    for rank in places:
        shares = ", ".join(share for share, sufficient in ranks_by_share.items() if sufficient == rank)
        place, side = (2, 5), "left"
        if rank in near_the_end:  # one above the other
            place, side = (2, 7 + 12 * near_the_end.index(rank)), "right"
        axes.annotate(f"{shares} %", (rank, errors.uniform[rank]), place, textcoords="offset points", ha=side)
    x, y = errors.written
    low, high = errors.ranks
    ranks = f"rank {low} in every module" if low == high else f"ranks {low} to {high}, {x:.3g} on average"
    axes.plot(x, y, "D", color=ORANGE, markersize=7, label=f"as written: {ranks}\nε = {format_error(y)}", zorder=3)
    axes.set(xlabel="rank of a module, on average", ylabel="ε, relative error of all deltas")
    axes.set(ylim=(-0.03, 1.05), xlim=(0, None))
    axes.set_title("Relative error by rank", loc="left")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="upper right")


def _none_last(share: float | None) -> float:
    """Return what shares are sorted by: a source without a delta has none, and comes after those that have."""
    return math.inf if share is None else share


def _draw_kept_of_source(axes: Axes, grid: LayerGrid, shares: Sequence[float | None]) -> Any:
    cells = grid.fill(shares)
    image = axes.imshow(cells, cmap=_colormap("cividis"), vmin=0, vmax=1, aspect="auto")
    step = -(-len(grid.rows) // 40)
    axes.set_yticks(range(0, len(grid.rows), step), [_label(row) for row in grid.rows[::step]])
    columns = range(0, len(grid.columns), -(-len(grid.columns) // 24))
    axes.set_xticks(columns, [grid.columns[i] for i in columns])
    if len(grid.columns) <= _MAX_PRINTED:
        _print_cells(axes, image, cells, lambda share: format_share(share, 3))
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return image


def _draw_matrices(figure: Figure, panels: Sequence[Axes], comparison: AdapterComparison) -> None:
    """Draw a matrix in each panel; adapters have their names in the first, and their numbers in all."""
    count = len(comparison.labels)
    for number, (axes, (name, title)) in enumerate(zip(panels, _MATRICES.items(), strict=True)):
        cells = comparison.matrix(name)
        for place in range(count):
            cells[place][place] = math.nan  # an adapter and itself say nothing
        colormap, low = (_colormap("RdBu_r"), -1) if name == "cosine" else (_colormap("cividis"), 0)
        image = axes.imshow(cells, cmap=colormap, vmin=low, vmax=1)
        axes.set_title(title, loc="left")
        step = 1 if count <= _MAX_PRINTED else 2 if number == 0 else 5
        axes.set_xticks(range(0, count, step), [str(i + 1) for i in range(0, count, step)])
        names = [f"{_label(label)}  {i}" if number == 0 else str(i) for i, label in enumerate(comparison.labels, 1)]
        step = 1 if number == 0 else step
        axes.set_yticks(range(0, count, step), names[::step])
        axes.tick_params(length=0, labelsize=8)
        axes.spines[:].set_visible(False)
        if count <= (_MAX_PRINTED if number == 0 else _MAX_SIDE_BY_SIDE):
            _print_cells(axes, image, cells, "{:.3f}".format)
        else:
            figure.colorbar(image, cax=axes.inset_axes((1.04, 0, 0.045, 1)))


def _print_cells(axes: Axes, image: Any, cells: Sequence[Sequence[float]], form: Callable[[float], str]) -> None:
    for i, row in enumerate(cells):
        for j, value in enumerate(row):
            if not math.isnan(value):
                color = _text_color(image, value)
                axes.text(j, i, form(value), ha="center", va="center", fontsize=7.5, color=color)


def _text_color(image: Any, value: float) -> str:
    red, green, blue, _ = image.cmap(image.norm(value))
    return "black" if 0.3 * red + 0.6 * green + 0.1 * blue > 0.5 else "white"


def _colormap(name: str) -> Any:
    """Return a colour map that has light grey for what has no number."""
    return matplotlib.colormaps[name].with_extremes(bad="#E8E8E8")


def _label(name: str) -> str:
    """Return a name as a label, its middle left out where it is long; a dollar sign begins no formula."""
    return printable(name, _MAX_LABEL).replace("$", r"\$")
