"""prune: what a written policy does not keep goes, and never what something kept hangs on."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from deployments import Deployment, Loreg
from factories import train
from loreg import MergeOptions, connect
from loreg.catalog.schema import version_table
from loreg.entities import Access, PruneReport
from loreg.errors import NotAllowedError, NotFoundError, UsageError
from loreg.registry import Registry

Open = Callable[[str], Registry]
_seeds = itertools.count(1)


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[], Path]:
    """Make an adapter that nobody has yet."""
    return lambda: train(tmp_path / f"adapter-{(seed := next(_seeds))}", seed)


@pytest.fixture
def open_with(local_deployment: Deployment, tmp_path: Path) -> Iterator[Open]:
    """Open the registry with this text as loreg.toml."""
    opened: list[Registry] = []

    def open_one(text: str) -> Registry:
        (tmp_path / "loreg.toml").write_text(text)
        opened.append(connect(**local_deployment.settings, author="ada"))
        return opened[-1]

    yield open_one
    for registry in opened:
        registry.close()


def push(registry: Registry, name: str, folder: Callable[[], Path], count: int = 1, **metadata: Any) -> None:
    for _ in range(count):
        registry.push(folder(), name, **metadata)


def let_days_pass(registry: Registry, days: int, *, since: str = "created_at") -> None:
    """Date every version back, as if so many days had passed."""
    column = version_table.c[since]
    with registry.context.backend.catalog.write(Access.superuser("")) as tx:
        for row in tx.connection.execute(version_table.select()).all():
            if getattr(row, since) is not None:
                moved = getattr(row, since) - timedelta(days=days)
                tx.connection.execute(update(version_table).where(version_table.c.id == row.id).values({column: moved}))


def numbers(registry: Registry, name: str) -> list[int]:
    return sorted(version.number for version in registry.versions(name, limit=1000).items)


def reasons(report: PruneReport) -> dict[str, str]:
    return {decision.ref: decision.reason for decision in report.kept}


def going(report: PruneReport) -> set[str]:
    return {decision.ref for decision in report.going}


def test_the_newest_so_many_stay(open_with: Open, folder):
    registry = open_with("[retention]\nkeep_last = 2\n")
    push(registry, "team/science", folder, 4)
    push(registry, "team/history", folder)
    planned = registry.prune(dry_run=True)
    assert going(planned) == {"team/science:v1", "team/science:v2"}
    assert numbers(registry, "team/science") == [1, 2, 3, 4]
    assert reasons(planned) == {
        "team/science:v4": "the newest", "team/science:v3": "keep_last = 2", "team/history:v1": "the newest",
    }  # fmt: skip
    done = registry.prune()
    assert (going(done), done.size, done.kept_count) == (going(planned), planned.size, planned.kept_count)
    assert numbers(registry, "team/science") == [3, 4]
    assert registry.prune().going_count == 0
    assert registry.verify(read_data=True).ok


def test_yanked_versions_stay_for_a_while_and_are_not_counted(open_with: Open, folder):
    registry = open_with('[retention]\nkeep_last = 1\nkeep_yanked = "30d"\n')
    push(registry, "science", folder, 3)
    registry.yank("science:v2")
    registry.yank("science:v3")
    assert going(registry.prune(dry_run=True)) == set()
    let_days_pass(registry, 31, since="yanked_at")
    assert going(registry.prune()) == {"science:v2", "science:v3"}
    assert numbers(registry, "science") == [1]
    push(registry, "science", folder)
    assert numbers(registry, "science") == [1, 4]


def test_an_adapter_of_yanked_versions_keeps_the_newest(open_with: Open, folder):
    registry = open_with('[retention]\nkeep_yanked = "1d"\n')
    push(registry, "science", folder, 2)
    for number in (1, 2):
        registry.yank(f"science:v{number}")
    let_days_pass(registry, 2, since="yanked_at")
    registry.prune()
    assert numbers(registry, "science") == [2]


def test_new_versions_stay_and_a_kind_without_a_rule_stays(open_with: Open, folder):
    registry = open_with('[retention]\nkeep_newer = "7d"\n')
    push(registry, "science", folder, 2)
    registry.yank("science:v1")
    push(registry, "science", folder)
    assert reasons(registry.prune())["science:v2"] == "keep_newer = 7d"
    let_days_pass(registry, 8)
    let_days_pass(registry, 400, since="yanked_at")
    report = registry.prune()
    assert going(report) == {"science:v2"}
    assert reasons(report) == {"science:v3": "the newest", "science:v1": "yanked, and no rule for that"}


def test_either_rule_keeps_a_version(open_with: Open, folder):
    registry = open_with('[retention]\nkeep_last = 2\nkeep_newer = "7d"\n')
    push(registry, "science", folder, 3)
    let_days_pass(registry, 8)
    push(registry, "science", folder, 3)
    assert going(registry.prune()) == {"science:v1", "science:v2", "science:v3"}


def test_of_a_stream_every_so_manieth_stays(open_with: Open, folder):
    registry = open_with("[retention]\nkeep_last = 2\nkeep_every = 3\n")
    push(registry, "science", folder, 8)
    report = registry.prune()
    assert reasons(report)["science:v3"] == "keep_every = 3"
    assert numbers(registry, "science") == [3, 6, 7, 8]
    alone = open_with("[retention]\nkeep_every = 4\n")
    push(alone, "alone", folder, 6)
    alone.prune("alone")
    assert numbers(alone, "alone") == [4, 6]  # the newest is never pruned


def test_a_namespace_has_rules_of_its_own(open_with: Open, folder):
    registry = open_with(
        "[retention]\nkeep_last = 1\n[retention.namespace.team]\nkeep_last = 2\n[retention.namespace.-]\n"
    )
    for name in ("team/science", "other/science", "science"):
        push(registry, name, folder, 3)
    registry.prune()
    assert [numbers(registry, name) for name in ("team/science", "other/science", "science")] == [
        [2, 3], [3], [1, 2, 3],
    ]  # fmt: skip


def test_what_an_alias_means_stays_and_what_a_guarded_one_last_meant(open_with: Open, folder):
    registry = open_with('[retention]\nkeep_last = 1\n[check]\naliases = ["prod"]\n')
    push(registry, "science", folder, aliases=["old", "gone"])
    push(registry, "science", folder, aliases=["prod"])
    push(registry, "science", folder, aliases=["prod"])
    push(registry, "science", folder, 2)
    registry.untag("science", "prod")
    registry.untag("science", "gone")
    report = registry.prune()
    assert going(report) == {"science:v2", "science:v4"}
    assert reasons(report) == {
        "science:v5": "the newest", "science:v3": "the alias prod last meant it",
        "science:v1": "the alias old means it",
    }  # fmt: skip


def test_what_something_kept_descends_from_stays(open_with: Open, folder):
    registry = open_with("[retention]\nkeep_last = 1\n")
    push(registry, "team/source", folder, 3)
    registry.merge(["team/source:v1"], MergeOptions(weights=[0.5]), name="other/merged")
    registry.merge(["other/merged:v1"], MergeOptions(weights=[0.5]), name="last/merged")
    push(registry, "other/merged", folder)
    report = registry.prune()
    assert going(report) == {"team/source:v2"}
    assert reasons(report)["team/source:v1"] == "other/merged:v1 descends from it"
    assert reasons(report)["other/merged:v1"] == "last/merged:v1 descends from it"
    assert [edge.parent_ref for edge in registry.lineage("last/merged")[1]] == ["other/merged:v1", "team/source:v1"]


def test_a_chain_that_nothing_kept_descends_from_goes_as_a_whole(open_with: Open, folder):
    registry = open_with("[retention]\nkeep_last = 1\n")
    push(registry, "a/source", folder)
    registry.merge(["a/source:v1"], MergeOptions(weights=[0.5]), name="b/merged")
    registry.merge(["b/merged:v1"], MergeOptions(weights=[0.5]), name="c/merged")
    for name in ("a/source", "b/merged", "c/merged"):
        push(registry, name, folder)
    planned = registry.prune(dry_run=True)
    assert going(planned) == {"a/source:v1", "b/merged:v1", "c/merged:v1"}
    assert going(registry.prune()) == going(planned)


def test_what_is_not_asked_for_keeps_what_it_descends_from(open_with: Open, folder):
    registry = open_with("[retention]\nkeep_last = 1\n")
    push(registry, "a/source", folder)
    registry.merge(["a/source:v1"], MergeOptions(weights=[0.5]), name="b/merged")
    for name in ("a/source", "b/merged"):
        push(registry, name, folder)
    report = registry.prune("a/*")
    assert (going(report), reasons(report)["a/source:v1"]) == (set(), "b/merged:v1 descends from it")
    assert numbers(registry, "b/merged") == [1, 2]
    assert going(registry.prune()) == {"a/source:v1", "b/merged:v1"}


def test_what_an_open_job_needs_stays_and_what_came_after_it(open_with: Open, folder):
    registry = open_with("[retention]\nkeep_last = 1\n")
    push(registry, "team/science", folder, 5)
    job = registry.jobs.submit("merge", sources=["team/science:v2"], name="team/merged")
    report = registry.prune()
    assert going(report) == {"team/science:v1"}
    assert reasons(report)["team/science:v3"] == f"job {job.id} needs team/science:v2"
    registry.jobs.cancel(job.id)
    assert going(registry.prune()) == {"team/science:v2", "team/science:v3", "team/science:v4"}


def test_pruned_content_may_be_pushed_again_and_gets_a_new_number(open_with: Open, folder):
    registry = open_with("[retention]\nkeep_last = 1\n")
    first = folder()
    digest = registry.push(first, "science").version.digest
    push(registry, "science", folder)
    registry.prune()
    with pytest.raises(NotFoundError, match=r"science:v1 was deleted on .* by ada: pruned: keep_last = 1"):
        registry.show("science:v1")
    again = registry.push(first, "science")
    assert (again.created, again.version.ref, again.version.digest) == (True, "science:v3", digest)
    assert registry.verify(read_data=True).ok


def test_the_blobs_go_with_the_next_gc(open_with: Open, folder):
    registry = open_with("[retention]\nkeep_last = 1\n")
    push(registry, "science", folder, 2)
    registry.prune()
    assert registry.gc(grace="24h").new >= 2
    assert registry.gc(grace="0h").removed >= 2
    report = registry.verify(read_data=True)
    assert (report.ok, report.orphan_count) == (True, 0)


def test_a_pruned_version_can_still_be_deleted_for_good(open_with: Open, folder):
    registry = open_with("[retention]\nkeep_last = 1\n")
    first = folder()
    registry.push(first, "science")
    push(registry, "science", folder)
    registry.prune()
    orphans = registry.verify().orphan_count
    assert registry.delete("science:v1", "asked for").removed == orphans > 0
    assert registry.verify().orphan_count == 0
    with pytest.raises(NotAllowedError, match=r"was deleted from the registry: .*asked for"):
        registry.push(first, "science")


def test_each_version_leaves_an_event_with_the_rule(open_with: Open, folder):
    registry = open_with("[retention]\nkeep_last = 1\n")
    push(registry, "team/science", folder, 3)
    digests = {version.number: version.digest for version in registry.versions("team/science").items}
    registry.prune()
    events = [event for event in registry.events().items if event.action == "prune"]
    assert all((event.author, event.ref) == ("ada", "team/science") for event in events)
    assert sorted((event.detail["number"], event.detail["digest"], event.detail["rule"]) for event in events) == [
        (number, digests[number], "keep_last = 1") for number in (1, 2)
    ]


class Killed(BaseException):
    """As if the process had ended there."""


def test_killed_anywhere_it_goes_on_when_it_is_repeated(open_with: Open, folder, monkeypatch: pytest.MonkeyPatch):
    registry = open_with("[retention]\nkeep_last = 1\n")
    push(registry, "team/science", folder, 5)
    push(registry, "team/history", folder, 3)
    monkeypatch.setattr("loreg.verbs.prune._BATCH", 1)
    from loreg.catalog import deletion

    remove, removed = deletion.remove, []

    def die_at_the_third(*arguments: Any, **options: Any) -> str:
        if len(removed) == 2:
            raise Killed
        removed.append(arguments)
        return remove(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(deletion, "remove", die_at_the_third)
        with pytest.raises(Killed):
            registry.prune()
    assert len(numbers(registry, "team/science")) + len(numbers(registry, "team/history")) == 6
    assert registry.verify(read_data=True).ok
    registry.prune()
    assert (numbers(registry, "team/science"), numbers(registry, "team/history")) == ([5], [3])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "there is no \\[retention\\]"),
        ("[retention]\nkeep_last = 0\n", "keep_last is 0, expected"),
        ('[retention]\nkeep_last = "5"\n', "keep_last is '5', expected a whole number"),
        ('[retention]\nkeep_yanked = "soon"\n', "invalid span 'soon'"),
        ("[retention]\nkeep_lst = 5\n", "keep_lst is not known"),
        ("[retention.namespace.team]\nkeep = 5\n", "keep"),
        ('[retention.namespace."a/b"]\nkeep_last = 5\n', "a/b"),
        ("[retention.namespace]\nteam = 5\n", "team"),
    ],
)
def test_without_rules_or_with_wrong_ones_it_is_refused(open_with: Open, folder, text: str, complaint: str):
    registry = open_with(text)
    push(registry, "science", folder, 2)
    with pytest.raises(UsageError, match=complaint) as refused:
        registry.prune()
    assert refused.value.hint
    assert numbers(registry, "science") == [1, 2]


class TestCommand:
    @pytest.fixture
    def science(self, local: Loreg, folder, tmp_path: Path) -> Loreg:
        (tmp_path / "loreg.toml").write_text("[retention]\nkeep_last = 1\n")
        for _ in range(3):
            assert local("push", folder(), "team/science").exit_code == 0
        return local

    def test_a_dry_run_shows_what_goes_and_why_the_others_stay(self, science: Loreg):
        outcome = science("prune", "team/*", "--dry-run")
        assert (outcome.exit_code, outcome.stderr) == (0, "")
        *rows, summary = outcome.stdout.splitlines()
        assert rows[-1].startswith("team/science:v3 ")
        assert rows[-1].split()[-3:] == ["stays", "the", "newest"]
        assert [(row.split()[0], "would go" in row) for row in rows[2:-1]] == [
            ("team/science:v2", True), ("team/science:v1", True),
        ]  # fmt: skip
        assert summary.startswith("2 versions would go")
        document = json.loads(science("prune", "--dry-run", "--format", "json").stdout)
        assert [row["ref"] for row in document["going"]] == ["team/science:v2", "team/science:v1"]
        assert [(row["ref"], row["reason"]) for row in document["kept"]] == [("team/science:v3", "the newest")]
        assert science("prune", "--dry-run", "--format", "quiet").stdout.split() == [
            "team/science:v2", "team/science:v1",
        ]  # fmt: skip

    def test_it_asks_first_and_its_hint_does_it(self, science: Loreg, tmp_path: Path):
        outcome = science("prune")
        assert outcome.exit_code == 4
        assert f"by the rules in {tmp_path / 'loreg.toml'}" in outcome.stderr
        assert outcome.stderr.splitlines()[-1].endswith("Hint: loreg prune '*' --yes")
        done = science("prune", "*", "--yes")
        assert (done.exit_code, "2 versions are gone" in done.stdout) == (0, True)
        assert science("ls", "team/science", "--format", "quiet").stdout == "team/science:v3\n"
        assert science("prune").exit_code == 0  # nothing to ask

    def test_a_pattern_that_is_none_is_refused(self, science: Loreg):
        assert science("prune", "team/[a]", "--yes").exit_code == 2
