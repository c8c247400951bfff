"""Every route × every role. A route that has no row here fails."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec import to_builtins

from attackers import without_convertors
from deployments import SCIENCE
from factories import train, write_base
from loreg.checking.profile import read_profile
from loreg.entities import JobKind
from loreg.exporting.folder import digest_request
from loreg.server.pages.paths import RESOLVE
from loreg.server.routes import hub_read, hub_write
from server.conftest import ROLES, Guarded

CONTENT = hashlib.sha256((SCIENCE / "adapter_config.json").read_bytes()).hexdigest()
HEX = "0" * 64
EVERYONE = dict.fromkeys(ROLES, 200)
READ = {"anonymous": 404, "reader": 200, "writer": 200, "owner": 200, "stranger": 404, "root": 200}
WRITE = {**READ, "reader": 403}
TOKEN = {**EVERYONE, "anonymous": 401}
SOMEWHERE = {**TOKEN, "reader": 403}
SENDER = {"anonymous": 401, "reader": 403, "writer": 200, "owner": 200, "stranger": 403, "root": 200}
JOB = {"kind": "merge", "request": {"sources": ["team/science"], "name": "team/merged"}}
ADMIN = {"anonymous": 401, "reader": 403, "writer": 403, "owner": 403, "stranger": 403, "root": 200}
OWN = {**ADMIN, "owner": 200}
SCIENCE_PATH = "/api/v1/adapters/{namespace}/{name}"
VERSION = SCIENCE_PATH + "/versions/{selector}"
ALIAS = SCIENCE_PATH + "/aliases/{alias}"
WEBHOOK = "/api/v1/webhooks/{webhook_id}"
EXPORT = digest_request(read_profile("vllm"), None)
FILLED = {
    "namespace": "team", "name": "science", "selector": "v1", "alias": "prod", "request": EXPORT, "sha256": CONTENT,
    "upload_id": "nobody-knows", "token_id": "999", "job_id": "1",
    "webhook_id": "999", "delivery_id": "1",
}  # fmt: skip
UNKNOWN = {**FILLED, "selector": "v9"}


@dataclass(frozen=True)
class Row:
    """Who gets which status; ``done`` is what 200 stands for, ``request`` what is sent, by keyword of httpx."""

    may: Mapping[str, int]
    done: int = 200
    request: Callable[[Guarded], dict[str, Any]] = lambda guarded: {}
    url: str = ""


def hidden_base(guarded: Guarded) -> dict[str, Any]:
    """Add a base that no public version is on."""
    with tempfile.TemporaryDirectory() as folder:
        guarded.behind.bases.add(write_base(Path(folder, "base")), ["org/tiny"])
    return {"params": {"name": "org/tiny"}}


def hidden_upgrade(guarded: Guarded) -> dict[str, Any]:
    """Record an upgrade between bases that no public version is on."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        old, new = write_base(folder / "old"), write_base(folder / "new", {"head.bias": torch.ones(3)})
        guarded.behind.push(train(folder / "adapter", 1), "team/upgraded", base=old)
        guarded.behind.bases.add(new, ["org/new"])
        report = guarded.behind.upgrade_base(old, new)
    return {"params": {"old": report.old.digest, "new": report.new.digest}}


def commit(guarded: Guarded) -> dict[str, Any]:
    details = guarded.behind.show("team/science")
    files = [{"path": f.path, "sha256": f.sha256, "size": f.size} for f in details.files]
    adapter = {"namespace": "team", "name": "science"}
    return {"json": {"commit": {"adapter": adapter, "manifest": {"files": files}}}}


def mirrored(guarded: Guarded) -> dict[str, Any]:
    """The version that is there, as if it came from elsewhere, with an event that says so."""
    at = "2026-01-02T03:04:05Z"
    event = {"at": at, "author": "somebody", "action": "metric", "number": 1, "detail": {"metric": "f1=1"}}
    origin = {"registry": "elsewhere", "number": 1, "previous": 0, "author": "x", "created_at": at, "events": [event]}
    body = commit(guarded)
    body["json"]["commit"]["origin"] = origin
    return body


