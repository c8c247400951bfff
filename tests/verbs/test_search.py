"""Find the best, and what was meant: the same on this machine and through a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from alembic import command
from sqlalchemy import text

from deployments import HISTORY, SCIENCE, Deployment, Loreg, empty_folders
from listeners import http_listener
from live_server import live_server
from loreg.catalog import migrations
from loreg.catalog.engine import open_engine
from loreg.entities import Access
from loreg.errors import UnavailableError, UsageError
from loreg.registry import Registry, connect

OLD_PAGE = b'{"items": [], "cursor": null}'  # as servers answered a search before they knew --best


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[str]:
    with live_server(empty_folders(tmp_path)) as endpoint:
        yield endpoint


@pytest.fixture
def three_versions(registry: Registry) -> None:
    """Of ``qa`` the second version is the best, the third the newest."""
    registry.push(SCIENCE, "team/qa", tasks=["qa"], metrics=["accuracy=0.7@sciq:test"])
    registry.push(HISTORY, "team/qa", tasks=["qa"], metrics=["accuracy=0.9@sciq:test", "loss=0.4@sciq:test"])
    registry.push(SCIENCE, "team/other", tasks=["qa"], metrics=["accuracy=0.8@sciq:test"])


def test_by_name_adapters_stand_as_ls_lists_them_on_pages_of_any_size(registry: Registry):
    for folder in (SCIENCE, HISTORY):
        for name in ("b/qa", "a/qa", "qa", "a/news", "b/news", "a-b/qa", "A/qa"):
            registry.push(folder, name)
    listed = [str(entry.adapter) for entry in registry.adapters()]
    for limit in (1, 3, 50):
        newest = registry.search(sort="name", limit=limit).all()
        assert [version.ref for version in newest] == [f"{name}:v2" for name in listed]
        versions = registry.search(sort="name", all_versions=True, limit=limit).all()
        assert [version.ref for version in versions] == [f"{name}:v{number}" for name in listed for number in (1, 2)]
    assert listed == sorted(listed, key=lambda name: name.rpartition("/")[::2])


class TestWhatIsEmpty:
    """A script whose variable is not set asks for nothing, and is told so; it is not shown everything."""

    @pytest.mark.parametrize(
        "option",
        ["--task", "--base", "--module", "--rank", "--metric", "--label", "--author", "--variant", "--best", "--sort"],
    )
    @pytest.mark.parametrize("empty", ["", " "])
    def test_an_option_is_one_line_and_a_usage_error(self, local: Loreg, option: str, empty: str):
        done = local("search", option, empty)
        assert (done.exit_code, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: ")
        assert "empty" in line or f"invalid {option[2:]} {empty!r}" in line

    def test_a_condition_of_the_library_is_a_usage_error(self, registry: Registry):
        conditions: list[dict[str, Any]] = [
            {"tasks": [""]},
            {"tasks": ["qa", " "]},
            {"modules": [""]},
            {"labels": {"": "x"}},
            {"metrics": [""]},
            {"ranks": [""]},
        ]
        for condition in conditions:
            for ask in (registry.search, registry.facets):
                with pytest.raises(UsageError):
                    ask(**condition)

    def test_a_server_refuses_it_too(self, endpoint: str):
        for parameter in ("task", "module", "metric", "rank", "label"):
            answer = httpx.get(f"{endpoint}/api/v1/search", params={parameter: ""})
            assert answer.status_code == 400, parameter
            assert answer.json()["code"] == "usage"

    @pytest.mark.parametrize(
        "command",
        ["push ./x team/x", "check ./x", "export ./x --profile peft --to ./y", "import ./x"],
    )
    def test_no_command_takes_an_empty_base_for_none(self, local: Loreg, command: str):
        done = local(*command.split(), "--base", "")
        assert (done.exit_code, done.stdout) == (2, "")
        assert done.stderr.startswith("error: Invalid value for '--base': it is empty")


class TestBest:
    def test_is_one_version_of_each_adapter_whatever_its_age(self, registry: Registry, three_versions, tmp_path: Path):
        registry.push(registry.pull("team/qa:v2", tmp_path / "again").folder, "team/copy", metrics=["accuracy=0.1"])
        page = registry.search(best="accuracy@sciq:test")
        assert [version.ref for version in page.items] == ["team/qa:v2", "team/other:v1"]
        assert (page.all_versions, page.best) == (True, True)
        assert [version.ref for version in registry.search(best="loss").items] == ["team/qa:v2"]

    def test_comes_in_pages(self, registry: Registry, three_versions):
        first = registry.search(best="accuracy", limit=1)
        second = registry.search(best="accuracy", limit=1, cursor=first.cursor)
        assert [version.ref for version in first.items + second.items] == ["team/qa:v2", "team/other:v1"]
        assert second.cursor is None

    def test_is_said_on_stderr_to_look_at_all_versions(self, loreg: Loreg, three_versions):
        best = loreg("search", "--best", "accuracy@sciq", "--format", "quiet")
        assert best.stdout.split() == ["team/qa:v2", "team/other:v1"]
        assert best.stderr == "note: of each adapter the version that is best, whatever its age\n"
        by_metric = loreg("search", "--metric", "accuracy>=0.6", "--format", "quiet")
        assert by_metric.stdout.split() == ["team/other:v1", "team/qa:v2", "team/qa:v1"]
        assert by_metric.stderr == "note: looked at all versions, not only the newest\n"
        assert loreg("search", "--task", "qa").stderr == ""

    def test_says_the_order_itself(self, loreg: Loreg):
        both = loreg("search", "--best", "accuracy", "--sort", "name")
        assert (both.exit_code, both.stdout) == (2, "")
        assert "--best accuracy says the order already" in both.stderr
        assert loreg("search", "--best", "accuracy@").exit_code == 2

    def test_is_not_taken_from_a_server_that_does_not_know_it(self):
        with (
            http_listener(OLD_PAGE) as listener,
            connect(endpoint=f"http://127.0.0.1:{listener.port}") as registry,
            pytest.raises(UnavailableError, match="is older than this loreg: it does not know --best") as error,
        ):
            registry.search(best="f1@x")
        assert error.value.hint == "loreg search --all-versions --sort metric:f1@x"


class TestNearNames:
    def test_are_taken_and_said_on_stderr(self, loreg: Loreg, registry: Registry):
        registry.push(SCIENCE, "team/qa", tasks=["science-questions"])
        near = loreg("search", "--task", "question", "--format", "quiet")
        assert near.stdout == "team/qa:v1\n"
        assert near.stderr == "note: no task is called 'question'; searched for 'science-questions'\n"
        by_base = loreg("search", "--base", "smollm2", "--format", "quiet")
        assert by_base.stdout == "team/qa:v1\n"
        assert (
            by_base.stderr == "note: no base is called 'smollm2'; searched for 'HuggingFaceTB/SmolLM2-135M-Instruct'\n"
        )
        assert loreg("search", "--task", "science-questions").stderr == ""

    def test_are_suggested_with_a_command_that_finds_them(self, loreg: Loreg, registry: Registry):
        registry.push(SCIENCE, "team/qa", tasks=["sentiment"])
        wrong = loreg("search", "--task", "sentimnet")
        assert (wrong.exit_code, wrong.stdout) == (0, "")
        command = "loreg search --task sentiment"
        assert (
            wrong.stderr == f"note: no task is called 'sentimnet'; did you mean 'sentiment'? {command}\nnothing found\n"
        )
        assert loreg(*command.split()[1:], "--format", "quiet").stdout == "team/qa:v1\n"

    def test_say_where_to_look_if_nothing_is_alike(self, loreg: Loreg, registry: Registry):
        registry.push(SCIENCE, "team/qa", tasks=["sentiment"])
        assert "no task is called 'xyz'; loreg tasks lists those there are" in loreg("search", "--task", "xyz").stderr


class TestText:
    def test_is_searched_by_words_the_best_match_first(self, loreg: Loreg, registry: Registry):
        registry.push(HISTORY, "team/history-talk", tasks=["chat"], message="not about news")
        registry.push(SCIENCE, "team/news-topics_r8", labels={"owner": "grace"})
        for words in (["topics"], ["r8", "news"], ["grace"], ["smollm2", "top"], ["q_proj", "topics"]):
            assert loreg("search", *words, "--format", "quiet").stdout == "team/news-topics_r8:v1\n", words
        assert loreg("search", "news", "--format", "quiet").stdout.split() == [
            "team/news-topics_r8:v1",
            "team/history-talk:v1",
        ]
        assert registry.search("news", limit=1).cursor is not None

    def test_is_forgotten_with_what_is_deleted(self, registry: Registry):
        registry.push(SCIENCE, "team/news-topics")
        registry.delete("team/news-topics:v1", "a test")
        assert registry.search("topics").items == ()

    def test_is_of_what_may_be_shown(self, registry: Registry):
        registry.push(SCIENCE, "team/news-topics")
        registry.yank("team/news-topics:v1")
        assert registry.search("topics").items == ()
        registry.unyank("team/news-topics:v1")
        assert len(registry.search("topics").items) == 1

    def test_without_a_letter_is_refused(self, loreg: Loreg):
        assert loreg("search", "--", "--").exit_code == 2
        assert loreg("search", "x", "--sort", "relevance").exit_code == 0
        assert loreg("search", "--sort", "relevance").exit_code == 2


def test_words_are_found_again_after_a_restore_and_after_an_upgrade(local_deployment: Deployment, tmp_path: Path):
    with connect(**local_deployment.settings, author="ada") as registry:
        registry.push(SCIENCE, "team/news-topics_r8", tasks=["qa"])
        registry.backup(tmp_path / "backup")
        with registry.context.backend.catalog.write(Access.superuser("ada")) as tx:
            tx.connection.execute(text("DELETE FROM search_texts"))  # as a catalog is that was older
        assert registry.search("topics").items == ()
    engine = open_engine(local_deployment.database_url)
    with engine.begin() as connection:
        config = migrations.alembic_config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0011")
    migrations.upgrade(engine)
    engine.dispose()
    with connect(**local_deployment.settings, author="ada") as registry:
        assert [version.ref for version in registry.search("topics qa").items] == ["team/news-topics_r8:v1"]
    with connect(home=str(tmp_path / "restored"), author="ada") as restored:
        restored.restore(tmp_path / "backup")
        assert [version.ref for version in restored.search("topics qa").items] == ["team/news-topics_r8:v1"]
