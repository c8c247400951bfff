"""What a page says to type is whole, quoted, and means what the page shows, whatever was asked for."""

from __future__ import annotations

import html
import re
import shlex
from pathlib import Path
from urllib.parse import quote

import pytest

from deployments import HISTORY, command_line, empty_folders
from factories import change_config, copy
from pages.conftest import Site, open_site

LONG = "n" * 90


def environment_of(site: Site) -> dict[str, str]:
    settings = site.behind.settings
    return {"LOREG_DATABASE_URL": settings.database_url, "LOREG_STORAGE_URL": settings.storage_url}


def commands_on(site: Site, path: str, role: str = "root") -> list[str]:
    """All text on the page that begins like a command."""
    with site.visit(role) as client:
        answer = client.get(path)
    assert answer.status_code == 200
    texts = (html.unescape(re.sub("<[^>]*>", "", text)) for text in re.findall("<code>(.*?)</code>", answer.text))
    return [text for text in texts if text.startswith("loreg ")]


@pytest.mark.parametrize("text", ["-x", "--help", "'; rm -rf ~ #", "$(reboot)", "a  b", "été*", "history"])
def test_a_search_for_any_text_is_the_search_that_is_typed(site: Site, text: str):
    command = commands_on(site, f"/?text={quote(text)}")[0]
    outcome = command_line(environment_of(site))(*shlex.split(command)[1:], "--format", "quiet")
    assert outcome.exit_code == 0, outcome.stderr
    assert ("lab/history" in outcome.stdout) == (text == "history")


def test_commands_with_the_longest_names_are_whole(tmp_path: Path):
    with open_site(empty_folders(tmp_path), is_open=True) as site:
        names = [f"{LONG}{i}/{LONG}{i}" for i in range(4)]
        for i, name in enumerate(names):
            site.behind.push(change_config(copy(HISTORY, tmp_path / f"a{i}"), revision=f"{i}"), name)
        query = "&".join(f"source={name}" for name in names)
        paths = (f"/merge?{query}&compute=1", f"/merge?{query}&method=ties&compute=1", "/checks?missing=metric")
        commands = [text for path in paths for text in commands_on(site, path, "")]
        assert {name for text in commands for name in names if name in text} == set(names)
        assert not [text for text in commands if "…" in text]
        (ties,) = {text for text in commands if "--method ties" in text and "--weights" not in text}
        outcome = command_line(environment_of(site))(*shlex.split(ties)[1:])
        assert outcome.exit_code == 0, outcome.stderr


def test_who_may_write_nowhere_is_offered_no_job(site: Site):
    path = "/merge?source=team/science:v1&source=lab/history:v1&compute=1"
    for role, offers in (("reader", 0), ("", 0), ("root", 1)):
        with site.visit(role) as client:
            text = client.get(path if role else path.replace("team/science:v1", "lab/history:v1")).text
        assert text.count("Let a worker merge it") == offers, role
