"""Open a page in the browser of the person who types, or print its address."""

from __future__ import annotations

import sys

import click

print_url_option = click.option("--print-url", is_flag=True, help="Print the address, and open nothing.")


def open_page(url: str, print_url: bool, opened: str = "") -> None:
    """Print the address of a page and, for a person at a screen, open it, or else ``opened`` that leads there."""
    click.echo(url)
    if not print_url and sys.stdout.isatty() and has_browser():
        click.launch(opened or url)


def has_browser() -> bool:
    """Return whether a page can be opened here: not over SSH, for one, where there is no screen."""
    import os
    import webbrowser

    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True
