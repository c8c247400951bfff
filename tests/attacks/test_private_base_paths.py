"""The path of a base on the pusher's machine is told to the pusher, and to nobody else, by no route and no command."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from attackers import without_convertors
from deployments import HISTORY, SCIENCE, Loreg, command_line, empty_folders, empty_home
from factories import change_config, copy
from loreg.entities import MergeOptions
from loreg.registry import connect
from server.conftest import ROLES, Guarded, guarded, guarded_folder
from server.test_who_may_do_what import FILLED, HUB, TABLE

__all__ = ["guarded", "guarded_folder"]
PATH = "/home/ada/secret-project/llama-3-8b"
SECRET = "secret-project"


def private(folder: Path) -> Path:
    change_config(copy(HISTORY, folder), base_model_name_or_path=PATH)
    (folder / "README.md").write_text(f"---\nbase_model: {PATH}\n---\n# Trained from {PATH}")
    return folder


@pytest.mark.parametrize("role", ROLES)
def test_no_route_tells_it_to_anybody_else(guarded_folder: Guarded, tmp_path: Path, role: str):
    """Every GET of the server's table and of the Hub's, on a version that another token pushed."""
    guarded_folder.behind.namespaces.set_public("team", True)
    author = "owner" if role == "writer" else "writer"
    guarded_folder.registry(author).push(private(tmp_path / "a"), "team/science", aliases=["prod"], tasks=["qa"])
    guarded_folder.registry(author).pull("team/science:v2", tmp_path / "exported", profile="vllm")
    http, looked_at = guarded_folder.http(role), 0
    version = guarded_folder.behind.show("team/science:v2").version
    filled = {**FILLED, "selector": "v2", "digest": version.digest}
    hub = {"repository": "team/science", "revision": "prod", "path": "adapter_config.json", "branch": "x", "folder": ""}
    for method, path in [*TABLE, *HUB]:
        if method == "GET":
            if path.endswith("/stream"):  # of events, as the page of them that is looked at, too
                continue
            url = TABLE[method, path].url if (method, path) in TABLE else ""
            response = http.get(url or without_convertors(path).format(**filled, **hub), follow_redirects=True)
            looked_at += response.is_success
            assert SECRET not in response.text, path
            assert SECRET not in str(response.headers), path
    assert looked_at >= 15
    for query in ({"base": PATH}, {"text": SECRET}, {"all_versions": "true"}):
        answer = http.get("/api/v1/search", params=query).text
        assert SECRET not in answer.replace(PATH, "")  # the words of a search that finds nothing are said again


def test_its_author_gets_it_back_through_a_server(guarded: Guarded, tmp_path: Path):
    ada, other = guarded.registry("writer"), guarded.registry("owner")
    ada.push(private(tmp_path / "a"), "team/mine")
    assert (ada.show("team/mine").base_path, other.show("team/mine").base_path) == (PATH, "")
    for registry, expected in ((ada, PATH), (other, None)):
        folder = registry.pull("team/mine", tmp_path / str(expected is None), with_base_hint=True).folder
        assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == expected


@pytest.mark.parametrize("commits", ["one", "one a file", "the card last"])
def test_a_client_of_the_hub_commits_it_for_nobody_else(guarded_folder: Guarded, tmp_path: Path, commits: str):
    """As ``push_to_hub`` does: the configuration and the card name the base by its path."""
    files = {path.name: path.read_bytes() for path in sorted(private(tmp_path / "a").iterdir())}
    writer = guarded_folder.http("writer")
    writer.post("/api/repos/create", json={"name": "new", "organization": "team"})
    order = sorted(files, reverse=commits == "the card last")
    order.sort(key=lambda name: name == "README.md" and commits == "the card last")
    for batch in [order] if commits == "one" else [[name] for name in order]:
        lines: list[dict[str, Any]] = [{"key": "header", "value": {"summary": "trained"}}]
        for name in batch:
            value = {"path": name, "content": base64.b64encode(files[name]).decode(), "encoding": "base64"}
            lines.append({"key": "file", "value": value})
        body = "\n".join(map(json.dumps, lines)).encode()
        assert writer.post("/api/models/team/new/commit/main", content=body).is_success
    details = guarded_folder.registry("reader").show("team/new")
    assert (details.base_path, details.version.facts.base_hint) == ("", "llama-3-8b")
    assert guarded_folder.registry("writer").show("team/new").base_path == PATH
    assert details.version.number == (2 if commits == "the card last" else 1)
    folder = guarded_folder.registry("reader").pull("team/new", tmp_path / "pulled").folder
    assert {path.name for path in folder.iterdir()} == set(files)
    assert not any(SECRET.encode() in path.read_bytes() for path in folder.iterdir())
    weights = "adapter_model.safetensors"
    assert (folder / weights).read_bytes() == files[weights]


def test_nobody_without_a_name_is_the_author(tmp_path: Path):
    """What was pushed by nobody in particular was pushed by somebody else."""
    settings = empty_folders(tmp_path).settings
    with connect(**settings, author="anonymous") as nobody:
        nobody.push(private(tmp_path / "a"), "a")
        assert nobody.show("a").base_path == ""


@pytest.fixture
def of_ada(tmp_path: Path) -> Path:
    home = Path(empty_home(tmp_path / "home"))
    with connect(home=str(home), author="ada") as ada:
        ada.push(private(tmp_path / "a"), "team/a", tasks=["qa"])
        ada.push(SCIENCE, "team/b")
    return home


def test_no_command_prints_it_for_anybody_else(of_ada: Path):
    commands = [
        ["show", "team/a"], ["ls"], ["ls", "team/a"], ["search"], ["search", "--base", "llama-3-8b"], ["events"],
        ["lineage", "team/a"], ["base", "ls"], ["check", "team/a"], ["base", "match", "team/a"],
    ]  # fmt: skip
    for author, expected in (("grace", False), ("ada", True)):
        loreg: Loreg = command_line({"LOREG_HOME": str(of_ada), "LOREG_AUTHOR": author})
        for command in commands:
            for format_ in ("table", "json"):
                outcome = loreg(*command, "--format", format_)
                printed = outcome.stdout + outcome.stderr
                assert (SECRET in printed) == (expected and command == ["show", "team/a"]), (command, format_)
        assert "llama-3-8b?" in loreg("search").stdout


def test_its_last_part_is_searched_for_and_the_path_finds_no_more(of_ada: Path):
    """Otherwise whoever guesses the path would learn that it is right."""
    for author in ("grace", "ada"):
        with connect(home=str(of_ada), author=author) as registry:
            assert [v.ref for v in registry.search(base="llama-3-8b").items] == ["team/a:v1"]
            assert [v.ref for v in registry.search(base="llama-3-8b", tasks=["qa"]).items] == ["team/a:v1"]
            right = registry.search(base=PATH).items
            wrong = registry.search(base="/home/ada/another/llama-3-8b").items
            assert right == wrong


def test_neither_a_mirror_nor_a_bundle_of_others_has_it(of_ada: Path, tmp_path: Path):
    with connect(home=str(of_ada), author="grace") as grace:
        grace.mirror(to=tmp_path / "all.loreg")
    for source in (of_ada, tmp_path / "all.loreg"):
        with connect(home=empty_home(tmp_path / f"of-{source.name}"), author="grace") as target:
            target.mirror(source=source)
            assert target.show("team/a").version.facts.base_hint == "llama-3-8b"
        with connect(home=str(tmp_path / f"of-{source.name}"), author="ada") as ada:
            assert ada.show("team/a").base_path == ""


def test_a_merge_of_it_says_nothing_of_where_it_lay(of_ada: Path, tmp_path: Path):
    with connect(home=str(of_ada), author="ada") as ada:
        folder = private(tmp_path / SECRET / "folder")
        ada.merge([str(folder), "team/b"], MergeOptions(weights=[0.5, 0.5]), name="team/merged")
        pulled = ada.pull("team/merged", tmp_path / "pulled").folder
    with connect(home=str(of_ada), author="grace") as grace:
        assert SECRET not in f"{grace.show('team/merged')!r}{grace.lineage('team/merged')!r}"
    assert not any(SECRET.encode() in path.read_bytes() for path in pulled.iterdir())


def test_a_field_that_spells_it_as_a_url_is_not_stored(tmp_path: Path):
    folder = change_config(private(tmp_path / "a"), parent_library=f"file://{PATH}")
    with connect(home=empty_home(tmp_path / "home"), author="ada") as ada:
        ada.push(folder, "a")
        pulled = ada.pull("a", tmp_path / "pulled").folder
    assert SECRET not in (pulled / "adapter_config.json").read_text()
