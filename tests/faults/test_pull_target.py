"""Where a pull writes to: a folder that is there is filled and never replaced, and whoever comes second finds it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from concurrency import all_at_once, eventually
from deployments import MOVIES, NEWS, Deployment, Loreg
from factories import copy, train, write_base
from loreg.entities import PullResult
from loreg.errors import ConflictError, UnavailableError
from loreg.registry import Registry, connect
from os_users import ANN, TEAM, People, commons, folder_of

root = pytest.mark.skipif(os.getuid() != 0, reason="only root can be another, or mount")


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def local_registry(tmp_path: Path, monkeypatch) -> Path:
    """An empty folder that a person stands in."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def pushed(tmp_path: Path) -> Registry:
    registry = connect(home=str(tmp_path / "home"))
    registry.push(NEWS, "news")
    registry.push(MOVIES, "news")
    return registry


def as_a_shell_shows(script: str, folder: Path, home: Path) -> str:
    program = f'loreg() {{ {sys.executable} -c "from loreg_cli.main import cli; cli()" "$@"; }}\n{script}'
    environment = {**os.environ, "LOREG_HOME": str(home)}
    done = subprocess.run(["sh", "-ec", program], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("target", [".", "./x/..", "../here", "../link"])
def test_a_person_who_pulls_to_where_he_stands_sees_the_files_there(
    pushed: Registry, local_registry: Path, target: str
):
    (local_registry.parent / "link").symlink_to(local_registry)
    output = as_a_shell_shows(
        f"loreg pull --format quiet news:v1 {target}; ls; cd .; ls -A", local_registry, local_registry.parent / "home"
    )
    files = "adapter_config.json\nadapter_model.safetensors\n"
    assert output == f"{target if target != './x/..' else 'x/..'}\n{files}{files}"


@pytest.mark.parametrize("target", [".", "./x/..", "{local_registry}", "{link}", "../link/"])
def test_a_folder_that_is_there_stays_the_same_folder(pushed: Registry, local_registry: Path, target: str):
    link = local_registry.parent / "link"
    link.symlink_to(local_registry)
    before = local_registry.stat().st_ino
    result = pushed.pull("news:v1", target.format(local_registry=local_registry, link=link))
    assert local_registry.stat().st_ino == before
    assert link.is_symlink()
    assert contents(Path()) == contents(NEWS)
    assert result.downloaded > 0
    assert pushed.pull("news:v1", target.format(local_registry=local_registry, link=link)).downloaded == 0


def test_x_and_back_is_not_an_empty_place(pushed: Registry, local_registry: Path):
    (local_registry / "mine.txt").write_text("mine")
    with pytest.raises(ConflictError):
        pushed.pull("news:v1", "./x/..")
    assert contents(local_registry) == {"mine.txt": b"mine"}


def test_merge_export_and_bake_leave_a_person_standing_too(local: Loreg, tmp_path: Path, monkeypatch):
    base, adapter = write_base(tmp_path / "base"), train(tmp_path / "adapter", 1)
    for number, arguments in enumerate(
        (
            ("merge", adapter, adapter, "--weights", "0.5,0.5", "--to", "."),
            ("export", adapter, "--profile", "vllm", "--to", "."),
            ("bake", adapter, "--base", base, "--to", "."),
        )
    ):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        monkeypatch.chdir(folder)
        outcome = local(*arguments)
        assert outcome.exit_code == 0, outcome.stderr
        assert contents(Path()) == contents(folder) != {}
        assert not [name for name in contents(Path()) if name.startswith(".")]


@root
def test_a_mount_point_is_filled(pushed: Registry, local: Loreg, tmp_path: Path):
    base, adapter = write_base(tmp_path / "base"), train(tmp_path / "adapter", 1)
    with mounted(tmp_path / "mounted") as folder:
        pushed.pull("news:v1", folder)
        assert contents(folder) == contents(NEWS)
    with mounted(tmp_path / "mounted") as folder:
        outcome = local("bake", adapter, "--base", base, "--to", folder)
        assert outcome.exit_code == 0, outcome.stderr
        assert sorted(contents(folder)) == ["loreg_bake.json", "model.safetensors"]


@root
def test_a_folder_whose_parent_is_anothers_is_filled():
    with People() as people, commons() as square:
        run = partial(people.run, ANN, LOREG_HOME=folder_of(ANN, square / "home", 0o700))
        mine = folder_of(ANN, square / "mine", 0o755)
        assert run("push", square / "news", "news").exit_code == 0
        outcome = run("pull", "news", mine)
        assert outcome.exit_code == 0, outcome.stderr
        assert contents(mine) == contents(square / "news")
        assert run("pull", "news", folder_of(ANN, square / "setgid", 0o2775, TEAM)).exit_code == 0


@root
def test_a_full_disk_at_the_target_is_said_of_the_target(pushed: Registry, tmp_path: Path):
    with mounted(tmp_path / "mounted", "-o", "size=100k") as folder:
        for target in (folder, folder / "below"):
            with pytest.raises(UnavailableError) as error:
                pushed.pull("news:v1", target)
            assert str(target) in str(error.value)
            assert "No space left on device" in str(error.value)
            assert "store" not in str(error.value)
            assert not (target / "adapter_config.json").exists()


@root
def test_a_full_temporary_folder_is_not_said_of_the_store(local: Loreg, tmp_path: Path, monkeypatch):
    local("push", NEWS, "news")
    with mounted(tmp_path / "mounted", "-o", "size=100k") as folder:
        monkeypatch.setattr("tempfile.tempdir", str(folder))
        outcome = local("merge", "news", "news", "--weights", "0.5,0.5", "--to", tmp_path / "merged")
    assert outcome.exit_code == 1
    assert "the temporary folder cannot be used: No space left on device" in outcome.stderr


def test_a_store_that_cannot_be_read_is_said_of_the_store(pushed: Registry, tmp_path: Path, monkeypatch):
    real = Path.open

    def open_(path: Path, *arguments, **more):
        if "store" in path.parts and arguments == ("rb",):
            raise OSError(5, "Input/output error")
        return real(path, *arguments, **more)

    monkeypatch.setattr(Path, "open", open_)
    with pytest.raises(UnavailableError, match="store cannot be used: Input/output error"):
        pushed.pull("news:v1", tmp_path / "a")


@contextlib.contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", *options, "none", folder], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_pull_that_is_killed_anywhere_is_gone_on_with(pushed: Registry, tmp_path: Path):
    """Into a folder that is there, and into none: at every call that changes what lies on the disk."""
    adapter = copy(NEWS, tmp_path / "adapter")
    (adapter / "notes").mkdir()
    (adapter / "notes" / "one.txt").write_text("one")
    pushed.push(adapter, "noted")
    home = tmp_path / "home"
    for there in (True, False):
        points, target = 0, tmp_path / "target"
        while True:
            if there:
                target.mkdir()
            ended = killed_at(points, partial(pull, home, "noted", target))
            if not there and not ended:
                assert not target.exists() or contents(target) == contents(adapter)
            if (target / "adapter_config.json").exists():  # what makes it an adapter comes last
                assert {n: c for n, c in contents(target).items() if not n.startswith(".")} == contents(adapter)
            pushed.pull("noted", target)
            assert contents(target) == contents(adapter)
            assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []
            shutil.rmtree(target)
            if ended:
                break
            points += 1
        assert points > 8


def test_what_was_written_over_an_interrupted_pull_is_left_alone(pushed: Registry, tmp_path: Path):
    """The list of what a pull had moved names a file that somebody has written anew since."""
    target = tmp_path / "target"
    for point in range(40):
        target.mkdir()
        if killed_at(point, partial(pull, tmp_path / "home", "news:v1", target)):
            break
        if (target / "adapter_model.safetensors").exists() and (target / ".loreg-unfinished.moved").exists():
            (target / "adapter_model.safetensors").write_bytes(b"trained for a week")
            for ref in ("news:v1", "news:v2"):
                with pytest.raises(ConflictError):
                    pushed.pull(ref, target)
            assert (target / "adapter_model.safetensors").read_bytes() == b"trained for a week"
            return
        shutil.rmtree(target)
    pytest.fail("no point lies between")


def test_an_interrupted_pull_gives_way_to_one_of_another_version(pushed: Registry, tmp_path: Path):
    target = tmp_path / "target"
    for point in range(40):
        target.mkdir()
        ended = killed_at(point, partial(pull, tmp_path / "home", "news:v1", target))
        if not ended:
            with contextlib.suppress(ConflictError):  # it was there already
                pushed.pull("news:v2", target)
                kept = {n: c for n, c in contents(target).items() if not n.startswith(".")}
                assert kept == contents(MOVIES)
        shutil.rmtree(target)
        if ended:
            return
    pytest.fail("it never ended")


def pull(home: Path, ref: str, target: Path) -> None:
    with connect(home=str(home)) as registry:
        registry.pull(ref, target)


def killed_at(point: int, call: Callable[[], object]) -> bool:
    """Make the call in a child that is killed at the nth change of what lies on the disk; whether it ended before."""
    child = os.fork()
    if child == 0:
        left = point

        def counting(real: Callable[..., object]) -> Callable[..., object]:
            def count(*arguments, **more):
                nonlocal left
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1
                return real(*arguments, **more)

            return count

        for name in ("replace", "rename", "fsync", "unlink", "mkdir", "rmdir"):
            setattr(os, name, counting(getattr(os, name)))
        try:
            call()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status == 0


@pytest.mark.parametrize("there", [True, False])
def test_who_pulls_the_same_to_the_same_place_waits_and_finds_it(deployment: Deployment, tmp_path: Path, there: bool):
    target = tmp_path / "target"
    if there:
        target.mkdir()
    with contextlib.ExitStack() as stack:
        registries = [stack.enter_context(connect(**deployment.settings)) for _ in range(8)]
        registries[0].push(NEWS, "news")
        results = all_at_once([lambda r=registry: r.pull("news", target) for registry in registries])
    assert sum(result.downloaded > 0 for result in results) == 1
    assert contents(target) == contents(NEWS)


def test_the_second_is_told_what_it_waits_for(pushed: Registry, tmp_path: Path):
    steps: list[str] = []
    other = connect(home=str(tmp_path / "home"))

    def hear(what: str, done: int, total: int) -> None:
        steps.append(what)

    with ThreadPoolExecutor(1) as pool:
        second: list[Future[PullResult]] = []

        def wait_for_the_second(what: str, done: int, total: int) -> None:
            if not second:
                second.append(pool.submit(other.pull, "news:v1", tmp_path / "a", progress=hear))
                eventually(lambda: "waiting for another pull" in steps)

        pushed.pull("news:v1", tmp_path / "a", progress=wait_for_the_second)
        assert second[0].result().downloaded == 0
    assert contents(tmp_path / "a") == contents(NEWS)
