"""A search finds what a server takes, as was checked at the push; what was never checked is not among it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import delete

from deployments import NEWS, SCIENCE, Deployment, Loreg
from factories import train
from loreg.catalog import Catalog
from loreg.catalog.schema import fact_table, finding_table, version_table
from loreg.checking.profile import list_profiles
from loreg.entities import Access, FacetKind
from loreg.errors import UsageError
from loreg.registry import Registry


@pytest.fixture
def checked(registry: Registry, deployment: Deployment, tmp_path: Path) -> Registry:
    """One that all servers take, one with DoRA, which vLLM refuses and PEFT takes, and one that was never checked."""
    registry.push(SCIENCE, "team/plain", metrics=["accuracy=0.7"])
    registry.push(train(tmp_path / "dora", 1, use_dora=True, r=32), "team/dora", metrics=["accuracy=0.9"])
    registry.push(NEWS, "team/old", metrics=["accuracy=0.8"])
    catalog = Catalog(deployment.database_url)
    with catalog.write(Access.superuser("ada")) as tx:
        newest = tx.connection.execute(version_table.select().order_by(version_table.c.id.desc())).first()
        for table in (fact_table, finding_table):
            tx.connection.execute(delete(table).where(table.c.version_id == newest.id))
    catalog.close()
    return registry


def refs(registry: Registry, **conditions: object) -> list[str]:
    return [version.ref for version in registry.search(**conditions).items]


def test_a_search_finds_what_loads(checked: Registry, loreg: Loreg):
    assert refs(checked, loads_in="vllm") == ["team/plain:v1"]
    assert refs(checked, loads_in="peft") == ["team/dora:v1", "team/plain:v1"]
    assert refs(checked, loads_in="peft", best="accuracy") == ["team/dora:v1", "team/plain:v1"]
    assert refs(checked, loads_in="vllm", best="accuracy") == ["team/plain:v1"]
    assert loreg("search", "--loads-in", "vllm", "--format", "quiet").stdout.split()[0].startswith("team/plain:v1")


def test_it_agrees_with_a_check_in_every_profile(checked: Registry):
    for profile in list_profiles():
        taken = {
            ref
            for ref in ("team/plain:v1", "team/dora:v1")
            if not [finding for finding in checked.check([ref], profiles=[profile], header_only=True)[0].findings
                    if finding.severity == "error"]
        }  # fmt: skip
        assert set(refs(checked, loads_in=profile)) == taken, profile


def test_the_facet_counts_what_loads_and_says_how_many_were_never_checked(checked: Registry, loreg: Loreg):
    facets = checked.facets()
    loading = {count.value: count.versions for count in facets.counts if count.kind == FacetKind.LOADS_IN}
    sizes = {profile: len(refs(checked, loads_in=profile)) for profile in list_profiles()}
    assert loading == {profile: count for profile, count in sizes.items() if count}
    assert (facets.versions, facets.unchecked) == (3, 1)
    assert checked.facets(loads_in="vllm").unchecked == 0
    printed = loreg("search", "--facets")
    assert "loads-in" in printed.stdout
    assert "1 were never checked" in printed.stderr
    assert json.loads(loreg("search", "--facets", "--format", "json").stdout)["unchecked"] == 1


def test_a_server_that_is_not_known_is_refused_with_those_that_are(checked: Registry):
    with pytest.raises(UsageError, match=r"there is no profile 'vlm' of a server.*vllm"):
        checked.search(loads_in="vlm")
