"""Other systems, as far as Linux can play them: the modules and calls that macOS and Windows lack are hidden."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deployments import MOVIES, NEWS, Deployment
from factories import train, write_base
from live_server import live_server

MACOS = ((), ("O_TMPFILE", "copy_file_range"))
WINDOWS = (
    ("fcntl", "grp", "pwd", "resource"),
    (
        *("O_TMPFILE", "O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC", "copy_file_range", "pread", "preadv", "pwrite"),
        *("chown", "fchown", "fchmod", "statvfs", "getegid", "geteuid"),
    ),
)
HIDE = """
import os, signal, sys
for module in {modules}:
    sys.modules[module] = None
for name in {names}:
    delattr(os, name)
if {modules}:
    del signal.SIGHUP
    flush = os.fsync
    def fsync(descriptor):  # Windows flushes what may be written, and nothing else
        if "flags:\\t0100000\\n" in open(f"/proc/self/fdinfo/{{descriptor}}").read():
            raise OSError(9, "Bad file descriptor")
        flush(descriptor)
    os.fsync = fsync
from loreg_cli.main import cli
cli()
"""
Run = Callable[..., str]


@pytest.fixture(params=[MACOS, WINDOWS], ids=["macos", "windows"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """The command line in a process of its own, without what the system does not have."""
    modules, names = request.param
    program = HIDE.format(modules=modules, names=names)
    temporary = tmp_path / "tmp"
    temporary.mkdir()

    def run(*arguments: str | Path, **environment: str) -> str:
        command = [sys.executable, "-W", "ignore:only soft file lock", "-c", program, *arguments]
        settings = {**os.environ, "TMPDIR": str(temporary), "LOREG_AUTHOR": "ada", **environment}
        done = subprocess.run(command, cwd=tmp_path, env=settings, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(params=["local", "server"])
def variables(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """A catalog in SQLite and a store in a folder, on this machine or behind a server on a system that has it all."""
    home = tmp_path / "home"
    if request.param == "local":
        yield {"LOREG_HOME": str(home)}
        return
    with live_server(Deployment(f"sqlite:///{home / 'catalog.db'}", str(home / "store"))) as endpoint:
        yield {"LOREG_ENDPOINT": endpoint}


def test_the_torch_free_verbs_need_nothing_of_linux(run: Run, variables: dict[str, str], tmp_path: Path):
    (tmp_path / "loreg.toml").write_text("[check]\ntasks = ['topics']\n")
    run("push", NEWS, "team/news", "--task", "topics", "--alias", "prod", **variables)
    run("push", MOVIES, "team/news", "--task", "topics", **variables)
    run("tag", "team/news:v2", "prod", **variables)
    assert run("search", "--task", "topics", "--format", "quiet", **variables).split() == ["team/news:v2"]
    assert "prod" in run("show", "team/news:v2", **variables)
    assert "team/news" in run("ls", **variables)
    assert run("check", "team/news:v2", "--profile", "transformers", **variables)
    (tmp_path / "there").mkdir()
    for target in ("new", "there"):
        run("pull", "team/news:v1", target, **variables)
        pulled = {path.name: path.read_bytes() for path in (tmp_path / target).iterdir()}
        assert pulled == {path.name: path.read_bytes() for path in NEWS.iterdir() if path.name in pulled}
        assert pulled.keys() == {"adapter_config.json", "adapter_model.safetensors"}
    assert not [path for path in (tmp_path / "tmp").iterdir() if path.suffix == ".lock"]


@pytest.mark.parametrize("run", [MACOS], ids=["macos"], indirect=True)
def test_a_bake_needs_no_copy_in_the_kernel(run: Run, tmp_path: Path):
    base, adapter = write_base(tmp_path / "base"), train(tmp_path / "adapter", 1)
    run("bake", adapter, "--base", base, "--to", "baked", LOREG_HOME=str(tmp_path / "home"))
    assert (tmp_path / "baked" / "model.safetensors").is_file()
