"""Machines whose clocks are hours apart: who tells of a deployment is judged by the clock of the database alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

import loreg.catalog.catalog
from deployments import HISTORY, SCIENCE, Deployment
from faults.followed import look_at_followed
from loreg.catalog import Catalog, deployments
from loreg.catalog.schema import follower_table
from loreg.entities import Access
from loreg.registry import Registry

HOURS = (-200, -5, 5, 200)  # more than a week, after which a silent follower is forgotten


@contextmanager
def clock_wrong_by(hours: int) -> Iterator[None]:
    """Let whoever asks the catalog have another time, a server of the tests too; the database has its own."""

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + timedelta(hours=hours)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(loreg.catalog.catalog, "datetime", Wrong)
        yield


@pytest.fixture
def team(registry: Registry) -> Registry:
    registry.push(SCIENCE, "team/news", aliases=["prod"])
    return registry


@pytest.fixture
def catalog(deployment: Deployment) -> Iterator[Catalog]:
    catalog = Catalog(deployment.database_url)
    yield catalog
    catalog.close()


@pytest.mark.parametrize("hours", HOURS)
def test_one_who_tells_with_a_wrong_clock_was_seen_now(team: Registry, hours: int):
    before = datetime.now(UTC)
    with clock_wrong_by(hours):
        team.report_deployment("vllm", [("news", "team/news:v1", "prod")])
        team.report_deployment("vllm", None)
    (place,) = team.deployments()
    # SQLite's clock has milliseconds
    assert before - timedelta(milliseconds=1) <= place.since <= place.seen_at <= datetime.now(UTC)
    assert not place.is_silent
    assert team.show("team/news").deployments == (place,)


@pytest.mark.parametrize("hours", HOURS)
def test_one_who_asks_with_a_wrong_clock_is_told_the_same(team: Registry, catalog: Catalog, hours: int):
    team.report_deployment("heard", [("news", "team/news:v1", "prod")])
    team.report_deployment("silent", [("news", "team/news:v1", "prod")])
    with catalog.write(Access.superuser("root")) as tx:
        silent = follower_table.c.server == "silent"
        long_ago = datetime.now(UTC) - timedelta(minutes=16)
        tx.connection.execute(update(follower_table).where(silent).values(seen_at=long_ago))
    with clock_wrong_by(hours):
        listed = {place.server: place.is_silent for place in team.deployments()}
        shown = {place.server: place.is_silent for place in team.show("team/news").deployments}
        with catalog.write(Access.superuser("root")) as tx:
            (version_id,) = tx.connection.exec_driver_sql("SELECT id FROM versions").scalars()
            live = deployments.find_live(tx, version_id)
            forgotten = deployments.remove_silent(tx)
    assert listed == shown == {"heard": False, "silent": True}
    assert (live, forgotten) == ("heard", 0)


@pytest.mark.parametrize("hours", HOURS)
def test_a_folder_follows_whatever_the_clocks_show(team: Registry, tmp_path: Path, hours: int):
    """What is newer is said by the registry's positions, and not by a time."""
    following = team.follow("team/news:prod", tmp_path / "adapters")
    next(following)
    for wrong, source in ((hours, HISTORY), (-hours, SCIENCE), (hours, HISTORY)):
        with clock_wrong_by(wrong):
            digest = team.push(source, "team/news", aliases=["prod"]).version.digest
            next(following)
        sentences, content = look_at_followed(tmp_path / "adapters")
        assert (sentences, content["team/news"]) == ([], digest)
    following.close()
