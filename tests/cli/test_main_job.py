"""The whole command line, as a person types it, on SQLite with a folder and on PostgreSQL with S3."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from deployments import HISTORY, MOVIES, NEWS, SCIENCE, Deployment, Loreg
from factories import deltas_by_hand, relative_error, weighted_sum
from loreg.catalog.migrations import HEAD


@pytest.fixture
def pushed(loreg: Loreg) -> Loreg:
    loreg("push", NEWS, "team/news", "--task", "topics", "--metric", "accuracy=0.927@bbc-news:test", "-m", "first try")
    loreg("push", MOVIES, "team/movies", "--task", "sentiment", "--metric", "accuracy=0.793@movie-reviews")
    return loreg


def refs(outcome) -> list[str]:
    assert outcome.exit_code == 0, outcome.stderr
    return outcome.stdout.split()


def test_from_push_to_pull(pushed: Loreg, tmp_path: Path, minilm: Path):
    loreg = pushed
    assert refs(loreg("search", "--task", "topics", "--format", "quiet")) == ["team/news:v1"]
    merged = loreg(
        "merge", "team/news", "team/movies", "--weights", "0.7,0.3", "--extras", "team/news", "--push", "team/blend",
        "--task", "topics", "--alias", "prod",
    )  # fmt: skip
    assert merged.exit_code == 0, merged.stderr
    assert "linear: 100 % of the merged delta's energy is kept" in merged.stdout
    assert "pushed team/blend:v1@sha256:" in merged.stdout
    assert loreg("pull", "team/blend:prod", tmp_path / "blend").exit_code == 0
    expected = weighted_sum([deltas_by_hand(NEWS), deltas_by_hand(MOVIES)], [0.7, 0.3])
    assert relative_error(deltas_by_hand(tmp_path / "blend"), expected) < 1e-6
    assert_real_minilm_computes(minilm, tmp_path / "blend", expected)


def assert_real_minilm_computes(minilm: Path, folder: Path, deltas: dict[str, torch.Tensor]) -> None:
    """Real PEFT on the real model gives the output of the base with the deltas added to its weights."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    def base():
        torch.manual_seed(0)
        return AutoModelForSequenceClassification.from_pretrained(minilm, num_labels=5).eval()

    model = PeftModel.from_pretrained(base(), folder).eval()
    loaded = model.load_adapter(folder, "again")
    assert loaded.unexpected_keys == []
    assert [key for key in loaded.missing_keys if "lora" in key or "classifier" in key] == []
    reference = base()
    for name, delta in deltas.items():
        reference.get_submodule(name).weight.data += delta.float()
    head = load_file(NEWS / "adapter_model.safetensors")
    for part in ("weight", "bias"):
        getattr(reference.classifier, part).data = head[f"base_model.model.classifier.{part}"]
    ids = torch.tensor([[101, 2023, 3185, 2003, 2307, 102]])
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, reference(ids).logits, rtol=1e-4, atol=1e-5)


def test_search_by_everything(pushed: Loreg):
    loreg = pushed
    loreg("push", SCIENCE, "chat/science", "--label", "owner=ada", "--label", "stage=dev")
    loreg("metric", "add", "chat/science", "loss=1.82@chatterbot", "perplexity=6.2@chatterbot")
    quiet = ("--format", "quiet")
    all_refs = ["chat/science:v1", "team/movies:v1", "team/news:v1"]
    assert refs(loreg("search", *quiet)) == all_refs
    assert refs(loreg("search", "--base", "sentence-transformers/all-MiniLM-L6-v2", *quiet)) == all_refs[1:]
    assert refs(loreg("search", "--module", "query", "--module", "value", *quiet)) == all_refs[1:]
    assert refs(loreg("search", "--module", "q_proj", *quiet)) == all_refs[:1]
    assert refs(loreg("search", "--rank", "<=16", "--rank", ">4", *quiet)) == all_refs
    assert refs(loreg("search", "--metric", "accuracy>=0.9", *quiet)) == ["team/news:v1"]
    assert refs(loreg("search", "--metric", "accuracy>=0.7@movie-reviews", *quiet)) == ["team/movies:v1"]
    assert refs(loreg("search", "--label", "owner=ada", *quiet)) == ["chat/science:v1"]
    assert refs(loreg("search", "--author", "ada", "--variant", "lora", *quiet)) == all_refs
    assert refs(loreg("search", "first try", *quiet)) == ["team/news:v1"]
    assert refs(loreg("search", "--sort", "metric:accuracy", *quiet)) == ["team/news:v1", "team/movies:v1"]
    assert refs(loreg("search", "--sort", "name", *quiet)) == all_refs
    nothing = loreg("search", "--task", "nothing")
    note = "note: no task is called 'nothing'; loreg tasks lists those there are\n"
    assert (nothing.exit_code, nothing.stdout, nothing.stderr) == (0, "", f"{note}nothing found\n")


def test_pages(pushed: Loreg):
    first = pushed("search", "--limit", "1", "--format", "json")
    page = json.loads(first.stdout)
    assert [version["ref"] for version in page["items"]] == ["team/movies:v1"]
    second = json.loads(pushed("search", "--limit", "1", "--cursor", page["cursor"], "--format", "json").stdout)
    assert [version["ref"] for version in second["items"]] == ["team/news:v1"]
    assert second["cursor"] is None
    assert "there is more: --cursor" in pushed("ls", "--limit", "1").stderr


