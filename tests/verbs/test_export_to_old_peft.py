"""export for peft:0.10, judged by PEFT 0.10 itself in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from factories import IN, new_model, train
from loreg.registry import connect

LOAD = """
import sys
import peft
from safetensors.torch import load_file, save_file
from factories import new_model
assert peft.__version__ == "0.10.0"
model = peft.PeftModel.from_pretrained(new_model(), sys.argv[1])
save_file({"y": model(load_file(sys.argv[2])["x"]).detach()}, sys.argv[3])
"""


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("peft-0.10")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", "--target", folder, "peft==0.10.0"], check=True)
    return folder


def load(old: Path, adapter: Path, x: torch.Tensor, at: Path) -> subprocess.CompletedProcess[str]:
    save_file({"x": x}, at / "x.safetensors")
    path = os.pathsep.join([str(old), str(Path(__file__).parents[1])])
    command = [sys.executable, "-c", LOAD, adapter, at / "x.safetensors", at / "y.safetensors"]
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"r": 6},
        {"r": 6, "use_rslora": True, "alpha_pattern": {"v_proj": 3}},
        {"r": 6, "rank_pattern": {"v_proj": 3}},
        {"r": 4, "use_dora": True},
    ],
    ids=["plain", "rslora", "ranks", "dora"],
)
def test_peft_0_10_refuses_the_original_and_computes_the_same_with_the_export(old: Path, tmp_path: Path, options: dict):
    adapter = train(tmp_path / "a", 1, **options)
    connect(home=str(tmp_path / "home")).export(str(adapter), "peft:0.10", tmp_path / "out")
    torch.manual_seed(3)
    x = torch.randn(5, IN)
    refused = load(old, adapter, x, tmp_path)
    assert "unexpected keyword argument" in refused.stderr
    loaded = load(old, tmp_path / "out", x, tmp_path)
    assert loaded.returncode == 0, loaded.stderr
    expected = PeftModel.from_pretrained(new_model(), adapter)(x)
    torch.testing.assert_close(load_file(tmp_path / "y.safetensors")["y"], expected, rtol=0, atol=2e-6)
