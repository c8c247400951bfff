"""Clients of the Hub at the versions that people have, each in an environment of its own, built once and kept."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

VERSIONS = ("0.36.2", "1.33.0", "2.4.0")


@dataclass(frozen=True)
class Client:
    """An environment with one huggingface_hub, talking to ``endpoint``."""

    python: Path
    endpoint: str
    token: str
    home: Path

    def run(self, code: str, **values: Any) -> Any:
        """What ``code`` leaves in ``result``; its other names are given as keywords."""
        program = (
            "import json, os, sys\n"
            "globals().update(json.load(sys.stdin))\n"
            f"{code}\n"
            "print('\\n' + json.dumps(result, default=str))\n"
        )
        done = self._call([self.python, "-c", program], json.dumps(values))
        if done.returncode:
            raise RuntimeError(done.stderr)
        return json.loads(done.stdout.splitlines()[-1])

    def hf(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """The command ``hf``."""
        return self._call([self.python.with_name("hf"), *arguments], "")

    def _call(self, command: list[Any], stdin: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "HF_HOME": str(self.home / "hf"),
            "HF_ENDPOINT": self.endpoint,
            "HF_TOKEN": self.token,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        variables = {name: value for name, value in environment.items() if value}
        return subprocess.run(
            command, input=stdin, env=variables, capture_output=True, text=True, timeout=120, check=False
        )


def python_with(version: str) -> Path:
    """The interpreter of the environment with that huggingface_hub; two test processes build it one after the other."""
    folder = platformdirs.user_cache_path("loreg-tests") / f"huggingface_hub-{version}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / ".ready").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
            pip = [folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, f"huggingface_hub=={version}"], check=True)
            (folder / ".ready").touch()
    return folder / "bin" / "python"
