"""Which token a server is asked with that is not the one of the settings: each token goes to the server it is for."""

from __future__ import annotations

import os

from loreg import credentials
from loreg.errors import UsageError
from loreg.settings import Settings


def find_token(url: str, settings: Settings, variable: str = "") -> str:
    """Return the token for the server at ``url``, empty if there is none: from the environment's ``variable``, if any.

    Else ``LOREG_TOKEN`` if ``LOREG_ENDPOINT`` is that server, or the one that ``loreg login`` or the user's file keeps
    for it. Raises UsageError for a variable that is not set.
    """
    if variable:
        if not os.environ.get(variable):
            raise UsageError(f"the variable {variable} is not set", hint=f"export {variable}=lrg_…")
        return os.environ[variable]
    tokens = (
        (settings.endpoint, settings.token),
        (os.environ.get("LOREG_ENDPOINT", ""), os.environ.get("LOREG_TOKEN", "")),
        credentials.read(),
    )
    return next((token for endpoint, token in tokens if token and endpoint.rstrip("/") == url.rstrip("/")), "")
