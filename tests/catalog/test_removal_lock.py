"""Locks that end with whoever holds them are free as soon as they are let go."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from loreg.catalog import Catalog


@pytest.fixture
def catalog(postgres_url: str) -> Iterator[Catalog]:
    catalog = Catalog(postgres_url)
    yield catalog
    catalog.close()


def refuse() -> None:
    raise AssertionError("somebody else seems to hold it")


def test_whoever_comes_next_does_not_wait_for_the_connection_to_end(catalog: Catalog):
    for _ in range(100):
        with catalog.hold_maps(refuse):
            pass


def test_removals_go_on_as_soon_as_nobody_holds_them_off(catalog: Catalog):
    for _ in range(100):
        with catalog.hold_removals(alone=True, on_wait=refuse):
            pass


def test_an_error_inside_lets_it_go_too(catalog: Catalog):
    for _ in range(100):
        with pytest.raises(ZeroDivisionError), catalog.hold_maps(refuse):
            raise ZeroDivisionError
