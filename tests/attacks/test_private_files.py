"""What one person keeps on a machine is not for the others on it to read."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments import NEWS, Loreg, command_line
from factories import train, write_base
from loreg import credentials
from loreg.file_modes import make_folder
from loreg.plugins.resolved import Resolved, remember
from loreg.registry import connect
from os_users import permissions_below


@pytest.fixture(params=[0o022, 0o002, 0o000], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.fixture
def ordinary(tmp_path: Path) -> Path:
    """A folder as `mkdir` makes it: others may look into it."""
    folder = tmp_path / "ordinary"
    folder.mkdir()
    folder.chmod(0o755)
    return folder


def open_to_others(folder: Path) -> dict[str, str]:
    return {name: f"{mode:04o}" for name, mode in permissions_below(folder).items() if mode & 0o077}


def test_nothing_of_a_registry_is_for_others(umask: int, ordinary: Path):
    with connect(home=str(ordinary / "home")) as registry:
        registry.push(train(ordinary / "adapter", 1), "mine", base=str(write_base(ordinary / "base")))
        names = {path.name for path in (ordinary / "home").rglob("*")}
        assert {"catalog.db", "catalog.db-wal", "catalog.db-shm", "store", "cache"} <= names
        assert open_to_others(ordinary / "home") == {}


def test_a_registry_in_a_folder_that_others_may_enter_is_closed_all_the_same(umask: int, ordinary: Path):
    with connect(home=str(ordinary)) as registry:
        registry.push(NEWS, "news")
        assert open_to_others(ordinary) == {".": "0755"}


def test_a_database_and_a_store_that_are_named_apart_are_closed(umask: int, ordinary: Path):
    places = {"database_url": f"sqlite:///{ordinary}/data/base.db", "storage_url": str(ordinary / "blobs")}
    with connect(home=str(ordinary / "home"), **places) as registry:
        registry.push(NEWS, "news")
        assert open_to_others(ordinary) == {".": "0755"}


def test_the_folder_of_the_user_is_made_for_him_alone(umask: int, ordinary: Path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(ordinary / "share"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(ordinary / "config"))
    command_line({})("push", NEWS, "news")
    credentials.write("http://127.0.0.1:1", "lrg_secret")
    assert open_to_others(ordinary) == {".": "0755"}


def test_credentials_are_for_nobody_else_even_in_a_shared_folder(umask: int, ordinary: Path, monkeypatch):
    ordinary.chmod(0o2775)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(ordinary))
    assert credentials.write("http://127.0.0.1:1", "lrg_secret").stat().st_mode & 0o777 == 0o600


def test_what_vllm_was_served_is_for_nobody_else(umask: int, ordinary: Path):
    served = ordinary / "home" / "cache" / "served"
    make_folder(served)
    remember(served, "team/news:prod", Resolved("0" * 64, "team/news:v1"))
    assert open_to_others(ordinary) == {".": "0755"}


def test_what_is_pulled_has_the_permissions_of_all_that_a_person_makes(umask: int, local: Loreg, tmp_path: Path):
    local("push", NEWS, "news")
    local("pull", "news", tmp_path / "a")
    assert permissions_below(tmp_path / "a") == {
        ".": 0o777 & ~umask,
        "adapter_config.json": 0o666 & ~umask,
        "adapter_model.safetensors": 0o666 & ~umask,
    }


def test_a_store_that_was_opened_to_all_stays_so_for_what_is_added(local: Loreg, tmp_path: Path):
    local("push", NEWS, "news")
    store = tmp_path / "home" / "store"
    subprocess.run(["chmod", "-R", "a+rX", store], check=True)
    with connect(home=str(tmp_path / "home")) as registry:
        registry.push(train(tmp_path / "adapter", 1), "mine", base=str(write_base(tmp_path / "base")))
    assert {f"{mode:04o}" for mode in permissions_below(store).values()} == {"0755", "0444"}


def test_a_database_that_is_there_keeps_the_permissions_that_it_was_given(local: Loreg, tmp_path: Path):
    local("push", NEWS, "news")
    (tmp_path / "home" / "catalog.db").chmod(0o644)
    with connect(home=str(tmp_path / "home")) as registry:
        registry.tag("news", "prod")
        modes = permissions_below(tmp_path / "home")
    assert {modes[name] for name in ("catalog.db", "catalog.db-wal", "catalog.db-shm")} == {0o644}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_what_root_adds_to_a_registry_belongs_to_its_owner(tmp_path: Path):
    home = tmp_path / "home"
    home.mkdir(0o700)
    os.chown(home, 54_301, 54_301)
    command_line({"LOREG_HOME": str(home)})("push", NEWS, "news")
    assert {(path.stat().st_uid, path.stat().st_gid) for path in home.rglob("*")} == {(54_301, 54_301)}
    assert open_to_others(home) == {}
