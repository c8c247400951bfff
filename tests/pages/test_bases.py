"""A base has a page: what was trained on it, which others are the same; a known one is attached to what names it."""

from __future__ import annotations

from pathlib import Path

import httpx
import torch
from playwright.sync_api import expect

from factories import change_config, new_model, train, write_base
from loreg.entities import BaseRelation
from pages.conftest import Site, Someone, form_token

NAME = "org/tiny"
Q = "layers.0.q_proj.weight"


def push_without_base(site: Site, folder: Path, name: str, seed: int = 1) -> str:
    """Push an adapter that calls its base ``org/tiny``, which nobody knows yet."""
    adapter = change_config(train(folder / f"adapter-{seed}", seed), base_model_name_or_path=NAME)
    return site.behind.push(adapter, name).version.ref


def add_base(site: Site, folder: Path, name: str = NAME, weight: torch.Tensor | None = None) -> str:
    """Add a base, of another weight than the first if one is given; return its digest."""
    path = write_base(folder, {} if weight is None else {Q: weight})
    return site.behind.bases.add(path, [name], attach=False).base.digest


def other_weight() -> torch.Tensor:
    return new_model().state_dict()[Q] + torch.randn(24, 1) @ torch.randn(1, 20)


def test_a_known_base_is_attached_to_the_adapters_that_name_it(on_either: Site, someone: Someone, tmp_path: Path):
    refs = [push_without_base(on_either, tmp_path, "team/a"), push_without_base(on_either, tmp_path, "other/b", 2)]
    digest = add_base(on_either, tmp_path / "base")
    person = someone(on_either.endpoint)
    person.sign_in(on_either.tokens["root"])
    page = person.go("/bases")
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name=NAME))
    row.get_by_text("Attach a known base").click()
    row.get_by_role("button", name="Attach").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Attach a base")
    results = page.get_by_role("row").filter(has_text="attached")
    assert {text.split()[0] for text in results.all_inner_texts()} == set(refs)
    assert "modules fit" in results.first.inner_text()
    versions = [on_either.behind.show(ref).version for ref in refs]
    assert {version.base.digest for version in versions if version.base} == {digest}
    page.get_by_role("link", name=NAME).click()
    page.get_by_role("link", name="team/a:v1").wait_for()
    assert "attach" in {event.action for event in on_either.behind.events()}


def test_what_does_not_fit_is_said_and_stays(own: Site, tmp_path: Path):
    ref = push_without_base(own, tmp_path, "team/a")
    digest = add_base(own, tmp_path / "base", "org/another", torch.ones(3, 3))
    with own.visit("root") as client:
        answer = attach(client, digest)
    assert answer.status_code == 200
    assert "mismatch" in answer.text
    assert own.behind.show(ref).version.base is None


def test_who_may_not_write_there_attaches_nothing(own: Site, tmp_path: Path):
    ref = push_without_base(own, tmp_path, "team/a")
    digest = add_base(own, tmp_path / "base")
    with own.visit("reader") as client:
        assert "/_/base-attach" not in client.get("/bases").text
        answer = attach(client, digest)
        assert "Nothing was attached" in answer.text
        assert "1 more" in answer.text
    with own.visit("stranger") as client:
        answer = attach(client, digest)
        assert "Nothing was attached" in answer.text
        assert "team/a" not in answer.text
        assert "more are in" not in answer.text
    with own.visit() as client:
        assert attach(client, digest).status_code == 403
    assert own.behind.show(ref).version.base is None


def attach(client: httpx.Client, digest: str) -> httpx.Response:
    fields = {"form_token": form_token(client.get("/bases").text), "declared": NAME, "base": digest}
    return client.post("/_/base-attach", data=fields, headers={"Origin": str(client.base_url).rstrip("/")})


class TestWhoMayKnowOfABase:
    def test_nobody_without_a_token_learns_of_one_that_only_hidden_adapters_use(self, own: Site, tmp_path: Path):
        digest = add_base(own, tmp_path / "base")
        own.behind.push(train(tmp_path / "a", 1), "team/a", base=NAME)
        with own.visit() as client:
            answers = [client.get(f"/bases/{which}") for which in (digest, "0" * 64)]
            assert [answer.status_code for answer in answers] == [404, 404]
            assert answers[0].text.replace(digest, "") == answers[1].text.replace("0" * 64, "")
            for text in (NAME, digest[:8], "org/tinyy"):
                answer = client.get("/api/v1/base", params={"name": text})
                assert answer.status_code == 404
                assert not answer.json()["suggestion"]
        with own.visit("stranger") as client:
            page = client.get(f"/bases/{digest}")
            assert page.status_code == 200
            assert "Nothing that you may see" in page.text
            assert "team/a" not in page.text

    def test_one_of_a_public_adapter_is_there_and_names_no_other(self, own: Site, tmp_path: Path):
        public, hidden = (
            add_base(own, tmp_path / "one", "org/one"),
            add_base(own, tmp_path / "two", "org/two", other_weight()),
        )
        own.behind.push(train(tmp_path / "a", 1), "lab/a", base="org/one")
        own.behind.push(train(tmp_path / "b", 2), "team/b", base="org/two")
        own.behind.bases.relate(hidden, public, BaseRelation.FINETUNED_FROM)
        with own.visit() as client:
            page = client.get(f"/bases/{public}").text
            edges = client.get("/api/v1/base", params={"name": public}).json()["edges"]
        assert "lab/a:v1" in page
        assert "org/two" not in page
        assert hidden[:12] not in page
        assert edges == []
        with own.visit("reader") as client:
            assert "org/two" in client.get(f"/bases/{public}").text


def test_a_base_shows_its_relations_both_ways(own: Site, someone: Someone, tmp_path: Path):
    first = add_base(own, tmp_path / "one", "org/one")
    second = add_base(own, tmp_path / "two", "org/two", other_weight())
    own.behind.push(train(tmp_path / "a", 1), "team/a", base="org/one")
    own.behind.bases.relate(second, first, BaseRelation.QUANTIZED_FROM, {"bits": 4})
    person = someone(own.endpoint)
    person.sign_in(own.tokens["reader"])
    page = person.go(f"/bases/{second}")
    row = page.get_by_role("region", name="Relations").get_by_role("row").filter(has_text="org/one")
    assert "this is quantized from it" in row.inner_text()
    assert "declared-derived" in row.inner_text()
    assert row.get_by_role("cell").last.inner_text() == "1"
    row.get_by_role("link", name="org/one").click()
    page.wait_for_url(f"**/bases/{first}")
    assert "it is quantized from this" in page.get_by_role("region", name="Relations").inner_text()
    page.get_by_role("link", name="team/a:v1").click()
    page.get_by_role("link", name="About this base").click()
    page.wait_for_url(f"**/bases/{first}")
