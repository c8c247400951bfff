"""One client: does one thing after the other until it is told to stop, and writes down what it was answered."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from faults.soak.journal import OTHER_FILES, Journal
from loreg.errors import LoregError
from loreg.registry import Registry, connect

NAMES, ALIASES = 6, ("prod", "canary", "best")
_SIDE = 48


class Client:
    """Works in ``room`` with what ``drawn`` draws; ``number`` keeps its adapters apart from those of others."""

    def __init__(self, number: int, seed: int, room: Path) -> None:
        self._number, self._drawn = number, random.Random(f"{seed} {number}")
        self._room = room / f"client-{number}"
        self._room.mkdir()
        self._journal = Journal(room / f"{number}.jsonl")
        self._pushed: list[tuple[str, int, dict[str, str]]] = []
        self._count = 0
        self._registry = self._connect()

    def _connect(self) -> Registry:
        return connect(author=f"client-{self._number}")

    def work(self, deadline: float) -> None:
        """Draw an operation, do it, write it down, and again."""
        kinds: dict[str, tuple[int, Callable[[], None]]] = {
            "push": (5, self._push), "pull": (4, self._pull), "search": (4, self._search), "tag": (3, self._tag),
            "metric": (2, self._metric), "hub": (2, self._hub), "job": (1, self._job),
        }  # fmt: skip
        names, weights = list(kinds), [weight for weight, _ in kinds.values()]
        while time.time() < deadline:
            (kind,) = self._drawn.choices(names, weights)
            try:
                kinds[kind][1]()
            except LoregError as error:
                self._journal.write(kind, error.code, str(error))
            except Exception as error:
                status = getattr(getattr(error, "response", None), "status_code", "")
                self._journal.write(kind, f"{type(error).__name__} {status}".strip(), str(error))

    def _push(self) -> None:
        folder, files = self._adapter()
        name = f"soak/{self._drawn.randrange(NAMES)}"
        alias = self._drawn.choice(["", *ALIASES])
        version = self._registry.push(folder, name, tasks=["soak"], aliases=[alias] if alias else []).version
        self._journal.write("push", name=name, number=version.number, digest=version.digest, alias=alias)
        self._pushed.append((name, version.number, files))

    def _pull(self) -> None:
        name, number, files = self._one_of_mine()
        target = self._room / "pulled"
        shutil.rmtree(target, ignore_errors=True)
        self._registry.pull(f"{name}:v{number}", target)
        digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in target.iterdir()}
        self._journal.write("pull", "" if digests == files else OTHER_FILES, f"{name}:v{number}")

    def _search(self) -> None:
        page = self._registry.search(tasks=["soak"], limit=20)
        for version in page.items[:2]:
            self._registry.show(version.ref)
        self._registry.adapters()
        self._journal.write("search")

    def _tag(self) -> None:
        name, number, _ = self._one_of_mine()
        alias = self._drawn.choice(ALIASES)
        self._registry.tag(f"{name}:v{number}", alias)
        self._journal.write("tag", name=name, number=number, alias=alias)

    def _metric(self) -> None:
        name, number, _ = self._one_of_mine()
        self._count += 1
        dataset, value = f"d{self._number}-{self._count}", self._drawn.random()
        self._registry.add_metrics(f"{name}:v{number}", [f"accuracy={value}@{dataset}"])
        self._journal.write("metric", name=name, number=number, dataset=dataset, value=value)

    def _hub(self) -> None:
        from huggingface_hub import HfApi

        folder, _ = self._adapter()
        name = f"hub/{self._number}"
        api = HfApi(endpoint=os.environ["LOREG_ENDPOINT"], token=os.environ["LOREG_TOKEN"])
        api.create_repo(name, exist_ok=True)
        commit = api.upload_folder(repo_id=name, folder_path=folder)
        self._journal.write("hub", name=name, commit=commit.oid)

    def _job(self) -> None:
        (first, one, _), (second, two, _) = self._one_of_mine(), self._one_of_mine()
        sources = list(dict.fromkeys([f"{first}:v{one}", f"{second}:v{two}"]))
        self._count += 1
        if self._drawn.random() < 0.3:
            name = f"soak/baked-{self._number}-{self._count}"
            job = self._registry.jobs.submit("bake", sources=sources[:1], base="base", name=name)
        else:
            job = self._registry.jobs.submit("merge", sources=sources, name=f"jobs/{self._number}")
        self._journal.write("job", id=job.id)

    def _one_of_mine(self) -> tuple[str, int, dict[str, str]]:
        if not self._pushed:
            self._push()
        return self._drawn.choice(self._pushed)

    def _adapter(self) -> tuple[Path, dict[str, str]]:
        """A new small adapter, and the sha256 of its files."""
        folder = self._room / "adapter"
        return folder, write_adapter(folder, self._drawn.getrandbits(32))


def write_adapter(folder: Path, seed: int, card: str = "") -> dict[str, str]:
    """Write a small adapter in place of the folder, with a README.md if ``card`` says one; return the files' sha256."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    numbers = np.random.default_rng(seed)
    shapes = {"lora_A": (4, _SIDE), "lora_B": (_SIDE, 4)}
    tensors = {
        f"base_model.model.{module}.{name}.weight": numbers.standard_normal(shape, np.float32)
        for module in modules()
        for name, shape in shapes.items()
    }
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps({**config, "task_type": "CAUSAL_LM"}))
    if card:
        (folder / "README.md").write_text(card)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def modules() -> list[str]:
    """What every adapter of the soak touches."""
    return [f"model.layers.{layer}.self_attn.{name}_proj" for layer in range(2) for name in "qv"]


def write_base(folder: Path) -> None:
    """The base that bakes are done on."""
    folder.mkdir(parents=True)
    numbers = np.random.default_rng(1)
    tensors = {f"{module}.weight": numbers.standard_normal((_SIDE, _SIDE), np.float32) for module in modules()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}))


if __name__ == "__main__":
    Client(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])).work(float(sys.argv[4]))
