"""The page of a lineage draws what a version was made from and into, and names nothing that may not be seen."""

from __future__ import annotations

import re
import time
from pathlib import Path

import httpx
import pytest
from sqlalchemy import insert, select, update

from deployments import Deployment, empty_folders
from loreg.catalog import Catalog, bases, derivations, jobs, lineage, versions
from loreg.catalog.schema import adapter_table, version_table
from loreg.checking.profile import read_profile
from loreg.entities import Access, BaseEdge, BaseModel, BaseRelation, LineageEdge, MergeOptions, Provenance, Source
from loreg.exporting.folder import digest_request
from loreg.refs import parse_ref
from loreg.server.pages.lineage_graphs import Relative, draw_lineage
from pages.conftest import Site, Someone, open_site

BASE = Relative("base", "a base", "", "base", "base")


def edge(child: str, parent: str, depth: int = 1, weight: float = 0.5) -> LineageEdge:
    return LineageEdge(child, Source(parent, f"digest of {parent}", weight), parent, depth)


def node_at(graph, name: str) -> tuple[int, int]:
    (node,) = [node for node in graph.nodes if node.name == name]
    return node.x, node.y


def test_every_parent_stands_on_the_left_of_its_children_and_no_two_nodes_overlap():
    """c was made of a and b, and a was made of b: the longest way counts."""
    above = [edge("t/c:v1", "t/a:v1"), edge("t/c:v1", "t/b:v1"), edge("t/a:v1", "t/b:v1", 2)]
    below = [edge("t/d:v1", "t/c:v1"), edge("t/e:v1", "t/d:v1", 2), edge("t/e:v1", "t/c:v1")]
    graph = draw_lineage("t/c:v1", "digest of t/c:v1", above, below, [BASE])
    for line in (*above, *below):
        assert node_at(graph, line.parent_ref)[0] < node_at(graph, line.child)[0]
    assert len({(node.x, node.y) for node in graph.nodes}) == len(graph.nodes) == 6
    assert len(graph.arrows) == 7


def test_the_same_content_under_another_name_is_the_version_itself():
    """The registry names the oldest version with the content, here t/first."""
    below = [LineageEdge("t/d:v1", Source("t/c", "digest", 1.0), "t/first:v1", 1)]
    graph = draw_lineage("t/c:v1", "digest", (), below)
    assert {node.name for node in graph.nodes} == {"t/c:v1", "t/d:v1"}


def test_a_merge_names_its_sources_to_whom_may_read_them_alone(tmp_path: Path):
    with open_site(empty_folders(tmp_path)) as site:
        site.behind.merge(["team/science", "lab/history"], MergeOptions(weights=[0.6, 0.4]), name="lab/shown")
        with site.visit() as client:
            page = client.get("/lab/shown/v1/lineage").text
            assert "lab/history" in page
            assert "a source that is gone, or not yours to see" in page
            assert not re.search("team/|science", page)
        with site.visit("reader") as client:
            page = client.get("/lab/shown/v1/lineage").text
            assert "team/science" in page
            assert "not yours to see" not in page


