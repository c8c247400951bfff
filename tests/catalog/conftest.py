"""A catalog on each database, and versions to put into it without any files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loreg.catalog import Catalog, versions
from loreg.manifest import File
from loreg.records import Draft, Facts, ModuleType, Version
from loreg.refs import parse_adapter_name

Record = Callable[..., Version]


@pytest.fixture(params=["sqlite", "postgresql"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalog]:
    url = f"sqlite:///{tmp_path}/c.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    catalog = Catalog(url)
    yield catalog
    catalog.close()


def draft(name: str, content: str, **options: Any) -> Draft:
    """A version of ``name``; options are fields of the draft or of its facts, ``modules`` names module types."""
    facts = Facts("lora", "CAUSAL_LM", 8, 8, 16.0, 1000, "F32", (), "")
    ranks = options.pop("ranks", (8, 8))
    modules = tuple(ModuleType(m, 2, *ranks) for m in options.pop("modules", ("q_proj", "v_proj")))
    given = {key: options.pop(key) for key in ("variant", "base_hint") if key in options}
    facts = replace(facts, rank_min=ranks[0], rank_max=ranks[1], module_types=modules, **given)
    digest = hashlib.sha256(content.encode()).hexdigest()
    files = (File("adapter_model.safetensors", digest, options.pop("size", 100)),)
    return Draft(parse_adapter_name(name), digest, files, facts, **{"card": "", "author": "ada", **options})


@pytest.fixture
def record(catalog: Catalog) -> Record:
    def record(name: str, content: str | None = None, **options: Any) -> Version:
        with catalog.write("ada") as tx:
            return versions.record(tx, draft(name, content or f"{name} {options}", **options))[0]

    return record
