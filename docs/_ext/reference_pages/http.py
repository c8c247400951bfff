"""``http.md``: the routes of the server, from its own OpenAPI document, and the role that each needs."""

from __future__ import annotations

from collections.abc import Iterator

from loreg.server.app import create_app
from loreg.server.pages.paths import RESOLVE
from loreg.server.routes import hub_read, hub_write
from reference_pages.markdown import code, escape, sentence, table

_HEAD = """\
# HTTP

`loreg serve` answers these routes. A token goes into the header `Authorization: Bearer lrg_…`. Without one a caller
reads what is public. A server that only its own machine reaches and that has no token yet lets every caller do
everything, unless it was started with `--require-tokens`; with `--allow-anonymous` so does one that others reach.

Errors are [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457) problem details with a [code](errors.md#codes) and a hint.
Pages end with a `cursor`: what the next request sends. `GET /openapi.json` has every parameter and every body.

A role holds for a namespace; `write` includes `read`, `admin` both. What a caller may not read is answered as if it
were not there.

| Role | Who |
| --- | --- |
| none | everyone; the answer has what the caller may read |
| any token | whoever has a token that holds |
| any token or public | whoever has a token that holds, and everyone if a public version is on it |
| `read` | may read the adapter's namespace, or the namespace is public |
| `write` | may write to the namespace |
| `write` anywhere | may write to some namespace |
| maker or `admin` | may write to the namespace and had it made, or administers the namespace |
| `admin` | administers the namespace |
| `admin:*` | administers the registry |
"""
NONE, TOKEN, KNOWN, READ, WRITE, ANYWHERE, MAKER, ADMIN, ROOT = (
    "none", "any token", "any token or public", "`read`", "`write`", "`write` anywhere", "maker or `admin`", "`admin`",
    "`admin:*`",
)  # fmt: skip
_ADAPTER = "/api/v1/adapters/{namespace}/{name}"
_VERSION = _ADAPTER + "/versions/{selector}"
_EXPORT = _VERSION + "/exports/{request}"
_ALIAS = _ADAPTER + "/aliases/{alias}"
_WEBHOOK = "/api/v1/webhooks/{webhook_id}"
_MODEL = "/api/models/{repository:path}"
#: The least role that each route needs. A route that is not here fails the build; the tests hold this against what a
#: real server answers to callers of every role.
ROLES = {
    ("GET", "/healthz"): NONE,
    ("GET", "/readyz"): NONE,
    ("GET", "/metrics"): NONE,
    ("GET", "/api/v1/search"): NONE,
    ("GET", "/api/v1/facets"): NONE,
    ("GET", "/api/v1/selection"): NONE,
    ("GET", _ADAPTER + "/canaries"): READ,
    ("GET", _ALIAS + "/shares"): READ,
    ("PUT", _ALIAS + "/canary"): WRITE,
    ("DELETE", _ALIAS + "/canary"): WRITE,
    ("GET", _ADAPTER + "/promotions"): READ,
    ("PUT", _ALIAS + "/promotion"): WRITE,
    ("GET", "/api/v1/webhooks"): ADMIN,
    ("POST", "/api/v1/webhooks"): ADMIN,
    ("DELETE", _WEBHOOK): ADMIN,
    ("PUT", _WEBHOOK + "/secret"): ADMIN,
    ("PUT", _WEBHOOK + "/enabled"): ADMIN,
    ("POST", _WEBHOOK + "/ping"): ADMIN,
    ("GET", _WEBHOOK + "/deliveries"): ADMIN,
    ("PUT", _WEBHOOK + "/deliveries/{delivery_id}"): ADMIN,
    ("GET", "/api/v1/tasks"): NONE,
    ("GET", "/api/v1/base-summaries"): NONE,
    ("GET", "/api/v1/metrics"): NONE,
    ("GET", "/api/v1/metric-names"): NONE,
    ("GET", "/api/v1/search-words"): NONE,
    ("PUT", "/api/v1/metrics/{name}"): ROOT,
    ("GET", "/api/v1/merge-preview"): READ,
    ("GET", "/api/v1/comparison"): READ,
    ("GET", "/api/v1/adapters"): NONE,
    ("GET", _ADAPTER + "/versions"): READ,
    ("POST", _ADAPTER + "/versions"): WRITE,
    ("GET", _VERSION): READ,
    ("GET", _VERSION + "/lineage"): READ,
    ("GET", _VERSION + "/descendants"): READ,
    ("GET", _VERSION + "/check"): READ,
    ("GET", _VERSION + "/sketch"): READ,
    ("GET", _VERSION + "/facts"): READ,
    ("GET", "/api/v1/findings"): NONE,
    ("GET", _VERSION + "/spectra"): READ,
    ("GET", "/api/v1/candidates"): NONE,
    ("GET", "/api/v1/near-duplicates"): NONE,
    ("DELETE", _VERSION): ROOT,
    ("GET", _VERSION + "/deletion"): ROOT,
    ("POST", _VERSION + "/metrics"): WRITE,
    ("PUT", _VERSION + "/yanked"): WRITE,
    ("GET", _EXPORT): READ,
    ("PUT", _EXPORT): WRITE,
    ("DELETE", _EXPORT): MAKER,
    ("GET", _ALIAS): READ,
    ("PUT", _ALIAS): WRITE,
    ("DELETE", _ALIAS): WRITE,
    ("GET", "/api/v1/contents/{digest}"): READ,
    ("GET", "/api/v1/files/{sha256}"): NONE,
    ("GET", "/api/v1/bases"): TOKEN,
    ("POST", "/api/v1/bases"): ANYWHERE,
    ("GET", "/api/v1/base"): KNOWN,
    ("GET", "/api/v1/base-edges"): TOKEN,
    ("GET", "/api/v1/base-upgrades"): KNOWN,
    ("POST", "/api/v1/base-upgrades"): ANYWHERE,
    ("POST", "/api/v1/base-attachments"): ANYWHERE,
    ("POST", "/api/v1/base-detachments"): ANYWHERE,
    ("POST", "/api/v1/base-edges"): ANYWHERE,
    ("POST", "/api/v1/uploads"): ANYWHERE,
    ("PUT", "/api/v1/uploads/{upload_id}"): ANYWHERE,
    ("GET", "/api/v1/blobs/{sha256}"): READ,
    ("HEAD", "/api/v1/blobs/{sha256}"): READ,
    ("POST", "/api/v1/jobs"): WRITE,
    ("GET", "/api/v1/jobs"): NONE,
    ("GET", "/api/v1/jobs/{job_id}"): READ,
    ("DELETE", "/api/v1/jobs/{job_id}"): WRITE,
    ("GET", "/v2/repos/{name}/version/{version}"): READ,
    ("GET", "/api/v1/whoami"): NONE,
    ("PUT", "/api/v1/deployments"): TOKEN,
    ("GET", "/api/v1/deployments"): NONE,
    ("GET", "/api/v1/events"): NONE,
    ("GET", "/api/v1/events/stream"): NONE,
    ("GET", "/api/v1/usage"): ROOT,
    ("GET", "/api/v1/namespaces"): NONE,
    ("PUT", "/api/v1/namespaces/{namespace}"): ADMIN,
    ("GET", "/api/v1/tokens"): ROOT,
    ("POST", "/api/v1/tokens"): ROOT,
    ("DELETE", "/api/v1/tokens/{token_id}"): ROOT,
    ("GET", _MODEL): READ,
    ("GET", _MODEL + "/revision/{revision}"): READ,
    ("GET", _MODEL + "/tree/{revision}"): READ,
    ("GET", _MODEL + "/tree/{revision}/{folder:path}"): READ,
    ("GET", _MODEL + "/refs"): READ,
    ("POST", _MODEL + "/paths-info/{revision}"): READ,
    ("HEAD", RESOLVE): READ,
    ("GET", RESOLVE): READ,
    ("GET", "/api/whoami-v2"): TOKEN,
    ("POST", "/api/validate-yaml"): NONE,
    ("POST", "/api/repos/create"): WRITE,
    ("POST", _MODEL + "/branch/{branch}"): WRITE,
    ("POST", _MODEL + "/tag/{branch}"): WRITE,
    ("POST", _MODEL + "/preupload/{revision}"): WRITE,
    ("POST", _MODEL + "/commit/{revision}"): WRITE,
}
_TITLES = {
    "versions": "Adapters and versions",
    "bases": "Bases",
    "blobs": "Blobs",
    "jobs": "Jobs",
    "webhooks": "Webhooks",
    "administration": "Access and events",
    "deployments": "Deployments",
    "health": "Health",
    "lorax": "LoRAX",
}
_HUB = """
## The Hugging Face Hub's routes

What `huggingface_hub` asks for with `HF_ENDPOINT` set to the server. A repository is an adapter; a revision is `main`
(the newest version), an alias, `v3`, or the first 40 digits of a digest.

"""


