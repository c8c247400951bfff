"""Importing from a tracking server of MLflow, by its REST API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments import empty_home
from factories import change_config, train
from fake_mlflow import Tracking, serve_tracking
from loreg.entities import ImportOptions
from loreg.errors import LoregError, NotAllowedError, NotFoundError, UnavailableError, UsageError
from loreg.registry import Registry, connect


@pytest.fixture
def tracking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Tracking]]:
    with serve_tracking(tmp_path / "artifacts", monkeypatch) as served:
        for number in range(3):
            run_id = f"{number:032x}"
            change_config(train(served.root / run_id / "adapter", number), base_model_name_or_path="/home/ada/tiny-1b")
            served.runs[run_id] = {
                "name": f"lr-{number}",
                "params": {"learning_rate": "0.0002", "seed": str(number), "output_dir": "/home/ada/secret/out"},
                "metrics": {"eval_loss": [(10, 0.7), (20, 0.5), (30, 0.6)], "train_runtime": [(0, 12.0)]},
            }
        yield served


@pytest.fixture
def local_registry(tmp_path: Path) -> Registry:
    return connect(home=empty_home(tmp_path / "home"))


def test_a_run_comes_in_with_what_was_logged(tracking: type[Tracking], local_registry: Registry, tmp_path: Path):
    run_id = f"{1:032x}"
    report = local_registry.import_runs([f"mlflow:{run_id}"], ImportOptions(namespace="team"))
    assert report.failures == ()
    version = local_registry.show("team/lr-1").version
    assert [str(metric) for metric in version.metrics] == ["eval_loss=0.6"]
    assert (version.labels["seed"], version.labels["learning_rate"]) == ("1", "0.0002")
    assert version.labels["source"] == f"mlflow:{run_id}/adapter"
    assert version.message == "final state of the run lr-1"
    assert version.facts.base_hint == "tiny-1b"
    assert "/home/ada" not in repr(version)
    pulled = local_registry.pull("team/lr-1", tmp_path / "pulled").folder
    weights = "adapter_model.safetensors"
    assert (pulled / weights).read_bytes() == (tracking.root / run_id / "adapter" / weights).read_bytes()


def test_an_experiment_is_all_of_its_runs_and_the_second_time_what_is_new(
    tracking: type[Tracking], local_registry: Registry
):
    created = local_registry.import_runs(["mlflow:experiments/loras"]).created
    assert [ref.partition("@")[0] for ref in created] == ["lr-0:v1", "lr-1:v1", "lr-2:v1"]
    run_id = f"{3:032x}"
    train(tracking.root / run_id / "adapter", 9)
    tracking.runs[run_id] = {"name": "lr-3", "params": {}, "metrics": {}}
    report = local_registry.import_runs(["mlflow:experiments/loras"])
    assert [ref.partition("@")[0] for ref in report.created] == ["lr-3:v1"]
    assert len(report.present) == 3


def test_checkpoints_have_the_numbers_of_their_steps(tracking: type[Tracking], local_registry: Registry):
    run_id = f"{0:032x}"
    for number, step in enumerate((10, 20)):
        train(tracking.root / run_id / f"checkpoint-{step}", 20 + number)
    local_registry.import_runs([f"mlflow:{run_id}"], ImportOptions(checkpoints="all", namespace="n"))
    by_label = {v.labels.get("checkpoint", ""): v for v in local_registry.search(all_versions=True).items}
    measured = {label: [metric.value for metric in version.metrics] for label, version in by_label.items()}
    assert measured == {"checkpoint-10": [0.7], "checkpoint-20": [0.5], "": [0.6]}


def test_the_versions_of_a_registered_model_are_versions(tracking: type[Tracking], local_registry: Registry):
    tracking.models["news"] = [
        {
            "name": "news", "version": str(number + 1), "run_id": f"{number:032x}",
            "source": f"mlflow-artifacts:/1/{number:032x}/artifacts/adapter", "status": "READY",
        }
        for number in range(3)
    ]  # fmt: skip
    local_registry.import_runs(["mlflow:models/news"], ImportOptions(checkpoints="all"))
    versions = local_registry.versions("news").items
    assert [version.labels["checkpoint"] for version in versions] == ["version-3", "version-2", "version-1"]
    assert [version.labels["seed"] for version in versions] == ["2", "1", "0"]
    assert versions[0].aliases == ("last",)


def test_every_file_is_downloaded_once(tracking: type[Tracking], local_registry: Registry):
    run_id = f"{0:032x}"
    local_registry.plan_import([f"mlflow:{run_id}"]).run()
    assert tracking.requests["/get-artifact"] == len([*(tracking.root / run_id / "adapter").iterdir()])


def test_no_artifact_is_written_outside(tracking: type[Tracking], local_registry: Registry, tmp_path: Path):
    run_id = f"{0:032x}"
    tracking.runs[run_id]["listed"] = [
        {"path": path, "is_dir": is_dir, "file_size": 4}
        for path in ("../../evil/adapter_config.json", "/tmp/evil/adapter_config.json", "..")
        for is_dir in (False, True)
    ]
    planned = local_registry.plan_import([f"mlflow:{run_id}"])
    assert [version.source for version in planned.plan.versions] == [f"mlflow:{run_id}/adapter"]


def test_every_artifact_is_listed_however_many_there_are(tracking: type[Tracking], local_registry: Registry):
    run_id = f"{0:032x}"
    many = [{"path": f"images/{number}.png", "is_dir": False, "file_size": 1} for number in range(10_500)]
    tracking.runs[run_id]["listed"] = many
    planned = local_registry.plan_import([f"mlflow:{run_id}"])
    assert [version.source for version in planned.plan.versions] == [f"mlflow:{run_id}/adapter"]


def test_a_store_that_invents_artifacts_without_end_is_told(
    tracking: type[Tracking], local_registry: Registry, monkeypatch: pytest.MonkeyPatch
):
    run_id = f"{0:032x}"
    tracking.runs[run_id]["listed"] = [{"path": f"f{n}", "is_dir": False, "file_size": 1} for n in range(20)]
    monkeypatch.setattr("loreg.runs.mlflow_server._MAX_ENTRIES", 10)
    with pytest.raises(LoregError, match=f"run {run_id} has more than 10 artifacts"):
        local_registry.plan_import([f"mlflow:{run_id}"])


def test_every_run_of_an_experiment_and_every_metric_is_read(tracking: type[Tracking], local_registry: Registry):
    run_id = f"{0:032x}"
    for number in range(3, 30):  # the server sends two a page
        tracking.runs[f"{number:032x}"] = {"name": f"empty-{number}", "params": {}, "metrics": {}}
        (tracking.root / f"{number:032x}").mkdir()
    train(tracking.root / f"{29:032x}" / "adapter", 29)
    train(tracking.root / run_id / "checkpoint-10", 30)
    metrics = {f"quality_{number:02}": [(10, float(number))] for number in range(60)}
    tracking.runs[run_id]["metrics"] = metrics
    planned = local_registry.plan_import(["mlflow:experiments/loras"]).plan
    assert "empty-29" in {version.adapter.name for version in planned.versions}
    (checkpoint,) = (version for version in planned.versions if version.checkpoint)
    assert {metric.name for metric in checkpoint.metrics} == metrics.keys()


def test_pages_that_lead_in_a_circle_are_told(
    tracking: type[Tracking], local_registry: Registry, monkeypatch: pytest.MonkeyPatch
):
    def repeat(self: Tracking, entries: list[object], name: str, asked: dict[str, object]) -> None:
        following = {"a": "b", "b": "a"}.get(str(asked.get("page_token")), "a")
        self._send(200, {name: entries[:1], "next_page_token": following})

    monkeypatch.setattr(tracking, "_page", repeat)
    with pytest.raises(UnavailableError, match="names the same page of runs/search twice"):
        local_registry.plan_import(["mlflow:experiments/loras"])


def test_a_listing_that_makes_no_sense_is_passed_over(tracking: type[Tracking], local_registry: Registry):
    """An entry without a path, a size that is no number, and a folder that every folder lists as its own."""
    run_id = f"{0:032x}"
    entries = [{"is_dir": False}, "text", {"path": "adapter/x.txt", "file_size": "big"}]
    tracking.runs[run_id]["listed"] = [*entries, {"path": "adapter", "is_dir": True}]
    planned = local_registry.plan_import([f"mlflow:{run_id}"])
    assert [version.source for version in planned.plan.versions] == [f"mlflow:{run_id}/adapter"]


def test_what_goes_wrong_is_one_clear_line(
    tracking: type[Tracking], local_registry: Registry, monkeypatch: pytest.MonkeyPatch
):
    for text, message in (
        ("mlflow:nope", "Run with id=nope not found"),
        ("mlflow:experiments/nope", "Could not find experiment with name 'nope'"),
        ("mlflow:models/nope", "Registered Model with name=nope not found"),
    ):
        with pytest.raises(NotFoundError, match=message):
            local_registry.plan_import([text])
    monkeypatch.setattr(tracking, "token", "secret")
    with pytest.raises(NotAllowedError) as error:
        local_registry.plan_import(["mlflow:experiments/loras"])
    assert "MLFLOW_TRACKING_TOKEN" in error.value.hint
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
    assert len(local_registry.plan_import(["mlflow:experiments/loras"]).plan.versions) == 3
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(UnavailableError, match="does not answer"):
        local_registry.plan_import(["mlflow:nope"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns")
    with pytest.raises(UsageError) as usage:
        local_registry.plan_import(["mlflow:nope"])
    assert "loreg import ./mlruns" in usage.value.hint
