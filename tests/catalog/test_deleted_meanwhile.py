"""What reads the catalog in several statements has an answer, whatever is deleted between two of them.

In PostgreSQL each statement sees what is committed when it begins; in SQLite a read is one transaction.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from deployments import SCIENCE, Deployment
from identity.variants import scaled
from loreg.backend import Backend
from loreg.entities import EventFilter, Query
from loreg.errors import NotFoundError
from loreg.refs import parse_adapter_name, parse_adapter_pattern, parse_ref
from loreg.registry import connect

NAME = parse_adapter_name("team/gone")
REF = parse_ref("team/gone")
VERSION = {"tasks": ["topics"], "metrics": ["accuracy=0.9"], "aliases": ["prod"], "labels": {"a": "b"}}
READS: dict[str, Callable[[Backend], object]] = {
    "near duplicates": lambda backend: backend.near_duplicates(parse_adapter_pattern("*")),
    "tasks": lambda backend: backend.task_summaries(10, None),
    "bases": lambda backend: backend.base_summaries(10, None),
    "metrics": lambda backend: backend.metric_summaries(10, None),
    "samples": lambda backend: backend.samples(3),
    "search": lambda backend: backend.search(Query(tasks=("topic",), text="topics")),
    "facets": lambda backend: backend.facets(Query(tasks=("topic",))),
    "show": lambda backend: backend.show(REF),
    "lineage": lambda backend: backend.lineage(REF),
    "descendants": lambda backend: backend.descendants(REF),
    "versions": lambda backend: backend.versions(NAME, 10, None),
    "events": lambda backend: backend.events(10, None, EventFilter(NAME)),
    "adapters": lambda backend: backend.adapters(10, None),
}


@contextlib.contextmanager
def after_statement(engine: Engine, place: int, intrude: Callable[[], None]) -> Iterator[Callable[[], int]]:
    """Call ``intrude`` when the engine has executed so many statements; yields how many it has executed."""
    count = 0

    def execute(*arguments: object) -> None:
        nonlocal count
        count += 1
        if count == place:
            intrude()

    event.listen(engine, "after_cursor_execute", execute)
    try:
        yield lambda: count
    finally:
        event.remove(engine, "after_cursor_execute", execute)


@pytest.mark.parametrize("read", READS)
def test_a_version_that_is_deleted_between_two_statements(postgres_and_s3: Deployment, tmp_path: Path, read: str):
    with connect(**postgres_and_s3.settings) as registry, connect(**postgres_and_s3.settings) as other:
        engine = registry.context.backend.catalog._engine
        other.push(SCIENCE, "team/kept")
        registry.adapters()  # what a process asks once is asked

        def delete() -> None:
            other.delete(other.versions("team/gone").items[0].ref, "a test")

        for place in itertools.count(1):
            other.push(scaled(tmp_path / str(place), SCIENCE, 1 + place / 7), "team/gone", **VERSION)
            with after_statement(engine, place, delete) as executed:
                with contextlib.suppress(NotFoundError):
                    READS[read](registry.context.backend)
                if executed() < place:
                    return


def test_of_duplicates_those_are_listed_that_are_left(postgres_and_s3: Deployment, tmp_path: Path):
    with connect(**postgres_and_s3.settings) as registry, connect(**postgres_and_s3.settings) as other:
        for number in range(3):
            other.push(scaled(tmp_path / str(number), SCIENCE, 1 + number), f"team/a{number}")
        registry.adapters()  # what a process asks once is asked
        delete: Callable[[], object] = lambda: other.delete("team/a0:v1", "a test")  # noqa: E731
        with after_statement(registry.context.backend.catalog._engine, 1, delete):
            (group,) = registry.near_duplicates()
        assert group.refs == ("team/a1:v1", "team/a2:v1")
        assert group.scales == pytest.approx((1, 1.5), rel=1e-5)
        assert registry.near_duplicates() == (group,)
