"""What a team asks of adapters, in loreg.toml: checked by loreg check, and before an alias moves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loreg.checking.explain import explain
from loreg.errors import CheckFailedError, UsageError
from loreg.registry import Registry, connect
from making import train, write_base
from places import SCIENCE, Loreg

POLICY = """
[check]
tasks = ["qa"]
metrics = ["accuracy>=0.9@sciq", "loss<0.5"]
bases = ["base"]
max_rank = 4
max_size = "20k"
aliases = ["prod"]
"""


@pytest.fixture
def asked(tmp_path: Path) -> Registry:
    """A registry whose team asks for something."""
    (tmp_path / "loreg.toml").write_text(POLICY)
    return connect(home=str(tmp_path / "home"))


def broken(registry: Registry, source: str) -> dict[str, str]:
    (report,) = registry.check([source])
    return {finding.code: finding.message for finding in report.findings if finding.code.startswith("LP")}


GOOD = {"tasks": ["qa"], "metrics": ["accuracy=0.93@sciq:test", "loss=0.2"]}


def test_a_version_that_has_it_all_breaks_nothing(asked: Registry, tmp_path: Path):
    asked.push(train(tmp_path / "a", 1), "a", base=str(write_base(tmp_path / "base")), **GOOD)
    assert broken(asked, "a") == {}
    assert asked.tag("a", "prod").aliases == ("prod",)


def test_everything_that_a_version_breaks_is_told_with_what_was_found(asked: Registry, tmp_path: Path):
    asked.push(train(tmp_path / "a", 1, r=8), "a", metrics=["accuracy=0.8@sciq", "loss=0.7"])
    found = broken(asked, "a")
    assert found["LP001"] == "the task qa is missing"
    assert found["LP003"] == "the base is unknown, allowed are base"
    assert found["LP004"] == "rank 8 is over 4"
    (report,) = asked.check(["a"])
    told = [finding.message for finding in report.findings if finding.code == "LP002"]
    assert told == [
        "accuracy>=0.9@sciq is asked for, measured is accuracy=0.8@sciq",
        "loss<0.5 is asked for, measured is loss=0.7",
    ]


def test_a_folder_is_asked_only_for_what_it_has(asked: Registry):
    assert set(broken(asked, str(SCIENCE))) == {"LP003", "LP004", "LP005"}


def test_an_alias_is_guarded_by_tag_and_by_push(asked: Registry, tmp_path: Path):
    base = str(write_base(tmp_path / "base"))
    first = asked.push(train(tmp_path / "a", 1), "a", base=base, aliases=["prod"], **GOOD).version
    with pytest.raises(CheckFailedError, match=r"LP001 the task qa is missing \(and 2 more\)"):
        asked.push(train(tmp_path / "b", 2), "a", base=base, aliases=["prod"])
    assert [version.number for version in asked.versions("a").items] == [1]  # nothing was recorded
    second = asked.push(tmp_path / "b", "a", base=base, aliases=["dev"]).version
    with pytest.raises(CheckFailedError, match="a:v2 cannot become 'prod': LP001"):
        asked.tag("a:v2", "prod")
    assert asked.show("a:prod").version.number == first.number
    assert second.aliases == ("dev",)


def test_without_a_policy_nothing_is_asked(tmp_path: Path):
    here = connect(home=str(tmp_path / "home"))
    assert broken(here, str(SCIENCE)) == {}
    here.push(SCIENCE, "a", aliases=["prod"])


@pytest.mark.parametrize(
    "line",
    ["colour = 1", "tasks = 'qa'", "metrics = [1]", "metrics = ['accuracy']", "max_rank = true", "max_size = 'big'"],
)
def test_a_policy_that_is_not_understood_is_refused_at_once(tmp_path: Path, line: str):
    (tmp_path / "loreg.toml").write_text(f"[check]\n{line}\n")
    with pytest.raises(UsageError):
        connect(home=str(tmp_path / "home"))


def test_the_command_fails_with_the_findings(local: Loreg, tmp_path: Path):
    (tmp_path / "loreg.toml").write_text("[check]\nmax_rank = 4\naliases = ['prod']\n")
    done = local("check", SCIENCE, "--format", "json")
    assert done.exit_code == 5
    assert [finding["code"] for finding in json.loads(done.stdout)[0]["findings"]] == ["LP004"]
    local("push", SCIENCE, "a")
    done = local("tag", "a", "prod")
    assert (done.exit_code, done.stderr) == (
        5,
        "error: a:v1 cannot become 'prod': LP004 rank 8 is over 4. Hint: loreg rerank REF --rank N\n",
    )


def test_every_rule_of_the_policy_is_explained():
    assert explain("LP002").about == "A version has every metric that the policy names, measured as well as it asks."
