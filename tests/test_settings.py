from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest

from loreg.errors import UsageError
from loreg.settings import load


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_flag_wins_over_the_environment_over_the_user(tmp_path: Path):
    user = platformdirs.user_config_path("loreg") / "config.toml"
    write(user, "author='user'\nstorage_url='s3://user'\ndatabase_url='sqlite:///user'\nhome='/user'")
    (tmp_path / "deep" / "down").mkdir(parents=True)
    settings = load(
        {"author": "flag"}, {"LOREG_AUTHOR": "env", "LOREG_STORAGE_URL": "s3://env"}, tmp_path / "deep" / "down"
    )
    assert (settings.author, settings.storage_url, settings.database_url, settings.home) == (
        "flag",
        "s3://env",
        "sqlite:///user",
        Path("/user"),
    )
    assert settings.origin == {
        "author": "flag",
        "storage_url": "environment",
        "database_url": str(user),
        "home": str(user),
        "storage_endpoint": "default",
        "storage_public_endpoint": "default",
        "endpoint": "default",
        "token": "default",
        "server_key": "default",
        "check": "default",
        "retention": "default",
        "audit": "default",
    }


def test_everything_lies_below_home_by_default(tmp_path: Path):
    settings = load({"home": str(tmp_path)}, {})
    assert settings.database_url == f"sqlite:///{tmp_path}/catalog.db"
    assert settings.storage_url == f"{tmp_path}/store"


def test_a_relative_path_in_a_file_is_relative_to_the_file(tmp_path: Path):
    user = write(platformdirs.user_config_path("loreg") / "config.toml", "home = 'registry'")
    assert load({}, {}, tmp_path).home == user.parent / "registry"


def test_a_project_wins_over_the_user_in_what_it_may_say(tmp_path: Path):
    write(platformdirs.user_config_path("loreg") / "config.toml", "author='user'\n[check]\nmax_rank = 8")
    write(tmp_path / "loreg.toml", "author='project'\n[check]\nmax_rank = 4")
    (tmp_path / "deep" / "down").mkdir(parents=True)
    settings = load({}, {}, tmp_path / "deep" / "down")
    assert (settings.author, settings.check) == ("project", {"max_rank": 4})
    assert load({}, {"LOREG_AUTHOR": "env"}, tmp_path).author == "env"


@pytest.mark.parametrize("text", ["author = ", "colour = 'red'", "author = 3", "check = 1"])
def test_a_file_that_is_wrong_is_named(tmp_path: Path, text: str):
    write(tmp_path / "loreg.toml", text)
    with pytest.raises(UsageError, match=r"loreg\.toml"):
        load({}, {}, tmp_path)