def test_a_version_as_json_has_everything(pushed: Loreg):
    shown = json.loads(pushed("show", "team/news", "--format", "json").stdout)
    version = shown["version"]
    assert version["adapter"] == "team/news"
    assert version["number"] == 1
    assert version["tasks"] == ["topics"]
    assert version["message"] == "first try"
    assert version["metrics"] == [
        {"name": "accuracy", "value": 0.927, "dataset": "bbc-news", "split": "test", "higher_is_better": True}
    ]
    assert [file["path"] for file in shown["files"]] == ["adapter_config.json", "adapter_model.safetensors"]


def test_tables_say_what_there_is(pushed: Loreg):
    listed = pushed("ls").stdout
    assert "team/news" in listed
    assert "NEWEST" in listed
    searched = pushed("search").stdout
    assert "accuracy=0.927@bbc-news:test" in searched
    assert "sentence-transformers/all-MiniLM-L6-v2?" in searched
    shown = pushed("show", "team/news").stdout
    for text in ("first try", "query", "adapter_model.safetensors", "rank 8"):
        assert text in shown


def test_aliases_and_yanking(pushed: Loreg, tmp_path: Path):
    loreg = pushed
    loreg("push", MOVIES, "team/news")
    assert "team/news:prod is now team/news:v1@sha256:" in loreg("tag", "team/news:v1", "prod").stdout
    assert "team/news:prod is now team/news:v2@" in loreg("tag", "team/news", "prod").stdout
    assert loreg("yank", "team/news:v2", "-m", "leaks").exit_code == 0
    assert loreg("show", "team/news:prod").exit_code == 3
    assert refs(loreg("show", "team/news", "--format", "quiet"))[0].startswith("team/news:v1@sha256:")
    assert "yanked" in loreg("ls", "team/news").stdout
    assert loreg("pull", "team/news:v2", tmp_path / "exact").exit_code == 0
    assert loreg("tag", "team/news:v2", "prod").exit_code == 4
    assert loreg("unyank", "team/news:v2").exit_code == 0
    assert refs(loreg("show", "team/news:prod", "--format", "quiet"))[0].startswith("team/news:v2@")
    assert loreg("untag", "team/news", "prod").exit_code == 0
    assert loreg("untag", "team/news", "prod").exit_code == 3
    moves = json.loads(loreg("show", "team/news", "--format", "json").stdout)["alias_moves"]
    assert [(move["alias"], move["number"]) for move in moves] == [("prod", None), ("prod", 2), ("prod", 1)]


def test_lineage(loreg: Loreg):
    loreg("push", SCIENCE, "science")
    loreg("push", HISTORY, "history")
    loreg("merge", "science", "history", "--weights", "1,-0.5", "--push", "blend")
    text = loreg("lineage", "blend").stdout
    assert "+1 × science:v1@sha256:" in text
    assert "-0.5 × history:v1@sha256:" in text
    edges = json.loads(loreg("lineage", "blend", "--format", "json").stdout)["edges"]
    assert [(edge["parent_ref"], edge["parent"]["weight"]) for edge in edges] == [
        ("science:v1", 1.0),
        ("history:v1", -0.5),
    ]
    assert refs(loreg("lineage", "blend", "--format", "quiet")) == ["science:v1", "history:v1"]
    assert "was pushed from a folder" in loreg("lineage", "science").stdout


def test_merge_to_a_folder_and_dry_run(loreg: Loreg, tmp_path: Path):
    loreg("push", SCIENCE, "science")
    assert loreg("merge", "science", HISTORY, "--weights", "-1,0.5", "--dry-run").exit_code == 0
    dry = loreg("merge", "science", HISTORY, "--weights", "1,1", "--rank", "8", "--dry-run")
    assert dry.exit_code == 0
    assert "rank 8 of 16" in dry.stdout
    assert refs(loreg("ls", "--format", "quiet")) == ["science"]
    written = loreg("merge", "science", HISTORY, "--weights", "1,1", "--to", tmp_path / "out", "--format", "quiet")
    assert refs(written) == [str(tmp_path / "out")]
    assert (tmp_path / "out" / "adapter_model.safetensors").exists()
    document = json.loads(loreg("merge", "science", "--weights", "2", "--dry-run", "--format", "json").stdout)
    assert document["provenance"]["certificate"]["total"]["rank"] == 8


def test_push_says_what_it_left_out(loreg: Loreg, tmp_path: Path):
    from factories import copy

    folder = copy(SCIENCE, tmp_path / "f")
    (folder / "optimizer.pt").write_bytes(b"")
    outcome = loreg("push", folder, "a")
    assert outcome.exit_code == 0
    assert "left out: optimizer.pt (training state)" in outcome.stderr
    assert "optimizer" not in outcome.stdout
    assert "no new version: this content is a:v1@" in loreg("push", folder, "a").stdout


def test_doctor_shows_settings_and_what_can_be_reached(loreg: Loreg, deployment: Deployment):
    outcome = loreg("doctor")
    assert outcome.exit_code == 0, outcome.stdout
    assert "environment" in outcome.stdout
    checks = {check["name"]: check for check in json.loads(loreg("doctor", "--format", "json").stdout)}
    assert checks["server" if deployment.endpoint else "database"]["ok"]
    assert checks["store"]["ok"]
    assert checks["torch"]["value"].startswith("2.")


def test_upgrade_says_what_it_did(loreg: Loreg, deployment: Deployment):
    loreg("ls")
    if deployment.endpoint:
        assert "loreg db upgrade on the server" in loreg("db", "upgrade").stderr
        return
    assert loreg("db", "upgrade").stdout == f"schema {HEAD}, no change\n"
