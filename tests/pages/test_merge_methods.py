"""A person chooses the method of a merge, finds adapters by a word, and waits while others are read."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments import HISTORY, SCIENCE, Deployment, empty_folders
from live_server import live_server
from loreg.local import reduced_versions
from loreg.registry import Registry, connect
from pages.conftest import Site, Someone
from pages.test_merge import PATH, SOURCES, as_shown, shown


def test_the_numbers_follow_the_method(site: Site, someone: Someone):
    person = someone(site.endpoint)
    person.sign_in(site.tokens["reader"])
    page = person.go(PATH)
    for method in ("slerp", "karcher", "model_stock"):
        page.get_by_label("Method").select_option(method)
        page.get_by_text(f"--method {method} --rank 8 --dry-run").first.wait_for()
        assert shown(page) == as_shown(site.behind.preview_merge(SOURCES, [0.7, 0.3], rank=8, method=method))
    page.wait_for_url("**method=model_stock*")
    with site.visit("reader") as client:
        path = page.get_by_role("link", name="The recipe as a file").get_attribute("href")
        assert tomllib.loads(client.get(path).text)["method"] == "model_stock"
        answer = client.get(f"{PATH}&method=slerp&format=json").json()
        assert (
            answer
            == client.get(
                f"/api/v1/merge-preview?{PATH.partition('?')[2]}&method=slerp",
                headers={"Authorization": f"Bearer {site.tokens['reader']}"},
            ).json()
        )


def test_of_a_method_that_is_not_previewed_the_command_stands_there(site: Site, someone: Someone):
    person = someone(site.endpoint)
    person.sign_in(site.tokens["reader"])
    page = person.go(f"{PATH}&method=ties&compute=1")
    numbers = page.locator("#numbers").inner_text()
    assert "'ties' is not previewed" in numbers
    assert f"loreg merge {' '.join(SOURCES)} --weights 0.7,0.3 --method ties --rank 8 --dry-run" in numbers


@pytest.mark.parametrize("has_scripts", [True, False])
def test_an_adapter_is_found_by_a_word_and_keeps_the_weights(site: Site, someone: Someone, has_scripts: bool):
    person = someone(site.endpoint, java_script_enabled=has_scripts)
    person.sign_in(site.tokens["reader"])
    page = person.go("/merge?source=team/science:v1&weight=0.25")
    page.get_by_label("Add an adapter").press_sequentially("history")
    if not has_scripts:
        page.get_by_role("button", name="Show").click()
    page.get_by_role("button", name="+ lab/history:v1").click()
    page.get_by_label("Weight of lab/history:v1").wait_for()
    assert page.get_by_label("Weight of team/science:v1").input_value() == "0.25"
    assert page.get_by_label("Weight of lab/history:v1").input_value() == "1"


@pytest.fixture
def registered(tmp_path: Path) -> Iterator[tuple[Registry, str]]:
    deployment = empty_folders(tmp_path)
    with connect(**deployment.settings) as registry, live_server(deployment) as endpoint:
        for name, folder in (("a", SCIENCE), ("b", HISTORY)):
            registry.push(folder, f"team/{name}")
        yield registry, endpoint


def test_while_others_are_read_the_page_asks_again_by_itself(
    registered: tuple[Registry, str], someone: Someone, monkeypatch: pytest.MonkeyPatch
):
    registry, endpoint = registered
    monkeypatch.setattr(reduced_versions, "_MAX_WAIT", 0.01)
    with reduced_versions.one_at_a_time():
        page = someone(endpoint).go("/merge?source=team/a&source=team/b&rank=4")
        page.get_by_role("status").get_by_text("the registry reads other adapters now").wait_for()
    page.locator("#epsilon").wait_for()
    assert shown(page) == as_shown(registry.preview_merge(["team/a", "team/b"], rank=4))


def test_on_postgresql_and_s3(someone: Someone, deployment: Deployment):
    """On each deployment sliders and methods show what the registry behind them computes."""
    with connect(**deployment.settings) as registry:
        for name, folder in (("a", SCIENCE), ("b", HISTORY)):
            registry.push(folder, f"team/{name}")
        if deployment.endpoint:
            assert_merges(someone, deployment.endpoint, registry)
        else:
            with live_server(deployment) as endpoint:
                assert_merges(someone, endpoint, registry)


def assert_merges(someone: Someone, endpoint: str, registry: Registry) -> None:
    page = someone(endpoint).go("/merge?source=team/a&source=team/b&rank=4")
    page.get_by_label("Weight of team/a").fill("0.6")
    page.get_by_label("Method").select_option("slerp")
    page.get_by_text("--weights 0.6,1 --method slerp").first.wait_for()
    assert shown(page) == as_shown(registry.preview_merge(["team/a", "team/b"], [0.6, 1], rank=4, method="slerp"))
