"""What a pinned digest gives for a server is made of the version's own files, whoever may write its namespace."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from sqlalchemy import delete, insert, update
from torch import ones

from deployments import NEWS, SCIENCE, Loreg, command_line
from factories import change_config, change_tensors, copy, train, write_base
from loreg.catalog.schema import blob_table, export_file_table, file_table
from loreg.checking.profile import read_profile
from loreg.entities import Access
from loreg.errors import IntegrityError, NotAllowedError, NotFoundError
from loreg.exporting.folder import digest_request as request_of_profile
from loreg.local import exports
from loreg.local.backend import LocalBackend
from loreg.manifest import Manifest
from loreg.refs import Ref, parse_ref
from loreg.registry import Registry, connect
from loreg.storage import digest_of, put_bytes
from loreg.storage.folder import FolderStore
from server.conftest import Guarded
from server.test_uploads import send

WEIGHTS = "adapter_model.safetensors"


def upload(there: Guarded, role: str, files: dict[str, bytes]) -> dict[str, Any]:
    """Send the files as ``role``; returns the body that once recorded them as an export."""
    http = there.http(role)
    blobs = {path: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for path, data in files.items()}
    grants = {grant["sha256"]: grant for grant in http.post("/api/v1/uploads", json=list(blobs.values())).json()}
    for path, data in files.items():
        if grant := grants.get(blobs[path]["sha256"]):
            assert send(http, grant, data).is_success
    manifest = {"files": [{"path": path, **blob} for path, blob in blobs.items()]}
    return {"manifest": manifest, "uploads": [grant["id"] for grant in grants.values()]}


def request_of(registry: Registry, ref: str, profile: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The digest under which a pull asks for the files."""
    asked: list[str] = []
    backend = type(registry.context.backend)
    original = backend.export

    def noted(self: Any, ref: Ref, request: str) -> Manifest | None:
        asked.append(request)
        return original(self, ref, request)

    with monkeypatch.context() as patched:
        patched.setattr(backend, "export", noted)
        registry.pull(ref, Path("asked"), profile=profile)
    return asked[0]


def evil(tmp_path: Path) -> dict[str, bytes]:
    """An export with other weights, a program, a pickle and a hidden file, that says of itself that it is right."""
    adapter = copy(SCIENCE, tmp_path / "evil")
    change_tensors(adapter, {name: tensor * -1 for name, tensor in load_file(adapter / WEIGHTS).items()})
    report = {
        "schema": "loreg.export/2",
        "profile": {"title": "vLLM", "release": "0.33"},
        "changes": [],
        "certificate": {"epsilon": 0.0, "modules": []},
    }
    files = {name: (adapter / name).read_bytes() for name in (WEIGHTS, "adapter_config.json")}
    files["loreg_export.json"] = json.dumps(report).encode()
    return {**files, "payload.py": b"print()", "adapter_model.bin": b"pickle", "modeling/.hidden.sh": b"#!/bin/sh"}


