"""A sweep whose sources and versions live in a server: what its caller may not do is told before any evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from factories import train
from loreg.entities import SweepOptions
from loreg.errors import NotAllowedError, NotFoundError, UnauthenticatedError
from server.conftest import Guarded

SOURCES = ["team/news", "team/chat"]


class Score:
    """Says of each merged adapter how near its weights are to the best, and counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, folder: Path) -> float:
        self.calls += 1
        recipe = json.loads((folder / "loreg_merge.json").read_bytes())["recipe"]
        return -sum((source["weight"] - 0.4) ** 2 for source in recipe["sources"])


@pytest.fixture
def sources(guarded: Guarded, tmp_path: Path) -> Guarded:
    for number, name in enumerate(SOURCES):
        guarded.behind.push(train(tmp_path / f"source{number}", number), name)
    return guarded


def test_a_writer_sweeps_and_promotes_in_the_server(sources: Guarded):
    with sources.registry("writer") as registry:
        result = registry.sweep(SOURCES, Score(), options=SweepOptions(budget=5), name="team/blend")
        assert [trial.version for trial in result.trials] == [f"team/blend:v{i + 1}" for i in range(5)]
        command = result.promote.split()
        assert command == ["loreg", "tag", result.answer.version, "prod"]
        registry.tag(*command[2:])
    promoted = sources.behind.show("team/blend:prod")
    assert promoted.version.ref == result.answer.version
    assert [source.label for source in promoted.provenance.sources] == [*result.sources]
    assert promoted.version.author == "writer"


@pytest.mark.parametrize(
    ("role", "name", "where"),
    [
        ("reader", "team/blend", "in the namespace 'team'"),
        ("reader", None, "among adapters without a namespace"),
        ("writer", "other/blend", "in the namespace 'other'"),
        ("writer", None, "among adapters without a namespace"),
    ],
)
def test_who_may_not_push_is_told_before_the_first_evaluation(
    sources: Guarded, role: str, name: str | None, where: str
):
    score = Score()
    with sources.registry(role) as registry, pytest.raises(NotAllowedError, match=f"may not write {where}") as refusal:
        registry.sweep(SOURCES, score, name=name)
    assert score.calls == 0
    assert "--push NAMESPACE/NAME" in refusal.value.hint
    assert "--dry-run" in refusal.value.hint
    assert {str(entry.adapter) for entry in sources.behind.adapters()} == {"team/science", *SOURCES}


def test_nobody_pushes_without_a_token(sources: Guarded):
    score = Score()
    sources.behind.namespaces.set_public("team", True)
    with sources.registry("anonymous") as registry:
        with pytest.raises(UnauthenticatedError, match="without a token nobody may write in the namespace 'team'"):
            registry.sweep(SOURCES, score, name="team/blend")
        assert score.calls == 0
        result = registry.sweep(SOURCES, score, options=SweepOptions(budget=5), dry_run=True)
    assert score.calls == len(result.trials) == 5


def test_a_reader_sweeps_without_pushing(sources: Guarded):
    score = Score()
    with sources.registry("reader") as registry:
        result = registry.sweep(SOURCES, score, options=SweepOptions(budget=5), dry_run=True)
    assert score.calls == len(result.trials) == 5
    assert not result.promote
    assert {str(entry.adapter) for entry in sources.behind.adapters()} == {"team/science", *SOURCES}


def test_sources_that_may_not_be_read_are_as_those_that_are_not_there(sources: Guarded):
    score = Score()
    with sources.registry("stranger") as registry:
        refusals = []
        for name in ("team/chat", "team/nothing"):
            with pytest.raises(NotFoundError) as refusal:
                registry.sweep([name, "team/news"], score, name="other/blend")
            refusals.append(str(refusal.value).replace(name, "NAME"))
    assert refusals[0] == refusals[1]
    assert score.calls == 0
