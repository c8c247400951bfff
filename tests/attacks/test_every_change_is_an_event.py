"""Whatever changes something leaves an event that says who did it: every route of the server, every verb.

A route or a verb that is not in a table here fails.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from attackers import without_convertors
from deployments import HISTORY, SCIENCE, Deployment
from factories import change_config, new_model, train, write_base
from loreg.bases.identify import identify
from loreg.checking.profile import read_profile
from loreg.entities import MergeOptions, SweepOptions, SweepResult
from loreg.errors import UnavailableError
from loreg.exporting.folder import digest_request
from loreg.registry import Registry, connect
from loreg.server.app import create_app
from loreg.server.run import open_service
from loreg.settings import load
from loreg.storage import BlobStore, put_bytes
from loreg.verbs.bases import Bases
from loreg.verbs.jobs import Jobs
from loreg.verbs.tokens import Namespaces, Tokens
from loreg.verbs.webhooks import Webhooks
from server.conftest import Guarded
from server.test_uploads import send

ADAPTER = "/api/v1/adapters/{namespace}/{name}"
VERSION = ADAPTER + "/versions/{selector}"
ALIAS = ADAPTER + "/aliases/{alias}"
MODEL = "/api/models/{repository:path}"
Q = "layers.0.q_proj.weight"
JOB = {"kind": "merge", "request": {"sources": ["team/science"], "name": "team/merged"}}
HOOK = {"url": "https://example.com/hook"}
HOOKED = ("POST", "/api/v1/webhooks", HOOK)
FILLED = {
    "namespace": "team", "name": "science", "selector": "v1", "alias": "canary", "revision": "main", "branch": "draft",
    "repository": "team/science", "request": digest_request(read_profile("vllm"), None), "job_id": "1",
    "webhook_id": "1", "delivery_id": "1",
}  # fmt: skip


@dataclass(frozen=True)
class Change:
    """What is sent so that the route changes something, after ``before``, and the event that says so."""

    action: str
    body: Callable[[Guarded, Path], dict[str, Any]] = field(default=lambda there, folder: {})
    before: tuple[tuple[str, str, dict[str, Any]], ...] = ()
    filled: dict[str, str] = field(default_factory=dict)


def sweep(registry: Registry) -> SweepResult:
    """Three trials by a program that likes them all."""
    options = SweepOptions(budget=3)
    return registry.sweep(["team/science"] * 2, "test -d {dir} && echo 0.5", options=options, name="team/swept")


def uploaded(there: Guarded, data: bytes) -> tuple[str, list[str]]:
    """Send some bytes as root; returns their digest, and the ids of the uploads."""
    http, digest = there.http("root"), hashlib.sha256(data).hexdigest()
    grants = http.post("/api/v1/uploads", json=[{"sha256": digest, "size": len(data)}]).json()
    for grant in grants:
        assert send(http, grant, data).is_success
    return digest, [grant["id"] for grant in grants]


def commit(there: Guarded, folder: Path) -> dict[str, Any]:
    files, uploads = [], []
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        data = (HISTORY / name).read_bytes()
        digest, ids = uploaded(there, data)
        files.append({"path": name, "sha256": digest, "size": len(data)})
        uploads += ids
    adapter = {"namespace": "team", "name": "science"}
    return {"json": {"commit": {"adapter": adapter, "manifest": {"files": files}}, "uploads": uploads}}


def base(there: Guarded, folder: Path) -> dict[str, Any]:
    identity = identify(write_base(folder / "base"))
    digest, uploads = uploaded(there, identity.tensor_list)
    return {"json": {"base": {"digest": digest, "tensors": identity.base.tensors}, "uploads": uploads}}


def edge(there: Guarded, folder: Path) -> dict[str, Any]:
    there.behind.bases.add(write_base(folder / "1"), ["one"])
    there.behind.bases.add(write_base(folder / "2", {"head.bias": torch.ones(3)}), ["two"])
    return {"json": {"child": "two", "parent": "one", "kind": "finetuned_from"}}


def unattached(there: Guarded, folder: Path) -> dict[str, Any]:
    there.behind.push(change_config(train(folder / "a", 1), base_model_name_or_path="org/tiny"), "team/a")
    there.behind.bases.add(write_base(folder / "1"), ["org/tiny"], attach=False)
    return {"json": {"base": "org/tiny"}}


def attached(there: Guarded, folder: Path) -> dict[str, Any]:
    body = unattached(there, folder)
    there.behind.bases.attach("org/tiny")
    return body


def measured_upgrade(there: Guarded, folder: Path) -> dict[str, Any]:
    """What an upgrade means for a version on its base, as a client says it."""
    there.behind.push(train(folder / "a", 1), "team/a", base=write_base(folder / "1"))
    there.behind.bases.add(write_base(folder / "2", {"head.bias": torch.ones(3)}), ["two"])
    version, new = there.behind.show("team/a").version, there.behind.bases.show("two").base
    assert version.base is not None
    figures = dict.fromkeys(("read", "written", "change", "overlap"))
    verdict = {"verdict": "exact", "reason": "", "tensors": 1, "changed": 0, "losses": [], **figures}
    verdicts = [{"ref": version.ref, "digest": version.digest, **verdict}]
    bases = {"old": version.base.digest, "new": new.digest, "tensors": 10, "changed": 1, "change": None}
    return {"json": {"upgrade": {**bases, "verdicts": verdicts}}}


def upgrade_base(registry: Registry, folder: Path) -> None:
    """Ask what an upgrade means, between bases that the registry knows: the answer is kept."""
    registry.push(train(folder / "a", 1), "team/a", base=folder / "one")
    assert registry.upgrade_base(folder / "one", folder / "two").recorded == 1


def token(there: Guarded, folder: Path) -> dict[str, Any]:
    return {"json": {"name": "new", "scopes": ["read:team"]}}


def of_the_hub(there: Guarded, folder: Path) -> dict[str, Any]:
    content = base64.b64encode((HISTORY / "adapter_model.safetensors").read_bytes()).decode()
    lines: list[dict[str, Any]] = [
        {"key": "header", "value": {"summary": "x"}},
        {"key": "file", "value": {"path": "adapter_model.safetensors", "content": content, "encoding": "base64"}},
    ]
    return {"content": "\n".join(map(json.dumps, lines)).encode()}


def second_version(there: Guarded, folder: Path) -> dict[str, Any]:
    there.behind.tag("team/science:v1", "canary")
    there.behind.push(HISTORY, "team/science")
    return {"json": {"ref": "team/science:v2", "share": 0.1}}


def promotable(there: Guarded, folder: Path) -> dict[str, Any]:
    second_version(there, folder)
    return {"json": {"ref": "team/science:v2", "rollback_if": ["loss>3"]}}


def with_canary(there: Guarded, folder: Path) -> dict[str, Any]:
    second_version(there, folder)
    there.behind.begin_canary("team/science:v2", "canary", 0.1)
    return {}


def sent(**body: Any) -> Callable[[Guarded, Path], dict[str, Any]]:
    return lambda there, folder: {"json": body}


ROUTES: dict[tuple[str, str], Change] = {
    ("POST", ADAPTER + "/versions"): Change("push", commit),
    ("DELETE", VERSION): Change("delete", lambda there, folder: {"params": {"reason": "asked for"}}),
    ("POST", VERSION + "/metrics"): Change("metric", lambda there, folder: {"json": [{"name": "f1", "value": 0.5}]}),
    ("PUT", "/api/v1/metrics/{name:path}"): Change("metric declare", sent(higher_is_better=False, unit="kg")),
    ("PUT", VERSION + "/yanked"): Change("yank", sent(yanked=True, reason="x")),
    ("PUT", VERSION + "/exports/{request}"): Change("export", sent(profile="vllm")),
    ("DELETE", VERSION + "/exports/{request}"): Change(
        "export drop", before=(("PUT", VERSION + "/exports/{request}", {"profile": "vllm"}),)
    ),
    ("PUT", ALIAS): Change("tag", sent(ref="team/science:v1")),
    ("DELETE", ALIAS): Change("untag", before=(("PUT", ALIAS, {"ref": "team/science:v1"}),)),
    ("PUT", ALIAS + "/canary"): Change("canary", second_version),
    ("DELETE", ALIAS + "/canary"): Change("canary end", with_canary),
    ("PUT", ALIAS + "/promotion"): Change("promote", promotable),
    ("POST", "/api/v1/bases"): Change("base add", base),
    ("POST", "/api/v1/base-edges"): Change("base relate", edge),
    ("POST", "/api/v1/base-upgrades"): Change("base upgrade", measured_upgrade),
    ("POST", "/api/v1/base-attachments"): Change("attach", unattached),
    ("POST", "/api/v1/base-detachments"): Change("detach", attached),
    ("PUT", "/api/v1/namespaces/{namespace}"): Change("namespace", sent(public=True)),
    ("POST", "/api/v1/tokens"): Change("token create", token),
    ("DELETE", "/api/v1/tokens/{token_id}"): Change("token revoke", filled={"token_id": "1"}),
    ("POST", "/api/v1/webhooks"): Change("webhook add", sent(**HOOK)),
    ("DELETE", "/api/v1/webhooks/{webhook_id}"): Change("webhook remove", before=(HOOKED,)),
    ("PUT", "/api/v1/webhooks/{webhook_id}/secret"): Change("webhook rotate", sent(drop_old=False), (HOOKED,)),
    ("PUT", "/api/v1/webhooks/{webhook_id}/enabled"): Change("webhook enable", before=(HOOKED,)),
    ("POST", "/api/v1/webhooks/{webhook_id}/ping"): Change("webhook ping", before=(HOOKED,)),
    ("PUT", "/api/v1/webhooks/{webhook_id}/deliveries/{delivery_id}"): Change(
        "webhook redeliver", before=(HOOKED, ("POST", "/api/v1/webhooks/1/ping", {}))
    ),
    ("POST", "/api/v1/jobs"): Change("job submit", sent(**JOB)),
    ("DELETE", "/api/v1/jobs/{job_id}"): Change("job cancel", before=(("POST", "/api/v1/jobs", JOB),)),
    ("POST", "/api/repos/create"): Change("draft", sent(name="new", organization="team")),
    ("POST", MODEL + "/branch/{branch}"): Change("draft"),
    ("POST", MODEL + "/tag/{branch}"): Change("draft"),
    ("POST", MODEL + "/commit/{revision}"): Change("push", of_the_hub),
}
#: Routes that are neither GET nor HEAD, and change nothing that anybody could see.
NO_CHANGE = {
    ("POST", "/api/v1/uploads"): "announces what may come; nothing of it is there before a commit names it",
    ("PUT", "/api/v1/uploads/{upload_id}"): "bytes that belong to nobody before a commit names them, which is logged",
    ("POST", MODEL + "/paths-info/{revision}"): "reads: the paths are too many for a URL",
    ("POST", MODEL + "/preupload/{revision}"): "asks how a file is to be sent",
    ("PUT", "/api/v1/deployments"): "tells what a follower has now: state that it alone knows, many times an hour",
    ("POST", "/sign-in"): "gives the browser a cookie that holds the token; the registry keeps nothing of it",
    ("POST", "/sign-out"): "takes the cookie away from the browser",
    ("POST", "/_/merge-job"): "a page's form for POST /api/v1/jobs, whose event it has (tests/pages/test_merge.py)",
    ("POST", "/_/token-create"): "a page's form for POST /api/v1/tokens, whose event it has",
    ("POST", "/_/token-revoke"): "a page's form for DELETE /api/v1/tokens/{token_id}, whose event it has",
    ("POST", "/_/namespace-set"): "a page's form for PUT /api/v1/namespaces/{namespace}, whose event it has",
    ("POST", "/_/alias-move"): "a page's form for PUT of an alias, whose event it has (tests/pages/test_aliases.py)",
    ("POST", "/_/base-attach"): "a page's form for POST /api/v1/base-attachments, whose event it has",
    ("POST", "/_/job-cancel"): "a page's form for DELETE /api/v1/jobs/{job_id}, whose event it has",
    ("POST", "/_/job-again"): "a page's form for POST /api/v1/jobs, whose event it has",
    ("POST", "/api/validate-yaml"): "looks at the text that was sent, and keeps nothing",
}
_READING = {"GET", "HEAD", "OPTIONS"}


def routes_of(routes: list[BaseRoute]) -> Iterator[tuple[str, str]]:
    """Every method and path, those of routers that were included too."""
    for route in routes:
        inner = getattr(route, "original_router", None) or getattr(route, "app", None)
        if isinstance(route, APIRoute) or not hasattr(inner, "routes"):
            yield from ((method, getattr(route, "path", "?")) for method in getattr(route, "methods", None) or ())
        else:
            yield from routes_of(inner.routes)


def test_every_route_that_changes_something_is_in_the_table(tmp_path: Path):
    deployment = Deployment(f"sqlite:///{tmp_path}/catalog.db", str(tmp_path / "store"))
    app = create_app(open_service(load({}, deployment.environment), is_open=True))
    changing_routes = {(method, path) for method, path in routes_of(app.routes) if method not in _READING}
    assert len(changing_routes) > 15
    assert changing_routes == ROUTES.keys() | NO_CHANGE.keys()
    assert all(len(reason) > 20 for reason in NO_CHANGE.values())


@pytest.mark.parametrize(
    ("method", "path"),
    ROUTES,
)
def test_a_route_that_changes_something_leaves_an_event(
    guarded_folder: Guarded, tmp_path: Path, method: str, path: str
):
    change, http = ROUTES[method, path], guarded_folder.http("root")
    filled = {**FILLED, **change.filled}
    for earlier, where, body in change.before:
        assert http.request(earlier, without_convertors(where).format(**filled), json=body).is_success
    request = change.body(guarded_folder, tmp_path)
    before = guarded_folder.behind.events(limit=1).items[0].id
    answer = http.request(method, without_convertors(path).format(**filled), **request)
    assert answer.is_success, answer.text
    events = [event for event in guarded_folder.behind.events().items if event.id > before]
    assert (change.action, "root") in {(event.action, event.author) for event in events}


def break_and_repair(local_registry: Registry) -> None:
    store = local_registry.context.store
    assert isinstance(store, BlobStore)
    store.delete(local_registry.show("team/science").version.digest)
    assert local_registry.repair().repaired_count == 1


def collect_an_orphan(local_registry: Registry) -> None:
    put_bytes(local_registry.context.store, b"of nobody")
    assert local_registry.gc(grace="0h").removed == 1


def push_and_prune(local_registry: Registry, folder: Path) -> None:
    local_registry.push(HISTORY, "team/exported")
    rules = replace(local_registry.settings, retention={"keep_last": 1})
    with Registry(rules) as registry:
        assert registry.prune().going_count == 1


def back_up_and_forget(local_registry: Registry, folder: Path) -> None:
    for _ in range(2):
        local_registry.backup(folder / "backup")
    assert local_registry.forget_snapshots(folder / "backup", keep_last=1).going_count == 1


def restore_into_itself(local_registry: Registry, folder: Path) -> None:
    """Back the registry up, and have another one become it."""
    local_registry.backup(folder / "backup")
    with connect(home=str(folder / "restored"), author="grace") as restored:
        restored.restore(folder / "backup")
        actions = [event.action for event in restored.events(limit=1).items]
    assert actions == ["restore"]


def mirror_another(local_registry: Registry, folder: Path) -> None:
    with connect(home=str(folder / "other"), author="ada") as other:
        other.push(HISTORY, "team/mirrored")
    assert local_registry.mirror(source=folder / "other").new == 1


def attach(local_registry: Registry, folder: Path) -> None:
    local_registry.push(change_config(train(folder / "a", 1), base_model_name_or_path="org/tiny"), "team/a")
    local_registry.bases.add(write_base(folder / "base"), ["org/tiny"], attach=False)
    assert local_registry.bases.attach("org/tiny")[0].outcome == "attached"


def begin_canary(local_registry: Registry) -> None:
    local_registry.push(HISTORY, "team/science")
    local_registry.begin_canary("team/science:v2", "prod", "10%")


def ping(local_registry: Registry) -> None:
    """Queue a ping; nobody is there to send it."""
    with contextlib.suppress(UnavailableError):
        local_registry.webhooks.test(1, seconds=0)


VERBS: dict[str, tuple[str, Callable[[Registry, Path], Any]]] = {
    "push": ("push", lambda local_registry, folder: local_registry.push(HISTORY, "team/history")),
    "import_runs": ("push", lambda local_registry, folder: local_registry.import_runs([train(folder / "new", 9)])),
    "pull": (
        "export",
        lambda local_registry, folder: local_registry.pull("team/science", folder / "out", profile="vllm"),
    ),
    "drop_export": ("export drop", lambda local_registry, folder: local_registry.drop_export("team/exported", "vllm")),
    "merge": (
        "push",
        lambda local_registry, folder: local_registry.merge(
            ["team/science"], MergeOptions(weights=[1.0]), name="team/merged"
        ),
    ),
    "k_merge": ("push", lambda local_registry, folder: local_registry.k_merge(["team/science"], 1, name="team/kept")),
    "publish": ("push", lambda local_registry, folder: local_registry.publish(SCIENCE, "team/published", step=1)),
    "sweep": ("push", lambda local_registry, folder: sweep(local_registry)),
    "resume_sweep": (
        "push",
        lambda local_registry, folder: local_registry.resume_sweep(sweep(local_registry).id, budget=4),
    ),
    "rerank": ("push", lambda local_registry, folder: local_registry.rerank("team/science", 2, name="team/small")),
    "extract": (
        "push",
        lambda local_registry, folder: local_registry.extract(
            folder / "one", folder / "two", rank=1, name="team/extracted"
        ),
    ),
    "repair": ("repair", lambda local_registry, folder: break_and_repair(local_registry)),
    "verify": ("verify", lambda local_registry, folder: local_registry.verify()),
    "backup": ("backup", lambda local_registry, folder: local_registry.backup(folder / "backup")),
    "forget_snapshots": ("forget", back_up_and_forget),
    "restore": ("backup", restore_into_itself),
    "move": (
        "move",
        lambda local_registry, folder: local_registry.move(f"sqlite:///{folder}/new.db", str(folder / "new")),
    ),
    "undo_move": (
        "move",
        lambda local_registry, folder: (
            local_registry.move(f"sqlite:///{folder}/new.db", str(folder / "new")),
            local_registry.undo_move(),
        ),
    ),
    "gc": ("gc", lambda local_registry, folder: collect_an_orphan(local_registry)),
    "delete": ("delete", lambda local_registry, folder: local_registry.delete("team/science", "asked for")),
    "prune": ("prune", push_and_prune),
    "mirror": ("mirror", mirror_another),
    "bases.attach": ("attach", attach),
    "bases.detach": (
        "detach",
        lambda local_registry, folder: (attach(local_registry, folder), local_registry.bases.detach(["team/a"])),
    ),
    "bases.add": (
        "base add",
        lambda local_registry, folder: local_registry.bases.add(
            write_base(folder / "3", {"head.bias": torch.ones(3)}), ["three"]
        ),
    ),
    "bases.relate": (
        "base relate",
        lambda local_registry, folder: local_registry.bases.relate("two", "one", "finetuned_from"),
    ),
    "upgrade_base": ("base upgrade", upgrade_base),
    "tag": ("tag", lambda local_registry, folder: local_registry.tag("team/science", "canary")),
    "begin_canary": ("canary", lambda local_registry, folder: begin_canary(local_registry)),
    "end_canary": (
        "canary end",
        lambda local_registry, folder: (
            begin_canary(local_registry),
            local_registry.end_canary("team/science", "prod"),
        ),
    ),
    "untag": ("untag", lambda local_registry, folder: local_registry.untag("team/science", "prod")),
    "yank": ("yank", lambda local_registry, folder: local_registry.yank("team/science:v1")),
    "unyank": ("unyank", lambda local_registry, folder: local_registry.unyank("team/yanked:v1")),
    "add_metrics": ("metric", lambda local_registry, folder: local_registry.add_metrics("team/science", ["f1=0.5"])),
    "declare_metric": (
        "metric declare",
        lambda local_registry, folder: local_registry.declare_metric("carbon", lower_is_better=True),
    ),
    "tokens.create": ("token create", lambda local_registry, folder: local_registry.tokens.create("x", ["read:team"])),
    "tokens.revoke": ("token revoke", lambda local_registry, folder: local_registry.tokens.revoke(1)),
    "namespaces.set_public": (
        "namespace",
        lambda local_registry, folder: local_registry.namespaces.set_public("team", True),
    ),
    "webhooks.add": ("webhook add", lambda local_registry, folder: local_registry.webhooks.add("https://example.com/")),
    "webhooks.remove": ("webhook remove", lambda local_registry, folder: local_registry.webhooks.remove(1)),
    "webhooks.rotate": ("webhook rotate", lambda local_registry, folder: local_registry.webhooks.rotate(1)),
    "webhooks.enable": ("webhook enable", lambda local_registry, folder: local_registry.webhooks.enable(1)),
    "webhooks.test": ("webhook ping", lambda local_registry, folder: ping(local_registry)),
    "webhooks.redeliver": (
        "webhook redeliver",
        lambda local_registry, folder: (ping(local_registry), local_registry.webhooks.redeliver(1, 1)),
    ),
    "jobs.submit": (
        "job submit",
        lambda local_registry, folder: local_registry.jobs.submit(
            "merge", sources=["team/science"], name="team/merged"
        ),
    ),
    "jobs.cancel": ("job cancel", lambda local_registry, folder: local_registry.jobs.cancel(1)),
}
#: Verbs that leave the registry as it is.
READING = {
    "reproduce", "compare", "bake", "check", "export", "search", "adapters", "versions", "show", "lineage",
    "bases.show", "bases.match", "bases.list", "tokens.list", "namespaces.list", "events", "follow_events", "jobs.show",
    "jobs.list", "jobs.wait", "facets", "tasks", "metrics", "find_metric_slips", "bases.summaries", "plan_import",
    "identify", "near_duplicates", "diff", "descendants", "whoami", "doctor", "usage", "list_backup", "close",
    "deployments", "webhooks.list", "webhooks.deliveries", "canaries", "promotions", "shares", "route",
    "preview_merge", "spectra", "compare_versions", "facts", "count_findings",
    "bases.upgrade_verdicts",
}  # fmt: skip
#: Changes that no event can tell of.
NOT_LOGGED = {
    "map": "records what the stored files say, which changes nothing of them; the run has its author",
    "upgrade": "changes the schema and no content, before there may be a table of events",
    "report_deployment": "tells what a server has now: state that it alone knows, many times an hour",
    "sync": "changes a folder, and tells what it has",
    "follow": "changes a folder, and tells what it has",
    "sketch_missing": "records what can be computed from the weights again, and nothing that anybody said",
}


def methods(class_: type) -> list[str]:
    return [name for name, value in vars(class_).items() if callable(value) and name[0] != "_" and name != "context"]


def test_every_verb_is_in_a_table():
    verbs = set(methods(Registry))
    groups = {"bases": Bases, "tokens": Tokens, "namespaces": Namespaces, "jobs": Jobs, "webhooks": Webhooks}
    for group, class_ in groups.items():
        assert isinstance(vars(Registry)[group], cached_property)
        verbs |= {f"{group}.{name}" for name in methods(class_)}
    assert verbs == VERBS.keys() | READING | NOT_LOGGED.keys()


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Registry]:
    """A registry with something to change for every verb."""
    with connect(home=str(tmp_path / "home"), author="grace") as local_registry:
        local_registry.push(SCIENCE, "team/science", aliases=["prod"])
        local_registry.push(train(tmp_path / "a", 1), "team/yanked")
        local_registry.yank("team/yanked")
        local_registry.push(SCIENCE, "team/exported")
        local_registry.pull("team/exported", tmp_path / "exported", profile="vllm")
        local_registry.bases.add(write_base(tmp_path / "one"), ["one"])
        weight = new_model().state_dict()[Q] + torch.randn(24, 1) @ torch.randn(1, 20)
        local_registry.bases.add(write_base(tmp_path / "two", {Q: weight}), ["two"])
        local_registry.tokens.create("old", ["read:team"])
        local_registry.webhooks.add("https://example.com/hook")
        local_registry.jobs.submit("merge", sources=["team/science"], name="team/merged")
        yield local_registry


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_that_changes_something_leaves_an_event(filled: Registry, tmp_path: Path, verb: str):
    action, change = VERBS[verb]
    before = filled.events(limit=1).items[0].id
    change(filled, tmp_path)
    events = [event for event in filled.events().items if event.id > before]
    assert (action, "grace") in {(event.action, event.author) for event in events}


def test_what_a_second_push_says_of_a_version_is_an_event(filled: Registry):
    def push(**metadata: Any) -> dict[str, Any]:
        before = filled.events(limit=1).items[0].id
        assert not filled.push(SCIENCE, "team/science", **metadata).created
        return {event.action: event.detail for event in filled.events().items if event.id > before}

    assert push(tasks=["qa"], labels={"run": "1"}) == {"describe": {"tasks": ["qa"], "labels": {"run": "1"}}}
    again = push(tasks=["qa", "news"], labels={"run": "2"})
    assert again == {"describe": {"tasks": ["news"], "labels": {"run": "2"}, "labels_before": {"run": "1"}}}
    assert push(tasks=["qa"], labels={"run": "2"}) == {}


def test_a_draft_of_the_hub_begins_and_changes_with_an_event_and_ends_with_the_push(
    guarded_folder: Guarded, tmp_path: Path
):
    http = guarded_folder.http("root")
    http.post("/api/repos/create", json={"name": "new", "organization": "team"})
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        value = {
            "path": name,
            "content": base64.b64encode((SCIENCE / name).read_bytes()).decode(),
            "encoding": "base64",
        }
        lines = [{"key": "header", "value": {"summary": "x"}}, {"key": "file", "value": value}]
        body = "\n".join(map(json.dumps, lines)).encode()
        assert http.post("/api/models/team/new/commit/main", content=body).is_success
    recorded = [
        (event.action, event.detail.get("adapter"))
        for event in reversed(guarded_folder.behind.events().items)
        if event.detail.get("adapter") == "team/new" or event.ref.startswith("team/new")
    ]
    assert [action for action, _ in recorded] == ["draft", "draft", "push"]
