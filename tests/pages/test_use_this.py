"""What a page says to type works when it is typed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from deployments import NEWS, empty_folders
from live_server import live_server
from loreg.registry import connect
from pages.conftest import Site, Someone

BIN = Path(sys.executable).parent


@pytest.fixture
def snippets(tmp_path: Path, someone: Someone) -> dict[str, str]:
    """The text of each tab, on a server that goes on while the test runs."""
    deployment = empty_folders(tmp_path / "registry")
    with connect(database_url=deployment.database_url, storage_url=deployment.storage_url) as registry:
        registry.push(NEWS, "team/news", aliases=["prod"])
    with live_server(deployment) as endpoint:
        page = someone(endpoint).go("/team/news")
        titles = [label.inner_text() for label in page.locator(".tabs > label").all()]
        texts = [code.text_content() or "" for code in page.locator(".tabs code").all()]
        yield dict(zip(titles, texts, strict=True))


def run(folder: Path, *command: str) -> str:
    environment = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "HF_HOME": str(folder / "hf"),
        "LOREG_TOKEN": "",
    }
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_each_tab_brings_the_very_files(snippets: dict[str, str], tmp_path: Path):
    weights = (NEWS / "adapter_model.safetensors").read_bytes()
    for title in ("PEFT", "vLLM", "hf", "loreg"):
        folder = tmp_path / title
        folder.mkdir()
        if title == "PEFT":
            run(folder, sys.executable, "-c", snippets[title].partition("model = ")[0])
        else:
            run(folder, "bash", "-ec", snippets[title].partition("vllm serve")[0])
        (file,) = [path for path in folder.rglob("adapter_model.safetensors") if path.stat().st_size]
        assert title == "vLLM" or file.read_bytes() == weights


def test_vllm_is_started_with_options_that_it_has(snippets: dict[str, str]):
    words = snippets["vLLM"].partition("vllm serve")[2].split()
    assert {word for word in words if word.startswith("--")} == {"--enable-lora", "--max-lora-rank", "--lora-modules"}
    assert words[words.index("--max-lora-rank") + 1] == "8"


def test_what_start_says_names_this_server_and_nothing_that_a_shell_would_run(site: Site):
    assert f"loreg login {site.endpoint}" in httpx.get(f"{site.endpoint}/start").text
    forged = httpx.get(f"{site.endpoint}/start", headers={"Host": "127.0.0.1:1;rm -rf"})
    assert "rm -rf" not in forged.text
