"""make truth-live: ``loreg sync --server`` keeps two vLLM replicas as an alias says, through twenty moves under load.

Every answer is compared with PEFT's numbers: it must be exactly that of the version which the request named. Each
replica holds two adapters and reads the others from the followed folder again and again; both refuse a rank, and one
loses what it has loaded. Ends with 1 if one answer is another, or anything but what is needed is loaded at the end.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "VLLM_PLUGINS": ""}
warnings.filterwarnings("ignore")

import httpx  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from alias_moves import BASE, LENGTH, PROMPTS, greedy  # noqa: E402
from peft import PeftModel  # noqa: E402
from plugin import vllm_server  # noqa: E402
from steady_load import Load, Tokens, versions_of  # noqa: E402

from adapters import make, on  # noqa: E402
from bases import BASES, fresh, write_bases  # noqa: E402
from loreg.entities import SyncOptions, SyncProblemKind, SyncReport  # noqa: E402
from loreg.registry import Registry, connect  # noqa: E402

MOVES = 20
ADAPTERS = {
    "v1": on("q_proj", "v_proj"),
    "v2": on("q_proj", "v_proj"),
    "v3": on("o_proj", "down_proj", r=16),
    "v4": on("q_proj", "k_proj", "gate_proj", r=4),
    "v5": on("q_proj", "v_proj", r=32),
}
SERVED = ("v1", "v2", "v3", "v4")
TOO_HIGH = "v5"  # for the servers, which are started with 16; the profile lets it pass
OPTIONS = (
    "--max-model-len", "128", "--max-num-seqs", "4", "--max-loras", "2", "--max-cpu-loras", "2", "--block-size", "32",
    "--enable-prefix-caching",
)  # fmt: skip


class Follower:
    """``registry.follow`` in a thread, and what it told."""

    def __init__(self, registry: Registry, folder: Path, replicas: Sequence[str]) -> None:
        servers = tuple(f"vllm={url}" for url in replicas)
        options = SyncOptions("vllm:max_lora_rank=32", servers=servers)
        self.reports: list[SyncReport] = []
        self._has_report = threading.Condition()
        self._following = registry.follow("team/news:prod", folder, options)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        for report in self._following:
            with self._has_report:
                if isinstance(report, SyncReport):
                    self.reports.append(report)
                self._has_report.notify_all()

    def wait_for(self, ref: str) -> str:
        """Wait until every replica has the version, and return how a request names it."""
        with self._has_report:
            if not self._has_report.wait_for(lambda: self._name_of(ref), timeout=60):
                raise SystemExit(f"{ref} is not everywhere: {self.reports[-1]}")
        return self._name_of(ref)

    def wait_for_refusal(self) -> str:
        """Wait until a server has refused a version, and return the reason."""
        with self._has_report:
            if not self._has_report.wait_for(self._reasons, timeout=60):
                raise SystemExit(f"nothing was refused: {self.reports[-1]}")
        return self._reasons()[0]

    def _name_of(self, ref: str) -> str:
        adapters = self.reports[-1].adapters if self.reports else ()
        return next((adapter.served_name for adapter in adapters if adapter.ref == ref), "")

    def _reasons(self) -> list[str]:
        return [p.reason for p in self.reports[-1].problems if p.kind == SyncProblemKind.REFUSED]


def main() -> int:
    """Run all of it; prints what was seen."""
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="loreg-truth-live-") as place:
        room = Path(place)
        write_bases(room / "bases", [BASE])
        right = {"the base": [greedy(fresh(room / "bases" / BASE, BASES[BASE].kind), p) for p in PROMPTS]}
        with connect(home=room / "home") as registry:
            for name, case in ADAPTERS.items():
                make(name, case, room / "bases", room / name)
                registry.push(room / name, "team/news")
                model = PeftModel.from_pretrained(fresh(room / "bases" / BASE, BASES[BASE].kind), room / name)
                right[name] = [greedy(model.eval(), prompt) for prompt in PROMPTS]
            return run(room, registry, right)


def run(room: Path, registry: Registry, right: Mapping[str, list[Tokens]]) -> int:
    """Start the servers, load them, and move the alias; return 1 where something is not as it must be."""
    with ExitStack() as stack:
        servers = [
            stack.enter_context(vllm_server(room / "bases" / BASE, room, options=OPTIONS, name=f"vllm-{number}"))
            for number in range(2)
        ]
        replicas = [url for url, _ in servers]
        registry.tag("team/news:v1", "prod")
        follower = Follower(registry, room / "adapters", replicas)
        load = Load(replicas, [follower.wait_for("team/news:v1")], PROMPTS, LENGTH)
        for url in replicas:  # the first request takes vLLM its time
            body = {"model": load.models[0], "prompt": [1]}
            httpx.post(f"{url}/v1/completions", json=body, timeout=300).raise_for_status()
        named = {load.models[0]: "v1"}
        with load:
            took = move_about(load, registry, follower, named)
        before = _list_loaded(replicas[0])
        lose(replicas[0], load.models[0])
        loaded = [_list_loaded(url) for url in replicas]
        ended = [log.name for _, log in servers if b"EngineDeadError" in log.read_bytes()]
    wrong = [
        answered
        for answered in load.answers
        if answered.status != 200 or versions_of(answered.tokens, right, answered.prompt) != [named.get(answered.model)]
    ]
    counts = Counter(named.get(answered.model, "another") for answered in load.answers)
    print(f"{MOVES} moves under {len(load.answers)} requests to two replicas: {dict(sorted(counts.items()))}")
    median = sorted(took)[len(took) // 2]
    print(f"from the move to loaded by both: {median:.2f} s in the median, {max(took):.2f} at most")
    print(f"{len(wrong)} answers are not of the version that the request named", *wrong[:5], sep="\n")
    print(f"loaded at the end: {sorted(before)}; by the one that had lost all: {sorted(loaded[0])}")
    print(f"engines that ended: {ended}")
    return int(bool(wrong or ended) or before != loaded[1] or len(before) != 3 or loaded[0] != {load.models[0]})


def move_about(load: Load, registry: Registry, follower: Follower, named: dict[str, str]) -> list[float]:
    """Move ``prod`` twenty times, each time until both replicas have answered; return the seconds until both had it."""
    draw, current, took = random.Random(7), "v1", []
    for number in range(MOVES):
        current = draw.choice([version for version in SERVED if version != current])
        if number == 7:
            registry.tag(f"team/news:{TOO_HIGH}", "prod")
            reason = follower.wait_for_refusal()
            print(f"refused: {reason}")
            load.wait(load.models[0], time.monotonic())
        begin = time.monotonic()
        registry.tag(f"team/news:{current}", "prod")
        name = follower.wait_for(f"team/news:{current}")
        took.append(time.monotonic() - begin)
        named[name] = current
        load.models = [name]
        load.wait(name, time.monotonic())
    return took


def lose(url: str, name: str) -> None:
    """Unload all from a replica, as if it had been started again, and wait until it has ``name`` again."""
    for other in _list_loaded(url):
        httpx.post(f"{url}/v1/unload_lora_adapter", json={"lora_name": other}).raise_for_status()
    deadline = time.monotonic() + 60
    while name not in _list_loaded(url):
        if time.monotonic() > deadline:
            raise SystemExit(f"{name} was not loaded again")
        time.sleep(0.5)


def _list_loaded(url: str) -> set[str]:
    models = httpx.get(f"{url}/v1/models").json()["data"]
    return {model["id"] for model in models if model["parent"] is not None}


if __name__ == "__main__":
    sys.exit(main())
