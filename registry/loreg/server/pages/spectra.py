"""The page ``/NS/NAME/vN/spectra``: how large the delta of each module is, and over how many directions it spreads."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from loreg.entities import AdapterSpectra, Details, ModuleSpectrum
from loreg.errors import ConflictError, LoregError
from loreg.server.pages.commands import command
from loreg.server.pages.heat_maps import HeatMap, draw_heat_map
from loreg.server.pages.paths import SPECTRA, api_path, parse_version_path
from loreg.server.pages.spectrum_charts import BarChart, SpectraChart, draw_spectra, draw_spectrum
from loreg.server.pages.visitor import PageRoute, get_visitor, page
from loreg.value import Value

routes = APIRouter(include_in_schema=False, route_class=PageRoute)
_MAX_LISTED = 4000  # modules to choose from


class SpectraPictures(Value, frozen=True):
    """What is drawn: norm and stable rank by module, all spectra, and the one of the module that was ``chosen``.

    ``retained`` has, for some ranks, the share of all energy that they hold.
    """

    norms: HeatMap | None
    stable_ranks: HeatMap | None
    lines: SpectraChart | None
    modules: tuple[str, ...]
    chosen: ModuleSpectrum
    bars: BarChart
    retained: tuple[tuple[int, float], ...]


class SpectraView(Value, frozen=True):
    """What the page shows; ``pictures`` are None, and ``problem`` says why, where nothing is known.

    ``is_busy`` if it will be known soon: the page asks again.
    """

    details: Details
    spectra: AdapterSpectra | None
    pictures: SpectraPictures | None
    problem: str = ""
    is_busy: bool = False


@routes.api_route(SPECTRA, methods=["GET", "HEAD"])
async def spectra(request: Request, namespace: str, name: str, number: str) -> Response:
    """Show the spectra of a version, which are computed when somebody first looks."""
    visitor = await get_visitor(request)
    ref = parse_version_path(namespace, name, number)
    details = await visitor.backend.show(ref)
    try:
        known = await run_in_threadpool(visitor.backend.local.spectra, ref)
        view = SpectraView(details, known, _draw(known, request.query_params.get("module", "")))
    except LoregError as error:
        view = SpectraView(details, None, None, error.outside, isinstance(error, ConflictError))
    return page(
        visitor,
        "spectra.html",
        title=f"Spectra of {details.version.ref}",
        view=view,
        command=command("spectra", details.version.ref),
        api=api_path(ref.adapter, "versions", f"v{ref.number}", "spectra"),
        document=view.spectra,
    )


def _draw(spectra: AdapterSpectra, chosen: str) -> SpectraPictures | None:
    """Return the pictures; of the module that was chosen, else of the largest. None for an adapter without modules."""
    modules = spectra.modules
    if not modules:
        return None
    largest = max(modules, key=lambda spectrum: spectrum.norm)
    module = next((spectrum for spectrum in modules if spectrum.module == chosen), largest)
    return SpectraPictures(
        norms=draw_heat_map({spectrum.module: spectrum.norm for spectrum in modules}, "norm"),
        stable_ranks=draw_heat_map({spectrum.module: spectrum.stable_rank for spectrum in modules}, "stable rank"),
        lines=draw_spectra(modules),
        modules=tuple(spectrum.module for spectrum in modules[:_MAX_LISTED]),
        chosen=module,
        bars=draw_spectrum(module),
        retained=_choose_ranks(spectra.retained),
    )


def _choose_ranks(retained: tuple[float, ...]) -> tuple[tuple[int, float], ...]:
    """Return the powers of two up to the largest rank, and that one, each with what it retains."""
    last = len(retained) - 1
    ranks = sorted({*(1 << i for i in range(last.bit_length())), last} - {0})
    return tuple((rank, retained[rank]) for rank in ranks)