UNSENT_BASE = {"digest": HEX, "tensors": 1}
NOTHING_CHANGED = {
    "ref": "team/science:v1", "digest": HEX, "verdict": "exact", "reason": "", "tensors": 1, "changed": 0, "read": None,
    "written": None, "change": None, "overlap": None, "losses": [],
}  # fmt: skip
UPGRADE_OF_NOTHING = {
    "old": HEX, "new": HEX, "tensors": 1, "changed": 0, "change": None, "verdicts": [NOTHING_CHANGED]
}  # fmt: skip
WRITERS = ("writer", "owner", "stranger", "root")
TABLE: dict[tuple[str, str], Row] = {
    ("GET", "/healthz"): Row(EVERYONE),
    ("GET", "/readyz"): Row(EVERYONE),
    ("GET", "/metrics"): Row(EVERYONE),
    ("GET", "/api/v1/search"): Row(EVERYONE),
    ("GET", "/api/v1/adapters"): Row(EVERYONE),
    ("GET", "/api/v1/facets"): Row(EVERYONE),
    ("GET", "/api/v1/tasks"): Row(EVERYONE),
    ("GET", "/api/v1/base-summaries"): Row(EVERYONE),
    ("GET", "/api/v1/metrics"): Row(EVERYONE),
    ("GET", "/api/v1/metric-names"): Row(EVERYONE),
    ("GET", "/api/v1/search-words"): Row(EVERYONE),
    ("PUT", "/api/v1/metrics/{name}"): Row(ADMIN, request=lambda _: {"json": {"higher_is_better": True}}),
    ("GET", "/api/v1/merge-preview"): Row(READ, request=lambda _: {"params": {"source": ["team/science"]}}),
    ("GET", "/api/v1/comparison"): Row(READ, request=lambda _: {"params": {"source": ["team/science"] * 2}}),
    ("GET", SCIENCE_PATH + "/versions"): Row(READ),
    ("POST", SCIENCE_PATH + "/versions"): Row({**SOMEWHERE, "stranger": 403}, request=commit),
    ("GET", VERSION): Row(READ),
    ("GET", VERSION + "/lineage"): Row(READ),
    ("GET", VERSION + "/descendants"): Row(READ),
    ("GET", VERSION + "/check"): Row(READ),
    ("GET", VERSION + "/sketch"): Row(READ),
    ("GET", VERSION + "/facts"): Row(READ),
    ("GET", "/api/v1/findings"): Row(EVERYONE),
    ("GET", VERSION + "/spectra"): Row(READ),
    ("GET", "/api/v1/candidates"): Row(EVERYONE, request=lambda _: {"params": {"hash": "0" * 10}}),
    ("GET", "/api/v1/near-duplicates"): Row(EVERYONE),
    ("DELETE", VERSION): Row(  # of a version that is not there: the rows below need the one that is
        {**ADMIN, "root": 404}, request=lambda _: {"params": {"reason": "x"}}, url=VERSION.format(**UNKNOWN)
    ),
    ("GET", VERSION + "/deletion"): Row(ADMIN),
    ("POST", VERSION + "/metrics"): Row(WRITE, request=lambda _: {"json": [{"name": "accuracy", "value": 0.5}]}),
    ("PUT", VERSION + "/yanked"): Row(WRITE, request=lambda _: {"json": {"yanked": False}}),
    ("GET", VERSION + "/exports/{request}"): Row(READ),
    ("PUT", VERSION + "/exports/{request}"): Row(WRITE, request=lambda _: {"json": {"profile": "vllm"}}),
    ("DELETE", VERSION + "/exports/{request}"): Row({**WRITE, "writer": 403}, 204),
    ("GET", ALIAS): Row(READ),
    ("PUT", ALIAS): Row(WRITE, request=lambda _: {"json": {"ref": "team/science:v1"}}),
    ("DELETE", ALIAS): Row(WRITE, 204),
    ("GET", ALIAS + "/shares"): Row(READ),
    ("PUT", ALIAS + "/canary"): Row(  # of the version that it means already; see tests/live/test_canary.py
        {**WRITE, "anonymous": 401, "writer": 400, "owner": 400, "root": 400},
        request=lambda _: {"json": {"ref": "team/science:v1", "share": 0.1}},
    ),
    ("DELETE", ALIAS + "/canary"): Row({**WRITE, **dict.fromkeys(("writer", "owner", "root"), 400)}),
    ("GET", SCIENCE_PATH + "/canaries"): Row(READ),
    ("PUT", ALIAS + "/promotion"): Row(  # of the version that it means already; see tests/live/test_promotions.py
        {**WRITE, "anonymous": 401, "writer": 400, "owner": 400, "root": 400},
        request=lambda _: {"json": {"ref": "team/science:v1", "rollback_if": ["loss>3"]}},
    ),
    ("GET", SCIENCE_PATH + "/promotions"): Row(READ),
    ("GET", "/api/v1/contents/{digest}"): Row(READ),
    ("GET", "/api/v1/files/{sha256}"): Row(EVERYONE),
    ("GET", "/api/v1/bases"): Row(TOKEN),
    ("POST", "/api/v1/bases"): Row(
        {**SOMEWHERE, **dict.fromkeys(WRITERS, 403)}, request=lambda _: {"json": {"base": UNSENT_BASE}}
    ),
    ("GET", "/api/v1/base"): Row({**TOKEN, "anonymous": 404}, request=hidden_base),
    ("GET", "/api/v1/base-edges"): Row(TOKEN, request=lambda _: {"params": {"one": HEX, "other": HEX}}),
    ("POST", "/api/v1/base-edges"): Row(
        {**SOMEWHERE, **dict.fromkeys(WRITERS, 404)},
        request=lambda _: {"json": {"child": "x", "parent": "y", "kind": "cast_of"}},
    ),
    ("GET", "/api/v1/base-upgrades"): Row({**TOKEN, "anonymous": 404}, request=hidden_upgrade),
    ("POST", "/api/v1/base-upgrades"): Row(
        {**SOMEWHERE, **dict.fromkeys(WRITERS, 404)}, request=lambda _: {"json": {"upgrade": UPGRADE_OF_NOTHING}}
    ),
    ("POST", "/api/v1/base-attachments"): Row(
        {**SOMEWHERE, **dict.fromkeys(WRITERS, 404)}, request=lambda _: {"json": {"base": "x"}}
    ),
    ("POST", "/api/v1/base-detachments"): Row(
        {**SOMEWHERE, **dict.fromkeys(WRITERS, 404)}, request=lambda _: {"json": {"base": "x"}}
    ),
    ("POST", "/api/v1/uploads"): Row(SOMEWHERE, request=lambda _: {"json": [{"sha256": HEX, "size": 1}]}),
    ("PUT", "/api/v1/uploads/{upload_id}"): Row(
        {**SOMEWHERE, **dict.fromkeys(WRITERS, 404)},
        request=lambda _: {"content": b"x"},
    ),
    ("GET", "/api/v1/blobs/{sha256}"): Row(READ, 307),
    ("HEAD", "/api/v1/blobs/{sha256}"): Row(READ),
    ("POST", "/api/v1/jobs"): Row(SENDER, 202, lambda _: {"json": JOB}),
    ("GET", "/api/v1/jobs"): Row(EVERYONE),
    ("GET", "/api/v1/jobs/{job_id}"): Row(READ),
    ("DELETE", "/api/v1/jobs/{job_id}"): Row(WRITE),
    ("GET", "/v2/repos/{name}/version/{version}"): Row(READ, url="/v2/repos/team/science/version/1"),
    ("GET", "/api/v1/whoami"): Row(EVERYONE),
    ("GET", "/api/v1/events"): Row(EVERYONE),
    ("GET", "/api/v1/events/stream"): Row(  # what it streams to whom: tests/live/test_event_stream.py
        dict.fromkeys(ROLES, 400), request=lambda _: {"params": {"after": "yesterday"}}
    ),
    ("GET", "/api/v1/selection"): Row(EVERYONE),
    ("GET", "/api/v1/deployments"): Row(EVERYONE),
    ("PUT", "/api/v1/deployments"): Row(
        TOKEN,
        204,
        lambda _: {"json": {"server": "x", "replica": "1", "kind": "vllm", "versions": []}},
    ),
    ("GET", "/api/v1/webhooks"): Row(OWN),
    ("POST", "/api/v1/webhooks"): Row(  # which webhooks are whose: tests/live/test_webhooks.py
        OWN, 201, lambda _: {"json": {"url": "https://example.com/", "patterns": ["team/*"]}}
    ),
    ("DELETE", WEBHOOK): Row({**OWN, "owner": 404, "root": 404}),
    ("PUT", WEBHOOK + "/secret"): Row({**OWN, "owner": 404, "root": 404}, request=lambda _: {"json": {}}),
    ("PUT", WEBHOOK + "/enabled"): Row({**OWN, "owner": 404, "root": 404}),
    ("POST", WEBHOOK + "/ping"): Row({**OWN, "owner": 404, "root": 404}),
    ("GET", WEBHOOK + "/deliveries"): Row({**OWN, "owner": 404, "root": 404}),
    ("PUT", WEBHOOK + "/deliveries/{delivery_id}"): Row({**OWN, "owner": 404, "root": 404}),
    ("GET", "/api/v1/usage"): Row(ADMIN),
    ("GET", "/api/v1/namespaces"): Row(EVERYONE),
    ("PUT", "/api/v1/namespaces/{namespace}"): Row(OWN, 204, lambda _: {"json": {"public": False}}),
    ("GET", "/api/v1/tokens"): Row(ADMIN),
    ("POST", "/api/v1/tokens"): Row(ADMIN, 201, lambda _: {"json": {"name": "x", "scopes": ["read:team"]}}),
    ("DELETE", "/api/v1/tokens/{token_id}"): Row({**ADMIN, "root": 404}),
}


