"""One HTTP request whose body names a model: the name is replaced on its way in, or the answer on its way out.

The body is read when the application reads it. So what stands between, such as the check of an API key, comes first,
and has refused whom it refuses before the registry is asked anything.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from loreg.errors import LoregError
from loreg.plugins.served_versions import NotServedError

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

#: By the kind of a NotServedError; the type is in vLLM's words.
_STATUS = {
    "unknown": (404, "NotFoundError"),
    "yanked": (404, "NotFoundError"),
    "wrong base": (400, "BadRequestError"),
    "unfit": (400, "BadRequestError"),
    "unreachable": (503, "ServiceUnavailableError"),
}
_OTHER = (500, "InternalServerError")


class NamedRequest:
    """``receive`` and ``send`` for the application; ``rewrite`` returns the body to give it. Used once."""

    def __init__(self, receive: Receive, send: Send, rewrite: Callable[[bytes], Awaitable[bytes]]) -> None:
        self._receive, self._send, self._rewrite = receive, send, rewrite
        self._is_read = self._is_answered = False
        self._error: LoregError | None = None

    async def receive(self) -> Message:
        """Return the whole body in one message at the first call, and what comes after it at the others."""
        if self._is_read:
            return await self._receive()
        body = bytearray()
        message: Message = {"more_body": True}
        while message.get("more_body", False):
            message = await self._receive()
            if message["type"] != "http.request":  # the client has gone
                return message
            body += message.get("body", b"")
        self._is_read = True
        try:
            rewritten = await self._rewrite(bytes(body))
        except LoregError as error:
            # The application is given nothing, which it refuses; and send says why in its place.
            self._error, rewritten = error, b""
        return {"type": "http.request", "body": rewritten, "more_body": False}

    async def send(self, message: Message) -> None:
        """Send what the application answers, unless there is an error to tell."""
        if self._error is None:
            await self._send(message)
        elif not self._is_answered:
            self._is_answered = True
            status, body = _describe(self._error)
            headers = [pair for pair in message.get("headers", ()) if not pair[0].lower().startswith(b"content-")]
            headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            if status == 503:
                headers.append((b"retry-after", b"1"))
            await self._send({"type": "http.response.start", "status": status, "headers": headers})
            await self._send({"type": "http.response.body", "body": body})


def names_a_model(scope: Scope) -> bool:
    """Return whether the request may have a body that names one: JSON."""
    if scope["type"] != "http" or scope["method"] != "POST":
        return False
    content_type: bytes = dict(scope["headers"]).get(b"content-type", b"")
    return content_type.partition(b";")[0].strip().lower().endswith(b"json")


def _describe(error: LoregError) -> tuple[int, bytes]:
    """Return the status and the body that tell the error as OpenAI's API does, with nothing of what lies behind."""
    status, kind = _STATUS.get(error.kind, _OTHER) if isinstance(error, NotServedError) else _OTHER
    message = f"{error.outside}. Hint: {error.hint_outside}" if error.hint_outside else error.outside
    document = {"error": {"message": message, "type": kind, "param": "model", "code": status}}
    return status, msgspec.json.encode(document)
