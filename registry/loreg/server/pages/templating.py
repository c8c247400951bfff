"""Render templates: all text is escaped, an undefined name is an error, and text of strangers is one line or cut."""

from __future__ import annotations

import functools
from datetime import datetime

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from loreg.byte_sizes import format_size
from loreg.entities import BaseModel
from loreg.entities.display.text import format_error, format_ranks, format_share, printable
from loreg.refs import page_path
from loreg.server.pages import paths
from loreg.server.pages.static_files import static_path
from loreg.version import VERSION

_MAX_CHARACTERS = 120  # of a text that a stranger wrote, where the whole of it is not the content of the page


def render(template: str, **values: object) -> str:
    """Return the template of that file with these values."""
    return _environment().get_template(template).render(**values)


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("loreg.server.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        line=line,
        size=format_size,
        count=format_count,
        time=format_time,
        figure=format_figure,
        number=format_number,
        share=format_share,
        error=format_error,
    )
    environment.globals.update(
        static=static_path,
        adapter_path=page_path,
        version_path=paths.version_path,
        diff_path=paths.diff_path,
        ref_path=paths.ref_path,
        base_path=paths.base_path,
        upgrade_path=paths.upgrade_path,
        job_path=paths.job_path,
        with_query=paths.with_query,
        base_name=base_name,
        ranks=format_ranks,
        VERSION=VERSION,
    )
    return environment


def line(text: object, limit: int = _MAX_CHARACTERS) -> Markup:
    """Return text of a stranger in one line of its own direction, its middle left out if it is long."""
    return Markup("<bdi>{}</bdi>").format(escape(printable(text, limit)))


def format_count(number: int) -> str:
    """Return a count with its thousands apart."""
    return f"{number:,}"


def format_time(at: datetime, *, short: bool = False) -> Markup:
    """Return a time in UTC as an element that programs read too; ``short`` shows the day alone."""
    shown = f"{at:%Y-%m-%d}" if short else f"{at:%Y-%m-%d %H:%M} UTC"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        at.isoformat(), f"{at:%Y-%m-%d %H:%M:%S} UTC", shown
    )


def format_figure(value: float) -> str:
    """Return a measured number with six digits at most."""
    return f"{value:.6g}"


def format_number(value: float) -> str:
    """Return a number as it is typed, with as many digits as it has."""
    short = format_figure(value)
    return short if float(short) == value else repr(value)


def base_name(base: BaseModel | None, hint: str) -> str:
    """Return what a page calls the base: its name or digest; what the adapter declares; empty if nothing is known."""
    if base is not None:
        return base.names[0] if base.names else base.digest[:12]
    return hint
