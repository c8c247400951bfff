"""The page of a lineage draws what a version was made from and into, and names nothing that may not be seen."""

from __future__ import annotations

import re
from pathlib import Path

from deployments import empty_folders
from loreg.entities import LineageEdge, MergeOptions, Source
from loreg.server.pages.lineage_graphs import draw_lineage
from pages.conftest import Site, Someone, open_site


def edge(child: str, parent: str, depth: int = 1, weight: float = 0.5) -> LineageEdge:
    return LineageEdge(child, Source(parent, f"digest of {parent}", weight), parent, depth)


def node_at(graph, name: str) -> tuple[int, int]:
    (node,) = [node for node in graph.nodes if node.name == name]
    return node.x, node.y


def test_every_parent_stands_on_the_left_of_its_children_and_no_two_nodes_overlap():
    """c was made of a and b, and a was made of b: the longest way counts."""
    above = [edge("t/c:v1", "t/a:v1"), edge("t/c:v1", "t/b:v1"), edge("t/a:v1", "t/b:v1", 2)]
    below = [edge("t/d:v1", "t/c:v1"), edge("t/e:v1", "t/d:v1", 2), edge("t/e:v1", "t/c:v1")]
    graph = draw_lineage("t/c:v1", "digest of t/c:v1", above, below, ("a base", ""))
    for line in (*above, *below):
        assert node_at(graph, line.parent_ref)[0] < node_at(graph, line.child)[0]
    assert len({(node.x, node.y) for node in graph.nodes}) == len(graph.nodes) == 6
    assert len(graph.arrows) == 7


def test_the_same_content_under_another_name_is_the_version_itself():
    """The registry names the oldest version with the content, here t/first."""
    below = [LineageEdge("t/d:v1", Source("t/c", "digest", 1.0), "t/first:v1", 1)]
    graph = draw_lineage("t/c:v1", "digest", (), below, None)
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


def test_a_thousand_nodes_are_one_picture(site: Site):
    below = [edge(f"t/child{i}:v1", "t/c:v1") for i in range(1000)]
    graph = draw_lineage("t/c:v1", "digest of t/c:v1", (), below, None)
    assert len(graph.nodes) == 1001
    assert max(node.y for node in graph.nodes) < graph.height
    assert node_at(graph, "t/c:v1")[1] < 100
