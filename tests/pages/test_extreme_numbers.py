"""Numbers of any size and with many digits: no page fails for them, and none is another in a command or a form."""

from __future__ import annotations

import html
import math
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import expect
from safetensors.torch import load_file, save_file

from deployments import Deployment, command_line, empty_folders
from factories import train
from live_server import live_server
from loreg.entities import Metric
from loreg.registry import connect
from loreg.server.pages.templating import format_number
from pages.conftest import Site, Someone

PAGE = {"Accept": "text/html"}
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


def scale(folder: Path, factor: float) -> Path:
    """Write an adapter in float64 of which both factors are so many times larger."""
    train(folder, 1)
    tensors = {key: factor * value.double() for key, value in load_file(folder / "adapter_model.safetensors").items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """A registry with metrics at both ends of what a float holds, and with weights there."""
    folder = tmp_path_factory.mktemp("extreme")
    deployment = empty_folders(folder)
    with connect(database_url=deployment.database_url, storage_url=deployment.storage_url) as registry:
        for name, factor in (("huge", 1e160), ("largest", 1e307), ("tiny", 1e-170), ("zero", 0.0)):
            registry.push(scale(folder / name, factor), f"lab/{name}")
        for sign in (1, -1):
            numbers = {"loss": sys.float_info.max, "least": 5e-324, "nothing": -0.0, "accuracy": 0.123456789012}
            metrics = [Metric(name, sign * number, "squad_v2.0", "dev") for name, number in numbers.items()]
            registry.push(scale(folder / f"measured{sign}", 1 + sign / 2), "lab/measured", metrics=metrics)
    return deployment


@pytest.fixture(scope="module")
def endpoint(deployment: Deployment) -> Iterator[str]:
    with live_server(deployment) as endpoint:
        yield endpoint


@given(NUMBERS)
def test_a_number_in_a_form_or_a_command_is_that_number(value: float):
    assert float(format_number(value)) == value


@given(NUMBERS, NUMBERS)
def test_a_slider_reaches_both_ends_whatever_they_are(a: float, b: float):
    from loreg.entities import MetricRange
    from loreg.server.pages.facets import _build_slider

    low, high = sorted((a, b))
    slider = _build_slider(MetricRange("loss", low, high, higher_is_better=False), None, is_chosen=True)
    assert all(map(math.isfinite, (slider.low, slider.high, slider.step)))
    assert slider.low <= low <= high <= slider.high
    assert slider.step > 0


def test_no_page_fails_for_numbers_of_any_size(endpoint: str, someone: Someone):
    person = someone(endpoint)
    names = ("huge", "largest", "tiny", "zero")
    query = "&".join(f"source=lab/{name}" for name in names)
    for path in (
        "/",
        "/?all_versions=1",
        "/facets?all_versions=1",
        "/lab/measured",
        "/lab/measured/v2",
        "/lab/measured/diff/v1..v2",
        *(f"/lab/{name}/v1" for name in names),
        *(f"/merge?source=lab/{name}&source=lab/measured&compute=1&rank=2" for name in names),
        f"/compare?{query}&compute=1",
        "/compare?source=lab/tiny&source=lab/zero&compute=1",
    ):
        main = person.go(path).get_by_role("main")
        assert not re.search(r"\b[+-]?(nan|inf)\b", main.inner_text()), path


@pytest.mark.parametrize("name", ["huge", "largest"])
@pytest.mark.parametrize("command", ["spectra {}", "compare {} lab/zero", "merge {} lab/zero --dry-run"])
def test_the_command_refuses_weights_that_cannot_be_squared_in_one_line(
    deployment: Deployment, name: str, command: str
):
    outcome = command_line(deployment.environment)(*command.format(f"lab/{name}").split())
    assert outcome.exit_code == 1
    assert re.search(r"^error: .*(float64)", outcome.stderr, re.M)


def test_a_bound_keeps_its_digits_and_the_name_of_its_dataset(endpoint: str, someone: Someone, deployment: Deployment):
    page = someone(endpoint).go("/?metric=accuracy>=0.123456789012@squad_v2.0:dev&all_versions=1")
    command = page.locator(".command code").inner_text()
    refs = command_line(deployment.environment)(*shlex.split(command)[1:], "--format", "quiet").stdout.split()
    shown = [box.get_attribute("value") for box in page.get_by_role("checkbox").all()]
    assert [ref.partition("@")[0] for ref in refs] == shown == ["lab/measured:v1"]
    page = someone(endpoint).go("/?metric=accuracy>=0.123456789012&all_versions=1")
    expect(page.get_by_label("Bound")).to_have_value("0.123456789012")


def test_a_weight_of_many_digits_is_the_same_in_the_command_the_recipe_and_the_job(site: Site):
    weights = (0.12345678901234566, 1 / 3)
    query = {"source": ["team/science:v1", "lab/history:v1"], "weight": [str(weight) for weight in weights]}
    with site.visit("root") as client:
        answer = html.unescape(client.get("/merge", params={**query, "compute": "1"}).text)
        recipe = re.search(r'href="(/_/merge.toml[^"]*)"', answer)
        text = client.get(recipe[1]).text if recipe else ""
        document = client.get("/merge", params={**query, "format": "json"}).json()
    assert f"--weights {weights[0]!r},{weights[1]!r}" in answer
    assert f"weight={weights[0]!r}&weight={weights[1]!r}" in answer  # as the job's form has it
    assert f"weights = [{weights[0]!r}, {weights[1]!r}]" in text
    assert [source["weight"] for source in document["sources"]] == list(weights)


def test_a_program_gets_a_problem_for_weights_that_cannot_be_squared(endpoint: str):
    answer = httpx.get(f"{endpoint}/api/v1/merge-preview?source=lab/huge")
    assert (answer.status_code, "float64" in answer.json()["detail"]) == (422, True)
