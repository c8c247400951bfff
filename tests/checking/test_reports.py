"""The command as CI systems see it: exit codes, and documents that their readers take."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from jsonschema import Draft4Validator

from deployments import DORA, EXAMPLES, SCIENCE, Loreg
from factories import change_config, copy
from loreg.checking.reports.github import github
from loreg.checking.reports.junit import junit
from loreg.checking.reports.sarif import sarif
from loreg.entities import CheckReport, Finding

ODD = CheckReport(
    "team/odd: name",
    "some folder/ü, x",
    (
        Finding("LR001", "error", "100 % wrong\nin two lines <&>\x01", "do: this, now"),
        Finding("LR008", "warning", "all zero", "train"),
    ),
)
FINE = CheckReport("fine", "", ())


#: The schema of OASIS, which that of GitHub's code scanning is too.
SARIF = json.loads((Path(__file__).parents[1] / "data" / "sarif-2.1.0-rtm.5.json").read_text())


def test_sarif_is_valid_by_its_schema(local: Loreg, tmp_path: Path):
    valid = Draft4Validator(SARIF, format_checker=Draft4Validator.FORMAT_CHECKER)
    valid.validate(sarif([ODD, FINE], "0.1.0"))
    valid.validate(sarif([], "0.1.0"))
    servers = [f"--profile={name}" for name in ("vllm", "sglang", "lorax", "tensorrt-llm", "llama.cpp", "peft:0.10")]
    document = json.loads(local("check", DORA, SCIENCE, tmp_path / "none", *servers, "--format", "sarif").stdout)
    valid.validate(document)
    assert len(document["runs"][0]["results"]) > 5
    document["runs"][0]["results"][0]["level"] = "fatal"
    assert not valid.is_valid(document)


def test_exit_codes(local: Loreg, tmp_path: Path):
    assert local("check", SCIENCE).exit_code == 0
    assert local("check", SCIENCE, "--header-only").exit_code == 0
    assert local("check", SCIENCE, DORA, "--profile", "vllm").exit_code == 5
    warned = change_config(copy(SCIENCE, tmp_path / "a"), use_next_year=True)
    assert local("check", warned).exit_code == 0
    assert local("check", warned, "--strict").exit_code == 5
    assert local("check").exit_code == 2
    assert local("check", "nobody").exit_code == 3
    assert local("check", SCIENCE, "--base", "nobody").exit_code == 3


def test_what_cannot_be_read_is_a_finding_among_others(local: Loreg, tmp_path: Path):
    broken = copy(SCIENCE, tmp_path / "broken")
    (broken / "adapter_model.safetensors").write_bytes(b"nonsense")
    done = local("check", SCIENCE, broken, tmp_path / "nothing", EXAMPLES / "README.md")
    assert done.exit_code == 5
    assert "smollm2-science-r8: nothing to object to" in done.stdout
    assert done.stdout.count("error LR000") == 3


def test_text_groups_and_counts(local: Loreg):
    out = local("check", DORA, "--profile", "vllm", "--profile", "sglang").stdout
    assert out.splitlines()[0] == "smollm2-movies-dora-r8: 2 errors"
    assert "  error VL002 vLLM 0.33 refuses it: it is a DoRA adapter" in out
    assert "    → loreg bake it into its base, or train without use_dora" in out


def test_header_only_says_what_it_did_not_look_for(local: Loreg):
    stderr = local("check", SCIENCE, DORA, "--header-only").stderr
    assert stderr.count("NaN, zero and huge numbers were not looked for") == 1


def test_a_version_is_checked_by_its_ref(local: Loreg):
    local("push", DORA, "team/movies")
    (report,) = json.loads(local("check", "team/movies", "--profile", "lorax", "--format", "json").stdout)
    assert report["name"] == "team/movies:v1"
    assert [finding["code"] for finding in report["findings"]] == ["LX004"]


def test_junit_has_a_failed_case_for_each_error():
    root = ElementTree.fromstring(junit([ODD, FINE]))
    odd, fine = root.findall("testsuite")
    assert (odd.get("name"), odd.get("tests"), odd.get("failures")) == ("team/odd: name", "1", "1")
    assert odd.find("testcase/failure").get("type") == "LR001"
    assert "LR008 all zero" in odd.find("system-out").text
    assert (fine.get("tests"), fine.get("failures"), len(fine.findall("testcase"))) == ("1", "0", 1)


def test_sarif_names_every_rule_once_and_escapes_places():
    document = json.loads(json.dumps(sarif([ODD, FINE], "0.1.0")))
    (run,) = document["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == ["LR001", "LR008"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("error", "warning")
        uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        assert uri == "some%20folder/%C3%BC%2C%20x"


def test_github_annotations_are_one_escaped_line_each():
    lines = github([ODD, FINE]).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(
        "::error file=some folder/ü%2C x,title=LR001::team/odd: name: 100 %25 wrong%0Ain two lines"
    )


@pytest.mark.parametrize("format_", ["json", "junit", "sarif", "github"])
def test_every_format_is_printed_with_the_exit_code(local: Loreg, format_: str):
    done = local("check", DORA, "--profile", "vllm", "--format", format_)
    assert done.exit_code == 5
    assert "VL002" in done.stdout
    if format_ in ("json", "sarif"):
        json.loads(done.stdout)


def test_every_rule_is_explained(local: Loreg):
    out = local("check", "--explain", "lr012").stdout
    assert "LR012" in out
    assert "There is no second safetensors file" in out
    assert local("check", "--explain", "XY1").exit_code == 3
