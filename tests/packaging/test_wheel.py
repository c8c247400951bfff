"""The wheel alone, in an empty environment, does the main job: nothing of the checkout is needed."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from deployments import HISTORY, SCIENCE
from factories import deltas_by_hand, relative_error, weighted_sum

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(cwd), **environment}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT]
    run(sys.executable, "-m", "pip", *build, cwd=folder)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_packages_and_migrations_and_nothing_else(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"loreg", "loreg_cli", "loreg-0.1.0.dist-info"}
    assert "loreg/migrations/env.py" in names
    assert {f"loreg/migrations/versions/{p.name}" for p in (ROOT / "migrations/versions").glob("*.py")} <= set(names)
    profiles = (ROOT / "registry/loreg/checking/profiles").glob("*.toml")
    assert {f"loreg/checking/profiles/{path.name}" for path in profiles} <= set(names)
    pages = ROOT / "registry/loreg/server/pages"
    drawn = [path for folder in ("templates", "static") for path in (pages / folder).iterdir()]
    assert {f"loreg/server/pages/{path.relative_to(pages)}" for path in drawn} <= set(names)
    assert "loreg/py.typed" in names
    assert not [name for name in names if "__pycache__" in name]


@pytest.mark.slow
def test_the_main_job_from_the_wheel_in_an_empty_environment(wheel: Path, tmp_path: Path):
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python, loreg = tmp_path / "venv/bin/python", tmp_path / "venv/bin/loreg"
    install = [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt"]
    subprocess.run([*install, wheel], cwd=tmp_path, check=True)
    settings = {"LOREG_HOME": str(tmp_path / "home")}
    assert "torch" not in run(python, "-m", "pip", "list", cwd=tmp_path)
    run(loreg, "push", SCIENCE, "team/science", "--task", "science", "--alias", "prod", cwd=tmp_path, **settings)
    run(loreg, "push", HISTORY, "team/history", cwd=tmp_path, **settings)
    refs = run(loreg, "search", "--task", "science", "--format", "quiet", cwd=tmp_path, **settings)
    assert refs == "team/science:v1\n"
    run(loreg, "check", "team/science", "--profile", "vllm", cwd=tmp_path, **settings)
    subprocess.run([*install, f"{wheel}[merge]"], cwd=tmp_path, check=True)
    merge = ["merge", "team/science:prod", "team/history", "--weights", "0.7,0.3", "--push", "team/both"]
    run(loreg, *merge, cwd=tmp_path, **settings)
    run(loreg, "pull", "team/both", tmp_path / "both", cwd=tmp_path, **settings)
    expected = weighted_sum([deltas_by_hand(SCIENCE), deltas_by_hand(HISTORY)], [0.7, 0.3])
    assert relative_error(deltas_by_hand(tmp_path / "both"), expected) < 1e-6
