"""Stand-ins for servers that load adapters while they run: their admin routes, as their sources have them.

vLLM 0.32 (``vllm/entrypoints/serve/lora/api_router.py``, ``openai/models/serving.py``), SGLang 0.5.23
(``srt/entrypoints/http_server.py``, ``srt/managers/tokenizer_control_mixin.py``) and LoRAX (``router/src/server.rs``).
They run no model; an adapter is loaded if its files are there and its rank is not too high.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

BASE = "the-base"


class AdapterServer:
    """What one server has loaded, path by name, and what it was asked for."""

    def __init__(self, kind: str, *, max_rank: int = 64, key: str = "", loads: bool = True, room: int = 1000) -> None:
        self.kind, self.max_rank, self.key, self.loads, self.room = kind, max_rank, key, loads, room
        self.loaded: dict[str, str] = {}
        self.asked: list[tuple[str, str]] = []
        self.status = 200
        self.port = 0

    @property
    def url(self) -> str:
        return f"{self.kind}=http://127.0.0.1:{self.port}"

    def answer(self, method: str, path: str, body: Any) -> tuple[int, object]:
        """The status and the answer; text is sent as it is."""
        if self.status != 200:
            return self.status, "the proxy has no upstream"
        return {"vllm": self._vllm, "sglang": self._sglang, "lorax": self._lorax}[self.kind](f"{method} {path}", body)

    def _vllm(self, route: str, body: Any) -> tuple[int, object]:
        match route:
            case "GET /v1/models":
                return 200, self._models()
            case "POST /v1/load_lora_adapter" if self.loads:
                name, path = body["lora_name"], body["lora_path"]
                if name in self.loaded and not body.get("load_inplace"):
                    return _vllm_error(400, "InvalidUserInput", f"The lora adapter '{name}' has already been loaded.")
                if not Path(path, "adapter_config.json").is_file():
                    return _vllm_error(404, "NotFoundError", f"Loading lora {name} failed: No adapter found for {path}")
                if (rank := _rank(path)) > self.max_rank:
                    reason = f"LoRA rank {rank} is greater than max_lora_rank {self.max_rank}."
                    return _vllm_error(500, "InternalServerError", reason)
                self.loaded[name] = path
                return 200, f"Success: LoRA adapter '{name}' added successfully."
            case "POST /v1/unload_lora_adapter" if self.loads:
                name = body["lora_name"]
                if name not in self.loaded:
                    return _vllm_error(404, "NotFoundError", f"The lora adapter '{name}' cannot be found.")
                del self.loaded[name]
                return 200, f"Success: LoRA adapter '{name}' removed successfully."
        return 404, {"detail": "Not Found"}

    def _sglang(self, route: str, body: Any) -> tuple[int, object]:
        match route:
            case "GET /v1/models":
                return 200, self._models()
            case "POST /load_lora_adapter":
                name, path = body["lora_name"], body["lora_path"]
                reason = ""
                if name in self.loaded:
                    reason = f"Failed to load LoRA adapter {name} because it is already loaded"
                elif (rank := _rank(path)) > self.max_rank:
                    reason = f"LoRA adapter {name} with rank {rank} is incompatible with the current memory pool"
                if reason:
                    return 400, {"success": False, "error_message": reason, "loaded_adapters": self.loaded}
                self.loaded[name] = path
                while len(self.loaded) > self.room:  # the least recently used goes
                    del self.loaded[next(iter(self.loaded))]
                return 200, {"success": True, "error_message": None, "loaded_adapters": self.loaded}
            case "POST /unload_lora_adapter":
                if body["lora_name"] not in self.loaded:
                    return 400, {
                        "success": False,
                        "error_message": f"LoRA with name {body['lora_name']} does not exist",
                    }
                del self.loaded[body["lora_name"]]
                return 200, {"success": True, "error_message": None, "loaded_adapters": self.loaded}
        return 404, {"detail": "Not Found"}

    def _lorax(self, route: str, body: Any) -> tuple[int, object]:
        match route:
            case "GET /info":
                return 200, {"model_id": BASE}
            case "POST /generate":
                path = body["parameters"]["adapter_id"]
                assert body["parameters"]["adapter_source"] == "local"
                if not Path(path, "adapter_config.json").is_file():
                    reason = f"Request failed during generation: Server error: No safetensors weights found in {path}"
                    return 424, {"error": reason, "error_type": "generation"}
                self.loaded[path] = path
                return 200, {"generated_text": "a"}
        return 404, ""

    def _models(self) -> object:
        adapters = [{"id": name, "root": path, "parent": BASE} for name, path in self.loaded.items()]
        return {"object": "list", "data": [{"id": BASE, "root": BASE, "parent": None}, *adapters]}


def _vllm_error(status: int, kind: str, message: str) -> tuple[int, object]:
    return status, {"error": {"message": message, "type": kind, "param": None, "code": status}}


def _rank(path: str) -> int:
    rank: int = json.loads(Path(path, "adapter_config.json").read_text())["r"]
    return rank


@contextlib.contextmanager
def serving(*servers: AdapterServer) -> Iterator[None]:
    """Let them answer; one that has answered before does so at the same port."""
    with contextlib.ExitStack() as stack:
        for server in servers:
            stack.enter_context(_answering(server))
        yield


@contextlib.contextmanager
def _answering(server: AdapterServer) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.loads(content) if content else None
            if server.key and self.headers.get("Authorization") != f"Bearer {server.key}":
                status, answer = 401, {"error": "Unauthorized"}
            else:
                server.asked.append((self.path, body.get("lora_name", "") if isinstance(body, dict) else ""))
                status, answer = server.answer(self.command, self.path, body)
            data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", server.port), Handler)
    http.daemon_threads = True
    server.port = http.server_port
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
