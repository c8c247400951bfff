"""The resolver in a real vLLM server beside a real loreg server: what a request gets, and what vLLM's log says."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import environment
import httpx
import torch
from torch import Tensor

from bases import PROMPT
from loreg.registry import connect
from truth import TOLERANCE, Row, difference

SERVER = "vLLM, loreg's resolver"
_TOP = 5


@dataclass(frozen=True)
class Asked:
    """A model to ask for: the status to get, and the words that vLLM's log must then have; ``right`` if 200."""

    model: str
    status: int
    words: str = ""
    right: Tensor | None = None


def plugin_rows(room: Path, adapters: Mapping[str, Path], right: Mapping[str, Tensor], plain: Tensor) -> list[Row]:
    """Push ``adapters`` by name, and ask vLLM on the base "untied" for them; ``right`` is what PEFT computes."""
    base, home = room / "bases" / "untied", room / "served"
    with connect(home=str(home)) as registry:
        for name, folder in adapters.items():
            registry.push(str(folder), f"team/{name}", aliases=["prod"])
        registry.push(str(adapters["right"]), "team/yanked", aliases=["prod"])
        registry.yank("team/yanked:v1")
    rows = []
    with vllm_server(base, room) as (vllm, log), loreg_server(home, room) as stop:
        for asked in (
            Asked(str(base), 200, "", plain),
            Asked("team/right:prod", 200, "", right["right"]),
            Asked("team/right:v1", 200, "", right["right"]),
            Asked("team/other", 200, "", right["other"]),
            Asked("team/nothing", 404, "team/nothing is not loaded: unknown"),
            Asked("team/right:v9", 404, "team/right:v9 is not loaded: unknown"),
            Asked("team/yanked:prod", 404, "team/yanked:prod is not loaded: yanked"),
            Asked("team/yanked", 404, "team/yanked is not loaded: yanked"),
            Asked("team/bigger", 404, "team/bigger:v1 is not loaded: wrong base: LB00"),
            Asked("team/dora", 404, "team/dora:v1 is not loaded: unfit: VL002"),
            Asked("team/wrapped", 404, "team/wrapped:v1 is not loaded: unfit: VL007"),
            Asked("team/large", 400, "LoRA rank 32 is greater than max_lora_rank 16"),
        ):
            rows.append(_row(vllm, log, asked))
        _forget(vllm, "team/right:prod")
        stop()
        for asked in (
            Asked("team/other", 200, "", right["other"]),
            Asked("team/right:prod", 200, "as it was last: unreachable", right["right"]),
            Asked("team/large:prod", 404, "team/large:prod is not loaded: unreachable"),
        ):
            rows.append(_row(vllm, log, asked, "registry down: "))
    return rows


def _row(vllm: str, log: Path, asked: Asked, when: str = "") -> Row:
    before = log.stat().st_size
    status, logprobs = _complete(vllm, asked.model)
    logged = log.read_bytes()[before:].decode(errors="replace")
    agree, does = status == asked.status and asked.words in logged, str(status)
    if asked.right is not None and logprobs is not None:
        far = difference(logprobs, asked.right[-1].topk(_TOP).values)
        agree, does = agree and far <= TOLERANCE, f"{does}, {'right' if far <= TOLERANCE else 'wrong'} ({far:.1e})"
    if not agree:
        does += f", log: {logged[-300:]}"
    model = "the base" if asked.model.startswith("/") else asked.model
    return Row(SERVER, f"{when}{model}", ", log: ".join(filter(None, (str(asked.status), asked.words))), does, agree)


def _complete(vllm: str, model: str) -> tuple[int, Tensor | None]:
    """The status, and the highest log-probabilities of the next token."""
    body = {"model": model, "prompt": PROMPT, "max_tokens": 1, "temperature": 0, "logprobs": _TOP}
    answer = httpx.post(f"{vllm}/v1/completions", json=body, timeout=300)
    if answer.status_code != 200:
        return answer.status_code, None
    (top,) = answer.json()["choices"][0]["logprobs"]["top_logprobs"]
    return 200, torch.tensor(sorted(top.values(), reverse=True)[:_TOP])


def _forget(vllm: str, name: str) -> None:
    httpx.post(f"{vllm}/v1/unload_lora_adapter", json={"lora_name": name}, timeout=60).raise_for_status()


#: One adapter and one request at a time: its CPU build mixes up the base and adapters else.
ONE_BY_ONE = (
    "--max-model-len", "64", "--max-num-seqs", "2", "--max-loras", "1", "--max-cpu-loras", "2",
    "--no-enable-prefix-caching",
)  # fmt: skip


@contextlib.contextmanager
def vllm_server(
    base: Path, room: Path, *, options: Sequence[str] = ONE_BY_ONE, name: str = "vllm"
) -> Iterator[tuple[str, Path]]:
    """A real server on CPU, which asks the registry of :func:`loreg_server`, and its log."""
    port, log = _free_port(), room / f"{name}.log"
    command = [
        environment.vllm_python(), "-m", "vllm.entrypoints.openai.api_server", "--model", base, "--port", port,
        "--host", "127.0.0.1", "--dtype", "float32", "--enforce-eager", "--enable-lora", "--max-lora-rank", "16",
        "--max-logprobs", "20", *options,
    ]  # fmt: skip
    variables = {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_TARGET_DEVICE": "cpu", "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1", "LOREG_ENDPOINT": endpoint_of(room), "LOREG_HOME": str(room / "beside"),
    }  # fmt: skip
    with _process(command, variables, log, room):
        _wait_for(f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}", log


@contextlib.contextmanager
def loreg_server(home: Path, room: Path) -> Iterator[Any]:
    """A loreg server on the registry in ``home``; yields what stops it."""
    command = [Path(sys.executable).with_name("loreg"), "serve", "--port", endpoint_of(room).rpartition(":")[2]]
    log = room / "loreg.log"
    with _process(command, {"LOREG_HOME": str(home)}, log, room) as process:
        _wait_for(f"{endpoint_of(room)}/healthz", log)

        def stop() -> None:
            process.kill()
            process.wait()

        yield stop


@contextlib.contextmanager
def _process(
    command: list[Any], variables: Mapping[str, str], log: Path, room: Path
) -> Iterator[subprocess.Popen[bytes]]:
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **variables}
    words = [str(word) for word in command]
    with log.open("wb") as out, subprocess.Popen(words, cwd=room, env=environ, stdout=out, stderr=out) as process:
        try:
            yield process
        finally:
            process.terminate()


def _wait_for(url: str, log: Path) -> None:
    for _ in range(600):
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, timeout=5).status_code == 200:
                return
        time.sleep(0.5)
    raise SystemExit(f"{url} never answered:\n{log.read_text(errors='replace')[-3000:]}")


_PORTS: dict[Path, str] = {}


def endpoint_of(room: Path) -> str:
    """Where the loreg server of this room is to be: vLLM is told before it runs."""
    return f"http://127.0.0.1:{_PORTS.setdefault(room, _free_port())}"


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
