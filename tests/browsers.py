"""A real Chromium: Debian's package of that name, or the one of ``playwright install chromium``."""

from __future__ import annotations

import atexit
import functools
import shutil

import pytest
from playwright.sync_api import Browser, Error, Playwright, sync_playwright


@functools.cache
def _playwright() -> Playwright:
    """The driver, started once in a process: a second one beside it cannot be."""
    playwright = sync_playwright().start()
    atexit.register(playwright.stop)
    return playwright


def chromium(*arguments: str) -> Browser:
    """A browser that is started with these arguments; the test is skipped where there is none."""
    launch = _playwright().chromium.launch
    try:
        return launch(args=list(arguments), chromium_sandbox=False)
    except Error:
        program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if program is None:
            pytest.skip("there is no Chromium: apt-get install chromium, or playwright install chromium")
        return launch(executable_path=program, args=list(arguments), chromium_sandbox=False)
