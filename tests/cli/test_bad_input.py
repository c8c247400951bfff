"""Bad input gets one line with a hint and the right exit code; nothing is half-written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from deployments import MOVIES, NEWS, SCIENCE, Loreg, Outcome, command_line
from factories import change_config, change_tensors, copy
from os_users import commons

Q0 = "base_model.model.model.layers.0.self_attn.q_proj"


def expect(outcome: Outcome, exit_code: int, *says: str) -> None:
    assert outcome.exit_code == exit_code, outcome
    assert outcome.stdout == ""
    errors = [line for line in outcome.stderr.splitlines() if not line.startswith("note:")]
    assert len(errors) == 1, outcome.stderr
    assert errors[0].startswith("error: ")
    assert "Hint: " in errors[0]
    assert "Traceback" not in outcome.stderr
    for text in says:
        assert text in errors[0]


def nothing_was_recorded(loreg: Loreg) -> None:
    listed = loreg("ls", "--format", "quiet")
    assert (listed.exit_code, listed.stdout) == (0, "")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copy(SCIENCE, tmp_path / "broken")


class TestBrokenAdapters:
    def test_a_broken_header(self, loreg: Loreg, folder: Path):
        (folder / "adapter_model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0not json")
        expect(loreg("push", folder, "a"), 6, "adapter_model.safetensors is not a sound safetensors file")
        nothing_was_recorded(loreg)

    def test_truncated_data(self, loreg: Loreg, folder: Path):
        path = folder / "adapter_model.safetensors"
        path.write_bytes(path.read_bytes()[:-100])
        expect(loreg("push", folder, "a"), 6, "its data is cut short")
        nothing_was_recorded(loreg)

    def test_a_shape_that_contradicts_the_configuration(self, loreg: Loreg, folder: Path):
        expect(loreg("push", change_config(folder, r=16), "a"), 5, "LR003", "has rank 8, r says 16")
        nothing_was_recorded(loreg)

    def test_nan(self, loreg: Loreg, folder: Path):
        tensor = load_file(folder / "adapter_model.safetensors")[f"{Q0}.lora_B.weight"]
        tensor[0, 0] = float("nan")
        change_tensors(folder, {f"{Q0}.lora_B.weight": tensor})
        expect(loreg("push", folder, "a"), 5, "LR005", f"{Q0}.lora_B.weight has 1 NaN or infinite")
        nothing_was_recorded(loreg)

    def test_no_lora_tensors(self, loreg: Loreg, folder: Path):
        names = load_file(folder / "adapter_model.safetensors")
        change_tensors(folder, {**dict.fromkeys(names), "w": torch.ones(1)})
        expect(loreg("push", folder, "a"), 1, "has no LoRA tensors")
        nothing_was_recorded(loreg)

    def test_a_pickle(self, loreg: Loreg, folder: Path):
        (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
        expect(loreg("push", folder, "a"), 1, "is a pickle", "save_file")
        nothing_was_recorded(loreg)

    def test_a_broken_source_of_a_merge(self, loreg: Loreg, folder: Path, tmp_path: Path):
        change_config(folder, r=16)
        expect(loreg("merge", folder, SCIENCE, "--weights", "1,1", "--to", tmp_path / "out"), 5, "LR003")
        assert not (tmp_path / "out").exists()


class TestNames:
    @pytest.mark.parametrize("name", ["..", "../x", "a/../b", "a/b/c", "-", "a b", "/etc"])
    def test_a_name_that_is_none(self, local: Loreg, name: str):
        expect(local("push", "--", NEWS, name), 2, "invalid adapter name")
        nothing_was_recorded(local)

    def test_unknown_refs(self, loreg: Loreg, tmp_path: Path):
        loreg("push", NEWS, "team/news")
        expect(loreg("pull", "team/nwes", tmp_path / "x"), 3, "did you mean 'team/news'?", "loreg pull team/news")
        expect(loreg("show", "team/news:v2"), 3, "there is no version team/news:v2", "loreg ls team/news")
        expect(loreg("show", "team/news:prod"), 3, "has no alias 'prod'")
        expect(loreg("merge", "team/news", "nobody", "--weights", "1,1", "--to", tmp_path / "x"), 3, "'nobody'")
        expect(loreg("metric", "add", "nobody", "a=1"), 3)
        expect(loreg("tag", "nobody", "prod"), 3)
        expect(loreg("ls", "nobody"), 3)
        expect(loreg("lineage", "nobody"), 3)
        assert not (tmp_path / "x").exists()

    def test_a_digest_that_is_another(self, loreg: Loreg):
        loreg("push", NEWS, "a")
        expect(loreg("show", "a:v1@sha256:00000000"), 7, "is not what it was")

    def test_a_folder_without_a_dot_is_a_ref_and_the_hint_says_how_to_write_it(self, local: Loreg, tmp_path: Path):
        copy(SCIENCE, tmp_path / "mine")
        expect(local("merge", "mine", "--weights", "1", "--dry-run"), 3, "loreg merge ./mine --weights 1 --dry-run")


class TestUsage:
    def test_a_count_of_weights_that_does_not_match(self, local: Loreg, tmp_path: Path):
        expect(local("merge", NEWS, MOVIES, "--weights", "0.5", "--to", tmp_path / "x"), 2, "2 adapters and 1 weights")

    @pytest.mark.parametrize(
        "arguments",
        [
            ["merge", "a", "b", "--weights", "x,y", "--dry-run"],
            ["merge", "a", "b", "--weights", "1,1"],
            ["merge", "a", "b", "--weights", "1,1", "--dry-run", "--push", "x"],
            ["merge", "--dry-run"],
            ["merge", "a", "b", "--rank", "4", "--energy", "0.9", "--dry-run"],
            ["merge", "a", "b", "--recipe", "r.toml", "--dry-run"],
            ["rerank", "a", "--dry-run"],
            ["merge", "a", "--weights", "1", "--dry-run", "--rank", "0"],
            ["merge", "a", "--weights", "1", "--to", "x", "--task", "y"],
            ["merge", "a", "--weights", "1", "--push", "../x"],
            ["search", "--rank", "big"],
            ["search", "--metric", "accuracy"],
            ["search", "--label", "x"],
            ["search", "--sort", "age"],
            ["search", "--cursor", "x"],
            ["search", "--limit", "0"],
            ["push", "."],
            ["push", ".", "a", "--label", "x"],
            ["tag", "a", "latest"],
            ["tag", "a", "v3"],
            ["show", "a@sha256:xyz"],
            ["nothing"],
            ["ls", "--format", "xml"],
            ["--storage-url", "ftp://x", "ls"],
            ["--database-url", "mysql://x", "ls"],
            ["metric", "add", "a", "b"],
        ],
        ids=" ".join,
    )
    def test_a_wrong_call(self, local: Loreg, arguments: list[str]):
        expect(local(*arguments), 2)

    def test_a_settings_file_that_is_wrong(self, local: Loreg, tmp_path: Path):
        (tmp_path / "loreg.toml").write_text("colour = 'red'")
        expect(local("ls"), 2, "loreg.toml", "colour")


class TestFolders:
    def test_a_target_that_is_not_empty(self, loreg: Loreg, tmp_path: Path):
        loreg("push", NEWS, "a")
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "mine").write_text("mine")
        expect(loreg("pull", "a", tmp_path / "full"), 7, "nothing was changed")
        expect(loreg("merge", "a", "--weights", "1", "--to", tmp_path / "full"), 7, "nothing was changed")
        assert [p.name for p in (tmp_path / "full").iterdir()] == ["mine"]

    def test_a_folder_that_is_not_there(self, local: Loreg):
        expect(local("push", "nowhere", "a"), 3, "nowhere does not exist")


AS_NOBODY = """
import json, os, sys
from loreg_cli.main import cli
def run(arguments):
    try: cli(arguments)
    except SystemExit as end: return end.code
