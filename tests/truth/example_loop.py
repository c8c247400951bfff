"""make truth-live: examples/reinforce.py trains, publishes each step and samples from a real vLLM that follows."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}

import beside_vllm
import environment
from plugin import endpoint_of, loreg_server, vllm_server

SCRIPT = environment.ROOT / "examples" / "reinforce.py"
OPTIONS = (
    "--max-model-len", "64", "--max-num-seqs", "48", "--max-loras", "1", "--max-cpu-loras", "2",
    "--middleware", "loreg.plugins.vllm_middleware.FollowAliases",
)  # fmt: skip


def main() -> int:
    """Run the script as its first lines say; its exit code is the answer."""
    beside_vllm.install()
    with tempfile.TemporaryDirectory(prefix="loreg-truth-live-") as place:
        room = Path(place)
        base = room / "tiny"
        subprocess.run([sys.executable, SCRIPT, base], check=True)
        with vllm_server(base, room, options=OPTIONS) as (vllm, _), loreg_server(room / "served", room):
            variables = {**os.environ, "LOREG_ENDPOINT": endpoint_of(room), "LOREG_HOME": str(room / "trainer")}
            return subprocess.run([sys.executable, SCRIPT, base, vllm], env=variables, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
