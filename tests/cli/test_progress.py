"""A bar for what takes longer than a second, on a terminal only."""

from __future__ import annotations

import sys

import pytest

from loreg.workspace import progress_bars
from loreg_cli import progress


def test_what_takes_long_shows_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(progress_bars, "_DELAY", 0.0)
    with progress.progress_bar() as report:
        report("storing", 50, 100)
        report("storing", 100, 100)
    captured = capsys.readouterr()
    assert "storing" in captured.err
    assert "100%" in captured.err
    assert captured.out == ""


def test_what_is_quick_shows_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(progress_bars, "_DELAY", 1e9)
    with progress.progress_bar() as report:
        report("storing", 50, 100)
    assert capsys.readouterr().err == ""


def test_a_pipe_sees_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(progress_bars, "_DELAY", 0.0)
    with progress.progress_bar() as report:
        report("storing", 100, 100)
    assert capsys.readouterr().err == ""
