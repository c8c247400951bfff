"""What there is to be found: tasks, bases, metrics and facets, counted over what the caller may read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deployments import HISTORY, NEWS, SCIENCE, Loreg
from factories import change_config, copy
from loreg.entities import FacetKind, MetricRange
from loreg.errors import ConflictError, UsageError
from loreg.registry import Registry

SMOLLM = "HuggingFaceTB/SmolLM2-135M-Instruct"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture
def four(registry: Registry) -> None:
    """Three adapters, one of two versions, and one version that is yanked."""
    registry.push(SCIENCE, "team/qa", tasks=["qa"], metrics=["accuracy=0.7@sciq", "f1=0.5@sciq"])
    registry.push(HISTORY, "team/qa", tasks=["qa"], metrics=["accuracy=0.9@sciq"])
    registry.push(HISTORY, "team/chat", tasks=["chat", "qa"], metrics=["eval_loss=0.4@talk:test"])
    registry.push(NEWS, "team/news", tasks=["topics"], metrics=["accuracy=0.99@bbc"])
    registry.push(NEWS, "other/news", tasks=["gone"], metrics=["accuracy=1@sciq"])
    registry.yank("other/news:v1")


def test_tasks_are_counted_and_show_the_best_of_their_most_common_metric(registry: Registry, loreg: Loreg, four):
    tasks = registry.tasks().items
    assert [(task.task, task.adapters, task.versions) for task in tasks] == [
        ("qa", 2, 3),
        ("chat", 1, 1),
        ("topics", 1, 1),
    ]
    best = [task.metric and (str(task.metric.best), task.metric.ref, task.metric.versions) for task in tasks]
    assert best == [
        ("accuracy=0.9@sciq", "team/qa:v2", 2),
        ("eval_loss=0.4@talk:test", "team/chat:v1", 1),
        ("accuracy=0.99@bbc", "team/news:v1", 1),
    ]
    assert loreg("tasks", "--format", "quiet").stdout.split() == ["qa", "chat", "topics"]
    row = loreg("tasks").stdout.splitlines()[2].split()
    assert row == ["qa", "2", "3", "accuracy=0.9@sciq", "team/qa:v2"]


def test_bases_are_counted_by_content_and_by_name(registry: Registry, loreg: Loreg, four, minilm: Path, tmp_path: Path):
    registry.push(NEWS, "team/on-minilm", base=str(minilm))
    local = change_config(copy(HISTORY, tmp_path / "x"), base_model_name_or_path="/home/ada/secret/my-model")
    registry.push(local, "team/local")
    bases = registry.bases.summaries().items
    digest = registry.bases.show(MINILM).base.digest
    assert {(base.name, base.digest, base.adapters, base.versions) for base in bases} == {
        (SMOLLM, "", 2, 3),
        (MINILM, "", 1, 1),
        (MINILM, digest, 1, 1),
        ("my-model", "", 1, 1),
    }
    printed = loreg("bases").stdout
    assert "by name only" in printed
    assert "secret" not in printed + loreg("bases", "--format", "json").stdout
    assert "secret" not in loreg("search", "--facets", "--format", "json").stdout
    assert loreg("bases", "--format", "quiet").stdout.splitlines()[0] == SMOLLM


def test_what_is_measured_on_what_is_listed_with_the_best(registry: Registry, loreg: Loreg, four):
    rows = [(str(row.best), row.ref, row.versions) for row in registry.metrics().items]
    assert rows == [
        ("accuracy=0.9@sciq", "team/qa:v2", 2),
        ("accuracy=0.99@bbc", "team/news:v1", 1),
        ("eval_loss=0.4@talk:test", "team/chat:v1", 1),
        ("f1=0.5@sciq", "team/qa:v1", 1),
    ]
    line = next(line for line in loreg("metric", "ls").stdout.splitlines() if line.startswith("eval_loss"))
    assert line.split() == ["eval_loss", "talk:test", "lower", "1", "0.4", "team/chat:v1"]
    assert loreg("metric", "ls", "--format", "quiet").stdout.split()[0] == "accuracy@sciq"


def test_the_lists_come_in_pages(registry: Registry, four):
    for listing in (registry.tasks, registry.metrics, registry.bases.summaries):
        whole, pages, cursor = listing().items, [], None
        while not pages or cursor is not None:
            page = listing(limit=1, cursor=cursor)
            pages, cursor = [*pages, *page.items], page.cursor
        assert tuple(pages) == whole


def test_a_cursor_of_one_list_is_none_of_another(registry: Registry, four):
    with pytest.raises(UsageError, match="this cursor is not of this search"):
        registry.metrics(cursor=registry.tasks(limit=1).cursor)


def vars_of(metric: MetricRange) -> tuple[object, ...]:
    return metric.name, metric.low, metric.high, metric.higher_is_better


def counts(registry: Registry, kind: FacetKind, **conditions: object) -> dict[str, int]:
    facets = registry.facets(**conditions)
    return {count.value: count.versions for count in facets.counts if count.kind == kind}


def test_facets_count_what_a_search_finds(registry: Registry, loreg: Loreg, four):
    assert counts(registry, FacetKind.TASK) == {"qa": 2, "chat": 1, "topics": 1}
    assert counts(registry, FacetKind.BASE) == {SMOLLM: 2, MINILM: 1}
    assert counts(registry, FacetKind.RANK) == {"8": 3}
    assert counts(registry, FacetKind.VARIANT) == {"lora": 3}
    assert counts(registry, FacetKind.METRIC) == {"accuracy": 2, "eval_loss": 1}
    assert counts(registry, FacetKind.TASK, tasks=["chat"]) == {"chat": 1, "qa": 1}
    assert counts(registry, FacetKind.TASK, base="minilm") == {"topics": 1}
    assert counts(registry, FacetKind.TASK, text="top") == {"topics": 1}
    assert counts(registry, FacetKind.TASK, metrics=["accuracy>0"]) == {"qa": 2, "topics": 1}
    assert counts(registry, FacetKind.MODULE, modules=["query"]) == {"query": 1, "value": 1}
    assert registry.facets(tasks=["nothing-like-it"]).versions == 0
    printed = loreg("search", "--facets", "--task", "qa")
    assert printed.stderr == "of 2 versions\n"
    assert printed.stdout.splitlines()[2].split() == ["task", "qa", "2"]
    assert json.loads(loreg("search", "--facets", "--format", "json").stdout)["versions"] == 3
    assert loreg("search", "--facets", "--best", "accuracy").exit_code == 2


def test_facets_say_between_which_numbers_a_metric_lies(registry: Registry, loreg: Loreg, four):
    """Of the versions that fulfill the other conditions: a bound does not narrow where it can be moved to."""
    ranges = [("accuracy", 0.9, 0.99, True), ("eval_loss", 0.4, 0.4, False)]
    assert [tuple(vars_of(metric)) for metric in registry.facets().ranges] == ranges
    older = [("accuracy", 0.7, 0.99, True), ("f1", 0.5, 0.5, True), ("eval_loss", 0.4, 0.4, False)]
    for bound in ("accuracy>=0.95", "accuracy>=7"):
        assert sorted(vars_of(metric) for metric in registry.facets(metrics=[bound]).ranges) == sorted(older)
    assert [metric.name for metric in registry.facets(tasks=["topics"]).ranges] == ["accuracy"]
    lines = loreg("search", "--facets").stdout.splitlines()
    (line,) = [line for line in lines if " accuracy " in line]
    assert line.split() == ["metric", "accuracy", "2", "0.9", "to", "0.99"]


def test_facets_count_by_namespace_and_a_search_is_of_one(registry: Registry, loreg: Loreg, four):
    registry.push(NEWS, "plain")
    assert counts(registry, FacetKind.NAMESPACE) == {"team": 3, "-": 1}
    assert counts(registry, FacetKind.NAMESPACE, namespace="-") == {"-": 1}
    assert [version.ref for version in registry.search(namespace="-").items] == ["plain:v1"]
    assert loreg("search", "--namespace", "-", "--format", "quiet").stdout.split()[0].startswith("plain:v1")
    assert registry.search(namespace="nobody").items == ()
    assert {version.adapter.namespace for version in registry.search(namespace="team", best="accuracy").items} == {
        "team"
    }


def test_facets_of_many_are_of_the_newest(registry: Registry, four, monkeypatch: pytest.MonkeyPatch):
    if registry.settings.endpoint:
        pytest.skip("the server runs in another process")
    monkeypatch.setattr("loreg.catalog.facets.MAX_COUNTED", 2)
    facets = registry.facets(author="ada", variant="lora")
    assert (facets.versions, facets.is_capped) == (2, True)


class TestDeclaredMetrics:
    def test_have_their_direction_where_it_is_not_told(self, registry: Registry, loreg: Loreg):
        assert loreg("metric", "declare", "carbon").exit_code == 2
        printed = "carbon: lower is better, in kg\n"
        assert loreg("metric", "declare", "carbon", "--lower-is-better", "--unit", "kg").stdout == printed
        registry.push(SCIENCE, "a", metrics=["carbon=3"])
        registry.push(HISTORY, "b", metrics=["carbon=2"])
        assert [version.ref for version in registry.search(best="carbon").items] == ["b:v1", "a:v1"]
        assert registry.add_metrics("a", ["carbon=1"]).metrics[0].higher_is_better is False
        assert registry.metrics().items[0].unit == "kg"

    def test_refuse_numbers_of_the_other_direction_by_name(self, registry: Registry):
        from loreg.entities import Metric

        registry.declare_metric("carbon", lower_is_better=True)
        with pytest.raises(ConflictError, match="ada declared that lower is better for 'carbon'"):
            registry.push(SCIENCE, "a", metrics=[Metric("carbon", 3.0)])
        registry.push(SCIENCE, "a")
        with pytest.raises(ConflictError, match="this number says higher is"):
            registry.add_metrics("a", [Metric("carbon", 3.0)])
        assert registry.show("a").version.metrics == ()

    def test_turn_what_was_recorded_before(self, registry: Registry):
        registry.push(SCIENCE, "a", metrics=["carbon=3"])
        registry.push(HISTORY, "b", metrics=["carbon=2"])
        assert [version.ref for version in registry.search(best="carbon").items] == ["a:v1", "b:v1"]
        assert registry.declare_metric("carbon", lower_is_better=True).turned == 2
        assert [version.ref for version in registry.search(best="carbon").items] == ["b:v1", "a:v1"]
        assert registry.declare_metric("carbon", lower_is_better=True).turned == 0

    @pytest.mark.parametrize(("name", "unit"), [("no name", ""), ("carbon", "x" * 33), ("carbon", "\x1b[2J")])
    def test_have_a_name_and_a_short_unit(self, registry: Registry, name: str, unit: str):
        with pytest.raises(UsageError):
            registry.declare_metric(name, unit=unit)


class TestSlips:
    def test_are_told_in_a_script_with_what_mends_them(self, loreg: Loreg, registry: Registry):
        pushed = loreg("push", SCIENCE, "team/qa", "--metric", "acuracy=0.9@sciq", "--metric", "f1=0.5")
        assert pushed.exit_code == 0
        command = "loreg metric add team/qa accuracy=0.9@sciq"
        assert f"note: no metric is called 'acuracy' so far; if 'accuracy' is meant: {command}" in pushed.stderr
        assert loreg(*command.split()[1:]).exit_code == 0
        assert "accuracy=0.9@sciq" in {str(metric) for metric in registry.show("team/qa").version.metrics}

    def test_are_of_names_in_use_too(self, registry: Registry):
        registry.push(SCIENCE, "a", metrics=["helpfulness=0.9", "rouge1=0.2"])
        assert registry.find_metric_slips(["helpfulnes=1", "Helpfulness=1"]) == {
            "helpfulnes": "helpfulness",
            "Helpfulness": "helpfulness",
        }

    def test_are_not_names_that_are_known_or_differ_in_a_number(self, registry: Registry):
        registry.push(SCIENCE, "a", metrics=["eval_loss=0.9", "score1=0.2"])
        typed = ["val_loss=1", "score2=1", "accuracy=1", "f2=1", "eval_loss=2"]
        assert registry.find_metric_slips(typed) == {}