MODEL = "/api/models/{repository:path}"
HUB: dict[tuple[str, str], Row] = {
    ("GET", MODEL): Row(READ),
    ("GET", MODEL + "/revision/{revision}"): Row(READ),
    ("GET", MODEL + "/tree/{revision}"): Row(READ),
    ("GET", MODEL + "/tree/{revision}/{folder:path}"): Row(READ),
    ("GET", MODEL + "/refs"): Row(READ),
    ("POST", MODEL + "/paths-info/{revision}"): Row(READ, request=lambda _: {"json": {"paths": []}}),
    ("HEAD", RESOLVE): Row(READ),
    ("GET", RESOLVE): Row(READ, 302),
    ("GET", "/api/whoami-v2"): Row(TOKEN),
    ("POST", "/api/validate-yaml"): Row(EVERYONE),
    ("POST", "/api/repos/create"): Row(SENDER, request=lambda _: {"json": {"name": "new", "organization": "team"}}),
    ("POST", MODEL + "/branch/{branch}"): Row(SENDER),
    ("POST", MODEL + "/tag/{branch}"): Row(SENDER),
    ("POST", MODEL + "/preupload/{revision}"): Row(SENDER, request=lambda _: {"json": {"files": []}}),
    ("POST", MODEL + "/commit/{revision}"): Row(SENDER, request=lambda _: {"content": b'{"key":"header","value":{}}'}),
}


