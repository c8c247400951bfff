"""Pages are sequences, and a page of a registry can go on to every item after it."""

from __future__ import annotations

import msgspec
import pytest

import loreg as library
from deployments import MOVIES, NEWS
from loreg import Registry, UsageError, entities
from loreg.entities import Page


def test_the_public_names_are_listed_before_they_are_imported():
    assert dir(library) == sorted(library.__all__)
    assert {"connect", "Registry", "Version", "Page", "MergeOptions", "NotFoundError"} <= set(dir(library))
    for name in dir(library):
        assert getattr(library, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        _ = library.serach


def test_a_page_is_a_sequence_of_its_items():
    page = Page(("a", "b", "c"), "next")
    assert (len(page), page[0], page[-1], page[1:], list(page), "b" in page) == (
        3, "a", "c", ("b", "c"), ["a", "b", "c"], True,
    )  # fmt: skip
    assert list(reversed(page)) == ["c", "b", "a"]
    with pytest.raises(IndexError):
        _ = page[3]
    assert not Page((), None)


def test_all_goes_through_every_page(registry: Registry):
    for name in ("a/one", "a/two", "b/three"):
        registry.push(NEWS, name)
    registry.push(MOVIES, "a/one")
    names = ["a/one", "a/two", "b/three"]
    assert [str(entry.adapter) for entry in registry.adapters(limit=1).all()] == names
    assert sorted(str(version.adapter) for version in registry.search(limit=2).all()) == names
    assert [version.number for version in registry.versions("a/one", limit=1).all()] == [2, 1]
    assert [event.ref for event in registry.events(limit=1, name="a/one").all()] == ["a/one:v2", "a/one:v1"]
    later = registry.adapters(limit=1, cursor=registry.adapters(limit=1).cursor)
    assert [str(entry.adapter) for entry in later.all()] == names[1:]


def test_a_page_is_fetched_when_it_is_reached(registry: Registry):
    for name in ("one", "two", "three"):
        registry.push(NEWS, name)
    entries = iter(registry.adapters(limit=2).all())
    assert [str(next(entries).adapter), str(next(entries).adapter)] == ["one", "three"]
    registry.push(NEWS, "zero")
    assert [str(entry.adapter) for entry in entries] == ["two", "zero"]


def test_how_a_page_goes_on_is_not_part_of_its_value():
    page = Page((1, 2), "next")
    follows = page.followed_by(int, {"next": Page((3,), None)}.__getitem__)
    assert follows == page
    assert msgspec.json.encode(follows) == b'{"items":[1,2],"cursor":"next"}'
    assert list(follows.all()) == list(follows.all()) == [1, 2, 3]


def test_a_page_without_a_registry_says_that_it_cannot_go_on():
    assert list(Page((1, 2), None).all()) == [1, 2]
    with pytest.raises(UsageError, match="cannot fetch the next"):
        Page((1, 2), "next").all()


def test_the_names_of_values_are_those_of_entities():
    for name in set(library.__all__) & set(entities.__all__):
        assert getattr(library, name) is getattr(entities, name)
