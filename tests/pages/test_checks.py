"""The page of checks: what versions break and lack, by namespace, down to each version and what mends it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from sqlalchemy import delete

from deployments import HISTORY, SCIENCE, empty_folders
from factories import change_config, copy
from live_server import live_server
from loreg.catalog.schema import fact_table
from loreg.entities import Access, MissingKind
from loreg.local.backend import LocalBackend
from loreg.registry import Registry, connect
from pages.conftest import Site, Someone, fill


@pytest.fixture
def odd(on_either: Site, tmp_path: Path) -> Site:
    """A server with a version in each of two namespaces that has a field which PEFT does not know (LR009)."""
    for name, source in (("team/odd", SCIENCE), ("other/odd", HISTORY)):
        adapter = change_config(copy(source, tmp_path / name.replace("/", "-")), unheard_of="yes")
        on_either.behind.push(adapter, name)
    return on_either


def test_a_rule_leads_to_the_versions_that_break_it(odd: Site, someone: Someone):
    counts = {
        count.namespace: count.versions for count in odd.behind.count_findings().findings if count.code == "LR009"
    }
    assert counts == {"team": 1, "other": 1}
    person = someone(odd.endpoint)
    person.sign_in(odd.tokens["root"])
    row = person.go("/checks").get_by_role("row").filter(has=person.page.get_by_role("link", name="LR009", exact=True))
    assert row.get_by_role("cell").nth(1).inner_text() == "2"
    row.get_by_role("link", name="team 1").click()
    page = person.page
    page.get_by_role("heading", name="LR009 in team").wait_for()
    page.wait_for_load_state()
    (version,) = page.get_by_role("region", name="Versions").get_by_role("row").all()[1:]
    assert "unheard_of" in version.inner_text()
    assert "loreg check team/odd:v1" in version.inner_text()
    version.get_by_role("link", name="team/odd:v1").click()
    page.get_by_role("heading", name="odd v1").wait_for()


def test_beside_the_page_stand_its_command_and_the_lists_as_json(odd: Site):
    with odd.visit("root") as client:
        assert "loreg findings" in client.get("/checks").text
        listed = client.get("/checks?code=LR009&format=json").json()
        assert [row["ref"] for row in listed["items"]] == ["other/odd:v1", "team/odd:v1"]
        assert "/checks?code=LR009&amp;format=json" in client.get("/checks?code=LR009").text.replace("&#38;", "&amp;")
        bare = client.get("/checks?missing=metric&format=json").json()
        assert {"other/odd:v1", "team/odd:v1"} <= {row["ref"] for row in bare["items"]}


def test_of_many_versions_the_newest_are_looked_at_and_the_page_says_so(odd: Site, monkeypatch: pytest.MonkeyPatch):
    """The newest is ``other/odd``, the one before it ``team/odd``."""
    with odd.visit("root") as client:
        whole = client.get("/checks").text
        monkeypatch.setattr("loreg.catalog.shortcomings.MAX_COUNTED", 1)
        text = client.get("/checks").text
    links = [set(re.findall(r"/checks\?code=LR009(?:&amp;|&#38;)namespace=(\w+)", page)) for page in (whole, text)]
    assert links == [{"team", "other"}, {"other"}]
    assert "newest" not in whole
    assert text.count("Of the newest 1 version that is not yanked") == 2


def test_what_is_missing_is_counted_and_listed(odd: Site):
    """Of each kind as many as an independent look at every version says."""
    registry = odd.behind
    lacking = {kind: list_lacking(registry, kind) for kind in MissingKind}
    with odd.visit("root") as client:
        overview = client.get("/checks").text
        for kind, refs in lacking.items():
            shown = re.search(rf'missing={kind}">{kind}</a></th><td class="number">(\d+)<', overview)
            assert (int(shown[1]) if shown else 0) == len(refs), kind
            listed = client.get("/checks", params={"missing": kind}).text
            assert set(re.findall(r'class="name plain" href="[^"]*"><bdi>([^<]*)</bdi>', listed)) == refs


def list_lacking(registry: Registry, kind: MissingKind) -> set[str]:
    refs = set()
    for adapter in registry.adapters():
        for version in registry.versions(str(adapter.adapter)):
            card = registry.show(version.ref).card
            head = card.split("---")[1] if card.startswith("---") else ""
            lacks = {
                MissingKind.CARD: not card,
                MissingKind.LICENSE: "\nlicense:" not in head,
                MissingKind.TASK: not version.tasks,
                MissingKind.METRIC: not version.metrics,
                MissingKind.BASE: version.base is None,
            }
            refs |= {version.ref} if lacks[kind] else set()
    return refs


def test_duplicates_are_told_in_a_second_request(own: Site, someone: Someone, tmp_path: Path):
    own.behind.push(
        change_config(
            copy(SCIENCE, tmp_path / "twin"),
            task_type="CAUSAL_LM",
            bias="none",
            fan_in_fan_out=False,
            inference_mode=False,
        ),
        "team/twin",
    )
    groups = [group.refs for group in own.behind.near_duplicates("*")]
    person = someone(own.endpoint)
    person.sign_in(own.tokens["root"])
    table = person.go("/checks").get_by_role("region", name="Near-duplicates")
    rows = [
        set(re.findall(r"[\w-]+(?:/[\w-]+)?:v\d+", text)) for text in table.get_by_role("row").all_inner_texts()[1:]
    ]
    assert groups
    assert rows == [set(refs) for refs in groups]


def test_nobody_sees_what_is_not_his(odd: Site):
    with odd.visit("stranger") as client:
        for path in (
            "/checks",
            "/checks?more=1",
            "/checks?code=LR009",
            *(f"/checks?missing={kind}" for kind in MissingKind),
        ):
            text = client.get(path).text
            assert "team" not in re.sub("(?:<code>.*?</code>|<nav.*</nav>)", "", text, flags=re.DOTALL), path
        assert "other/odd:v1" in client.get("/checks?code=LR009").text
        assert "No version that you may see" in client.get("/checks?code=LR009&namespace=team").text
        for namespace in json.loads(client.get("/checks?format=json").text)["namespaces"]:
            assert namespace["namespace"] in ("other", "lab")


def test_lists_go_on_page_by_page(own: Site, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("loreg.server.pages.checks._PAGE", 2)
    refs, path = [], "/checks?missing=base"
    with own.visit("root") as client:
        while path:
            text = client.get(path).text
            refs += re.findall(r'class="name plain" href="[^"]*"><bdi>([^<]*)</bdi>', text)
            following = re.search(r'<a href="([^"]*)" rel="next"', text)
            path = following[1].replace("&amp;", "&") if following else ""
    assert len(refs) == len(set(refs))
    assert set(refs) == list_lacking(own.behind, MissingKind.BASE)


@pytest.mark.parametrize(("query", "status"), [("code=XX1", 404), ("missing=love", 400), ("code=LR009&cursor=x", 400)])
def test_a_question_that_cannot_be_is_said_to_be_so(site: Site, query: str, status: int):
    with site.visit("root") as client:
        assert client.get(f"/checks?{query}").status_code == status


def test_an_alias_that_breaks_the_policy_by_now_is_named_to_those_with_a_token(tmp_path: Path):
    deployment = empty_folders(tmp_path)
    where = {"database_url": deployment.database_url, "storage_url": deployment.storage_url}
    with connect(**where) as behind:
        fill(behind)
        behind.namespaces.set_public("team", True)
        tokens = {"reader": behind.tokens.create("reader", ["read:team"])[1]}
        (tmp_path / "loreg.toml").write_text('[check]\naliases = ["prod"]\ntasks = ["safety"]\n')
        with live_server(deployment, is_open=False) as endpoint:
            site = Site(endpoint, behind, tokens)
            with site.visit("reader") as client, site.visit() as nobody:
                page = client.get("/checks?more=1").text
                assert "team/news:v1" in page
                assert "safety is missing" in page
                assert "safety" not in nobody.get("/checks?more=1").text


def test_versions_that_were_not_checked_are_counted(own: Site):
    with own.visit("root") as client:
        assert "Not checked" not in client.get("/checks?more=1").text
    backend = own.behind.context.backend
    assert isinstance(backend, LocalBackend)
    with backend.catalog.write(Access.superuser("ada")) as tx:
        tx.connection.execute(delete(fact_table))
    with own.visit("root") as client:
        assert "team: 0 of 4 versions" in re.sub("</?bdi>", "", client.get("/checks?more=1").text)