def test_every_route_of_the_hub_has_a_row():
    routes = {
        (method, route.path)
        for module in (hub_read, hub_write)
        for route in module.routes.routes
        for method in route.methods
    }
    assert routes == set(HUB)


@pytest.mark.parametrize("role", ROLES)
def test_who_may_do_what_with_a_client_of_the_hub(guarded: Guarded, role: str):
    filled = {"repository": "team/science", "revision": "main", "path": "adapter_config.json", "branch": "canary"}
    caller, statuses, expected = guarded.http(role), {}, {}
    for (method, path), row in HUB.items():
        url = without_convertors(path).format(**filled, folder="x")
        statuses[method, path] = caller.request(method, url, **row.request(guarded)).status_code
        expected[method, path] = row.done if row.may[role] == 200 else row.may[role]
    assert statuses == expected


def test_every_route_has_a_row(guarded: Guarded):
    paths = guarded.http("anonymous").get("/openapi.json").json()["paths"]
    routes = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert routes == set(TABLE)


@pytest.mark.parametrize("role", ROLES)
def test_who_may_do_what(guarded: Guarded, role: str):
    caller, root = guarded.http(role), guarded.http("root")
    digest = guarded.behind.show("team/science").version.digest
    root.post("/api/v1/jobs", json=JOB)
    statuses, expected = {}, {}
    for (method, path), row in TABLE.items():
        root.put((VERSION + "/exports/{request}").format(**FILLED), json={"profile": "vllm"})
        root.put(ALIAS.format(**FILLED), json={"ref": "team/science:v1"})
        url = row.url or path.format(**FILLED, digest=digest)
        response = caller.request(method, url, **row.request(guarded))
        statuses[method, path] = response.status_code
        expected[method, path] = row.done if row.may[role] == 200 else row.may[role]
    assert statuses == expected


#: Who may ask for each kind of job, and what is asked.
KINDS: dict[str, tuple[Mapping[str, int], dict[str, Any]]] = {
    JobKind.MERGE: (SENDER, {"sources": ["team/science"], "name": "team/merged"}),
    JobKind.RERANK: (SENDER, {"source": "team/science", "rank": 2, "name": "team/small"}),
    JobKind.BAKE: (SENDER, {"sources": ["team/science"], "base": "tiny", "name": "team/model"}),
    JobKind.VERIFY: (ADMIN, {}),
    JobKind.REPAIR: (ADMIN, {}),
    JobKind.GC: (ADMIN, {}),
    JobKind.PRUNE: (ADMIN, {"pattern": "team/*"}),
    JobKind.BACKUP: (ADMIN, {"target": "/backup"}),
    JobKind.SKETCH: (ADMIN, {}),
    JobKind.MAP: (ADMIN, {"probe": "check", "selectors": ["team/*:prod"]}),
}