preload, arguments = json.loads(sys.argv[1])
sys.stdout, sys.stderr, streams = open(os.devnull, "w"), open(os.devnull, "w"), (sys.stdout, sys.stderr)
for each in preload: run(each)
sys.stdout, sys.stderr = streams
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
sys.exit(run(arguments))
"""


class TestNoPermission:
    """As a user who may not write there. Root may write everywhere, so it becomes ``nobody`` once all is imported."""

    @pytest.fixture
    def reachable(self) -> Iterator[Path]:
        """A folder with an adapter, and a home of whoever types.

        Not below ``tmp_path``: each pytest that starts closes the folder that all of them share to other users.
        """
        with commons() as folder:
            (folder / "nobody").mkdir()
            os.chown(folder / "nobody", *((65534, 65534) if os.getuid() == 0 else (-1, -1)))
            yield folder

    def run(self, reachable: Path, *arguments: str | Path, **environment: str) -> Outcome:
        first = ["--home", str(reachable / "preload"), "--storage-url", str(reachable / "preload" / "store")]
        preload = [
            [*first, "push", str(reachable / "news"), "a"],
            [*first, "pull", "a", str(reachable / "preload" / "a")],
            [*first, "merge", "a", "--weights", "1", "--dry-run"],
            [*first, "ls"],
        ]
        home = reachable / "nobody"
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, json.dumps([preload, [str(a) for a in arguments]])],
            env={"LOREG_HOME": str(home), "PATH": "/usr/bin", "HOME": str(home), "LOREG_AUTHOR": "n", **environment},
            capture_output=True,
            text=True,
            cwd=home,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def closed(self, reachable: Path) -> Path:
        folder = reachable / "closed"
        folder.mkdir(mode=0o555)
        return folder

    def test_for_the_home(self, reachable: Path):
        home = self.closed(reachable) / "home"
        expect(self.run(reachable, "ls", LOREG_HOME=str(home)), 4, "cannot make the catalog's folder")

    def test_for_the_store(self, reachable: Path):
        store = self.closed(reachable) / "store"
        outcome = self.run(reachable, "push", reachable / "news", "a", LOREG_STORAGE_URL=str(store))
        expect(outcome, 4, "no permission for", "LOREG_STORAGE_URL")
        nothing_was_recorded(command_line({"LOREG_HOME": str(reachable / "nobody")}))

    def test_for_the_target(self, reachable: Path):
        closed = self.closed(reachable)
        assert self.run(reachable, "push", reachable / "news", "a").exit_code == 0
        expect(self.run(reachable, "pull", "a", closed / "x"), 4, "no permission for")
        expect(self.run(reachable, "merge", "a", "--weights", "1", "--to", closed / "x"), 4, "no permission for")
        assert list(closed.iterdir()) == []

    def test_for_the_adapter(self, reachable: Path):
        (reachable / "news" / "adapter_model.safetensors").chmod(0o000)
        expect(
            self.run(reachable, "push", reachable / "news", "a"), 4, "no permission for", "adapter_model.safetensors"
        )


class TestServersDown:
    def test_the_database(self, tmp_path: Path):
        loreg = command_line({"LOREG_HOME": str(tmp_path), "LOREG_DATABASE_URL": "postgresql://u:secret@127.0.0.1:9/x"})
        for arguments in (["ls"], ["push", NEWS, "a"], ["search"], ["pull", "a"], ["show", "a"]):
            outcome = loreg(*arguments)
            expect(outcome, 1, "does not answer", "loreg doctor")
            assert "secret" not in outcome.stderr
        assert loreg("doctor").exit_code == 1

    def test_the_store(self, tmp_path: Path):
        environment = {"LOREG_HOME": str(tmp_path / "h"), "LOREG_STORAGE_URL": "s3://b/x"}
        loreg = command_line({**environment, "LOREG_STORAGE_ENDPOINT": "http://127.0.0.1:9"})
        expect(loreg("push", NEWS, "a"), 1, "store s3://b/x does not answer", "loreg doctor")
        nothing_was_recorded(loreg)
        doctor = loreg("doctor")
        assert doctor.exit_code == 1
        assert "FAILED" in doctor.stdout

    def test_the_store_after_the_push(self, tmp_path: Path, s3):
        environment = {"LOREG_HOME": str(tmp_path / "h"), "LOREG_STORAGE_URL": f"s3://{s3.bucket}/down"}
        up = command_line({**environment, "LOREG_STORAGE_ENDPOINT": s3.endpoint})
        down = command_line({**environment, "LOREG_STORAGE_ENDPOINT": "http://127.0.0.1:9"})
        assert up("push", NEWS, "a").exit_code == 0
        expect(down("pull", "a", tmp_path / "x"), 1, "does not answer")
        expect(down("merge", "a", "--weights", "1", "--to", tmp_path / "y"), 1, "does not answer")
        assert not (tmp_path / "x").exists()
        assert not (tmp_path / "y").exists()
        assert up("pull", "a", tmp_path / "x").exit_code == 0

    def test_no_credentials(self, tmp_path: Path, s3, monkeypatch):
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        environment = {
            "LOREG_HOME": str(tmp_path),
            "LOREG_STORAGE_URL": "s3://b/x",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        loreg = command_line({**environment, "LOREG_STORAGE_ENDPOINT": s3.endpoint})
        expect(loreg("push", NEWS, "a"), 4, "no credentials", "AWS_ACCESS_KEY_ID")


def test_a_file_that_is_no_database(tmp_path: Path):
    (tmp_path / "catalog.db").write_text("this is not a database, it is a text of some length")
    expect(command_line({"LOREG_HOME": str(tmp_path)})("ls"), 1, "file is not a database")


def test_a_name_from_someone_else_does_not_colour_the_terminal(local: Loreg, folder: Path):
    (folder / "\x1b[31mred.md").write_text("")
    outcome = local("push", folder, "a")
    assert "left out: �[31mred.md (its name is not portable)" in outcome.stderr
    assert "no�[31mwhere does not exist" in local("push", "no\x1b[31mwhere", "a").stderr


class TestOddWords:
    def test_an_argument_that_is_not_utf8(self, local: Loreg):
        for arguments in (["search", "\udcff"], ["push", NEWS, "a", "-m", "\udcff"], ["--author", "\udcff", "ls"]):
            expect(local(*arguments), 2, "is not UTF-8")

    def test_a_group_without_a_command_shows_its_help(self, local: Loreg):
        for arguments in (["db"], ["metric"]):
            outcome = local(*arguments)
            assert outcome.exit_code == 2
            assert outcome.stderr.startswith("Usage: ")
            assert "\n\nCommands:\n" in outcome.stderr

    def test_a_label_twice(self, local: Loreg):
        expect(local("search", "--label", "k=v", "--label", "k=w"), 2, "a label is given twice")

    def test_a_metric_with_a_terminal_escape(self, local: Loreg):
        local("push", NEWS, "a")
        expect(local("metric", "add", "a", "acc=1@\x1b]0;pwned\a"), 2, "invalid metric")

    @pytest.mark.parametrize("url", ["http://[::1", "s3://[x"])
    def test_a_storage_url_that_does_not_parse(self, local: Loreg, url: str):
        expect(local("--storage-url", url, "ls"), 2, "is not understood")

    def test_an_endpoint_that_is_none_is_found_by_doctor(self, local: Loreg):
        outcome = local("--storage-url", "s3://b/x", "--storage-endpoint", "foo", "doctor")
        assert outcome.exit_code == 1
        assert "FAILED  store" in outcome.stdout

    def test_a_home_with_a_question_mark_is_that_folder(self, tmp_path: Path):
        command_line({"LOREG_HOME": str(tmp_path / "h?x")})("push", NEWS, "a")
        assert sorted(path.name for path in (tmp_path / "h?x").iterdir() if path.name[0] != ".")[0] == "catalog.db"
        assert command_line({"LOREG_HOME": str(tmp_path / "h?y")})("ls").stderr == "nothing found\n"

    @pytest.mark.parametrize(
        "key",
        [
            ["size", "a", "b"],
            ["size", 1e300, 10**30],
            ["created", "0001-01-01T00:00:00+23:00", 1],
            ["name", "a\x00", "b", 1],
        ],
        ids=str,
    )
    def test_a_cursor_that_somebody_made_up(self, loreg: Loreg, key: list):
        import base64

        loreg("push", NEWS, "a")
        cursor = base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")
        expect(loreg("search", "--sort", key[0], "--cursor", cursor), 2, "not of this search")


class TestOddTargets:
    def test_the_folder_that_one_stands_in(self, loreg: Loreg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        loreg("push", NEWS, "a")
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        assert loreg("pull", "a", ".").exit_code == 0
        assert {p.name for p in (tmp_path / "here").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
        assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []

    def test_a_link_to_an_empty_folder(self, loreg: Loreg, tmp_path: Path):
        loreg("push", NEWS, "a")
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
        assert loreg("merge", "a", "--weights", "1", "--to", tmp_path / "link").exit_code == 0
        assert (tmp_path / "real" / "adapter_model.safetensors").exists()

    def test_leftovers_of_something_else_do_not_appear_in_a_pull(self, loreg: Loreg, tmp_path: Path):
        digest = json.loads(loreg("push", NEWS, "a", "--format", "json").stdout)["version"]["digest"]
        staging = tmp_path / f".x.{digest[:12]}.partial"
        staging.mkdir()
        (staging / "evil.py").write_text("")
        assert loreg("pull", "a", tmp_path / "x").exit_code == 0
        assert not (tmp_path / "x" / "evil.py").exists()

    def test_asking_for_the_base_path_later(self, loreg: Loreg, tmp_path: Path):
        loreg("push", change_config(copy(SCIENCE, tmp_path / "f"), base_model_name_or_path="/secret/base"), "a")
        for arguments in (["a"], ["a", "--with-base-path"], ["a", "--with-base-path"]):
            assert loreg("pull", arguments[0], tmp_path / "x", *arguments[1:]).exit_code == 0
        config = json.loads((tmp_path / "x" / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == "/secret/base"
