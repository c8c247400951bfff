"""``log``, ``whoami`` and ``open``: what happened, who acts, and where it can be looked at."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

from deployments import NEWS, SCIENCE, Loreg, command_line, empty_folders
from live_server import live_server
from loreg.registry import connect


def test_the_log_tells_what_happened_the_newest_first(loreg: Loreg):
    loreg("push", NEWS, "team/news", "-m", "first try", "--alias", "prod")
    loreg("push", SCIENCE, "team/news", "-m", "more data")
    loreg("metric", "add", "team/news:v2", "accuracy=0.8")
    loreg("metric", "add", "team/news:v2", "accuracy=0.9")
    loreg("tag", "team/news:v2", "prod")
    loreg("yank", "team/news:v1", "-m", "trained on the test set")
    loreg("push", NEWS, "team/other")
    shown = loreg("log", "team/news")
    assert shown.exit_code == 0
    header, _, *lines = shown.stdout.splitlines()
    assert header.split() == ["WHEN", "(UTC)", "WHO", "VERSION", "WHAT"]
    lines_without_times = [" ".join(line.split()[3:]) for line in lines]
    assert lines_without_times == [
        "v1 yanked: trained on the test set",
        "v2 prod means it from now on",
        "v2 measured accuracy=0.9, before 0.8",
        "v2 measured accuracy=0.8",
        "v2 pushed: more data",
        "v1 prod means it from now on",
        "v1 pushed: first try",
    ]
    assert loreg("log", "team/news", "--format", "quiet").stdout.split() == ["team/news:v1", "team/news:v2"]
    assert loreg("log", "team/nwes").exit_code == 3


def test_whoami_of_a_registry_on_this_machine(local: Loreg):
    shown = local("whoami")
    assert shown.exit_code == 0
    assert "ada" in shown.stdout
    assert "everything" in shown.stdout
    assert local("whoami", "--format", "quiet").stdout == "ada\n"


def test_whoami_behind_a_server_has_the_permissions_and_the_end_of_the_token(tmp_path: Path):
    deployment = empty_folders(tmp_path)
    with connect(**deployment.settings, author="ada") as behind:
        token, secret = behind.tokens.create("ci-bot", ["write:team", "read:other"], expires="30d")
    with live_server(deployment, is_open=False) as endpoint:
        loreg = command_line({"LOREG_ENDPOINT": endpoint, "LOREG_TOKEN": secret})
        answer = json.loads(loreg("whoami", "--format", "json").stdout)
        assert (answer["author"], answer["registry"], answer["token_id"]) == ("ci-bot", endpoint, token.id)
        assert answer["permissions"] == {"team": "write", "other": "read"}
        ends = datetime.fromisoformat(answer["expires_at"])
        assert abs(ends - datetime.now(UTC) - timedelta(days=30)) < timedelta(hours=1)
        shown = loreg("whoami").stdout
        assert "write:team" in shown
        assert f"until {ends:%Y-%m-%d}" in shown
        nobody = command_line({"LOREG_ENDPOINT": endpoint})("whoami").stdout
        assert "none: loreg login" in nobody


def test_open_prints_the_address_of_the_page_of_a_version(loreg: Loreg, local: Loreg, deployment, tmp_path: Path):
    loreg("push", NEWS, "team/news", "--alias", "prod")
    shown, all_shown = loreg("open", "team/news:prod"), loreg("open")
    if deployment.endpoint:
        assert shown.stdout == f"{deployment.endpoint}/team/news/v1\n"
        assert all_shown.stdout == f"{deployment.endpoint}/\n"
        for address in (shown.stdout, all_shown.stdout):
            assert httpx.get(address.strip()).status_code == 200
        assert loreg("open", "team/nothing").exit_code == 3
        assert "loreg open" in loreg("ui").stderr
    else:
        assert (shown.exit_code, all_shown.exit_code) == (2, 2)
        assert "Hint: loreg ui team/news:prod" in shown.stderr
    assert local("open", "hf:org/adapter").stdout == "https://huggingface.co/org/adapter\n"
