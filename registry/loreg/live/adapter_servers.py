"""Servers that load adapters while they run, each asked over the admin API of its kind.

Read in vLLM 0.32 (``vllm/entrypoints/serve/lora/api_router.py``, ``openai/models/serving.py``), SGLang 0.5.23
(``sglang/srt/entrypoints/http_server.py``) and LoRAX (``router/src/server.rs``). A name is never loaded again in place:
vLLM and SGLang then give requests under way the new weights with the cache of the old ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from loreg.decoding import decode
from loreg.errors import CheckFailedError, LoregError, NotAllowedError, UnavailableError, UsageError
from loreg.remote.connections import Connections, NoResponseError, Response, basic_auth
from loreg.settings import mask_url
from loreg.single_line import single_line
from loreg.version import VERSION

_MAX_REASON = 400  # characters of what a server says
_MAX_ANSWER = 16 * 1024 * 1024  # bytes; a list of 50,000 adapters has 15 MB
_BUSY = (408, 425, 429, 502, 503, 504)
_NO_ROUTE = ("", "Not Found", "Method Not Allowed")  # what a server says of a route that it has not


class AdapterServer(Protocol):
    """One running server. Every method raises UnavailableError where it does not answer or is busy.

    NotAllowedError is raised where it wants another key, or was started so that it loads nothing while it runs.
    """

    kind: str
    #: For people: kind and URL, without what is secret in it.
    label: str
    #: Host and port.
    address: str

    def list_loaded(self) -> Mapping[str, str]:
        """Return the path of each adapter that it has loaded, by name."""
        ...

    def load(self, name: str, path: str) -> None:
        """Load the adapter in the server's folder ``path``. Raises CheckFailedError with what the server says of it."""
        ...

    def unload(self, name: str) -> None:
        """Let no later request have the name; requests under way go on."""
        ...

    def request_name(self, name: str, path: str) -> str:
        """Return how a request names an adapter that was loaded so."""
        ...


class _Routes(NamedTuple):
    """Where a kind of server takes what; the list of models has each adapter with a ``parent``."""

    load: str
    unload: str
    #: What the operator does where the routes are missing.
    remedy: str


_ROUTES = {
    "vllm": _Routes(
        "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "export VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 where it starts"
    ),
    "sglang": _Routes("/load_lora_adapter", "/unload_lora_adapter", "start it with --enable-lora"),
}
_LORAX = "lorax"
KINDS = (*_ROUTES, _LORAX)


def parse_servers(texts: Sequence[str], key: str) -> tuple[AdapterServer, ...]:
    """Return the servers of ``KIND=URL``, all of one kind; ``key`` goes with each request, where it is not empty.

    Raises UsageError.
    """
    servers: list[AdapterServer] = []
    for text in texts:
        kind, _, url = text.partition("=")
        parts = urlsplit(url)
        if kind not in KINDS or parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(
                f"{mask_url(text)!r} is no server; expected KIND=URL with one of {', '.join(KINDS)}",
                hint="--server vllm=http://127.0.0.1:8000",
            )
        admin = _AdminApi(kind, url.rstrip("/"), key)
        servers.append(_LoraxServer(admin) if kind == _LORAX else _LoadingServer(admin))
    if len({server.kind for server in servers}) > 1:
        raise UsageError(
            "servers of two kinds take files of two kinds", hint="a loreg sync for each, with a folder of its own"
        )
    if len({server.label for server in servers}) < len(servers):
        raise UsageError("a server is named twice", hint="name each replica once")
    return tuple(servers)


class _AdminApi:
    """Sends requests to one server, and says of its errors what they are."""

    def __init__(self, kind: str, url: str, key: str) -> None:
        self.kind, self._url = kind, url
        self.address = urlsplit(url).netloc.rpartition("@")[2]
        self.label = f"{kind} at {mask_url(url)}"
        authorization = {"Authorization": f"Bearer {key}"} if key else basic_auth(url)
        self._headers = {"User-Agent": f"loreg/{VERSION}", "Content-Type": "application/json", **authorization}
        self._connections = Connections()

    def send(self, method: str, path: str, body: object = None) -> Response:
        """Return an answer of status 2xx or 4xx that says something of what was asked."""
        content = None if body is None else msgspec.json.encode(body)
        try:
            response = self._connections.send(method, f"{self._url}{path}", self._headers, content, _MAX_ANSWER)
        except NoResponseError as error:
            raise UnavailableError(
                f"{self.label} does not answer: {error}", hint="start it, or leave it out"
            ) from error
        if response.status in (401, 403):
            raise NotAllowedError(
                f"{self.label} wants another key", hint="export LOREG_SERVER_KEY=… to the one that it was started with"
            )
        if response.status in _BUSY or response.is_redirect:
            raise UnavailableError(
                f"{self.label} answers {response.status}: {_reason(response) or 'no reason'}",
                hint="name the server itself, and not what stands before it",
            )
        return response


