"""make truth-live: vLLM's own filesystem resolver reads a folder that ``loreg sync --profile vllm --pinned`` keeps.

Each version has a name of its own there. An alias moves while the server runs: the new name answers with PEFT's numbers
of the new version, the old name with those of the old one, and what is no adapter is no model.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
warnings.filterwarnings("ignore")

import plugin  # noqa: E402
import torch  # noqa: E402

from adapters import Made, fields, make, on  # noqa: E402
from bases import write_bases  # noqa: E402
from loreg.registry import Registry, connect  # noqa: E402
from truth import TOLERANCE, difference  # noqa: E402

#: A folder below the one that vLLM runs in, and in the form of a name on the Hub: the resolver compares it with the
#: adapter's ``base_model_name_or_path``, and of a base that is a path no registry keeps more.
BASE, MODEL = "untied", "bases/untied"
NAMED = fields(base_model_name_or_path=MODEL)
ADAPTERS = {
    "v1": replace(on("q_proj", "v_proj"), edit=NAMED),
    "v2": replace(on("o_proj", "down_proj", r=16), edit=NAMED),
}
NO_ADAPTERS = ("team", ".loreg", ".loreg/versions", "team/news", "team/news@000000000000")


def main() -> int:
    """Follow an alias with a folder, and ask a real vLLM for both versions; prints what was seen."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="loreg-truth-live-") as place, connect(home=f"{place}/home") as registry:
        room = Path(place)
        write_bases(room / "bases", [BASE])
        made = {name: make(name, case, room / "bases", room / name) for name, case in ADAPTERS.items()}
        folder = room / "adapters"
        folder.mkdir()  # vLLM looks once whether it is there
        variables = {"VLLM_PLUGINS": "lora_filesystem_resolver", "VLLM_LORA_RESOLVER_CACHE_DIR": str(folder)}
        with plugin.vllm_server(Path(MODEL), room, variables=variables) as (vllm, _):
            is_right, names = [], dict[str, str]()
            for version in ADAPTERS:
                names[version] = move(registry, room, version)
                is_right += [answers_as_peft(vllm, name, made[known]) for known, name in names.items()]
            refused = {name: plugin.complete(vllm, name)[0] for name in NO_ADAPTERS}
    print(f"what is no adapter: {refused}")
    return int(not all(is_right) or set(refused.values()) != {404})


def move(registry: Registry, room: Path, version: str) -> str:
    """Push a version, let ``prod`` mean it, and sync as the documentation says; returns its name for vLLM."""
    pushed = registry.push(room / version, "team/news", aliases=["prod"])
    command = [
        Path(sys.executable).with_name("loreg"),
        "sync",
        "team/*:prod",
        "./adapters",
        "--profile",
        "vllm",
        "--pinned",
    ]
    subprocess.run(command, cwd=room, env={**os.environ, "LOREG_HOME": str(room / "home")}, check=True)
    return f"team/news@{pushed.version.digest[:12]}"


def answers_as_peft(vllm: str, name: str, made: Made) -> bool:
    """Whether the model of that name gives what PEFT computes of the adapter's files."""
    status, logprobs = plugin.complete(vllm, name)
    if logprobs is None or made.right is None:
        print(f"{name} answers {status}")
        return False
    far = difference(logprobs, made.right[-1].topk(len(logprobs)).values)
    print(f"{name} answers {status}, {far:.1e} from PEFT")
    return far <= TOLERANCE


if __name__ == "__main__":
    sys.exit(main())
