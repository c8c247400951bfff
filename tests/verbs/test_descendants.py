"""Descendants: what was made of a version, as far as the caller may read it."""

from __future__ import annotations

from pathlib import Path

from deployments import HISTORY, SCIENCE, Loreg, empty_folders
from live_server import live_server
from loreg.entities import MergeOptions
from loreg.registry import Registry, connect


def test_merges_of_merges_are_descendants(registry: Registry):
    registry.push(SCIENCE, "science")
    registry.push(HISTORY, "history")
    registry.merge(["science", "history"], MergeOptions([0.7, 0.3]), name="both")
    registry.merge(["both", "history"], MergeOptions([0.5, 2]), name="more")
    version, edges = registry.descendants("science")
    assert version.ref == "science:v1"
    assert [(e.depth, e.child, e.parent_ref, e.parent.weight) for e in edges] == [
        (1, "both:v1", "science:v1", 0.7),
        (2, "more:v1", "both:v1", 0.5),
    ]
    assert {(edge.depth, edge.child) for edge in registry.descendants("history")[1]} == {
        (1, "both:v1"),
        (1, "more:v1"),
        (2, "more:v1"),
    }
    assert registry.descendants("more")[1] == ()


def test_every_name_of_a_content_has_the_same_descendants(registry: Registry):
    registry.push(SCIENCE, "science")
    registry.push(SCIENCE, "copy")
    registry.merge(["science", str(HISTORY)], MergeOptions([1, 1]), name="both")
    assert [edge.child for edge in registry.descendants("copy")[1]] == ["both:v1"]


def test_a_merge_that_may_not_be_read_is_not_told_of(tmp_path: Path):
    deployment = empty_folders(tmp_path)
    with connect(**deployment.settings, author="ada") as behind:
        behind.push(SCIENCE, "open/science")
        behind.merge(["open/science", str(HISTORY)], MergeOptions([1, 1]), name="secret/both")
        behind.merge(["secret/both", str(HISTORY)], MergeOptions([1, 2]), name="open/through-a-secret")
        behind.merge(["open/science", str(HISTORY)], MergeOptions([1, 3]), name="open/both")
        _, all_edges = behind.descendants("open/science")
        _, token = behind.tokens.create("reader", ["read:open"])
    assert {edge.child for edge in all_edges} == {"secret/both:v1", "open/through-a-secret:v1", "open/both:v1"}
    with live_server(deployment, is_open=False) as endpoint, connect(endpoint=endpoint, token=token) as reader:
        _, edges = reader.descendants("open/science")
        assert [edge.child for edge in edges] == ["open/both:v1"]


def test_the_command_shows_both_directions(local: Loreg):
    local("push", SCIENCE, "science")
    local("push", HISTORY, "history")
    local("merge", "science", "history", "--weights", "0.7,0.3", "--push", "both")
    assert "science:v1 is in:\n  both:v1  +0.7 ×\n" in local("lineage", "science").stdout
    assert local("lineage", "science", "--descendants", "--format", "quiet").stdout == "both:v1\n"
    assert local("lineage", "both", "--format", "quiet").stdout == "science:v1\nhistory:v1\n"
    assert local("lineage", "both", "--descendants").stdout.startswith("nothing was made of both:v1")
