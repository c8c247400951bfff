"""Importing from the Hub with the real huggingface_hub, against a server that answers as the Hub does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments import Loreg, command_line, empty_home
from factories import change_config, train
from fake_hub_models import Models, serve_models
from loreg.adapters import hub_repository
from loreg.entities import ImportOptions, ImportStatus
from loreg.errors import NotFoundError, UnavailableError
from loreg.registry import Registry, connect

CARD = """---
base_model: org/tiny-1b
license: mit
datasets: [imdb]
pipeline_tag: text-classification
model-index:
- name: a
  results:
  - task: {type: text-classification}
    dataset: {name: IMDB, type: imdb, split: test}
    metrics: [{name: Accuracy, type: accuracy, value: 0.91}]
---
# An adapter that somebody described
"""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Models]]:
    root = tmp_path / "models"
    for number in range(5):
        change_config(train(root / "org" / f"a{number}", number), base_model_name_or_path="org/tiny-1b")
    (root / "org" / "a0" / "README.md").write_text(CARD)
    with serve_models(root, tmp_path / "cache", monkeypatch) as served:
        yield served


@pytest.fixture
def local_registry(tmp_path: Path) -> Registry:
    return connect(home=empty_home(tmp_path / "home"))


def weights_requests(hub: type[Models]) -> int:
    """How often whole files of weights were begun: the client asks for the head of each before."""
    return sum(count for path, count in hub.requests.items() if path.startswith("HEAD") and "safetensors" in path)


def refs(registry: Registry) -> set[str]:
    return {version.ref for version in registry.search(all_versions=True).items}


def test_a_model_comes_in_with_what_its_card_says(hub: type[Models], local_registry: Registry, tmp_path: Path):
    report = local_registry.import_runs(["hf:org/a0"], ImportOptions(namespace="team"))
    assert report.failures == ()
    details = local_registry.show("team/a0")
    version = details.version
    assert version.tasks == ("text-classification",)
    assert [str(metric) for metric in version.metrics] == ["accuracy=0.91@imdb:test"]
    assert version.facts.base_hint == "org/tiny-1b"
    assert version.labels["source"].startswith("hf:org/a0@")
    assert "somebody described" in details.card
    pulled = local_registry.pull("team/a0", tmp_path / "pulled").folder
    for name in ("adapter_model.safetensors", "adapter_config.json", "README.md"):
        assert (pulled / name).read_bytes() == (hub.root / "org" / "a0" / name).read_bytes()


def test_all_adapters_of_an_organisation_page_by_page(hub: type[Models], local_registry: Registry):
    (hub.root / "org" / "no-adapter").mkdir()
    (hub.root / "org" / "no-adapter" / "config.json").write_text("{}")
    planned = local_registry.plan_import(["hf:org"])
    assert [str(version.adapter) for version in planned.plan.versions] == [f"a{number}" for number in range(5)]
    assert hub.requests["GET /api/models"] == 3
    assert weights_requests(hub) == 0
    planned.run()
    assert refs(local_registry) == {f"a{number}:v1" for number in range(5)}


def test_the_second_import_downloads_what_is_new_and_no_more(hub: type[Models], local_registry: Registry):
    local_registry.import_runs(["hf:org"])
    hub.requests.clear()
    assert len(local_registry.import_runs(["hf:org"]).present) == 5
    assert weights_requests(hub) == 0
    train(hub.root / "org" / "a1", 77)
    change_config(hub.root / "org" / "a1", base_model_name_or_path="org/tiny-1b")
    train(hub.root / "org" / "a9", 78)
    report = local_registry.import_runs(["hf:org"])
    assert {ref.partition("@")[0] for ref in report.created} == {"a1:v2", "a9:v1"}
    assert {path for path in hub.requests if path.startswith("HEAD") and "safetensors" in path} == {
        f"HEAD /org/{name}/resolve/{Models.commit(hub_of(hub), f'org/{name}')}/adapter_model.safetensors"
        for name in ("a1", "a9")
    }


def hub_of(hub: type[Models]) -> Models:
    """The answering object, without a request to answer."""
    return hub.__new__(hub)


def test_what_failed_the_first_time_comes_with_the_second(
    hub: type[Models], local_registry: Registry, monkeypatch: pytest.MonkeyPatch
):
    download = hub_repository.HubRepository.download

    def fail(self, file):
        if self.name == "org/a3":
            raise NotFoundError("gone for a moment", hint="try again")
        return download(self, file)

    monkeypatch.setattr(hub_repository.HubRepository, "download", fail)
    report = local_registry.import_runs(["hf:org"])
    assert [failure.source for failure in report.failures] == ["hf:org/a3"]
    monkeypatch.undo()
    assert refs(local_registry) == {f"a{number}:v1" for number in (0, 1, 2, 4)}


def test_the_models_of_a_collection(hub: type[Models], local_registry: Registry):
    hub.collections["org/best-64f9"] = ["org/a1", "org/a3"]
    planned = local_registry.plan_import(["hf:collections/org/best-64f9"])
    assert [str(version.adapter) for version in planned.plan.versions] == ["a1", "a3"]


def test_checkpoints_of_a_model_are_its_versions(hub: type[Models], local_registry: Registry):
    for number, step in enumerate((10, 20)):
        train(hub.root / "org" / "run" / f"checkpoint-{step}", 20 + number)
    train(hub.root / "org" / "run", 30)
    local_registry.import_runs(["hf:org/run"], ImportOptions(checkpoints="all"))
    versions = sorted(local_registry.versions("run").items, key=lambda version: version.number)
    assert [version.labels.get("checkpoint") for version in versions] == ["checkpoint-10", "checkpoint-20", None]
    assert versions[-1].aliases == ("last",)
    assert all(len(local_registry.show(version.ref).files) == 3 for version in versions)


def test_the_token_of_the_hub_is_sent(hub: type[Models], local_registry: Registry, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    local_registry.import_runs(["hf:org/a0"])
    assert hub.authorizations == {"Bearer hf_secret"}


def test_too_many_requests_are_waited_out(hub: type[Models], local_registry: Registry):
    hub.busy = 3
    assert len(local_registry.plan_import(["hf:org/a0"]).plan.with_status(ImportStatus.NEW)) == 1


def test_the_hub_says_for_how_long(monkeypatch: pytest.MonkeyPatch):
    class Response:
        status_code = 429

        def __init__(self, **headers: str) -> None:
            self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    class BusyError(Exception):
        def __init__(self, response: Response) -> None:
            self.response = response

    answers = [Response(Retry_After="7"), Response(RateLimit='"api";r=0;t=11'), Response()]
    waits: list[float] = []

    def ask() -> str:
        if answers:
            raise BusyError(answers.pop(0))
        return "done"

    assert hub_repository.wait_for_turn(ask, waits.append) == "done"
    assert waits == [7.0, 11.0, 8.0]
    answers[:] = [Response(Retry_After="301")]
    with pytest.raises(BusyError):
        hub_repository.wait_for_turn(ask, waits.append)


def test_what_is_not_there_is_one_clear_line(hub: type[Models], local_registry: Registry):
    for text, message in (
        ("hf:org/nobody", "there is no such model"),
        ("hf:nobody", "the Hub shows no adapter of PEFT there"),
        ("hf:collections/org/nothing", "there is no such"),
    ):
        with pytest.raises(NotFoundError, match=message):
            local_registry.plan_import([text])
    (hub.root / "org" / "model").mkdir()
    (hub.root / "org" / "model" / "config.json").write_text("{}")
    with pytest.raises(NotFoundError, match=r"no adapter_config\.json"):
        local_registry.plan_import(["hf:org/model"])


def test_a_hub_that_is_down(local_registry: Registry):
    with pytest.raises(UnavailableError):
        local_registry.plan_import(["hf:org/a0"])


def test_names_of_a_wrapper_are_mended_on_the_way(hub: type[Models], local_registry: Registry):
    from safetensors.torch import load_file, save_file

    weights = hub.root / "org" / "a0" / "adapter_model.safetensors"
    plain, wrapped = "base_model.model.", "base_model.model._orig_mod."
    tensors = {name.replace(plain, wrapped): tensor for name, tensor in load_file(weights).items()}
    save_file(tensors, weights, {"format": "pt"})
    planned = local_registry.plan_import(["hf:org/a0"], ImportOptions(mend=True))
    (version,) = planned.plan.versions
    assert version.status == ImportStatus.NEW
    assert version.mend
    assert planned.run().failures == ()


def test_as_it_is_typed(hub: type[Models], tmp_path: Path):
    loreg: Loreg = command_line({"LOREG_HOME": empty_home(tmp_path / "home")})
    shown = loreg("import", "hf:org", "--namespace", "team", "--dry-run")
    assert shown.exit_code == 0, shown.stderr
    assert "team/a0:v1" in shown.stdout
    assert "hf:org/a0" in shown.stdout
    done = loreg("import", "hf:org", "--namespace", "team", "--yes", "--format", "json")
    assert done.exit_code == 0, done.stderr
    assert len(json.loads(done.stdout)["created"]) == 5
