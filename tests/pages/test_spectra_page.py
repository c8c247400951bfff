"""A person looks inside a version: how large the delta of each module is, and over how many directions it spreads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from deployments import DORA, SCIENCE, empty_folders
from factories import deltas_by_hand
from live_server import live_server
from loreg.local import reduced_versions
from loreg.registry import connect
from pages.conftest import Site, Someone

PATH = "/team/science/v1/spectra"


def titles(part) -> list[str]:
    return [title.text_content() for title in part.locator("title").all()]


def test_the_version_shows_norms_and_spectra_of_every_module(site: Site, someone: Someone):
    person = someone(site.endpoint)
    person.sign_in(site.tokens["reader"])
    page = person.go("/team/science/v1")
    deltas = deltas_by_hand(SCIENCE)
    maps = page.locator("#spectra .heat")
    norms = dict(title.split(": norm ") for title in titles(maps.nth(0)))
    assert norms == {module: f"{np.linalg.norm(delta):.4g}" for module, delta in deltas.items()}
    lines = [title.split(":")[0] for title in titles(page.locator("#spectra svg.spectra"))]
    assert lines == sorted(deltas)


@pytest.mark.parametrize("has_scripts", [True, False])
def test_one_module_is_shown_large(site: Site, someone: Someone, has_scripts: bool):
    person = someone(site.endpoint, java_script_enabled=has_scripts)
    person.sign_in(site.tokens["reader"])
    page = person.go(PATH)
    chosen = "model.layers.3.self_attn.v_proj"
    page.get_by_label("One module").select_option(chosen)
    if not has_scripts:
        page.get_by_role("button", name="Show").click()
    page.get_by_role("heading", name=chosen).wait_for()
    s = np.linalg.svd(deltas_by_hand(SCIENCE)[chosen].numpy(), compute_uv=False)[:8]
    bars = titles(page.locator("#chosen svg"))
    assert [title.split(";")[0] for title in bars] == [f"σ{i} = {sigma:.4g}" for i, sigma in enumerate(s, 1)]
    assert bars[-1].endswith("the first 8 hold 100 %")


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[str]:
    deployment = empty_folders(tmp_path)
    with connect(**deployment.settings) as registry, live_server(deployment) as endpoint:
        registry.push(DORA, "team/dora")
        registry.push(SCIENCE, "team/science")
        yield endpoint


def test_what_no_factors_tell_is_said_in_words(endpoint: str, someone: Someone):
    page = someone(endpoint).go("/team/dora/v1")
    assert "use_dora is true: its delta needs the base" in page.locator("#spectra").inner_text()


def test_who_comes_while_others_are_read_sees_it_a_little_later(
    endpoint: str, someone: Someone, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reduced_versions, "_MAX_WAIT", 0.01)
    with reduced_versions.one_at_a_time():
        page = someone(endpoint).go(PATH)
        assert "the registry reads other adapters now" in page.get_by_role("status").inner_text()
    page.get_by_role("heading", name="Norm of the delta").wait_for()
