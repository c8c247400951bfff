"""A real Chromium: Debian's package of that name, or the one of ``playwright install chromium``."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Error, Playwright, sync_playwright


@contextlib.contextmanager
def chromium(*arguments: str) -> Iterator[Browser]:
    """A browser that is started with these arguments; the test is skipped where there is none.

    While it lasts an event loop runs in this thread: no second one can be, and no test that runs a loop itself.
    """
    with sync_playwright() as playwright, _launch(playwright, list(arguments)) as browser:
        yield browser


def _launch(playwright: Playwright, arguments: list[str]) -> Browser:
    launch = playwright.chromium.launch
    try:
        return launch(args=arguments, chromium_sandbox=False)
    except Error:
        program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if program is None:
            pytest.skip("there is no Chromium: apt-get install chromium, or playwright install chromium")
        return launch(executable_path=program, args=arguments, chromium_sandbox=False)
