"""What a registry returns as a pandas data frame: a row for each item."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pandas
import pytest

from deployments import MOVIES, NEWS
from loreg import AdapterComparison, MissingExtraError, Registry, connect
from loreg.entities import AdapterSimilarity


@pytest.fixture
def two_adapters(tmp_path: Path) -> Registry:
    registry = connect(home=str(tmp_path / "home"), author="ada")
    registry.push(
        NEWS, "team/news", tasks=["topics"], metrics=["accuracy=0.93@bbc:test", "size=3"], labels={"stage": "trial"}
    )
    registry.push(MOVIES, "team/movies", metrics=["accuracy=0.8@movies"])
    return registry


def test_a_version_is_a_row_with_a_column_for_each_metric_and_label(two_adapters: Registry):
    frame = two_adapters.search(sort="name").to_pandas()
    assert list(frame["ref"]) == ["team/movies:v1", "team/news:v1"]
    movies, news = frame.to_dict("records")
    assert (news["accuracy@bbc:test"], news["label.stage"], news["tasks"], news["rank_max"]) == (
        0.93, "trial", ("topics",), 8,
    )  # fmt: skip
    assert math.isnan(news["accuracy@movies"])
    assert movies["accuracy@movies"] == 0.8
    assert str(frame["created_at"].dt.tz) == "UTC"
    assert frame["created_at"].max() == two_adapters.show("team/movies").version.created_at


def test_a_metric_that_is_called_like_a_column_has_one_of_its_own(two_adapters: Registry):
    frame = two_adapters.search(sort="name").to_pandas()
    versions = {version.ref: version for version in two_adapters.search()}
    assert list(frame["size"]) == [versions["team/movies:v1"].size, versions["team/news:v1"].size]
    assert frame["metric.size"].iloc[1] == 3


def test_nothing_is_a_frame_with_the_same_columns(two_adapters: Registry):
    nothing = two_adapters.search("no such thing").to_pandas()
    assert len(nothing) == 0
    assert list(nothing.columns) == [
        "ref", "digest", "base", "base_digest", "variant", "task_type", "rank_min", "rank_max", "parameters", "size",
        "tasks", "aliases", "author", "message", "created_at", "yanked",
    ]  # fmt: skip
    assert pandas.api.types.is_datetime64_any_dtype(nothing["created_at"])
    assert list(two_adapters.jobs.list().to_pandas().columns)[:2] == ["id", "kind"]


def test_all_is_a_frame_of_every_page(two_adapters: Registry):
    assert len(two_adapters.search(limit=1).to_pandas()) == 1
    assert list(two_adapters.search(sort="name", limit=1).all().to_pandas()["ref"]) == [
        "team/movies:v1", "team/news:v1",
    ]  # fmt: skip


def test_adapters_and_events_are_rows_of_their_fields(two_adapters: Registry):
    assert list(two_adapters.adapters().to_pandas()["adapter"]) == ["team/movies", "team/news"]
    events = two_adapters.events().to_pandas()
    assert {"at", "author", "action", "ref"} <= set(events.columns)
    assert str(events["at"].dt.tz) == "UTC"
    assert set(events["author"]) == {"ada"}


def test_a_comparison_is_a_row_for_each_pair():
    pair = AdapterSimilarity("a", "b", 2, 0.25, 0.5, 0.75, 0.4, None, False)
    frame = AdapterComparison([pair]).to_pandas()
    assert frame[["a", "b", "cosine"]].values.tolist() == [["a", "b", 0.25]]


def test_without_pandas_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch, two_adapters: Registry):
    page = two_adapters.search()
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match="needs pandas") as error:
        page.to_pandas()
    assert error.value.hint == "pip install 'loreg[notebook]'"
