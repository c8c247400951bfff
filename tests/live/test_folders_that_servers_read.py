"""The table of docs/how-to/sync.md: each command makes a folder that its server reads as the adapters that it is of."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from deployments import HISTORY, SCIENCE, Loreg
from live.server_folder_readers import (
    ReadAdapter,
    list_as_nim,
    read_as_lorax,
    read_as_sglang,
    read_as_vllm,
    read_peft,
)

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "sync.md"
BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
FOLDER = Path("adapters")


def command_for(server: str) -> list[str]:
    """The command that the row of the table says, without ``loreg``."""
    (row,) = re.findall(rf"^\| {server}.*`loreg sync.*$", PAGE.read_text(), re.MULTILINE)
    (command,) = re.findall(r"`loreg (sync [^`]+)`", row)
    return shlex.split(command)


@pytest.fixture
def team(local: Loreg) -> Loreg:
    local("push", SCIENCE, "team/news", "--alias", "prod")
    local("push", HISTORY, "team/topics", "--alias", "prod")
    return local


@pytest.fixture
def science() -> ReadAdapter:
    return read_peft(SCIENCE)


@pytest.fixture
def history() -> ReadAdapter:
    return read_peft(HISTORY)


def sync(team: Loreg, server: str) -> None:
    outcome = team(*command_for(server))
    assert outcome.exit_code == 0, outcome.stderr


def pinned(team: Loreg, ref: str) -> str:
    """The name that a version has with ``--pinned``."""
    pin = team("show", ref, "--format", "quiet").stdout.strip()
    return f"{pin.partition(':')[0]}@{pin.rpartition('sha256:')[2][:12]}"


@pytest.mark.parametrize("server", ["vLLM", "KServe"])
def test_vllms_resolver_finds_each_version_under_a_name_of_its_own(
    team: Loreg, science: ReadAdapter, history: ReadAdapter, server: str
):
    sync(team, server)
    old = pinned(team, "team/news:v1")
    adapter = read_as_vllm(FOLDER, old, BASE)
    assert adapter is not None
    assert adapter.is_same(science)
    team("push", HISTORY, "team/news", "--alias", "prod")
    sync(team, server)
    for name, right in ((old, science), (pinned(team, "team/news:v2"), history)):
        adapter = read_as_vllm(FOLDER, name, BASE)
        assert adapter is not None
        assert adapter.is_same(right)
    for name in ("team", "team/news", "team/none", ".loreg", ".loreg/versions"):
        assert read_as_vllm(FOLDER, name, BASE) is None, name
    assert read_as_vllm(FOLDER, old, "another/base") is None


def test_a_volume_may_be_mounted_anywhere(team: Loreg, science: ReadAdapter, tmp_path: Path):
    """No link leads out of the folder, nor begins at the root of the machine that wrote it."""
    sync(team, "KServe")
    FOLDER.rename(tmp_path / "mounted")
    adapter = read_as_vllm(tmp_path / "mounted", pinned(team, "team/news"), BASE)
    assert adapter is not None
    assert adapter.is_same(science)


def test_nim_finds_the_adapters_directly_below_and_nothing_else(
    team: Loreg, science: ReadAdapter, history: ReadAdapter
):
    sync(team, "NVIDIA NIM")
    news, topics = (pinned(team, f"team/{name}").replace("/", "--") for name in ("news", "topics"))
    adapters = list_as_nim(FOLDER)
    assert adapters.keys() == {news, topics}
    assert adapters[news].is_same(science)
    assert adapters[topics].is_same(history)
    team("push", HISTORY, "team/news", "--alias", "prod")
    sync(team, "NVIDIA NIM")
    assert list_as_nim(FOLDER).keys() == {news, topics, pinned(team, "team/news").replace("/", "--")}
    assert not list_as_nim(FOLDER / ".loreg"), "what is hidden is no folder of adapters itself"


def test_sglang_starts_with_what_the_alias_means(team: Loreg, science: ReadAdapter):
    sync(team, "SGLang")
    (argument,) = re.findall(r"`--lora-paths ([^`]+)`", PAGE.read_text())
    name, adapter = read_as_sglang(argument)
    assert name == "news"
    assert adapter.is_same(science)


def test_lorax_reads_a_version_by_its_absolute_path(team: Loreg, science: ReadAdapter, tmp_path: Path):
    sync(team, "LoRAX")
    name = f"adapters/{pinned(team, 'team/news')}"
    assert read_as_lorax(str(tmp_path / name), tmp_path / "hub").is_same(science)
    with pytest.raises(FileNotFoundError):
        read_as_lorax(name, tmp_path / "hub")
