"""A bake that was stopped anywhere: what is baked next is that, and never some shards of what was baked before."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from deployments import empty_home
from factories import new_model, train
from loreg.entities import MergeOptions
from loreg.errors import ConflictError, UnderWayError
from loreg.registry import Registry, connect

#: Forks once for each point: the child bakes, and is killed at its n-th look at the file system that changes something.
EVERY_POINT = """
import os, signal, sys
from pathlib import Path
import loreg
home, base, adapter, folder = sys.argv[1:]
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "shutil.copyfile"}

def bake(at, target):
    count = 0
    def point():
        nonlocal count
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
    def hook(event, arguments):
        if event in CHANGES or (event == "open" and arguments[2] & WRITING):
            point()
    fsync = os.fsync
    def counted(descriptor):
        point()
        fsync(descriptor)
        point()
    os.fsync = counted
    with loreg.connect(home=home) as registry:
        sys.addaudithook(hook)
        registry.bake([adapter], base, target)

with loreg.connect(home=home) as registry:  # everything is imported once, for all children
    registry.bake([adapter], base, Path(folder).with_name("whole"))
at = 0
while True:
    child = os.fork()
    if not child:
        bake(at, Path(folder) / str(at) / "baked")
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if status == 0:
        break
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, status
    at += 1
print(at)
"""


@pytest.fixture
def local_registry(tmp_path: Path) -> Registry:
    return connect(home=empty_home(tmp_path / "home"))


def write_shards(folder: Path) -> Path:
    """The base in four shards, with something beside them."""
    folder.mkdir()
    tensors = new_model().state_dict()
    shards = {name: f"model-{number % 4}.safetensors" for number, name in enumerate(sorted(tensors))}
    for shard in set(shards.values()):
        save_file({name: t for name, t in tensors.items() if shards[name] == shard}, folder / shard)
    document = {"metadata": {}, "weight_map": shards}
    (folder / "model.safetensors.index.json").write_text(json.dumps(document))
    (folder / "config.json").write_text(json.dumps({"model_type": "x"}))
    (folder / "tokenizer.json").write_text("{}")
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "base")


@dataclass(frozen=True)
class Killed:
    """A base, an adapter, and below ``at`` where a bake of it was killed, at each of its points in turn."""

    base: Path
    adapter: Path
    at: Path

    def targets(self, folder: Path) -> list[Path]:
        """What was left at each point, copied to ``folder``; the targets of the bakes."""
        shutil.copytree(self.at, folder)
        return [path / "baked" for path in sorted(folder.iterdir(), key=lambda path: int(path.name))]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    folder = tmp_path_factory.mktemp("killed")
    made = Killed(write_shards(folder / "base"), train(folder / "first", 1), folder / "at")
    with connect(home=str(folder / "home")) as registry:
        registry.adapters()
    command = [sys.executable, "-c", EVERY_POINT, folder / "home", made.base, made.adapter, made.at]
    points = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert points > 30
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def bake_as_told(local_registry: Registry, adapter: Path, base: Path, target: Path, **options: Any) -> None:
    """Bake, and where an unfinished bake of other inputs stands in the way do what the hint says."""
    try:
        local_registry.bake([str(adapter)], base, target, **options)
    except ConflictError as error:
        assert error.hint.startswith("rm -r ")
        shutil.rmtree(error.hint.removeprefix("rm -r ").partition(",")[0])
        local_registry.bake([str(adapter)], base, target, **options)


def test_a_bake_of_another_adapter_takes_no_shard_of_one_that_was_killed_anywhere(
    local_registry: Registry, killed: Killed, tmp_path: Path
):
    second = train(tmp_path / "second", 2)
    local_registry.bake([str(killed.adapter)], killed.base, tmp_path / "fresh-first")
    local_registry.bake([str(second)], killed.base, tmp_path / "fresh-second")
    first_alone, second_alone = contents(tmp_path / "fresh-first"), contents(tmp_path / "fresh-second")
    whole = 0
    for target in killed.targets(tmp_path / "at"):
        if target.exists():
            whole += 1
            assert contents(target) == first_alone
            with pytest.raises(ConflictError):
                local_registry.bake([str(second)], killed.base, target)
            shutil.rmtree(target)
        bake_as_told(local_registry, second, killed.base, target)
        assert contents(target) == second_alone
        assert not list(target.parent.glob(".*"))
    assert whole


def test_the_same_bake_goes_on_wherever_it_was_killed(local_registry: Registry, killed: Killed, tmp_path: Path):
    local_registry.bake([str(killed.adapter)], killed.base, tmp_path / "fresh")
    expected = contents(tmp_path / "fresh")
    resumed, already = set(), 0
    for target in killed.targets(tmp_path / "at"):
        result = local_registry.bake([str(killed.adapter)], killed.base, target)
        assert contents(target) == expected
        resumed.add(result.resumed)
        already += result.already
    assert resumed == {0, 1, 2, 3, 4}
    assert already


@pytest.mark.parametrize(
    "other",
    [{"options": MergeOptions(weights=[0.5])}, {"dtype": "bfloat16"}, {"options": MergeOptions(rank=2)}],
    ids=["weights", "dtype", "rank"],
)
def test_a_bake_in_another_way_takes_no_shard_of_one_that_was_killed(
    local_registry: Registry, killed: Killed, tmp_path: Path, other: dict[str, object]
):
    refuses_or_is_fresh(local_registry, killed, tmp_path, **other)


def test_a_bake_into_another_base_of_the_same_path_size_and_time_takes_no_shard_of_the_old_one(
    local_registry: Registry, killed: Killed, tmp_path: Path
):
    moved = killed.base.rename(killed.base.with_name("aside"))
    shutil.copytree(moved, killed.base)
    for file in killed.base.glob("*.safetensors"):
        data = bytearray(file.read_bytes())
        data[-3] ^= 1
        file.write_bytes(data)
        before = (moved / file.name).stat()
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    try:
        refuses_or_is_fresh(local_registry, killed, tmp_path)
    finally:
        shutil.rmtree(killed.base)
        moved.rename(killed.base)


def refuses_or_is_fresh(local_registry: Registry, killed: Killed, tmp_path: Path, **other: Any) -> None:
    local_registry.bake([str(killed.adapter)], killed.base, tmp_path / "fresh", **other)
    expected, fresh_count = contents(tmp_path / "fresh"), 0
    for target in killed.targets(tmp_path / "at"):
        if list(target.parent.glob(".*/model/*")) and not target.exists():
            fresh_count += 1
            bake_as_told(local_registry, killed.adapter, killed.base, target, **other)
            assert contents(target) == expected
    assert fresh_count


def test_shards_without_a_plan_are_not_taken(local_registry: Registry, base: Path, tmp_path: Path):
    """What a release before left when it was killed between the two last steps."""
    first, second = train(tmp_path / "first", 1), train(tmp_path / "second", 2)
    local_registry.bake([str(first)], base, tmp_path / "old")
    local_registry.bake([str(second)], base, tmp_path / "fresh")
    for inner in (".", "model"):
        staging = tmp_path / ".baked.baking"
        shutil.copytree(tmp_path / "old", staging / inner)
        assert local_registry.bake([str(second)], base, tmp_path / "baked").resumed == 0
        assert contents(tmp_path / "baked") == contents(tmp_path / "fresh")
        assert not staging.exists()
        shutil.rmtree(tmp_path / "baked")


def test_a_folder_that_was_filled_meanwhile_is_left_alone_and_what_was_baked_is_kept(
    local_registry: Registry, base: Path, tmp_path: Path
):
    """Found without any kill: the plan was gone before the rename that was refused."""
    first, second = train(tmp_path / "first", 1), train(tmp_path / "second", 2)
    target = tmp_path / "baked"

    def fill(what: str, done: int, total: int) -> None:
        if what == "placing":
            target.mkdir()
            (target / "mine").write_text("x")

    with pytest.raises(Exception, match="baked"):
        local_registry.bake([str(first)], base, target, progress=fill)
    assert contents(target) == {"mine": b"x"}
    shutil.rmtree(target)
    with pytest.raises(ConflictError, match="an unfinished bake of other inputs"):
        local_registry.bake([str(second)], base, target)
    assert local_registry.bake([str(first)], base, target).resumed == 4


def test_what_an_alias_named_then_is_not_what_it_names_now(local_registry: Registry, base: Path, tmp_path: Path):
    """An initial adapter is part of the plan by its content."""
    adapter, initial = train(tmp_path / "a", 1, init_lora_weights="pissa"), tmp_path / "initial"
    train(initial, 2, init_lora_weights="pissa")

    def stop(what: str, done: int, total: int) -> None:
        if what == "placing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        local_registry.bake(
            [str(adapter)], base, tmp_path / "baked", MergeOptions(initial=[str(initial)]), progress=stop
        )
    shutil.rmtree(initial)
    train(initial, 3, init_lora_weights="pissa")
    with pytest.raises(ConflictError, match="an unfinished bake of other inputs"):
        local_registry.bake([str(adapter)], base, tmp_path / "baked", MergeOptions(initial=[str(initial)]))
    result = local_registry.bake(
        [str(adapter)], base, tmp_path / "baked", MergeOptions(initial=[str(initial)]), start_over=True
    )
    assert result.resumed == 0


def test_a_second_bake_to_a_folder_waits_for_none(local_registry: Registry, base: Path, tmp_path: Path):
    adapter = train(tmp_path / "a", 1)
    asked = []

    def again(what: str, done: int, total: int) -> None:
        if what == "placing" and not asked:
            asked.append(what)
            with pytest.raises(UnderWayError, match="is under way"):
                local_registry.bake([str(adapter)], base, tmp_path / "baked")

    local_registry.bake([str(adapter)], base, tmp_path / "baked", progress=again)
    assert asked
    assert not list(tmp_path.glob(".*baking"))


def test_a_bake_that_is_repeated_finds_its_result_and_nothing_else(
    local_registry: Registry, base: Path, tmp_path: Path, local
):
    adapter = train(tmp_path / "a", 1)
    arguments = ("bake", adapter, "--base", base, "--to", tmp_path / "baked")
    assert local(*arguments).exit_code == 0
    before = contents(tmp_path / "baked")
    again = local(*arguments)
    assert (again.exit_code, "already" in again.stdout) == (0, True)
    assert contents(tmp_path / "baked") == before
    assert local(*arguments, "--weights", "0.5").exit_code == 7
    for name in before:
        file = tmp_path / "baked" / name
        data = bytearray(before[name])
        data[-2 if len(data) < 3 else -3] ^= 64
        file.write_bytes(data)
        assert local(*arguments).exit_code == 7, name
        assert local(*arguments, "--verify").exit_code in (6, 7), name
        file.unlink()
        assert local(*arguments, "--verify").exit_code != 0, name
        file.write_bytes(before[name])
    (tmp_path / "baked" / "mine").write_text("x")
    assert local(*arguments).exit_code == 7
    assert local(*arguments, "--verify").exit_code == 7


def test_a_terminated_bake_leaves_nothing_in_the_temporary_folder(base: Path, tmp_path: Path):
    adapter, temporary = train(tmp_path / "a", 1), tmp_path / "tmp"
    temporary.mkdir()
    stopped = (
        "import os, signal, loreg.baking.shard as shard, loreg.baking.bake as bake\n"
        "from loreg_cli.main import cli\n"
        "def write(*a, **k):\n    os.kill(os.getpid(), signal.SIGTERM)\n    signal.pause()\n"
        "bake.write_shard = write\n"
        "cli()\n"
    )
    more = {"TMPDIR": str(temporary), "LOREG_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", stopped, "bake", str(adapter), "--rank", "2", "--base", base, "--to", "baked"]
    done = subprocess.run(command, check=False, env={**os.environ, **more}, cwd=tmp_path, capture_output=True)
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert list(temporary.iterdir()) == []