def relate(deployment: Deployment) -> None:
    """team/both and lab/of-both are on a base that was quantized from another, the first was baked once."""
    quantized, original = (
        BaseModel(word * 32, (name,), 3, 100) for word, name in (("ab", "org/q4"), ("cd", "org/full"))
    )
    catalog = Catalog(deployment.database_url)
    with catalog.write(Access.superuser("ada")) as tx:
        for base in (quantized, original):
            bases.record(tx, base, 1)
        derivations.record(tx, BaseEdge(quantized.digest, original.digest, BaseRelation.QUANTIZED_FROM, {}, False))
        record = versions.resolve(tx, parse_ref("team/both:v1"))
        ids = [record.id, versions.resolve(tx, parse_ref("lab/of-both:v1")).id]
        of_base = update(version_table).where(version_table.c.id.in_(ids))
        tx.connection.execute(of_base.values(base_id=bases.find_base_id(tx, quantized.digest)))
        request = {
            "sources": [f"team/both:v1@sha256:{record.version.digest}"],
            "base": "m",
            "name": "team/served-model",
        }
        jobs.finish(
            tx, jobs.submit(tx, "bake", request, "team"), {"model": "team/served-model", "changed": 1, "size": 1}
        )
        jobs.finish(
            tx, jobs.submit(tx, "bake", {**request, "sources": ["team/science:v1"]}, "team"), {"model": "other"}
        )
    catalog.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_bases_bakes_and_exports_are_drawn_too(kind: str, request: pytest.FixtureRequest, tmp_path: Path):
    deployment = empty_folders(tmp_path) if kind == "sqlite" else request.getfixturevalue("postgres_and_s3")
    with open_site(deployment) as site:
        with httpx.Client(base_url=site.endpoint, headers={"Authorization": f"Bearer {site.tokens['root']}"}) as root:
            path = f"/api/v1/adapters/team/both/versions/v1/exports/{digest_request(read_profile('vllm'), None)}"
            root.put(path, json={"profile": "vllm"}).raise_for_status()
        site.behind.merge(["team/both"], MergeOptions(), name="lab/of-both")
        relate(deployment)
        with site.visit("reader") as client:
            page = client.get("/team/both/v1/lineage").text
            relatives = client.get("/team/both/v1/lineage?format=json").json()["relatives"]
        drawn = re.findall(r'class="node (\w+)".*?<text[^>]*>([^<]*)</text>', page)
        assert set(drawn) >= {
            ("base", "org/q4"),
            ("base", "org/full"),
            ("bake", "team/served-model"),
            ("export", "for vllm"),
        }
        assert "other" not in {name for _, name in drawn}
        assert [edge["kind"] for edge in relatives["base_edges"]] == ["quantized_from"]
        with site.visit() as anonymous:
            page = anonymous.get("/lab/of-both/v1/lineage").text
        assert "org/q4" in page
        assert not re.search("org/full|served-model|team/", page)


def test_a_reader_goes_along_the_edges(site: Site, someone: Someone):
    person = someone(site.endpoint)
    person.sign_in(site.tokens["root"])
    page = person.go("/team/both/v1")
    page.get_by_role("link", name="Lineage", exact=True).click()
    page.wait_for_url("**/team/both/v1/lineage")
    rows = [row.inner_text().split() for row in page.get_by_role("region", name="Made from").get_by_role("row").all()]
    assert rows[1:] == [["team/science:v1", "0.7", "team/both:v1", "1"], ["lab/history:v1", "0.3", "team/both:v1", "1"]]
    page.locator("svg.lineage").get_by_role("link", name="lab/history:v1").click()
    page.wait_for_url("**/lab/history/v1")


def test_a_thousand_merges_are_drawn_end_to_end(tmp_path: Path, someone: Someone, capsys: pytest.CaptureFixture[str]):
    """How long that takes is printed: pytest -s."""
    deployment = empty_folders(tmp_path)
    with open_site(deployment, is_open=True) as site:
        write_children(deployment, "team/science:v1", 1000)
        person = someone(site.endpoint)
        seconds = []
        for _ in range(5):
            person.go("/start")
            start = time.perf_counter()
            person.page.goto(f"{site.endpoint}/team/science/v1/lineage")
            person.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
            seconds.append(time.perf_counter() - start)
            assert person.page.locator("svg.lineage .node").count() >= 1000
        with capsys.disabled():
            print(
                f"\na lineage of 1,000 nodes, from the click to the picture: {sorted(seconds)[2]:.2f} s (median of 5)"
            )


def write_children(deployment: Deployment, ref: str, count: int) -> None:
    """Record so many merges of a version, without files: each a version of an adapter of its own."""
    catalog = Catalog(deployment.database_url)
    with catalog.write(Access.superuser("ada")) as tx:
        parent = versions.resolve(tx, parse_ref(ref))
        row = tx.connection.execute(select(version_table).where(version_table.c.id == parent.id)).one()._mapping
        for number in range(count):
            adapter = {"namespace": "many", "name": f"child{number}", "created_at": tx.at}
            adapter_id = tx.get_or_create_locked(adapter_table, adapter, "namespace", "name")
            child = {**row, "adapter_id": adapter_id, "digest": f"{number:064x}"}
            del child["id"]
            child_id = tx.connection.execute(insert(version_table).values(**child)).inserted_primary_key[0]
            source = Source(ref, parent.version.digest, number / count)
            lineage.record(tx, child_id, Provenance((source,), {}, {}))
    catalog.close()


def test_a_thousand_nodes_are_one_picture(site: Site):
    below = [edge(f"t/child{i}:v1", "t/c:v1") for i in range(1000)]
    graph = draw_lineage("t/c:v1", "digest of t/c:v1", (), below)
    assert len(graph.nodes) == 1001
    assert max(node.y for node in graph.nodes) < graph.height
    assert node_at(graph, "t/c:v1")[1] < 100
