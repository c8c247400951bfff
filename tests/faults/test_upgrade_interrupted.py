"""A move of many adapters to a new base that was killed: the same command goes on, and each is moved once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from deployments import Deployment, command_line
from factories import new_model, train, write_base
from loreg.registry import Registry, connect

ADAPTERS = 12
Q = "layers.0.q_proj.weight"
#: The command line, which is killed before it records a version more than so many.
KILLED = """
import os, signal, sys
from loreg.local.backend import LocalBackend
from loreg_cli.main import cli

commit, left = LocalBackend.commit, int(sys.argv.pop(1))

def commit_or_die(self, new):
    global left
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return commit(self, new)

LocalBackend.commit = commit_or_die
cli()
"""


def moved(registry: Registry, digest: str) -> list[str]:
    """The refs of the versions on the new base."""
    return [version.ref for version in registry.search(base=digest, all_versions=True, limit=100)]


@pytest.mark.parametrize("killed_after", [1, 5])
def test_killed_in_the_middle_the_same_command_goes_on_and_moves_each_once(
    local_deployment: Deployment, tmp_path: Path, killed_after: int
):
    old = write_base(tmp_path / "old")
    weight = new_model().state_dict()[Q]
    new = write_base(tmp_path / "new", {Q: weight + 0.01 * torch.randn(24, 20)})
    typed = ["base", "upgrade", str(old), str(new), "--move"]
    with connect(**local_deployment.settings) as registry:
        for number in range(ADAPTERS):
            registry.push(train(tmp_path / str(number), number), f"team/a{number}", base=old)
        digest = registry.bases.add(new, ["org/new"]).base.digest
        environment = {**os.environ, **local_deployment.environment}
        command = [sys.executable, "-c", KILLED, str(killed_after), *typed]
        assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
        assert len(moved(registry, digest)) == killed_after
        assert command_line(local_deployment.environment)(*typed).exit_code == 0
        assert sorted(moved(registry, digest)) == sorted(f"team/a{number}:v2" for number in range(ADAPTERS))
        verdicts = registry.bases.upgrade_verdicts(registry.show("team/a0:v1").version.base.digest, digest)
        assert {row.ref: row.moved_to for row in verdicts} == {
            f"team/a{number}:v1": f"team/a{number}:v2" for number in range(ADAPTERS)
        }
        assert registry.verify(read_data=True).ok
