"""An upgrade of a base has a page: what it means for each adapter that the visitor may read, as it was recorded."""

from __future__ import annotations

from pathlib import Path

import html5lib
import httpx
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from factories import new_model, train, write_base
from loreg.entities import BaseModel, NewUpgrade, NewVerdict, ProbeLoss, UpgradeVerdict
from loreg.registry import Registry
from pages.conftest import Site, Someone

Q = "layers.0.q_proj.weight"
V = "layers.1.v_proj.weight"
MODULES = {
    "exact": ["layers.1.q_proj"],
    "copy": ["layers.0.q_proj", "layers.1.q_proj"],
    "retrain": ["layers.1.q_proj", "layers.1.v_proj"],
}
SCRIPT = "<script>alert('x')</script><img src=x onerror=alert(1)>"
LONG = "W" * 900


def upgrade(registry: Registry, folder: Path, namespaces: tuple[str, ...]) -> tuple[BaseModel, BaseModel]:
    """Push an adapter for each verdict into each namespace, and record what an upgrade of their base means for them."""
    old = write_base(folder / "old")
    torch.manual_seed(4)
    weight = new_model().state_dict()[Q]
    new = write_base(folder / "new", {Q: weight + 0.01 * torch.randn(24, 20), V: torch.ones(20, 25)})
    for namespace in namespaces:
        for number, (name, modules) in enumerate(MODULES.items()):
            adapter = train(folder / namespace / name, number, target_modules=modules)
            registry.push(adapter, f"{namespace}/{name}", base=old)
    registry.bases.add(new, ["org/new"])
    report = registry.upgrade_base(old, new)
    assert report.recorded == 3 * len(namespaces)
    return report.old, report.new


def record(registry: Registry, old: BaseModel, new: BaseModel, ref: str, reason: str, task: str) -> None:
    """Record what a client may say of a version, whatever it is."""
    version = registry.show(ref).version
    losses = (ProbeLoss(task, 128, 3.5, 3.0, 3.4, 3.1),)
    figures = (UpgradeVerdict.COPY, reason, 4, 2, 0.2, 0.1, 0.01, 0.0, losses)
    verdict = NewVerdict(version.ref, version.digest, *figures)
    assert registry.context.backend.record_upgrade(NewUpgrade(old.digest, new.digest, 10, 2, 0.1, (verdict,))) == 1


def rows_of(text: str) -> list[str]:
    document = html5lib.parse(text, namespaceHTMLElements=False)
    return ["".join(row.itertext()) for row in document.iter("tr")][1:]


def test_a_person_comes_from_the_base_to_the_adapters_and_to_what_moved(
    on_either: Site, someone: Someone, tmp_path: Path
):
    old, new = upgrade(on_either.behind, tmp_path, ("team",))
    on_either.behind.upgrade_base(tmp_path / "old", tmp_path / "new", ["team/copy"], move=True)
    person = someone(on_either.endpoint)
    person.sign_in(on_either.tokens["reader"])
    page = person.go(f"/bases/{old.digest}")
    page.get_by_role("region", name="Upgrades").get_by_role("link").click()
    page.wait_for_url(f"**/bases/{old.digest}/upgrades/{new.digest}")
    rows = page.get_by_role("region", name="Adapters").get_by_role("row")
    shown = [row.inner_text() for row in rows.all()[1:]]
    assert [text.split()[0] for text in shown] == ["team/exact:v1", "team/copy:v1", "team/retrain:v1"]
    assert ["moves exactly" in shown[0], "copy, expect loss" in shown[1], "train again" in shown[2]] == [True] * 3
    page.get_by_role("link", name="1 train again").click()
    page.wait_for_url("**?verdict=retrain")
    expect(rows).to_have_count(2)
    page.get_by_role("link", name="show all").click()
    page.get_by_role("link", name="team/copy:v2").click()
    page.wait_for_url("**/team/copy/v2")


@pytest.mark.parametrize("role", ["", "reader", "stranger", "root"])
def test_each_role_sees_the_verdicts_on_what_it_may_read_and_the_api_says_the_same(
    own: Site, tmp_path: Path, role: str
):
    old, new = upgrade(own.behind, tmp_path, ("team", "other"))
    path = f"/bases/{old.digest}/upgrades/{new.digest}"
    headers = {"Authorization": f"Bearer {own.tokens[role]}"} if role else {}
    question = {"old": old.digest, "new": new.digest}
    answer = httpx.get(f"{own.endpoint}/api/v1/base-upgrades", params=question, headers=headers)
    with own.visit(role) as client:
        page, document = client.get(path), client.get(path, params={"format": "json"})
    if not role:
        assert (page.status_code, answer.status_code) == (404, 404)
        assert "exact" not in page.text
        return
    assert document.json() == answer.json()
    expected = {"reader": ("team",), "stranger": ("other",), "root": ("team", "other")}[role]
    assert {row["ref"].partition("/")[0] for row in answer.json()["items"]} == set(expected)
    assert len(rows_of(page.text)) == 3 * len(expected)
    assert answer.json()["counts"] == dict.fromkeys(("exact", "copy", "retrain"), len(expected))


def test_a_visitor_without_a_token_reads_it_where_adapters_of_both_bases_are_public(own: Site, tmp_path: Path):
    old, new = upgrade(own.behind, tmp_path, ("lab", "team"))
    own.behind.upgrade_base(tmp_path / "old", tmp_path / "new", ["lab/copy"], move=True)
    with own.visit() as client:
        text = client.get(f"/bases/{old.digest}/upgrades/{new.digest}").text
        assert [row.split()[0] for row in rows_of(text)] == ["lab/exact:v1", "lab/copy:v1", "lab/retrain:v1"]
        assert new.digest in client.get(f"/bases/{old.digest}").text


def test_an_upgrade_that_nobody_asked_about_is_not_there(own: Site, tmp_path: Path):
    old, new = upgrade(own.behind, tmp_path, ("team",))
    with own.visit("root") as client:
        assert client.get(f"/bases/{new.digest}/upgrades/{old.digest}").status_code == 404
        assert client.get(f"/bases/{old.digest}/upgrades/{'0' * 64}").status_code == 404
        assert client.get(f"/bases/{old.digest}/upgrades/{new.digest}?verdict=maybe").status_code == 400


@pytest.mark.parametrize("width", [360, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_sound_and_what_strangers_wrote_runs_nothing(
    own: Site, someone: Someone, tmp_path: Path, width: int, scheme: str
):
    old, new = upgrade(own.behind, tmp_path, ("team",))
    record(own.behind, old, new, "team/copy:v1", SCRIPT + LONG, SCRIPT)
    own.behind.upgrade_base(tmp_path / "old", tmp_path / "new", ["team/exact"], move=True)
    person = someone(own.endpoint, viewport={"width": width, "height": 800}, color_scheme=scheme)
    person.sign_in(own.tokens["root"])
    for path in (f"/bases/{old.digest}/upgrades/{new.digest}", f"/bases/{old.digest}", f"/bases/{new.digest}"):
        page = person.go(path)
        assert Axe().run(page).response["violations"] == [], path
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        expect(page.locator("main script, main img, main [onerror]")).to_have_count(0)
        with own.visit("root") as client:
            html5lib.HTMLParser(strict=True).parse(client.get(path).text)
