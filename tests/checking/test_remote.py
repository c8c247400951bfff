"""Adapters that lie elsewhere are checked by their headers: a version where its blobs are, an adapter on the Hub."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from deployments import DORA, SCIENCE, Loreg
from factories import change_config, change_tensors, copy, train, write_base
from fake_hub import COMMIT, serve, use
from loreg.errors import MissingExtraError, NotAllowedError, UnavailableError
from loreg.registry import Registry, connect


@pytest.fixture
def local_registry(tmp_path: Path) -> Registry:
    return connect(home=str(tmp_path / "home"))


class TestAVersion:
    def test_is_checked_without_its_weights(self, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        base = write_base(tmp_path / "base")
        registry.push(train(tmp_path / "a", 1, use_dora=True), "a", base=str(base))
        sizes: list[int] = []
        part = registry.context.store.read_part
        monkeypatch.setattr(registry.context.store, "get", lambda *_: pytest.fail("the weights were fetched"))
        monkeypatch.setattr(
            registry.context.store, "read_part", lambda sha, start, n: sizes.append(n) or part(sha, start, n)
        )
        (report,) = registry.check(["a"], base=str(base), profiles=["vllm"], header_only=True)
        assert [finding.code for finding in report.findings] == ["LB003", "VL002"]
        assert report.notes == ("NaN, zero and huge numbers were not looked for: they need the weights",)
        assert sum(sizes) <= 64 * 1024

    def test_with_a_large_header_is_read_in_two_parts(self, registry: Registry, tmp_path: Path):
        adapter = copy(SCIENCE, tmp_path / "a")
        more = {f"base_model.model.{'x' * 200}.{i}.lora_{p}.weight": torch.ones(8, 8) for i in range(300) for p in "AB"}
        change_config(change_tensors(adapter, more), target_modules=r".*")
        registry.push(adapter, "a")
        (whole,), (remote,) = (registry.check(["a"], header_only=only) for only in (False, True))
        assert whole.findings == remote.findings == ()

    def test_says_the_same_as_the_folder(self, registry: Registry):
        registry.push(DORA, "dora")
        profiles = ["vllm", "sglang", "lorax", "llama.cpp"]
        (of_version,) = registry.check(["dora"], profiles=profiles, header_only=True)
        (of_folder,) = registry.check([str(DORA)], profiles=profiles, header_only=True)
        assert of_version.findings == of_folder.findings


@pytest.mark.parametrize("where", ["a", "folder"])
def test_copies_are_named(registry: Registry, tmp_path: Path, where: str):
    registry.push(SCIENCE, "team/science")
    registry.push(change_config(copy(SCIENCE, tmp_path / "a"), lora_dropout=0.5), "a")
    source = str(tmp_path / "a") if where == "folder" else "a"
    (report,) = registry.check([source])
    message = "the same weights are team/science:v1 already"
    assert [(f.code, f.severity, f.message) for f in report.findings] == [("LR017", "warning", message)]
    assert registry.check([str(DORA)])[0].findings == ()


class TestCopiesAreOfOtherAdapters:
    def test_a_folder_that_was_pushed_is_the_adapter_that_it_became(self, registry: Registry, tmp_path: Path):
        folder = change_config(copy(SCIENCE, tmp_path / "a"), base_model_name_or_path="/home/ada/base")
        registry.push(folder, "team/science")
        (report,) = registry.check([str(folder)])
        assert [finding.code for finding in report.findings] == ["LR015"]  # the path, which push takes out
        (folder / "README.md").write_text("Better said.")
        (report,) = registry.check([str(folder)])
        assert [finding.code for finding in report.findings] == ["LR015"]

    def test_versions_of_one_adapter_are_no_copies_of_each_other(self, registry: Registry, tmp_path: Path):
        registry.push(SCIENCE, "team/science")
        registry.push(change_config(copy(SCIENCE, tmp_path / "a"), lora_dropout=0.5), "team/science")
        for source in ("team/science:v1", "team/science:v2", str(SCIENCE), str(tmp_path / "a")):
            assert registry.check([source])[0].findings == ()

    def test_the_same_weights_with_another_configuration_are_a_copy(self, registry: Registry, tmp_path: Path):
        registry.push(SCIENCE, "team/science")
        (report,) = registry.check([str(change_config(copy(SCIENCE, tmp_path / "a"), lora_dropout=0.5))])
        assert [finding.code for finding in report.findings] == ["LR017"]

    def test_a_folder_pushed_under_two_names_is_a_copy(self, registry: Registry):
        registry.push(SCIENCE, "team/science")
        registry.push(SCIENCE, "copy")
        (report,) = registry.check([str(SCIENCE)])
        assert [f.message for f in report.findings] == ["the same weights are copy:v1 already"]


def test_a_catalog_is_not_made_only_to_look_for_copies(local_registry: Registry, tmp_path: Path):
    local_registry.check([str(SCIENCE)])
    assert not (tmp_path / "home" / "catalog.db").exists()


def test_a_catalog_that_does_not_answer_is_a_note():
    local_registry = connect(database_url="postgresql://nobody@127.0.0.1:9/none")
    (report,) = local_registry.check([str(SCIENCE)])
    assert report.findings == ()
    assert report.notes[0].startswith("whether these weights are in the registry already is not known: ")


class TestOnTheHub:
    def test_only_headers_are_asked_for(
        self, local_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        adapter = change_config(copy(DORA, tmp_path / "a"), base_model_name_or_path="/home/ada/x")
        (adapter / "README.md").write_text("---\nlicense: mit\n---\n")
        (tmp_path / "loreg.toml").write_text('[check]\ncard = ["license", "language"]\n')
        with serve(adapter, tmp_path / "cache", monkeypatch) as hub:
            (report,) = connect(home=str(tmp_path / "home")).check(["hf:org/tiny"], profiles=["vllm"])
            assert [finding.code for finding in report.findings] == ["LR015", "VL002", "LP006"]
            assert report.name == "hf:org/tiny"
            assert report.notes == ("NaN, zero and huge numbers were not looked for: they need the weights",)
            size = (adapter / "adapter_model.safetensors").stat().st_size
            assert hub.sent < 100_000 < size
            (report,) = local_registry.check([f"hf:org/tiny@{COMMIT}"])
            assert [finding.code for finding in report.findings] == ["LR015"]

    def test_a_copy_is_known_by_its_digest(
        self, local_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        local_registry.push(SCIENCE, "a")
        with serve(copy(SCIENCE, tmp_path / "x"), tmp_path / "cache", monkeypatch) as hub:
            weights = (SCIENCE / "adapter_model.safetensors").read_bytes()
            monkeypatch.setattr(hub, "sha256", hashlib.sha256(weights).hexdigest())
            (report,) = local_registry.check(["hf:org/tiny"])
        assert [finding.message for finding in report.findings] == ["the same weights are a:v1 already"]

    def test_what_is_no_adapter_is_a_finding(
        self, local_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        broken = copy(SCIENCE, tmp_path / "a")
        (broken / "adapter_model.safetensors").write_bytes(b"x" * 100)
        with serve(broken, tmp_path / "cache", monkeypatch) as hub:
            for source, message in (
                ("hf:org/tiny", "is not a sound safetensors file"),
                ("hf:org/nobody", "there is no such model on the Hub"),
                ("hf:org/pickled", "has no adapter_config.json: it is not a PEFT adapter"),
            ):
                (report,) = local_registry.check([source])
                assert [finding.code for finding in report.findings] == ["LR000"]
                assert message in report.findings[0].message
            with pytest.raises(NotAllowedError, match="gated"):
                local_registry.check(["hf:org/gated"])
            assert hub.sent < 10_000

    def test_without_network_or_extra_it_is_told(
        self, local_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        use(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache", offline=False)
        with pytest.raises(UnavailableError, match="the Hub does not answer"):
            local_registry.check(["hf:org/tiny"])
        monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
        with pytest.raises(MissingExtraError):
            local_registry.check(["hf:org/tiny"])


def test_against_by_command_line(local: Loreg, tmp_path: Path):
    local("push", train(tmp_path / "a", 1), "a", "--metric", "f1=0.9", "--alias", "prod")
    local("push", train(tmp_path / "b", 2), "a", "--metric", "f1=0.8")
    done = local("check", "a", "--against", "prod", "--format", "json")
    assert done.exit_code == 5
    assert [finding["code"] for finding in json.loads(done.stdout)[0]["findings"]] == ["LP008"]
    assert local("check", "a:v1", "--against", "prod").exit_code == 0
