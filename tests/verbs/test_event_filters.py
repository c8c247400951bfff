"""Events by person, verb, adapter, namespace and time: from the library, at the terminal, over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert, select, update

from deployments import HISTORY, NEWS, SCIENCE, Deployment, Loreg
from loreg.catalog import Catalog
from loreg.catalog.schema import event_table
from loreg.entities import Access
from loreg.errors import NotFoundError, UsageError
from loreg.registry import Registry

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def filled(registry: Registry, deployment: Deployment) -> Registry:
    """Six events of three people in two namespaces, a day apart each; the last one is a pull."""
    registry.push(NEWS, "team/news", aliases=["prod"])
    registry.push(SCIENCE, "team/science")
    registry.push(HISTORY, "plain")
    registry.yank("plain:v1", reason="wrong")
    catalog = Catalog(deployment.database_url)
    with catalog.write(Access.superuser("ada")) as tx:
        connection = tx.connection
        first, *_ = rows = connection.execute(select(event_table).order_by(event_table.c.id)).all()
        pull = {**first._mapping, "id": rows[-1].id + 1, "author": "carl", "action": "pull"}
        connection.execute(insert(event_table).values(**pull))
        bobs = {row.id for row in rows if row.action == "push"} - {first.id}
        for day, event_id in enumerate([*(row.id for row in rows), pull["id"]]):
            changed = {"at": AT + timedelta(days=day), **({"author": "bob"} if event_id in bobs else {})}
            connection.execute(update(event_table).where(event_table.c.id == event_id).values(**changed))
    catalog.close()
    return registry


def actions(registry: Registry, **conditions: object) -> list[str]:
    return [event.action for event in registry.events(**conditions).items]


CASES = (
    ({}, ["pull", "yank", "push", "push", "tag", "push"]),
    ({"author": "bob"}, ["push", "push"]),
    ({"author": "carl"}, ["pull"]),
    ({"author": "nobody"}, []),
    ({"actions": ["push"]}, ["push", "push", "push"]),
    ({"actions": ["push", "yank"]}, ["yank", "push", "push", "push"]),
    ({"pulls": False}, ["yank", "push", "push", "tag", "push"]),
    ({"namespace": "team"}, ["pull", "push", "tag", "push"]),
    ({"namespace": "-"}, ["yank", "push"]),
    ({"namespace": "elsewhere"}, []),
    ({"name": "team/news"}, ["pull", "tag", "push"]),
    ({"name": "team/news", "pulls": False, "actions": ["tag"]}, ["tag"]),
    ({"since": "2026-03-05"}, ["pull", "yank"]),
    ({"since": "2026-03-05T12:00+01:00"}, ["pull", "yank"]),
    ({"since": "2026-03-05T12:00:01"}, ["pull"]),
    ({"until": "2026-03-01"}, ["push"]),
    ({"until": "2026-03-01T12:00"}, []),
    ({"since": "2026-03-02", "until": "2026-03-03", "namespace": "team"}, ["push", "tag"]),
)


def test_only_those_that_fulfill_every_condition(filled: Registry):
    assert [(conditions, actions(filled, **conditions)) for conditions, _ in CASES] == list(CASES)


def test_the_pages_go_on_with_the_same_conditions(filled: Registry):
    pages, cursor = [], None
    while not pages or cursor:
        page = filled.events(author="bob", limit=1, cursor=cursor)
        pages, cursor = [*pages, *(event.ref for event in page.items)], page.cursor
    assert pages == ["plain:v1", "team/science:v1"]
    assert [event.ref for event in filled.events(author="bob", limit=1).all()] == pages


def test_the_command_takes_the_same_conditions(filled: Registry, loreg: Loreg):
    quiet = ("--format", "quiet")
    ids = loreg("events", "--namespace", "team", "--no-pulls", "--action", "push", "--until", "2026-03-03", *quiet)
    assert len(ids.stdout.split()) == 2
    assert loreg("events", "--adapter", "team/news", "--author", "carl", *quiet).stdout.strip()
    assert loreg("events", "--follow", "--author", "carl").exit_code == 2
    assert loreg("events", "--author", "").exit_code == 2


def test_what_is_no_action_or_no_time_is_refused_with_what_there_is(filled: Registry):
    with pytest.raises(UsageError, match=r"no event is called 'pusk'.* push"):
        filled.events(actions=["pusk"])
    with pytest.raises(UsageError, match="'yesterday' is no date"):
        filled.events(since="yesterday")
    with pytest.raises(NotFoundError):
        filled.events(name="team/unknown")