@pytest.mark.parametrize("role", ROLES)
def test_who_may_ask_a_worker_for_what(request: pytest.FixtureRequest, tmp_path: Path, role: str):
    (tmp_path / "loreg.toml").write_text("[retention]\nkeep_last = 5\n")
    guarded: Guarded = request.getfixturevalue("guarded_folder")
    assert set(KINDS) == set(JobKind)
    http = guarded.http(role)
    for kind, (may, asked) in KINDS.items():
        response = http.post("/api/v1/jobs", json={"kind": kind, "request": asked})
        assert (response.status_code, kind) == (202 if may[role] == 200 else may[role], kind)


@pytest.mark.parametrize("role", ROLES)
def test_only_an_administrator_of_everything_writes_history(guarded: Guarded, role: str):
    """An origin names numbers, authors and times: whoever may give one may say that anybody did anything."""
    response = guarded.http(role).post((SCIENCE_PATH + "/versions").format(**FILLED), json=mirrored(guarded)["json"])
    assert response.status_code == ADMIN[role]
    authors = {event.author for event in guarded.behind.events(name="team/science").items}
    assert ("somebody" in authors) == (role == "root")


@pytest.mark.parametrize("role", ROLES)
def test_the_events_of_one_adapter_are_for_those_who_read_it(guarded: Guarded, role: str):
    guarded.behind.push(SCIENCE, "team/other")
    response = guarded.http(role).get("/api/v1/events", params={"adapter": "team/science"})
    assert response.status_code == READ[role]
    if READ[role] == 200:
        assert {event["ref"].partition(":")[0] for event in response.json()["items"]} == {"team/science"}
    assert guarded.http(role).get("/api/v1/events", params={"adapter": "../x"}).status_code == 400


@pytest.mark.parametrize("role", ROLES)
def test_lists_hold_what_may_be_read_and_nothing_else(guarded: Guarded, role: str):
    guarded.behind.push(SCIENCE, "open/science")
    guarded.behind.namespaces.set_public("open", True)
    caller = guarded.registry(role)
    mine = ["open/science", *(["team/science"] if READ[role] == 200 else [])]
    assert [str(entry.adapter) for entry in caller.adapters().items] == mine
    assert sorted(str(version.adapter) for version in caller.search().items) == mine
    assert [namespace.name for namespace in caller.namespaces.list()] == [name.partition("/")[0] for name in mine]
    assert {event.ref.partition(":")[0] for event in caller.events().items} - {""} == set(mine)
    http = guarded.http(role)
    weights = next(f.sha256 for f in guarded.behind.show("team/science").files if f.path.endswith(".safetensors"))
    assert http.get(f"/api/v1/files/{weights}").json() == [f"{name}:v1" for name in reversed(mine)]


@pytest.mark.parametrize("role", ROLES)
def test_what_is_counted_is_what_may_be_read(guarded: Guarded, role: str):
    measured = {"tasks": ["questions"], "metrics": ["secrecy=0.9@secret"]}
    guarded.behind.push(SCIENCE, "team/secret-name", **measured)
    guarded.behind.push(SCIENCE, "open/science", tasks=["chat"], metrics=["f1=0.5@open"])
    guarded.behind.namespaces.set_public("open", True)
    caller = guarded.registry(role)
    may = READ[role] == 200
    lists = [
        caller.tasks(),
        caller.metrics(),
        caller.bases.summaries(),
        caller.facets(),
        caller.find_metric_slips(["x=1"]),
        caller.context.backend.search_words(),
    ]
    near = [caller.search(tasks=["question"]), caller.search(tasks=["questoins"]), caller.search(base="smollm")]
    near.append(caller.facets(tasks=["question"]))
    http = guarded.http(role)
    names = http.get("/api/v1/metric-names").json()["names"]
    assert names == (["f1", "secrecy"] if may else ["f1"])
    printed = repr([to_builtins(value) for value in (*lists, *near)])
    for word in ("questions'", "secrecy", "secret-name", "'secret'"):
        assert (word in printed) == may, word
    assert sum(base.versions for base in lists[2].items) == (3 if may else 1)
    assert [(task.task, task.versions) for task in lists[0].items if task.task == "chat"] == [("chat", 1)]
    text = caller.search("secret").items
    assert [str(version.adapter) for version in text] == (["team/secret-name"] if may else [])


def test_a_misspelt_name_does_not_tell_what_else_there_is(guarded: Guarded):
    problem = guarded.http("stranger").get("/api/v1/adapters/team/sciense/versions").json()
    assert "science" not in problem["detail"]
    problem = guarded.http("reader").get("/api/v1/adapters/team/sciense/versions").json()
    assert "did you mean 'team/science'" in problem["detail"]