def list_routes() -> Iterator[tuple[str, str, str, str]]:
    """Yield tag, method, path and description of each route in the server's OpenAPI document."""
    for path, operations in create_app(None).openapi()["paths"].items():  # type: ignore[arg-type]  # serves nothing
        for method, operation in operations.items():
            yield operation["tags"][0], method.upper(), path, operation["description"]


def list_hub_routes() -> Iterator[tuple[str, str, str]]:
    """Yield method, path and description of each route that clients of the Hub ask for."""
    for module in (hub_read, hub_write):
        for route in module.routes.routes:
            for method in sorted(route.methods):  # type: ignore[attr-defined]
                yield method, route.path, route.endpoint.__doc__  # type: ignore[attr-defined]


def render() -> dict[str, str]:
    """Return the page of routes by its path. Fails for a route of which no role is known."""
    tags: dict[str, list[tuple[str, str, str]]] = {tag: [] for tag in _TITLES}
    for tag, method, path, about in list_routes():
        tags[tag].append(_row(method, path, about))
    head = ["Route", "Role", "What it does"]
    parts = [_HEAD, *(f"## {_TITLES[tag]}\n\n{table(head, rows)}" for tag, rows in tags.items())]
    hub = table(head, [_row(*route) for route in list_hub_routes()])
    return {"http.md": "\n".join(parts) + _HUB + hub}


def _row(method: str, path: str, about: str) -> tuple[str, str, str]:
    # a path may be broken behind each of its parts, which Markdown's code cannot say
    parts = escape(path).replace("/", "/<wbr>").removeprefix("/<wbr>")
    route = f'{code(method)} <code class="docutils literal route">/{parts}</code>'
    return route, ROLES[method, path], sentence(about.partition("\n\n")[0])
