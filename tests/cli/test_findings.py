"""``loreg findings``: what is broken, counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import delete

from deployments import HISTORY, SCIENCE, Deployment, Loreg
from factories import change_config, copy
from loreg.catalog.engine import open_engine
from loreg.catalog.schema import fact_table


@pytest.fixture
def odd(loreg: Loreg, tmp_path: Path) -> Loreg:
    """Of three versions two have a field that PEFT does not know (LR009)."""
    for name, source in (("team/odd", SCIENCE), ("other/odd", HISTORY)):
        loreg("push", str(change_config(copy(source, tmp_path / name.replace("/", "-")), unheard_of="yes")), name)
    loreg("push", str(SCIENCE), "team/plain")
    return loreg


def test_versions_are_counted_by_rule_and_namespace(odd: Loreg):
    outcome = odd("findings")
    header, _, *rows = outcome.stdout.splitlines()
    assert header.split() == ["RULE", "SEVERITY", "NAMESPACE", "VERSIONS"]
    assert [row.split() for row in rows if row.startswith("LR009")] == [
        ["LR009", "warning", "other", "1"],
        ["LR009", "warning", "team", "1"],
    ]
    assert outcome.stderr == ""
    assert "LR009" in odd("findings", "team/*", "--format", "quiet").stdout.split()
    document = json.loads(odd("findings", "team/*", "--format", "json").stdout)
    assert {count["namespace"] for count in document["findings"]} == {"team"}


def test_where_not_all_were_checked_it_is_said_how_they_are(odd: Loreg, deployment: Deployment):
    engine = open_engine(deployment.database_url)
    with engine.begin() as connection:
        connection.execute(delete(fact_table))
    engine.dispose()
    note = "note: 0 of 3 versions were checked by the rules of now; loreg map check does the rest\n"
    assert odd("findings").stderr == note