class _Model(msgspec.Struct, frozen=True):
    """One of a server's models: an adapter has a parent, and lies in ``root``."""

    id: str
    root: str | None = None
    parent: str | None = None


class _Models(msgspec.Struct, frozen=True):
    """What ``/v1/models`` answers."""

    data: Annotated[tuple[_Model, ...], Meta(max_length=100_000)]


class _LoadingServer:
    """vLLM or SGLang: what is loaded is listed."""

    def __init__(self, admin: _AdminApi) -> None:
        self._admin, self._routes = admin, _ROUTES[admin.kind]
        self.kind, self.label, self.address = admin.kind, admin.label, admin.address

    def list_loaded(self) -> Mapping[str, str]:
        response = self._admin.send("GET", "/v1/models")
        try:
            models = decode(msgspec.json.decode(response.data), _Models)
        except ValueError as error:  # msgspec's DecodeError is one
            raise UnavailableError(
                f"{self.label} does not say what it has loaded: HTTP {response.status}",
                hint=f"curl {self.address}/v1/models",
            ) from error
        return {model.id: model.root or "" for model in models.data if model.parent is not None}

    def load(self, name: str, path: str) -> None:
        self._change(self._routes.load, {"lora_name": name, "lora_path": path})

    def unload(self, name: str) -> None:
        self._change(self._routes.unload, {"lora_name": name})

    def request_name(self, name: str, path: str) -> str:
        return name

    def _change(self, route: str, body: Mapping[str, str]) -> None:
        response = self._admin.send("POST", route, body)
        if response.is_success:
            return
        reason = _reason(response)
        if response.status in (404, 405) and reason in _NO_ROUTE:
            raise NotAllowedError(f"{self.label} loads nothing while it runs", hint=self._routes.remedy)
        raise _refused(self.label, reason or f"HTTP {response.status}")


class _LoraxServer:
    """LoRAX: it loads what a request names, and lists nothing; to load one is to let it write one token with it."""

    def __init__(self, admin: _AdminApi) -> None:
        self._admin = admin
        self.kind, self.label, self.address = admin.kind, admin.label, admin.address
        self._loaded: dict[str, str] = {}

    def list_loaded(self) -> Mapping[str, str]:
        self._admin.send("GET", "/info")
        return dict(self._loaded)

    def load(self, name: str, path: str) -> None:
        parameters: dict[str, Any] = {"adapter_id": path, "adapter_source": "local", "max_new_tokens": 1}
        response = self._admin.send("POST", "/generate", {"inputs": "a", "parameters": parameters})
        if not response.is_success:
            raise _refused(self.label, _reason(response) or f"HTTP {response.status}")
        self._loaded[name] = path

    def unload(self, name: str) -> None:
        self._loaded.pop(name, None)  # it lets go by itself of what is not asked for

    def request_name(self, name: str, path: str) -> str:
        return path


def _refused(label: str, reason: str) -> LoregError:
    """Return the error of an adapter that a server does not take."""
    hint = "the server's log says more; if it sees the folder under another path: --server-path"
    return CheckFailedError(f"{label} refuses it: {reason.rstrip('.')}", hint=hint)


def _reason(response: Response) -> str:
    """Return what an answer says of the error, in one line; empty if it says nothing."""
    text = response.data.decode(errors="replace")
    try:
        document = msgspec.json.decode(response.data)
    except ValueError:
        document = text
    for field in ("error", "message", "error_message", "detail"):
        if isinstance(document, dict) and document.get(field):
            document = document[field]
    reason = document if isinstance(document, str) else text
    return single_line(reason.strip())[:_MAX_REASON]
