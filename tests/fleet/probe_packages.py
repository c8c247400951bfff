"""Packages that bring a probe by an entry point, as a user writes them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

#: A probe that answers with alpha, but for an alpha of 13: then it does ``what``.
SOURCE = """
import os, signal
from pathlib import Path

def probe(adapter):
    alpha = int(adapter.structure.config.lora_alpha)
    if alpha == 13:
        {what}
    return {{"alpha": alpha, "bytes": adapter.structure.weights.stat().st_size}}
"""


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, what: str, version: str = "1.0") -> Path:
    """Put a package with the probe ``mine`` into ``folder``, where this process and those it starts find it."""
    information = folder / f"my_probes-{version}.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: my-probes\nVersion: {version}\n")
    (information / "entry_points.txt").write_text("[loreg.probes]\nmine = my_probes:probe\n")
    (folder / "my_probes.py").write_text(SOURCE.format(what=what))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    sys.modules.pop("my_probes", None)
    return folder
