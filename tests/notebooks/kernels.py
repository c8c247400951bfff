"""Kernels for notebooks that tests run: of this environment, and of no other that the machine may have."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest


def kernel_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``python3`` mean the Python that runs the tests, and let Jupyter write below ``folder`` alone."""
    kernel = folder / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": command, "display_name": "Python 3", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(folder / "jupyter"))
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(folder / name.lower()))
