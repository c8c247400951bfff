"""The hook, the action, the GitLab job and the forms: run or read, as far as it can be without their services."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from deployments import DORA, EXAMPLES, SCIENCE
from factories import change_config, copy

ROOT = Path(__file__).parents[2]


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def shell(script: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a step as a runner does, with the commands of this environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = {**os.environ, "PATH": path, "LOREG_HOME": str(cwd / "home"), **environment}
    command = ["bash", "-e", "-o", "pipefail", "-c", script]
    return subprocess.run(command, cwd=cwd, env=settings, capture_output=True, text=True, check=False)


def test_the_hook_checks_the_folders_of_the_files_that_changed(tmp_path: Path):
    (hook,) = read(".pre-commit-hooks.yaml")
    good, bad = copy(SCIENCE, tmp_path / "good"), change_config(copy(SCIENCE, tmp_path / "bad"), r=16)
    changed = [str(path.relative_to(tmp_path)) for folder in (good, bad) for path in sorted(folder.iterdir())]
    files = [name for name in changed if re.search(hook["files"], name)]
    assert files == ["good/adapter_config.json", "bad/adapter_config.json"]
    done = shell(f"{hook['entry']} {' '.join(files)}", tmp_path)
    assert done.returncode == 5
    assert "good: nothing to object to" in done.stdout
    assert "error LR003" in done.stdout


def test_the_action_annotates_and_fails(tmp_path: Path):
    action = read("action.yml")
    step = action["runs"]["steps"][1]
    defaults = {name: str(field.get("default", "")) for name, field in action["inputs"].items()}
    assert {f"${{{{ inputs.{name} }}}}" for name in ("adapters", "base", "profiles", "strict")} == set(
        step["env"].values()
    )
    copy(DORA, tmp_path / "dora")

    def run(**inputs: str) -> subprocess.CompletedProcess[str]:
        values = {**defaults, **inputs}
        return shell(step["run"], tmp_path, **{name: values[value[11:-3]] for name, value in step["env"].items()})

    assert run(adapters="./dora").returncode == 0
    done = run(adapters="./dora", profiles="vllm sglang", strict="true")
    assert done.returncode == 5
    annotated = [line.split("::")[1] for line in done.stdout.splitlines()]
    assert annotated == ["error file=dora,title=VL002", "error file=dora,title=SG004"]


def test_the_gitlab_job_writes_its_report_and_fails(tmp_path: Path):
    (job,) = read("examples/gitlab-ci.yml").values()
    (tmp_path / "adapters").symlink_to(EXAMPLES)
    check = job["script"][-1]
    done = shell(check, tmp_path)
    assert done.returncode == 5
    report = tmp_path / job["artifacts"]["reports"]["junit"]
    suites = ElementTree.parse(report).getroot().findall("testsuite")
    assert {suite.get("name") for suite in suites} >= {DORA.name, SCIENCE.name}


@pytest.mark.parametrize(
    "form", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml")), ids=lambda path: path.stem
)
def test_a_form_asks_for_what_a_report_needs(form: Path):
    """As GitHub's schema has it: a form that breaks it is not offered, and nobody is told."""
    document = yaml.safe_load(form.read_text())
    assert document.keys() == {"name", "description", "labels", "body"}
    fields = [field for field in document["body"] if field["type"] != "markdown"]
    assert {field["type"] for field in fields} <= {"input", "textarea", "dropdown"}
    assert len({field["id"] for field in fields}) == len(fields) > 2
    assert all(field["attributes"]["label"] for field in fields)
    assert any(field.get("validations", {}).get("required") is True for field in fields)


def test_every_python_that_is_supported_is_tested():
    tested = read(".github/workflows/ci.yml")["jobs"]["tests"]["strategy"]["matrix"]["python"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={tested[0]}"
    classified = [line.rpartition(" ")[2] for line in project["classifiers"] if "Python :: 3." in line]
    assert set(classified) <= set(tested)
