"""make truth-live: two vLLM replicas follow an alias that moves fifty times under a constant load of requests.

Every answer is compared with PEFT's numbers of each version: it must be exactly that of one version, which the alias
meant while the request was under way. Meanwhile an alias means what vLLM would refuse or get wrong, a version is
yanked, and the registry is killed and started again. Ends with 1 if one answer is another.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
warnings.filterwarnings("ignore")

import beside_vllm  # noqa: E402
import httpx  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from peft import PeftModel  # noqa: E402
from plugin import loreg_server, vllm_server  # noqa: E402
from steady_load import Answered, Load, Tokens, versions_of  # noqa: E402

from adapters import Case, make, on, renamed  # noqa: E402
from bases import BASES, VOCABULARY, fresh, write_bases  # noqa: E402
from loreg.registry import Registry, connect  # noqa: E402

MOVES, LENGTH = 50, 6
BASE = "untied"
ADAPTERS = {
    "v1": on("q_proj", "v_proj"),
    "v2": on("q_proj", "v_proj"),
    "v3": on("o_proj", "down_proj", r=16),
    "v4": on("q_proj", "k_proj", "gate_proj", r=4),
    "v5": Case({"use_dora": True}),
    "v6": Case(edit=renamed("base_model.model.model.", "base_model.model.model.language_model."), edited=True),
}
#: What a client is told of versions that are not served, in the place of an answer.
REFUSED = {"v5": (400, "unfit: VL002"), "v6": (400, "unfit: VL007"), "yanked": (404, "yanked: ")}
SERVED = ("v1", "v2", "v3", "v4")
# Blocks of 32 tokens: the prompts have the first in common, so that a cache that mixed versions would be hit.
_COMMON = [1 + (37 * i) % (VOCABULARY - 1) for i in range(40)]
PROMPTS = [[*_COMMON, 4 + i, 300 - i] for i in range(3)]
OPTIONS = (
    "--max-model-len", "128", "--max-num-seqs", "4", "--max-loras", "2", "--max-cpu-loras", "4", "--block-size", "32",
    "--enable-prefix-caching", "--middleware", "loreg.plugins.vllm_middleware.FollowAliases",
)  # fmt: skip


@dataclass
class Aliases:
    """Moves aliases, and remembers when each move began, when it was acknowledged, and what the alias then meant."""

    registry: Registry
    moves: list[tuple[str, float, float, str]] = field(default_factory=list)

    @contextmanager
    def changing(self, alias: str, version: str) -> Iterator[None]:
        begin = time.monotonic()
        yield
        self.moves.append((alias, begin, time.monotonic(), version))

    def move(self, alias: str, version: str) -> float:
        """Returns when the move was acknowledged."""
        with self.changing(alias, version):
            self.registry.tag(f"team/news:{version}", alias)
        return self.moves[-1][2]

    def meant(self, alias: str, begin: float, end: float) -> set[str]:
        """All that the alias may have meant at a moment between ``begin`` and ``end``."""
        own = [move for move in self.moves if move[0] == alias]
        ended = [version for _, _, acknowledged, version in own if acknowledged <= begin]
        during = [version for _, started, acknowledged, version in own if started < end and acknowledged > begin]
        return {*ended[-1:], *during}


class RegistryServer:
    """The server that both replicas ask, on the registry in ``room``; closed at the end of ``stack``."""

    def __init__(self, room: Path, stack: ExitStack) -> None:
        self._room, self._stack = room, stack
        self.start()

    def start(self) -> None:
        self.kill = self._stack.enter_context(loreg_server(self._room / "served", self._room))


def main() -> int:
    """Run all of it; prints what was seen."""
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="loreg-truth-live-") as place:
        room = Path(place)
        write_bases(room / "bases", [BASE])
        right = {"the base": [greedy(fresh(room / "bases" / BASE, BASES[BASE].kind), p) for p in PROMPTS]}
        with connect(home=room / "served") as registry:
            for name, case in ADAPTERS.items():
                make(name, case, room / "bases", room / name)
                registry.push(room / name, "team/news")
                if name in SERVED:
                    model = PeftModel.from_pretrained(fresh(room / "bases" / BASE, BASES[BASE].kind), room / name)
                    right[name] = [greedy(model.eval(), prompt) for prompt in PROMPTS]
            aliases = Aliases(registry)
            aliases.move("prod", "v1")
            aliases.move("canary", "v2")
            beside_vllm.install()
            load, loaded = run(room, aliases)
            needed = {registry.show(f"team/news:{alias}").version.pinned for alias in ("prod", "canary")}
    print(f"at the end is loaded {loaded}; needed by each replica: {sorted(needed)}")
    return report(load.answers, aliases, right) or int(loaded != sorted([*needed] * 2))


def greedy(model: Any, prompt: list[int]) -> Tokens:
    """The tokens that follow, each with its log-probability."""
    ids, tokens = list(prompt), []
    with torch.no_grad():
        for _ in range(LENGTH):
            logprobs = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0, -1].float(), -1)
            (first, second), (token, _) = (top.tolist() for top in logprobs.topk(2))
            if first - second < 1e-3:
                raise SystemExit("two tokens are as likely: what is right would be a matter of rounding")
            ids.append(token)
            tokens.append((token, first))
    return tokens


def run(room: Path, aliases: Aliases) -> tuple[Load, list[str]]:
    """Start the servers, load them, and move the aliases; also returns what the replicas have loaded at the end."""
    with ExitStack() as stack:
        servers = [
            stack.enter_context(vllm_server(room / "bases" / BASE, room, options=OPTIONS, name=f"vllm-{number}"))
            for number in range(2)
        ]
        server = RegistryServer(room, stack)
        load = Load([url for url, _ in servers], ["team/news:prod", "team/news:canary"], PROMPTS, LENGTH)
        for url in load.replicas:  # the first request takes vLLM its time
            httpx.post(f"{url}/v1/completions", json={"model": "team/news:prod", "prompt": [1]}, timeout=300)
        with load:
            move_about(load, aliases, server)
        loaded = [model["id"] for url in load.replicas for model in httpx.get(f"{url}/v1/models").json()["data"]]
    return load, sorted(name for name in loaded if name.startswith("team/"))


def move_about(load: Load, aliases: Aliases, server: RegistryServer) -> None:
    """Move ``prod`` fifty times, and ``canary`` now and then; each time wait for answers that began after the move."""
    draw, current = random.Random(7), "v1"
    for number in range(MOVES):
        current = draw.choice([version for version in SERVED if version != current])
        load.wait("prod", aliases.move("prod", current))
        if number % 10 == 9:
            load.wait("canary", aliases.move("canary", draw.choice(SERVED)))
        if number in (10, 20):
            load.wait("prod", aliases.move("prod", "v5" if number == 10 else "v6"))
            load.wait("prod", aliases.move("prod", current))
        if number in (25, 45):
            server.kill()
            load.wait("prod", time.monotonic(), answers=5)
            server.start()
        if number == 35:
            with aliases.changing("prod", "yanked"):
                aliases.registry.yank(f"team/news:{current}")
            load.wait("prod", aliases.moves[-1][2])
            with aliases.changing("prod", current):
                aliases.registry.unyank(f"team/news:{current}")
            load.wait("prod", aliases.moves[-1][2])


def report(answers: list[Answered], aliases: Aliases, right: Mapping[str, list[Tokens]]) -> int:
    """Print how many answers are of which version, and each that is of another than the alias meant."""
    wrong, counts = [], Counter[str]()
    for answered in answers:
        versions = outcome(answered, right)
        meant = aliases.meant(answered.alias, answered.begin, answered.end)
        counts.update(versions or ["nothing"])
        named = answered.status != 200 or answered.model.startswith(f"team/news:{'/'.join(versions)}@sha256:")
        if len(versions) != 1 or not meant.issuperset(versions) or not named:
            wrong.append(f"{answered.alias} meant {sorted(meant)}, the answer is of {versions}: {answered}")
    took = sorted(answered.end - answered.begin for answered in answers)
    moves = Counter(alias for alias, *_ in aliases.moves)
    print(f"{moves.total()} moves under {len(answers)} requests to two replicas: {dict(sorted(counts.items()))}")
    median, rare = statistics.median(took), took[len(took) * 95 // 100]
    print(f"a request took {median:.3f} s in the median, {rare:.3f} s at the 95th percentile")
    print(f"{len(wrong)} answers are of what the alias did not mean", *wrong[:5], sep="\n")
    return int(bool(wrong))


def outcome(answered: Answered, right: Mapping[str, list[Tokens]]) -> list[str]:
    """The versions that the answer may be of; a refusal is of the version that it tells of."""
    if answered.status == 200:
        return versions_of(answered.tokens, right, answered.prompt)
    return [name for name, (status, words) in REFUSED.items() if status == answered.status and words in answered.reason]


if __name__ == "__main__":
    sys.exit(main())
