"""Know who looks at a page: by a cookie that holds their token, which the pages read and the API never does.

The cookie holds the token itself, not a session of its own: one that is revoked or has expired ends at once, in every
process, and no table, no key and no memory of the server could be read to forge one. Scripts cannot read it (HttpOnly),
other sites' pages cannot have it sent (SameSite=Strict), and it goes when the browser is closed.

A form is taken from pages of this server alone: the browser says so (Sec-Fetch-Site or Origin), and the form holds a
token that is derived from the cookie.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from urllib.parse import parse_qsl, urlsplit

from fastapi import Request, Response

from loreg.errors import NotAllowedError
from loreg.server.bodies import read_body

COOKIE, FORM_COOKIE = "loreg", "loreg-form"
_SECURE_PREFIX = "__Host-"
_MAX_FORM_BYTES, _MAX_FIELDS = 16 * 1024, 50
FORM_FIELD = "form_token"


def is_https(request: Request) -> bool:
    """Return whether the browser speaks HTTPS: to this server, or to the proxy before it."""
    return (
        request.url.scheme == "https"
        or request.headers.get("Origin", "").startswith("https://")
        or request.headers.get("X-Forwarded-Proto", "").partition(",")[0].strip() == "https"
    )


def read_cookie(request: Request, name: str) -> str:
    """Return the cookie of that name, rather the one that a page of another host cannot set; empty for none."""
    full_name = _with_port(request, name)
    return request.cookies.get(_SECURE_PREFIX + full_name) or request.cookies.get(full_name, "")


def set_cookie(response: Response, request: Request, name: str, value: str) -> None:
    """Set a cookie until the browser is closed, for this host alone, out of reach of scripts and of other sites."""
    secure = is_https(request)
    full_name = (_SECURE_PREFIX if secure else "") + _with_port(request, name)
    response.set_cookie(full_name, value, path="/", secure=secure, httponly=True, samesite="strict")


def drop_cookie(response: Response, request: Request, name: str) -> None:
    """Remove a cookie."""
    for prefix, secure in ((_SECURE_PREFIX, True), ("", False)):
        full_name = prefix + _with_port(request, name)
        response.delete_cookie(full_name, path="/", secure=secure, httponly=True, samesite="strict")


def _with_port(request: Request, name: str) -> str:
    """Return the name with the port, if there is one: servers on one machine share their cookies otherwise."""
    port = request.headers.get("Host", "").rpartition(":")[2]
    return f"{name}-{port}" if port.isdecimal() and len(port) <= 5 else name


def new_form_cookie() -> str:
    """Return a cookie for the form of someone who is not signed in."""
    return secrets.token_urlsafe(24)


def form_token(secret: str) -> str:
    """Return what a form holds for the holder of ``secret``, which is their cookie."""
    return hmac.new(secret.encode(), b"form of loreg's pages", hashlib.sha256).hexdigest()[:40] if secret else ""


async def read_form(request: Request, secret: str) -> dict[str, str]:
    """Read the fields of a form that a page of this server showed to the holder of ``secret``.

    Raises NotAllowedError for one that came from elsewhere.
    """
    if not _is_same_origin(request):
        raise NotAllowedError(
            "this form was sent from another site", hint="open the page again, and send it from there"
        )
    body = (await read_body(request, _MAX_FORM_BYTES)).decode(errors="replace")
    try:
        fields = dict(parse_qsl(body, keep_blank_values=True, max_num_fields=_MAX_FIELDS))
    except ValueError as error:
        raise NotAllowedError("this form has too many fields") from error
    if not secret or not hmac.compare_digest(fields.pop(FORM_FIELD, "").encode(), form_token(secret).encode()):
        raise NotAllowedError("this form is too old", hint="open the page again, and send it from there")
    return fields


def _is_same_origin(request: Request) -> bool:
    """Return whether the browser says that a page of this very host and port sends the request."""
    if site := request.headers.get("Sec-Fetch-Site"):
        return site == "same-origin"
    return urlsplit(request.headers.get("Origin", "")).netloc == request.headers.get("Host", "-")


def local_path(text: str) -> str:
    """Return ``text`` if it is a path on this server, where someone goes on after signing in; else ``/``."""
    is_path = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable()
    return text if is_path and not urlsplit(text).netloc else "/"
