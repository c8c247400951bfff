"""A catalog on each database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments import empty_sqlite
from loreg.catalog import Catalog, versions
from loreg.entities import Access, Version
from version_factories import new_version

Record = Callable[..., Version]


@pytest.fixture(params=["sqlite", "postgresql"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalog]:
    url = empty_sqlite(tmp_path / "c.db") if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    catalog = Catalog(url)
    yield catalog
    catalog.close()


@pytest.fixture
def record(catalog: Catalog) -> Record:
    def record(name: str, content: str | None = None, author: str = "ada", **options: Any) -> Version:
        with catalog.write(Access.superuser(author)) as tx:
            return versions.record(tx, new_version(name, content or f"{name} {options}", **options))[0].version

    return record
