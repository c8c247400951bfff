"""What a team asks of adapters, in loreg.toml: checked by loreg check, and before an alias moves."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from deployments import SCIENCE, Loreg, empty_home
from factories import train, write_base
from loreg.checking.explain import explain
from loreg.checking.policy import Policy, policy_from_json, policy_to_json, read_policy
from loreg.entities import Metric
from loreg.errors import CheckFailedError, NotFoundError, UsageError
from loreg.registry import Registry, connect

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
def team_registry(tmp_path: Path) -> Registry:
    """A registry whose team asks for something."""
    (tmp_path / "loreg.toml").write_text(POLICY)
    return connect(home=empty_home(tmp_path / "home"))


def broken(registry: Registry, source: str) -> dict[str, str]:
    (report,) = registry.check([source])
    return {finding.code: finding.message for finding in report.findings if finding.code.startswith("LP")}


def test_a_policy_that_was_written_down_is_the_same_when_it_is_read_back():
    for table in (
        tomllib.loads(POLICY)["check"],
        {"against": "prod", "tolerance": 0.5, "license": True, "card": ["x"]},
    ):
        policy = read_policy(table, "loreg.toml")
        assert policy_from_json(json.loads(json.dumps(policy_to_json(policy)))) == policy != Policy()


GOOD = {"tasks": ["qa"], "metrics": ["accuracy=0.93@sciq:test", "loss=0.2"]}


def test_a_version_that_has_it_all_breaks_nothing(team_registry: Registry, tmp_path: Path):
    team_registry.push(train(tmp_path / "a", 1), "a", base=str(write_base(tmp_path / "base")), **GOOD)
    assert broken(team_registry, "a") == {}
    assert team_registry.tag("a", "prod").aliases == ("prod",)


def test_everything_that_a_version_breaks_is_told_with_what_was_found(team_registry: Registry, tmp_path: Path):
    team_registry.push(train(tmp_path / "a", 1, r=8), "a", metrics=["accuracy=0.8@sciq", "loss=0.7"])
    breaches = broken(team_registry, "a")
    assert breaches["LP001"] == "the task qa is missing"
    assert breaches["LP003"] == "the base is unknown, allowed are base"
    assert breaches["LP004"] == "rank 8 is over 4"
    (report,) = team_registry.check(["a"])
    messages = [finding.message for finding in report.findings if finding.code == "LP002"]
    assert messages == [
        "accuracy>=0.9@sciq is asked for, measured is accuracy=0.8@sciq",
        "loss<0.5 is asked for, measured is loss=0.7",
    ]


def test_a_folder_is_asked_only_for_what_it_has(team_registry: Registry):
    assert set(broken(team_registry, str(SCIENCE))) == {"LP003", "LP004", "LP005"}


def test_an_alias_is_guarded_by_tag_and_by_push(team_registry: Registry, tmp_path: Path):
    base = str(write_base(tmp_path / "base"))
    first = team_registry.push(train(tmp_path / "a", 1), "a", base=base, aliases=["prod"], **GOOD).version
    with pytest.raises(CheckFailedError, match=r"LP001 the task qa is missing \(and 2 more\)"):
        team_registry.push(train(tmp_path / "b", 2), "a", base=base, aliases=["prod"])
    assert [version.number for version in team_registry.versions("a").items] == [1]  # nothing was recorded
    second = team_registry.push(tmp_path / "b", "a", base=base, aliases=["dev"]).version
    with pytest.raises(CheckFailedError, match="a:v2 cannot become 'prod': LP001"):
        team_registry.tag("a:v2", "prod")
    assert team_registry.show("a:prod").version.number == first.number
    assert second.aliases == ("dev",)


def test_without_a_policy_nothing_is_asked(tmp_path: Path):
    local_registry = connect(home=str(tmp_path / "home"))
    assert broken(local_registry, str(SCIENCE)) == {}
    local_registry.push(SCIENCE, "a", aliases=["prod"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("colour = 1", "colour is not known; there are against, aliases, bases, card"),
        ("tasks = 'qa'", "tasks is 'qa', expected a list"),
        ("metrics = [1]", r"metrics is \[1\], expected a list of texts"),
        ("metrics = ['accuracy']", "invalid metric 'accuracy'"),
        ("max_rank = true", "max_rank is True, expected a whole number or text"),
        ("max_rank = 0", "max_rank is 0, expected 1 or more"),
        ("max_size = '0'", "max_size is '0', expected 1 or more"),
        ("max_size = 'big'", "invalid number 'big'"),
        ("card = 'license'", "card is 'license', expected a list"),
        ("license = 'mit'", "license is 'mit', expected true or false"),
        ("against = 1", "against is 1, expected text"),
        ("against = 'v1'", "'v1'"),
        ("tolerance = -1", "tolerance is -1, expected a number >= 0"),
        ("tolerance = true", "tolerance is True, expected a number"),
        ("tolerance = nan", "tolerance is nan, expected a number >= 0"),
        ("tolerance = inf", "tolerance is inf, expected a number"),
    ],
)
def test_a_policy_that_is_not_understood_is_refused_at_once(tmp_path: Path, line: str, message: str):
    (tmp_path / "loreg.toml").write_text(f"[check]\n{line}\n")
    with pytest.raises(UsageError, match=rf"loreg\.toml: \[check\] .*{message}") as error:
        connect(home=str(tmp_path / "home"))
    assert "loreg.toml" in error.value.hint


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


CARD = """---
license: {license}
datasets:
- bbc-news
---
# News
"""


def policy(tmp_path: Path, text: str) -> Registry:
    (tmp_path / "loreg.toml").write_text(f"[check]\n{text}\n")
    return connect(home=empty_home(tmp_path / "home"))


class TestTheCard:
    def test_has_every_field_that_is_asked_for(self, tmp_path: Path):
        local_registry = policy(tmp_path, 'card = ["license", "datasets", "language"]')
        adapter = train(tmp_path / "a", 1)
        (adapter / "README.md").write_text(CARD.format(license="mit"))
        assert broken(local_registry, str(adapter)) == {"LP006": "the card lacks language"}
        local_registry.push(adapter, "a")
        assert broken(local_registry, "a") == {"LP006": "the card lacks language"}
        (adapter / "README.md").write_text(CARD.format(license="mit\nlanguage: en"))
        assert broken(local_registry, str(adapter)) == {}

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "no yaml",
            "---\nlicense: mit",
            "---\n[1, 2\n---\n",
            "---\n- a\n---\n",
            "---\na: &x 1\nlicense: *x\n---",
        ],
    )
    def test_without_sound_yaml_has_no_fields(self, tmp_path: Path, text: str):
        local_registry = policy(tmp_path, 'card = ["license"]')
        adapter = train(tmp_path / "a", 1)
        (adapter / "README.md").write_text(text)
        assert broken(local_registry, str(adapter)) == {"LP006": "the card lacks license"}


class TestTheLicense:
    @pytest.mark.parametrize(
        ("adapter", "base", "reason"),
        [
            ("mit", "apache-2.0", None),
            ("cc-by-nc-4.0", "mit", None),
            ("llama3.1", "llama3.1", None),
            (
                "apache-2.0",
                "llama3.1",
                "the license is apache-2.0, that of the base is llama3.1, which what is derived",
            ),
            ("mit", "cc-by-nc-4.0", "the license is mit, that of the base is cc-by-nc-4.0: non-commercial"),
            ("cc-by-nc-sa-4.0", "cc-by-nc-4.0", None),
            (
                "cc-by-nc-4.0",
                "cc-by-nc-sa-4.0",
                "that of the base is cc-by-nc-sa-4.0, which what is",
            ),
            (
                "mit",
                "gpl-3.0",
                "the license is mit, that of the base is gpl-3.0, which what is derived",
            ),
            ("mit", "cc-by-nd-4.0", "nothing derived from it may be passed on"),
            ("", "mit", "the card names no license, that of the base is mit"),
            ("mit", "", "the license of the base is not known"),
            ("llama-4", "other\nlicense_name: Llama-4", None),
        ],
    )
    def test_is_one_that_the_base_allows(self, tmp_path: Path, adapter: str, base: str, reason: str | None):
        local_registry = policy(tmp_path, "license = true")
        folder, model = train(tmp_path / "a", 1), write_base(tmp_path / "base")
        if adapter:
            (folder / "README.md").write_text(CARD.format(license=adapter))
        if base:
            (model / "README.md").write_text(CARD.format(license=base))
        local_registry.push(folder, "a", base=str(model))
        breaches = broken(local_registry, "a")
        assert breaches.keys() == ({"LP007"} if reason else set())
        assert (reason or "") in breaches.get("LP007", "")
        (report,) = local_registry.check([str(folder)], base=str(model))
        assert [f.message for f in report.findings if f.code == "LP007"] == list(breaches.values())

    def test_of_a_base_is_shown_and_learned_later(self, tmp_path: Path):
        local_registry = connect(home=str(tmp_path / "home"))
        model = write_base(tmp_path / "base")
        assert local_registry.bases.add(model, ["b"]).base.license == ""
        (model / "README.md").write_text(CARD.format(license="llama3.1"))
        assert local_registry.bases.add(model).base.license == "llama3.1"
        assert local_registry.bases.show("b").base.license == "llama3.1"


class TestAgainst:
    def pushed(self, local_registry: Registry, tmp_path: Path) -> None:
        local_registry.push(train(tmp_path / "a", 1), "a", metrics=["accuracy=0.93@imdb", "loss=0.2"], aliases=["prod"])
        local_registry.push(train(tmp_path / "b", 2), "a", metrics=["accuracy=0.92@imdb"])

    def test_a_version_in_use_nothing_may_be_worse(self, tmp_path: Path):
        local_registry = connect(home=str(tmp_path / "home"))
        self.pushed(local_registry, tmp_path)
        for against in ("prod", "a:prod", "a:v1"):
            (report,) = local_registry.check(["a"], against=against)
            assert [(f.code, f.severity, f.message) for f in report.findings] == [
                ("LP008", "error", "accuracy=0.92@imdb is worse than accuracy=0.93@imdb of a:v1"),
                ("LP009", "warning", "loss=0.2 of a:v1 was not measured"),
            ]
        assert local_registry.check(["a:prod"], against="prod")[0].findings == ()
        assert (
            local_registry.check(["a"], against="nobody")[0].findings == ()
        )  # the first version has nothing to compare with
        with pytest.raises(NotFoundError):
            local_registry.check(["a"], against="a:nobody")

    def test_lower_is_better_where_it_was_said(self, tmp_path: Path):
        local_registry = connect(home=str(tmp_path / "home"))
        worse = [Metric("loss", 0.2, higher_is_better=False)], [Metric("loss", 0.3, higher_is_better=False)]
        local_registry.push(train(tmp_path / "a", 1), "a", metrics=worse[0], aliases=["prod"])
        local_registry.push(train(tmp_path / "b", 2), "a", metrics=worse[1])
        assert [f.code for f in local_registry.check(["a"], against="prod")[0].findings] == ["LP008"]

    @pytest.mark.parametrize(
        ("tolerance", "codes"),
        [
            ("0.009", ["LP008", "LP009"]),
            ("0.01", ["LP009"]),
            ("1", ["LP009"]),
        ],
    )
    def test_by_more_than_the_tolerance(self, tmp_path: Path, tolerance: str, codes: list[str]):
        local_registry = policy(tmp_path, f'against = "prod"\ntolerance = {tolerance}')
        self.pushed(local_registry, tmp_path)
        assert [f.code for f in local_registry.check(["a"])[0].findings] == codes

    def test_guards_the_alias_that_it_is_compared_with(self, tmp_path: Path):
        local_registry = policy(tmp_path, 'against = "prod"\naliases = ["prod"]')
        self.pushed(local_registry, tmp_path)
        with pytest.raises(CheckFailedError, match=r"a:v2 cannot become 'prod': LP008 accuracy=0\.92@imdb is worse"):
            local_registry.tag("a", "prod")
        local_registry.add_metrics("a", ["accuracy=0.94@imdb"])
        assert local_registry.tag("a", "prod").number == 2
