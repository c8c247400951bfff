"""The page of two versions says what changed between them: numbers, configuration, ranks, files and the card."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from deployments import SCIENCE, Deployment, empty_folders
from factories import change_config, change_tensors, copy
from live_server import live_server
from loreg.registry import Registry, connect
from pages.conftest import Site, Someone

MODULE = "model.layers.0.self_attn.q_proj"
SAME = ["accuracy=0.8@arc", "loss=1.5", "speed=3"]


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return empty_folders(tmp_path)


@pytest.fixture
def registry(deployment: Deployment) -> Iterator[Registry]:
    with connect(database_url=deployment.database_url, storage_url=deployment.storage_url) as registry:
        yield registry


@pytest.fixture
def endpoint(deployment: Deployment) -> Iterator[str]:
    """A server of the registry, in which nobody needs a token."""
    with live_server(deployment) as endpoint:
        yield endpoint


def push_two(registry: Registry, folder: Path) -> None:
    registry.push(SCIENCE, "team/science", metrics=SAME, labels={"run": "1"}, tasks=["qa"])
    other = change_config(copy(SCIENCE, folder / "other"), lora_dropout=0.25)
    change_tensors(other, {f"base_model.model.{MODULE}.lora_{side}.weight": None for side in "AB"})
    (other / "README.md").write_text("# A better one\n", encoding="utf-8")
    better = ["accuracy=0.9@arc", "loss=1.75", "speed=3", "size=1"]
    registry.push(other, "team/science", metrics=better, labels={"run": "2"}, tasks=["qa", "science"])


def test_each_thing_that_changed_is_in_its_table(registry: Registry, endpoint: str, tmp_path: Path, someone: Someone):
    push_two(registry, tmp_path)
    page = someone(endpoint).go("/team/science/diff/v1..v2")
    rows = [row.inner_text().split() for row in page.get_by_role("row").all()]
    assert ["accuracy@arc", "0.8", "0.9", "+0.1", "better"] in rows
    assert ["loss", "1.5", "1.75", "+0.25", "worse"] in rows
    assert ["size", "–", "1", "new"] in rows
    assert ["speed", "3", "3"] in rows
    assert ["lora_dropout", "0.05", "0.25"] in rows or ["lora_dropout", "0.0", "0.25"] in rows
    assert [MODULE, "8", "–"] in rows
    assert ["Label", "run", "1", "2"] in rows
    assert ["Task", "science", "–", "yes"] in rows
    expect(page.get_by_role("region", name="Files").get_by_role("row")).to_have_count(4)
    assert "+# A better one" in page.locator("pre.lines").inner_text()
    expect(page.get_by_text("59 modules have the same rank in both")).to_have_count(1)


def test_as_json_it_is_what_the_command_says_without_the_weights(registry: Registry, endpoint: str, tmp_path: Path):
    push_two(registry, tmp_path)
    shown = httpx.get(f"{endpoint}/team/science/diff/v1..v2?format=json").json()
    difference = registry.diff("team/science:v1", "team/science:v2")
    assert [tuple(field.values()) for field in shown["metrics"]] == [(f.name, f.a, f.b) for f in difference.metrics]
    assert shown["card"] == list(difference.card)
    assert [module["rank_b"] for module in shown["modules"]] == [module.rank_b for module in difference.modules]


def test_two_versions_are_chosen_on_the_page_of_the_adapter(site: Site, someone: Someone):
    person = someone(site.endpoint)
    person.sign_in(site.tokens["reader"])
    page = person.go("/team/news")
    page.get_by_role("link", name="since v1").click()
    page.wait_for_url("**/team/news/diff/v1..v2")
    page = person.go("/team/news")
    page.get_by_label("What changed from").select_option("v2")
    page.get_by_label("to", exact=True).select_option("v1")
    page.get_by_role("form", name="Compare two versions").get_by_role("button").click()
    page.wait_for_url("**/team/news/diff/v2..v1")
    expect(page.get_by_role("row", name="accuracy@ag_news:test").get_by_text("worse")).to_have_count(1)


def test_a_version_whose_weights_are_lost_is_compared_by_the_rest(
    registry: Registry, endpoint: str, tmp_path: Path, someone: Someone
):
    push_two(registry, tmp_path)
    (weights,) = [f for f in registry.show("team/science:v2").files if f.path == "adapter_model.safetensors"]
    for blob in (tmp_path / "store").rglob(f"*{weights.sha256}*"):
        blob.unlink()
    page = someone(endpoint).go("/team/science/diff/v1..v2")
    expect(page.locator(".notice.bad")).to_have_count(1)
    expect(page.get_by_role("row", name="accuracy@arc").get_by_text("better")).to_have_count(1)
    expect(page.get_by_text("It is the same")).to_have_count(0)