def test_a_writer_cannot_put_other_files_in_the_place_of_an_export(
    either: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    reader = either.registry("reader")
    request = request_of(reader, "team/science:v1", "vllm", monkeypatch)
    body = upload(either, "writer", evil(tmp_path))
    put = either.http("writer").put(f"/api/v1/adapters/team/science/versions/v1/exports/{request}", json=body)
    assert put.status_code in (400, 403, 422)
    digest = either.behind.show("team/science").version.digest
    reader.pull(f"team/science:v1@sha256:{digest}", tmp_path / "pulled", profile="vllm")
    assert {path.name for path in (tmp_path / "pulled").iterdir()} == {
        "adapter_config.json", WEIGHTS, "loreg_export.json",
    }  # fmt: skip
    assert (tmp_path / "pulled" / WEIGHTS).read_bytes() == (SCIENCE / WEIGHTS).read_bytes()


def test_a_claimed_size_reaches_nobody_elses_export(either: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    adapter = change_config(copy(SCIENCE, tmp_path / "rs"), use_rslora=True)
    either.behind.push(adapter, "team/rs")
    either.behind.push(adapter, "other/rs")
    reader = either.registry("reader")
    request = request_of(reader, "team/rs", "sglang", monkeypatch)
    files = {path.name: path.read_bytes() for path in Path("asked").iterdir()}
    body = upload(either, "stranger", files)
    for file in body["manifest"]["files"]:
        file["size"] += 1
    either.http("stranger").put(f"/api/v1/adapters/other/rs/versions/v1/exports/{request}", json=body)
    either.registry("writer").pull("team/rs", tmp_path / "right", profile="sglang")
    assert either.registry("reader").pull("team/rs", tmp_path / "read", profile="sglang").downloaded > 0


def exports_of(there: Guarded) -> list[str]:
    """What the event log says of exports, the oldest first."""
    actions = [event.action for event in reversed(there.behind.events().items)]
    return [action for action in actions if action.startswith("export")]


def test_an_export_is_logged_and_dropped_by_who_had_it_made_or_an_administrator(either: Guarded, tmp_path: Path):
    second = either.behind.tokens.create("second", ["write:team"])[1]
    writer, owner, reader = (either.registry(role) for role in ("writer", "owner", "reader"))
    writer.pull("team/science", tmp_path / "1", profile="vllm")
    reader.pull("team/science", tmp_path / "2", profile="vllm")
    (event,) = [event for event in either.behind.events().items if event.action == "export"]
    assert (event.author, event.ref, event.detail["profile"]) == ("writer", "team/science:v1", "vllm")
    with connect(endpoint=either.endpoint, token=second) as other:
        for who in (other, reader):
            with pytest.raises(NotAllowedError):
                who.drop_export("team/science", "vllm")
    with pytest.raises(NotFoundError):
        either.registry("stranger").drop_export("team/science", "vllm")
    writer.drop_export("team/science", "vllm")
    with pytest.raises(NotFoundError, match="has not made team/science:v1 for that server"):
        owner.drop_export("team/science", "vllm")
    writer.pull("team/science", tmp_path / "3", profile="vllm")
    owner.drop_export("team/science", "vllm")
    assert exports_of(either) == ["export", "export drop"] * 2


def replace_recorded(there: Guarded, files: dict[str, bytes]) -> None:
    """Write the files into the catalog in the place of the one export there, as only who has the database can."""
    backend = there.behind.context.backend
    assert isinstance(backend, LocalBackend)
    blobs = {path: put_bytes(there.behind.context.store, data) for path, data in files.items()}
    with backend.catalog.write(Access.superuser("mallory")) as tx:
        tx.insert_missing(blob_table, [{"digest": blob.sha256, "size": blob.size} for blob in blobs.values()])
        tx.connection.execute(delete(export_file_table))
        rows = [{"export_id": 1, "path": path, "digest": blob.sha256} for path, blob in blobs.items()]
        tx.connection.execute(insert(export_file_table), rows)


@pytest.mark.parametrize("wrong", ["program", "report", "configuration", "shape", "card", "everything"])
def test_what_is_not_as_the_headers_say_is_not_taken_and_made_anew(guarded_folder: Guarded, tmp_path: Path, wrong: str):
    writer, reader = guarded_folder.registry("writer"), guarded_folder.registry("reader")
    writer.pull("team/science", tmp_path / "right", profile="vllm")
    files = {path.name: path.read_bytes() for path in (tmp_path / "right").iterdir()}
    changed = {
        "program": {**files, "payload.py": b"print()"},
        "report": {**files, "loreg_export.json": files["loreg_export.json"].replace(b'"digest": "', b'"digest": "0')},
        "configuration": {**files, "adapter_config.json": files["adapter_config.json"].replace(b"{", b'{"x": 1,', 1)},
        "shape": {**files, WEIGHTS: (copy(NEWS, tmp_path / "news") / WEIGHTS).read_bytes()},
        "card": {**files, "README.md": b"see evil.example"},
        "everything": evil(tmp_path),
    }[wrong]
    replace_recorded(guarded_folder, changed)
    reader.pull("team/science", tmp_path / "read", profile="vllm")
    writer.pull("team/science", tmp_path / "written", profile="vllm")
    replaced = guarded_folder.behind.context.backend.export(
        parse_ref("team/science"), request_of_profile(read_profile("vllm"), None)
    )
    assert {file.path for file in replaced.files} == files.keys()
    for folder in ("read", "written"):
        assert {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()} == files


def test_other_numbers_under_the_right_headers_are_found_by_verify(guarded_folder: Guarded, tmp_path: Path):
    reader = guarded_folder.registry("reader")
    guarded_folder.registry("writer").pull("team/science", tmp_path / "right", profile="vllm")
    files = {path.name: path.read_bytes() for path in (tmp_path / "right").iterdir()}
    assert reader.pull("team/science", tmp_path / "ok", profile="vllm", verify=True).fitted.moved == 0
    replace_recorded(guarded_folder, {**files, WEIGHTS: evil(tmp_path)[WEIGHTS]})
    with pytest.raises(IntegrityError, match="is not what the version becomes for it") as error:
        reader.pull("team/science", tmp_path / "wrong", profile="vllm", verify=True)
    assert not (tmp_path / "wrong").exists()
    loreg = command_line({"LOREG_ENDPOINT": guarded_folder.endpoint, "LOREG_TOKEN": guarded_folder.tokens["owner"]})
    assert loreg(*error.value.hint.split()[1:]).exit_code == 0
    assert loreg("pull", "team/science", tmp_path / "again", "--profile", "vllm", "--verify").exit_code == 0
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == files[WEIGHTS]


@pytest.mark.parametrize("profile", ["", "./mine.toml", "/etc/x.toml", "../vllm", "x" * 500, "vllm:what=1", "none"])
def test_a_server_makes_exports_for_the_servers_that_loreg_knows_alone(guarded_folder: Guarded, profile: str):
    request = request_of_profile(read_profile("vllm"), None)
    url = f"/api/v1/adapters/team/science/versions/v1/exports/{request}"
    assert guarded_folder.http("writer").put(url, json={"profile": profile}).status_code in (400, 403, 409)
    assert guarded_folder.http("writer").put(url, json={"profile": "sglang"}).status_code == 409
    assert exports_of(guarded_folder) == []


def test_what_would_become_huge_is_not_made_by_the_server(guarded_folder: Guarded, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(exports, "_MAX_BYTES", 100_000)
    writer = guarded_folder.registry("writer")
    request = request_of_profile(read_profile("vllm"), None)
    with pytest.raises(NotAllowedError, match="too much for a registry to make"):
        writer.context.backend.record_export(parse_ref("team/science"), request, "vllm")
    assert writer.pull("team/science", tmp_path / "mine", profile="vllm").downloaded > 100_000
    assert exports_of(guarded_folder) == []


def test_one_export_is_made_at_a_time_and_others_make_their_own(guarded_folder: Guarded, tmp_path: Path):
    with exports._one_at_a_time():
        pulled = guarded_folder.registry("writer").pull("team/science", tmp_path / "mine", profile="vllm")
    assert pulled.downloaded > 0
    assert exports_of(guarded_folder) == []


def test_what_is_stored_already_is_not_made_again_whoever_asks_how_often(
    guarded_folder: Guarded, monkeypatch: pytest.MonkeyPatch
):
    writer, store = guarded_folder.http("writer"), guarded_folder.behind.context.store
    request = request_of(guarded_folder.registry("writer"), "team/science:v1", "vllm", monkeypatch)
    path, body = f"/api/v1/adapters/team/science/versions/v1/exports/{request}", {"profile": "vllm"}
    stored = writer.get(path).json()
    with exports._one_at_a_time():
        for _ in range(3):
            again = writer.put(path, json=body)
            assert (again.status_code, again.json()) == (200, stored)
        assert isinstance(store, FolderStore)
        report = store._path(next(file["sha256"] for file in stored["files"] if file["path"] == "loreg_export.json"))
        content = report.read_bytes()
        report.unlink()
        report.write_bytes(content.replace(b"loreg.export", b"loreg.export".upper()))
        assert writer.put(path, json=body).status_code == 409  # it would be made anew
    assert writer.put(path, json=body).json() == stored
    assert report.read_bytes() == content
    assert exports_of(guarded_folder) == ["export"]


def test_an_export_whose_files_were_lost_is_made_anew(guarded_folder: Guarded, tmp_path: Path):
    writer = guarded_folder.registry("writer")
    writer.pull("team/science", tmp_path / "1", profile="sglang")
    store = guarded_folder.behind.context.store
    assert isinstance(store, FolderStore)
    report = digest_of(tmp_path / "1" / "loreg_export.json").sha256
    store._path(report).unlink()
    writer.pull("team/science", tmp_path / "2", profile="sglang")
    assert store.size(report) is not None
    assert guarded_folder.registry("reader").pull("team/science", tmp_path / "3", profile="sglang").downloaded > 0


def test_a_pinned_digest_gives_the_files_that_it_is_the_digest_of(guarded_folder: Guarded, tmp_path: Path):
    guarded_folder.behind.push(NEWS, "team/news")
    backend = guarded_folder.behind.context.backend
    assert isinstance(backend, LocalBackend)
    other = next(file.sha256 for file in guarded_folder.behind.show("team/news").files if file.path == WEIGHTS)
    with backend.catalog.write(Access.superuser("mallory")) as tx:
        of_science = (file_table.c.version_id == 1) & (file_table.c.path == WEIGHTS)
        tx.connection.execute(update(file_table).where(of_science).values(digest=other))
    for profile in (None, "vllm"):
        with pytest.raises(IntegrityError, match="lists other files for team/science:v1 than its digest"):
            guarded_folder.registry("reader").pull("team/science", tmp_path / "pulled", profile=profile)


def test_nobody_without_a_token_needs_one_to_pull_what_is_public_for_a_server(guarded: Guarded, tmp_path: Path):
    base = write_base(tmp_path / "base")
    guarded.behind.push(train(tmp_path / "a", 1), "open/a", base=str(base))
    guarded.behind.push(train(tmp_path / "b", 2), "team/b", base=str(write_base(tmp_path / "other", {"x": ones(3)})))
    guarded.behind.namespaces.set_public("open", True)
    nobody = guarded.registry("anonymous")
    assert nobody.pull("open/a", tmp_path / "pulled", profile="sglang").downloaded > 0
    public, private = (guarded.behind.show(ref).version.base for ref in ("open/a", "team/b"))
    assert guarded.http("anonymous").head(f"/api/v1/blobs/{public.digest}").status_code == 200
    assert guarded.http("anonymous").head(f"/api/v1/blobs/{private.digest}").status_code == 404


def test_exporting_needs_no_torch(tmp_path: Path):
    code = f"""
import sys
sys.modules["torch"] = None
from loreg.registry import connect
here = connect(home={str(tmp_path / "home")!r})
here.push({str(SCIENCE)!r}, "a")
print(here.pull("a", {str(tmp_path / "1")!r}, profile="sglang").fitted.moved)
print(here.export("a", "vllm:max_lora_rank=8", {str(tmp_path / "2")!r}, dtype="bfloat16").fitted.moved > 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0\nTrue\n"


def test_what_may_not_be_read_answers_as_what_is_not_there(guarded_folder: Guarded, tmp_path: Path):
    behind = guarded_folder.behind
    base = behind.bases.add(write_base(tmp_path / "base"), ["tiny"]).base
    behind.push(train(tmp_path / "a", 1), "team/a", base="tiny")
    behind.pull("team/science", tmp_path / "pulled", profile="vllm")
    version = behind.show("team/science")
    weights = next(file.sha256 for file in version.files if file.path == WEIGHTS)
    exported = digest_of(tmp_path / "pulled" / "loreg_export.json").sha256
    request, nothing = request_of_profile(read_profile("vllm"), None), "0" * 64
    there, gone = "/api/v1/adapters/team/science/versions/v1", "/api/v1/adapters/team/nothing/versions/v1"
    asked: list[tuple[str, str, str, dict[str, Any]]] = [
        *((method, f"{there}/exports/{request}", f"{gone}/exports/{request}", {}) for method in ("GET", "DELETE")),
        ("PUT", f"{there}/exports/{request}", f"{gone}/exports/{request}", {"json": {"profile": "vllm"}}),
        ("GET", f"{there}/lineage", f"{gone}/lineage", {}),
        ("GET", f"/api/v1/contents/{version.version.digest}", f"/api/v1/contents/{nothing}", {}),
        ("GET", f"/api/v1/files/{weights}", f"/api/v1/files/{nothing}", {}),
        ("GET", f"/api/v1/blobs/{exported}", f"/api/v1/blobs/{nothing}", {}),
    ]
    for role in ("stranger", "anonymous"):
        http = guarded_folder.http(role)
        for method, one, other, body in asked:
            answers = [http.request(method, path, **body) for path in (one, other)]
            texts = [answer.text.replace("science", "nothing") for answer in answers]
            for digest in (version.version.digest, exported):
                texts = [text.replace(digest[:12], nothing[:12]) for text in texts]
            assert (answers[0].status_code, texts[0]) == (answers[1].status_code, texts[1]), (role, method, one)
    stranger = guarded_folder.registry("stranger")
    assert stranger.bases.show(base.digest).versions == 0
    assert guarded_folder.registry("reader").bases.show(base.digest).versions == 1


def test_export_takes_a_folder_or_drops(local: Loreg, tmp_path: Path):
    local("push", SCIENCE, "a")
    both = ("--to", tmp_path / "out", "--drop")
    for options in ((), both, ("--drop", "--base", "x"), ("--drop", "--dtype", "float16")):
        assert local("export", "a", "--profile", "vllm", *options).exit_code == 2
    assert local("export", "a", "--profile", "vllm", "--drop").exit_code == 3
    assert local("pull", "a", tmp_path / "pulled", "--verify").exit_code == 2
    assert local("pull", "a", tmp_path / "pulled", "--profile", "vllm").exit_code == 0
    assert local("export", "a", "--profile", "vllm", "--drop").exit_code == 0
