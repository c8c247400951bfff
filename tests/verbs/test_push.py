"""push stores what it should, keeps private what is private, and never leaves half a version."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from sqlalchemy import text

from concurrency import all_at_once
from deployments import NEWS, SCIENCE, Deployment
from factories import change_config, copy, train, write_base
from loreg.catalog import Catalog
from loreg.entities import MergeOptions
from loreg.errors import CheckFailedError, LoregError, NotFoundError, UnavailableError, UsageError
from loreg.registry import Registry, connect

SECRET = "/home/ada/secret-project/llama-3-8b"


def count(database_url: str, table: str) -> int:
    catalog = Catalog(database_url)
    with catalog.read() as tx:
        number = tx.connection.execute(text(f"SELECT count(*) FROM {table}")).scalar()
    catalog.close()
    return number


@pytest.fixture
def private(tmp_path: Path) -> Path:
    folder = change_config(copy(SCIENCE, tmp_path / "private"), base_model_name_or_path=SECRET)
    (folder / "README.md").write_text(f"---\nbase_model: {SECRET}\n---\n# Card of the adapter")
    (folder / "tokenizer_config.json").write_text(json.dumps({"name_or_path": SECRET}))
    (folder / "notes.txt").write_text("no path here")
    return folder


class TestPrivatePaths:
    def test_no_file_of_a_version_has_the_path_of_the_base(self, registry: Registry, private: Path, tmp_path: Path):
        pushed = registry.push(private, "a")
        assert "README.md, adapter_config.json, tokenizer_config.json" in " ".join(pushed.notes)
        pulled = registry.pull("a", tmp_path / "pulled").folder
        for path in pulled.iterdir():
            assert b"secret-project" not in path.read_bytes()
        assert json.loads((pulled / "adapter_config.json").read_text())["base_model_name_or_path"] is None
        assert "base_model: llama-3-8b" in (pulled / "README.md").read_text()
        assert (pulled / "notes.txt").read_text() == "no path here"

    def test_its_last_part_is_the_hint_and_all_of_it_is_told_to_its_author(self, registry: Registry, private: Path):
        assert registry.push(private, "a").version.facts.base_hint == "llama-3-8b"
        assert registry.show("a").base_path == SECRET

    def test_who_asks_gets_it_back(self, registry: Registry, private: Path, tmp_path: Path):
        registry.push(private, "a")
        pulled = registry.pull("a", tmp_path / "pulled", with_base_hint=True).folder
        assert json.loads((pulled / "adapter_config.json").read_text())["base_model_name_or_path"] == SECRET

    def test_the_same_adapter_from_two_machines_is_the_same_content(
        self, registry: Registry, private: Path, tmp_path: Path
    ):
        registry.push(copy(SCIENCE, tmp_path / "x"), "a")
        for i, path in enumerate(("/home/ada/models/llama", "C:\\Users\\grace\\models\\llama")):
            folder = change_config(copy(SCIENCE, tmp_path / f"machine{i}"), base_model_name_or_path=path)
            assert registry.push(folder, "b").created == (i == 0)

    def test_the_folder_itself_is_not_changed(self, registry: Registry, private: Path):
        before = {path.name: path.read_bytes() for path in private.iterdir()}
        registry.push(private, "a")
        assert {path.name: path.read_bytes() for path in private.iterdir()} == before

    def test_a_public_name_stays(self, registry: Registry, tmp_path: Path):
        registry.push(NEWS, "a")
        config = json.loads((registry.pull("a", tmp_path / "p").folder / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == "sentence-transformers/all-MiniLM-L6-v2"

    @pytest.mark.parametrize(
        "path", ["./llama", "../llama", "~/llama", "a/b/c", "/llama", "C:\\llama", "models/.hidden"]
    )
    def test_what_counts_as_a_path(self, registry: Registry, tmp_path: Path, path: str):
        registry.push(change_config(copy(SCIENCE, tmp_path / "f"), base_model_name_or_path=path), "a")
        pulled = registry.pull("a", tmp_path / "p").folder
        assert json.loads((pulled / "adapter_config.json").read_text())["base_model_name_or_path"] is None


class TestContent:
    def test_identical_content_makes_no_new_version(self, registry: Registry):
        first = registry.push(NEWS, "a")
        again = registry.push(NEWS, "a", tasks=["topics"])
        assert (first.created, again.created) == (True, False)
        assert again.version.number == 1
        assert again.version.tasks == ("topics",)

    def test_a_changed_file_makes_the_next_version(self, registry: Registry, tmp_path: Path):
        registry.push(NEWS, "a")
        folder = copy(NEWS, tmp_path / "changed")
        (folder / "README.md").write_text("# Better described")
        assert registry.push(folder, "a").version.number == 2

    def test_what_was_pushed_is_what_is_pulled(self, registry: Registry, tmp_path: Path):
        folder = copy(NEWS, tmp_path / "f")
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text("{}")
        (folder / "empty.txt").write_text("")
        registry.push(folder, "a")
        pulled = registry.pull("a", tmp_path / "p").folder
        content = {p.relative_to(pulled): p.read_bytes() for p in pulled.rglob("*") if p.is_file()}
        assert content == {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    def test_the_card_can_be_searched(self, registry: Registry, tmp_path: Path):
        folder = copy(NEWS, tmp_path / "f")
        (folder / "README.md").write_text("Trained on the news of the BBC\x00")
        registry.push(folder, "a")
        assert [version.ref for version in registry.search("bbc").items] == ["a:v1"]

    def test_the_manifest_is_in_the_store(self, registry: Registry):
        version = registry.push(NEWS, "a").version
        document = json.loads(registry.context.store.read(version.digest))
        assert [file["path"] for file in document["files"]] == ["adapter_config.json", "adapter_model.safetensors"]


class TestBase:
    def test_is_recorded_by_content_and_found_by_name_and_digest(self, registry: Registry, minilm: Path):
        version = registry.push(NEWS, "a", base=str(minilm)).version
        assert version.base.names == ("sentence-transformers/all-MiniLM-L6-v2",)
        for text_ in (version.base.names[0], version.base.digest, version.base.digest[:8]):
            assert [entry.ref for entry in registry.search(base=text_).items] == ["a:v1"]
        tensor_digests = json.loads(registry.context.store.read(version.base.digest))
        assert len(tensor_digests["tensors"]) == version.base.tensors

    def test_can_be_named_when_it_is_known(self, registry: Registry, tmp_path: Path, minilm: Path):
        base = registry.push(NEWS, "a", base=str(minilm)).version.base
        other = change_config(copy(NEWS, tmp_path / "x"), r=8)
        assert registry.push(other, "b", base=base.digest[:10]).version.base == base
        assert registry.push(other, "c", base=base.names[0]).version.base == base

    def test_that_does_not_fit_is_refused(self, registry: Registry, tmp_path: Path, minilm: Path):
        adapter = train(tmp_path / "x", 1)
        with pytest.raises(CheckFailedError, match=r"base mismatch: it has no tensor layers\.0\.q_proj\.weight"):
            registry.push(adapter, "a", base=str(minilm))
        other = write_base(tmp_path / "other", {"layers.1.v_proj.weight": torch.ones(24, 20)})
        with pytest.raises(CheckFailedError, match=r"v_proj is \(20, 24\) in the adapter, this base has \(24, 20\)"):
            registry.push(adapter, "a", base=str(other))
        assert registry.adapters().items == ()

    def test_that_nobody_knows_is_not_found(self, registry: Registry, tmp_path: Path, monkeypatch):
        with pytest.raises(NotFoundError, match="there is no base 'org/llama'"):
            registry.push(NEWS, "a", base="org/llama")
        (tmp_path / "models").mkdir()
        monkeypatch.chdir(tmp_path)
        with pytest.raises(NotFoundError) as error:
            registry.push(NEWS, "a", base="models")
        assert error.value.hint == "for the folder of that name: --base ./models"

    def test_a_name_stays_with_the_first_base_that_had_it(self, registry: Registry, tmp_path: Path):
        adapter = change_config(train(tmp_path / "x", 1), base_model_name_or_path="org/tiny")
        registry.push(adapter, "a", base=str(write_base(tmp_path / "0")))
        second = registry.push(adapter, "b", base=str(write_base(tmp_path / "1", {"extra": torch.ones(1)})))
        assert second.version.base.names == ()
        assert "already means another base" in " ".join(second.notes)


class TestNothingHalfWritten:
    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ({"tasks": ["a b"]}, UsageError),
            ({"metrics": ["accuracy"]}, UsageError),
            ({"aliases": ["latest"]}, UsageError),
            ({"base": "org/nobody"}, NotFoundError),
        ],
    )
    def test_when_something_said_is_wrong(
        self, registry: Registry, deployment: Deployment, options: dict, error: type[LoregError]
    ):
        with pytest.raises(error):
            registry.push(NEWS, "a", **options)
        assert [count(deployment.database_url, table) for table in ("adapters", "versions", "blobs")] == [0, 0, 0]

    def test_when_the_adapter_breaks_a_rule(self, registry: Registry, deployment: Deployment, tmp_path: Path):
        with pytest.raises(CheckFailedError):
            registry.push(change_config(copy(NEWS, tmp_path / "f"), r=4), "a")
        assert count(deployment.database_url, "adapters") == 0

    def test_when_it_is_killed_between_blobs_and_catalog(self, registry: Registry, deployment: Deployment, monkeypatch):
        from loreg.catalog import versions

        def die(*arguments: object) -> None:
            raise RuntimeError

        with monkeypatch.context() as patch, pytest.raises((RuntimeError, LoregError)):
            patch.setattr(versions, "record", die)
            registry.push(NEWS, "a")
        assert count(deployment.database_url, "adapters") == count(deployment.database_url, "files") == 0
        assert registry.push(NEWS, "a").created

    def test_when_it_is_killed_while_storing(self, registry: Registry, deployment: Deployment):
        def die(what: str, done: int, total: int) -> None:
            if what == "storing":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            registry.push(NEWS, "a", progress=die)
        assert count(deployment.database_url, "adapters") == 0
        assert registry.push(NEWS, "a").created


def test_a_store_that_is_down_leaves_no_version(tmp_path: Path):
    home = {"home": str(tmp_path / "h")}
    registry = connect(**home, storage_url="s3://bucket/x", storage_endpoint="http://127.0.0.1:9")
    with pytest.raises(UnavailableError, match="does not answer"):
        registry.push(NEWS, "a")
    assert count(registry.settings.database_url, "adapters") == 0


def test_many_push_to_one_adapter_at_once(deployment: Deployment, tmp_path: Path):
    """Each process has a registry of its own; every content becomes exactly one version."""
    folders = [train(tmp_path / f"f{i}", i) for i in range(4)]

    def push(folder: Path) -> None:
        with connect(
            database_url=deployment.database_url,
            storage_url=deployment.storage_url,
            storage_endpoint=deployment.storage_endpoint,
        ) as registry:
            registry.push(folder, "team/busy")

    all_at_once([partial(push, folder) for folder in folders * 2])
    registry = connect(
        database_url=deployment.database_url,
        storage_url=deployment.storage_url,
        storage_endpoint=deployment.storage_endpoint,
    )
    assert sorted(version.number for version in registry.versions("team/busy").items) == [1, 2, 3, 4]


def test_words_of_strangers_fit_the_database(registry: Registry, tmp_path: Path):
    """Fields of a configuration that somebody else wrote: too long, with NUL, of another type."""
    odd = {
        "long": {"base_model_name_or_path": "/x" * 3000, "task_type": "T" * 500},
        "nul": {"base_model_name_or_path": "/a\x00b", "task_type": "T\x00"},
        "list": {"base_model_name_or_path": ["/secret"], "task_type": {"a": 1}},
    }
    for name, fields in odd.items():
        folder = change_config(copy(SCIENCE, tmp_path / name), **fields)
        (folder / "README.md").write_bytes(b"\x00\xff card " * 20_000)
        assert registry.push(folder, name, message="a\x00b").created


PRIVATE_FORMS = {
    "trailing separator": ("/home/anna/secret/llama/", "README.md", "trained on /home/anna/secret/llama"),
    "a log": ("/home/anna/secret/llama", "train.log", "loading /home/anna/secret/llama ..."),
    "no suffix": ("/home/anna/secret/llama", "NOTES", "base: /home/anna/secret/llama"),
    "windows in JSON": ("C:\\Users\\anna\\secret\\llama", "x.json", json.dumps("C:\\Users\\anna\\secret\\llama")),
    "escaped in JSON": ("/home/zoë/secret/llama", "x.json", json.dumps("/home/zoë/secret/llama")),
}


class TestEveryFormOfAPrivatePath:
    @pytest.mark.parametrize("form", PRIVATE_FORMS)
    def test_leaves_every_file(self, registry: Registry, tmp_path: Path, form: str):
        hint, name, content = PRIVATE_FORMS[form]
        folder = change_config(copy(SCIENCE, tmp_path / "f"), base_model_name_or_path=hint)
        (folder / name).write_text(content)
        registry.push(folder, "a")
        pulled = registry.pull("a", tmp_path / "p").folder
        assert all(b"secret" not in path.read_bytes() for path in pulled.iterdir())
        assert "llama" in (pulled / name).read_text()

    def test_leaves_the_other_fields_of_the_configuration(self, registry: Registry, tmp_path: Path):
        folder = change_config(copy(SCIENCE, tmp_path / "f"), corda_config={"cache_file": "/home/anna/secret.pt"})
        registry.push(folder, "a")
        config = json.loads((registry.pull("a", tmp_path / "p").folder / "adapter_config.json").read_text())
        assert config["corda_config"] == {"cache_file": None}


class TestStrangersRecords:
    """``loreg_merge.json`` may come from anybody: what is recorded of it can be shown again."""

    def merged(self, registry: Registry, tmp_path: Path) -> Path:
        registry.merge([str(SCIENCE)], MergeOptions(weights=[0.5]), folder=tmp_path / "m")
        return tmp_path / "m" / "loreg_merge.json"

    @pytest.mark.parametrize(
        "change",
        [
            {"certificate": {}},
            {"recipe": {"sources": []}},
            {"recipe": {"sources": [{"label": "x", "digest": "0" * 64, "weight": float("nan")}]}},
            {"recipe": {"sources": [{"label": "x", "digest": "zz", "weight": 1}]}},
            {"recipe": {"sources": [{"label": "x", "digest": "0" * 64, "weight": 1}] * 2}},
            {"recipe": {"note": "a\ud800"}},
        ],
        ids=str,
    )
    def test_what_is_not_whole_is_refused(
        self, registry: Registry, deployment: Deployment, tmp_path: Path, change: dict
    ):
        path = self.merged(registry, tmp_path)
        document = json.loads(path.read_text())
        changed = {key: {**document[key], **fields} if fields else {} for key, fields in change.items()}
        path.write_text(json.dumps({**document, **changed}))
        with pytest.raises(LoregError, match="is not what loreg writes"):
            registry.push(path.parent, "a")
        assert count(deployment.database_url, "versions") == 0


def test_half_a_character_is_refused_before_anything_is_stored(registry: Registry, tmp_path: Path):
    for i, fields in enumerate(({"base_model_name_or_path": "/x\ud800"}, {"task_type": "\ud800"})):
        with pytest.raises(LoregError, match="half a character"):
            registry.push(change_config(copy(SCIENCE, tmp_path / str(i)), **fields), "a")


def test_two_who_record_metrics_in_other_orders_do_not_lock_each_other_out(deployment: Deployment):
    def add(numbers: list[int]) -> None:
        with connect(
            database_url=deployment.database_url,
            storage_url=deployment.storage_url,
            storage_endpoint=deployment.storage_endpoint,
        ) as registry:
            registry.add_metrics("a", [f"m{i}={len(numbers) + i}" for i in numbers])

    with connect(
        database_url=deployment.database_url,
        storage_url=deployment.storage_url,
        storage_endpoint=deployment.storage_endpoint,
    ) as registry:
        registry.push(SCIENCE, "a")
    for _ in range(3):
        all_at_once([partial(add, list(range(30))), partial(add, list(range(30, -1, -1)))])
